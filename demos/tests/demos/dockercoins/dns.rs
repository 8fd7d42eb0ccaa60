//! On BIND.

use discovery_testbed::{NameServer, Port};

use crate::{
    demo::Demo,
    dockercoins::{processes::tests_on, project::Project},
};

tests_on!(NameServer);

/// As in the compose file, where there is no other registry.
#[tokio::test]
async fn a_registry_of_the_sample_itself_will_do() {
    let port = Port::reserve().unwrap();
    let locator = format!("dns+zone://coins:c2VjcmV0@{}/coins.internal", port.address());
    let listen = port.address().to_string();
    let mut registry = Demo::spawn(["registry", "--listen", &listen, "--backend", &locator]);
    registry.says("coins.internal at").await;
    let project = Project::at(locator, "dockercoins");
    let _parts = project.serve_all().await;
    let page = project.page().await;
    let _worker = project.start("worker", &[]);
    page.until_more(5).await;
}
