//! What is wrong on the command line is said, and nothing else happens.

use crate::demo;

async fn refused(code: i32, args: &[&str], parts: &[&str]) {
    let output = demo::run(&[&["nodes"], args].concat()).await;
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{args:?}: {said}");
    for part in parts {
        assert!(said.contains(part), "{args:?}: {part:?} is not in {said}");
    }
}

#[tokio::test]
async fn bad_arguments_are_named() {
    refused(2, &[], &["Usage", "partition"]).await;
    refused(2, &["ping", "--backend", "zoo"], &["--backend", "\"zoo\"", "mem, zk, etcd, dns"]).await;
    refused(2, &["ping", "--timeout", "2m"], &["--timeout", "1ms to 1m"]).await;
    refused(2, &["ping", "--count", "3", "1"], &["--count"]).await;
    refused(2, &["up", "many"], &["SIZE", "many"]).await;
    refused(2, &["up", "100000"], &["SIZE", "0..=200"]).await;
    refused(2, &["scale", "201"], &["SIZE", "0..=200"]).await;
    refused(2, &["ping", "--count", "4294967295"], &["--count", "0..=200"]).await;
    refused(2, &["serve", "--index", "4294967295"], &["--index", "1 to 200"]).await;
    refused(2, &["ping", "--message", &"x".repeat(70_000)], &["65536 bytes at most"]).await;
    refused(2, &["partition"], &["NODES"]).await;
    refused(2, &["serve", "--index", "0"], &["--index", "0"]).await;
    refused(1, &["serve", "--backend", "zk"], &["--index 1"]).await;
    refused(1, &["ping", "--project", "_x", "--backend", "zk"], &["--project", "_x"]).await;
}

#[tokio::test]
async fn memory_in_a_process_of_its_own_is_refused() {
    for args in [&["ping"][..], &["serve", "--index", "1"], &["ps"], &["scale", "3"], &["attach", "1"]] {
        refused(2, &[args, &["--backend", "mem"]].concat(), &["one process", "-- nodes", "zk"]).await;
    }
}

#[tokio::test]
async fn what_can_only_be_read_starts_no_nodes() {
    refused(2, &["up", "--backend", "dns://?records=a&port=1234"], &["only be read"]).await;
    let output = demo::run(&["nodes", "health", "--port", "1"]).await;
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("the node on port 1: connection refused"), "{said}");
}
