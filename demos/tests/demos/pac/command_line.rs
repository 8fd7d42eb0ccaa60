//! What is wrong on the command line is said, and nothing else happens.

use crate::demo;

async fn refused(args: &[&str], parts: &[&str]) {
    let output = demo::run(&[&["pac"], args].concat()).await;
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{args:?}: {said}");
    for part in parts {
        assert!(said.contains(part), "{args:?}: {part:?} is not in {said}");
    }
}

#[tokio::test]
async fn bad_flags_are_named() {
    refused(&["--backend", "zoo"], &["--backend", "\"zoo\"", "mem, zk, etcd, dns"]).await;
    refused(&["--backend", "consul://h"], &["--backend", "\"consul\"", "known are", "zk"]).await;
    refused(&["--backend", "zk://h:0"], &["--backend", "\"h:0\"", "1 to 65535"]).await;
    refused(&["--backend", "zk://h?sesion_timeout=1s"], &["sesion_timeout", "did you mean"]).await;
    refused(&["server", "--coordinate", "pacman"], &["--coordinate", "\"pacman\"", "service.tag.region"])
        .await;
    refused(&["ghost", "bl_nky"], &["bl_nky", "'_'"]).await;
    refused(&["ghost", "sue", "--ttl", "1"], &["--ttl", "unit"]).await;
    refused(&["--addr", "here"], &["--addr", "here"]).await;
}

#[cfg(not(feature = "etcd"))]
#[tokio::test]
async fn a_build_without_etcd_says_how_to_get_one_with_it() {
    for backend in ["etcd", "etcd://h:2379/cn"] {
        let parts = ["--backend", "`cargo run --release --features etcd -- pac …`", "protobuf-compiler"];
        refused(&["server", "--backend", backend], &parts).await;
    }
}

#[cfg(feature = "etcd")]
#[tokio::test]
async fn bad_locators_of_etcd_are_named() {
    refused(&["--backend", "etcd://h:0"], &["--backend", "\"h:0\"", "1 to 65535"]).await;
    refused(&["--backend", "etcd://"], &["--backend", "no server"]).await;
    refused(&["--backend", "etcd://h?silence_timout=1s"], &["silence_timout", "did you mean"]).await;
}

#[tokio::test]
async fn a_secret_in_a_locator_is_never_repeated() {
    let output = demo::run(&["pac", "server", "--backend", "zk://me:s3cret@h:x"]).await;
    let said = format!("{output:?}");
    assert!(said.contains("--backend") && !said.contains("s3cret"), "{said}");
}

#[tokio::test]
async fn memory_in_a_process_of_its_own_is_refused() {
    refused(&["server", "--backend", "mem"], &["one process", "-- pac", "zk"]).await;
    refused(&["ghost", "sue", "--backend", "mem://"], &["one process", "-- pac", "zk"]).await;
}

#[tokio::test]
async fn a_taken_port_is_named() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    let output = demo::run(&["pac", "--port", &port]).await;
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains(&format!("127.0.0.1:{port}")) && said.contains("--port"), "{said}");
}
