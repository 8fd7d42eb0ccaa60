//! What is wrong on the command line is said, and nothing else happens.

use crate::demo;

async fn refused(args: &[&str], parts: &[&str]) {
    let output = demo::run(&[&["run-state"], args].concat()).await;
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{args:?}: {said}");
    for part in parts {
        assert!(said.contains(part), "{args:?}: {part:?} is not in {said}");
    }
}

#[tokio::test]
async fn bad_arguments_are_named() {
    refused(&[], &["Usage", "create"]).await;
    refused(&["list", "--backend", "zoo"], &["--backend", "\"zoo\"", "mem, zk, etcd, dns"]).await;
    refused(&["create", "r", "{}"], &["no machine", "write it as"]).await;
    refused(&["create", "r", r#"{"a": [1,1]}"#], &["index 1 twice"]).await;
    refused(&["create", "r", r#"{"a": [1]"#], &["at the end", "write it as"]).await;
    refused(&["create", "r", r#"{"a": [1]}"#, "--limit", "10"], &["--limit", "unit"]).await;
    refused(&["complete", "r", "a", "x", "init", "provisioning"], &["INDEX", "x"]).await;
    refused(&["scale", "r"], &["--add"]).await;
    refused(&["scale", "r", "--add", "a"], &["--add", "write node1/3"]).await;
    refused(&["race", "--workers", "1"], &["--workers", "2..=64"]).await;
    refused(&["race", "--kill", "101"], &["--kill", "0..=100"]).await;
    refused(&["work", "--ttl", "1"], &["--ttl", "unit"]).await;
    refused(&["serve", "--addr", "here"], &["--addr", "here"]).await;
    refused(&["follow"], &["WHAT"]).await;
}

#[tokio::test]
async fn a_name_that_is_none_is_refused_before_anybody_is_asked() {
    // Nobody is there to be asked.
    let nobody = "zk://127.0.0.1:1/run-state";
    for args in [&["create", "run_1", r#"{"a": [1]}"#][..], &["walk", "run_1"], &["wait", "-"]] {
        let output = demo::run(&[&["run-state", "--backend", nobody], args].concat()).await;
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains("label"), "{args:?}: {said}");
    }
}

#[tokio::test]
async fn memory_in_a_process_of_its_own_is_refused() {
    for args in [&["serve"][..], &["list"], &["work"], &["create", "r", r#"{"a": [1]}"#]] {
        refused(&[args, &["--backend", "mem"]].concat(), &["one process", "-- run-state", "zk"]).await;
    }
}

#[tokio::test]
async fn a_secret_in_a_locator_is_never_repeated() {
    let output = demo::run(&["run-state", "list", "--backend", "zk://me:s3cret@h:x"]).await;
    let said = format!("{output:?}");
    assert!(said.contains("--backend") && !said.contains("s3cret"), "{said}");
}

#[tokio::test]
async fn a_taken_port_is_named() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    let output = demo::run(&["run-state", "demo", "--port", &port]).await;
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains(&format!("127.0.0.1:{port}")) && said.contains("--port"), "{said}");
}
