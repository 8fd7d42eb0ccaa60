//! What is wrong on the command line, or in a configuration, is said, and nothing else happens.

use serde_json::json;

use crate::{demo, simple::server::Config};

async fn refused(code: i32, args: &[&str], parts: &[&str]) {
    let output = demo::run(&[&["simple"], args].concat()).await;
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{args:?}: {said}");
    for part in parts {
        assert!(said.contains(part), "{args:?}: {part:?} is not in {said}");
    }
}

#[tokio::test]
async fn bad_arguments_are_named() {
    refused(2, &[], &["CONFIG_FILE", "LISTEN_PORT"]).await;
    refused(2, &["-"], &["LISTEN_PORT"]).await;
    refused(2, &["-", "here"], &["LISTEN_PORT", "write :7070"]).await;
    refused(2, &["-", ":0", "--start-delay", "3"], &["--start-delay", "1m30s"]).await;
    refused(2, &["-", ":0", "--backend", "zoo"], &["--backend", "\"zoo\""]).await;
    refused(1, &["no-such.conf", ":0"], &["no-such.conf", "write -"]).await;
}

#[tokio::test]
async fn bad_configurations_are_named() {
    for (config, parts) in [
        (json!([]), ["is no configuration", "\"after\""]),
        (json!({ "https://a": "x" }), ["https://a", "only http://"]),
        (json!({ "a": { "command": "x", "after": ["b"] } }), ["a comes after b", "no target"]),
    ] {
        refused(1, &[&Config::new(&config).path(), ":0"], &parts).await;
    }
}

#[tokio::test]
async fn services_need_a_registry_for_several_processes() {
    let config = Config::new(&json!({ "shop/db": "x" }));
    refused(2, &[&config.path(), ":0"], &["one process", "simple demo", "dns"]).await;
    refused(2, &["-", ":0", "--name", "shop/db"], &["one process"]).await;
}

#[tokio::test]
async fn the_machine_can_be_drawn() {
    for (format, first) in
        [("mermaid", "stateDiagram-v2\n    [*] --> UNKNOWN\n"), ("dot", "digraph machine {\n")]
    {
        let output = demo::run(&["simple", "diagram", "--format", format]).await;
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(said.starts_with(first) && said.contains("provision after 50ms to 30s"), "{said}");
    }
}
