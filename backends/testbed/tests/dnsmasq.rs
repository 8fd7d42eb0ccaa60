//! The handle of dnsmasq, against the real server.

mod common;

use common::is_alive;
use discovery_testbed::{Dnsmasq, Proxy};
use tokio::{io::AsyncReadExt, net::TcpStream};

const NODES: &str = "\
10.0.0.1 node.disco.test
10.0.0.2 node.disco.test
10.0.0.3 blue_node_1.disco.test blue-node-1.disco.test
";

async fn addresses(server: &Dnsmasq, name: &str) -> Vec<String> {
    let mut found = server.dig().short(name, "A").await.expect("the server answers");
    found.sort();
    found
}

#[tokio::test]
async fn it_knows_what_it_is_told() {
    let options = Dnsmasq::builder().hosts(NODES).option("local-ttl=5");
    let options = options.option("srv-host=_http._tcp.web.disco.test,web.disco.test,8080,1,2");
    let options =
        options.option("txt-record=web.disco.test,zone=a").option("host-record=web.disco.test,10.0.0.9");
    let Some(server) = options.start_or_skip().await else { return };
    let dig = server.dig();
    for dig in [dig.clone(), dig.clone().tcp()] {
        let node = dig.query("blue_node_1.disco.test", "A").await.unwrap();
        assert_eq!(node.records, ["blue_node_1.disco.test. 5 IN A 10.0.0.3"]);
    }
    assert_eq!(addresses(&server, "node.disco.test").await, ["10.0.0.1", "10.0.0.2"]);
    assert_eq!(addresses(&server, "web.disco.test").await, ["10.0.0.9"]);
    assert_eq!(dig.short("_http._tcp.web.disco.test", "SRV").await.unwrap(), ["1 2 8080 web.disco.test."]);
    assert_eq!(dig.short("web.disco.test", "TXT").await.unwrap(), ["\"zone=a\""]);
    assert_eq!(dig.short("3.0.0.10.in-addr.arpa", "PTR").await.unwrap(), ["blue_node_1.disco.test."]);

    let nobody = dig.query("nobody.disco.test", "A").await.unwrap();
    assert_eq!((nobody.rcode.as_str(), nobody.authority.len()), ("NXDOMAIN", 0));
    let other_type = dig.query("node.disco.test", "AAAA").await.unwrap();
    assert_eq!((other_type.rcode.as_str(), other_type.records.len()), ("NOERROR", 0));
    assert_eq!(dig.query("web.elsewhere.test", "A").await.unwrap().rcode, "REFUSED");
}

#[tokio::test]
async fn hosts_can_be_changed_while_it_runs() {
    let Some(server) =
        Dnsmasq::builder().zone("eu1.test.").hosts("10.0.0.1 web.eu1.test").start_or_skip().await
    else {
        return;
    };
    assert_eq!(server.zone(), "eu1.test");
    let id = server.id();
    for hosts in ["10.0.0.2 web.eu1.test\n10.0.0.3 web.eu1.test", "", "10.0.0.4 web.eu1.test"] {
        server.set_hosts(hosts).await.unwrap();
        let expected: Vec<_> = hosts.lines().map(|line| line.split(' ').next().unwrap()).collect();
        assert_eq!(addresses(&server, "web.eu1.test").await, expected);
    }
    assert_eq!(server.id(), id);
    server.stop().await.unwrap();
    assert!(server.set_hosts("").await.is_err());
    server.restart().await.unwrap();
}

#[tokio::test]
async fn it_can_be_killed_and_started_again() {
    let Some(server) = Dnsmasq::builder().hosts(NODES).start_or_skip().await else { return };
    let killed = server.id().unwrap();
    // A process of its own serves it, with the port.
    let mut connection = TcpStream::connect(server.address()).await.unwrap();
    assert_eq!(addresses(&server, "node.disco.test").await.len(), 2);
    server.kill().unwrap();
    assert!(server.id().is_none() && !is_alive(killed));
    assert!(!matches!(connection.read(&mut [0]).await, Ok(1..)));
    server.restart().await.unwrap();
    assert_eq!(addresses(&server, "node.disco.test").await.len(), 2);

    server.pause().unwrap();
    let error = server.dig().option("+time=1").query("node.disco.test", "A").await.unwrap_err().to_string();
    assert!(error.contains("timed out"), "{error}");
    server.resume().unwrap();
    assert_eq!(addresses(&server, "node.disco.test").await.len(), 2);

    let (id, dir) = (server.id().unwrap(), server.dir().to_owned());
    drop(server);
    assert!(!is_alive(id) && !dir.exists());
}

#[tokio::test]
async fn it_can_be_asked_through_a_proxy() {
    let Some(server) = Dnsmasq::builder().hosts(NODES).start_or_skip().await else { return };
    let proxy = Proxy::start(server.address()).unwrap();
    let dig = server.dig().server(proxy.address());
    assert_eq!(dig.short("node.disco.test", "A").await.unwrap().len(), 2);
    proxy.refuse().await;
    assert!(dig.query("node.disco.test", "A").await.is_err());
}
