//! On BIND, and in a zone that needs no server.

use discovery_testbed::{NameServer, Port};

use crate::nodes::{net::Net, processes::tests_on};

tests_on!(NameServer);

#[tokio::test]
async fn nothing_has_to_be_installed() {
    let port = Port::reserve().unwrap();
    let net = Net::at(format!("dns+zone://{}/nodes.internal?serve=true", port.address()));
    let _up = net.up(3).await;
    net.fails(&["ping", "--count", "4"], "no answer from node 4").await;
}
