//! No server, a server that comes later, one that goes and comes back.

use std::time::Duration;

use discovery::{Connectors, ErrorKind, Outcome, kv::Txn};
use discovery_testbed::{Port, Proxy, ZooKeeper};
use tokio::time::Instant;

use crate::common::*;

#[tokio::test]
async fn connecting_does_not_need_the_server() {
    let port = Port::reserve().unwrap();
    let connectors = Connectors::new().with(discovery_zk::connector());
    for scheme in ["zk", "zookeeper"] {
        let locator = format!("{scheme}://{}/cn", port.address()).parse().unwrap();
        let zk = connectors.connect(&locator).await.unwrap();
        let start = Instant::now();
        let error = zk.kv().unwrap().commit(Txn::new().put(&key("a"), "x")).await.unwrap_err();
        assert_eq!(
            (error.kind(), error.outcome()),
            (ErrorKind::Unavailable, Outcome::NotApplied),
            "{error:?}"
        );
        assert!(error.to_string().contains(&port.address().to_string()), "{error}");
        assert!(start.elapsed() < Duration::from_secs(5), "refused connections are noticed at once");
        let error = zk.leases().unwrap().grant(STEADY).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
    }
    let error = connectors.connect(&"zk://h?sesion_timeout=1s".parse().unwrap()).await.unwrap_err();
    assert!(error.to_string().contains("did you mean \"session_timeout\"?"), "{error}");
}

#[tokio::test]
async fn a_silent_server_is_a_timeout() {
    let Some(server) = ZooKeeper::start_or_skip().await else { return };
    let proxy = Proxy::start(server.address()).unwrap();
    proxy.black_hole().await;
    let zk = zk_at(&format!("{}/cn?connect_timeout=300ms", proxy.address()));
    let k = key("a");
    let (first, second) = tokio::join!(kv(&zk).get(&k), leases(&zk).grant(STEADY));
    for error in [first.unwrap_err(), second.unwrap_err()] {
        assert_eq!((error.kind(), error.outcome()), (ErrorKind::Timeout, Outcome::NotApplied), "{error:?}");
    }
    proxy.pass().await;
    eventually("the server is there", async || kv(&zk).get(&k).await.is_ok()).await;
}

#[tokio::test]
async fn the_outcome_of_a_write_without_answer_is_unknown() {
    let Some(server) = ZooKeeper::start_or_skip().await else { return };
    let proxy = Proxy::start(server.address()).unwrap();
    let zk = zk_at(&format!("{}/cn?call_timeout=500ms&session_timeout=20s", proxy.address()));
    let k = key("a");
    // The first write makes the directories, which may take its time.
    eventually("a write", async || kv(&zk).commit(Txn::new().put(&key("b"), "x")).await.is_ok()).await;
    proxy.black_hole().await;
    let error = kv(&zk).commit(Txn::new().absent(&k).put(&k, "x")).await.unwrap_err();
    assert_eq!((error.kind(), error.outcome()), (ErrorKind::Timeout, Outcome::Unknown), "{error:?}");
    let error = kv(&zk).get(&k).await.unwrap_err();
    assert_eq!(error.outcome(), Outcome::NotApplied, "a read changes nothing: {error:?}");
    proxy.pass().await;
    eventually("the write arrives after all", async || matches!(kv(&zk).get(&k).await, Ok(Some(_)))).await;
}

#[tokio::test]
async fn a_handle_outlives_its_server() {
    let Some(server) = ZooKeeper::start_or_skip().await else { return };
    let zk = zk(&server.connect_string());
    let k = key("a");
    let before = kv(&zk).commit(Txn::new().put(&k, "x")).await.unwrap();
    server.kill().unwrap();
    let error = kv(&zk).get(&k).await.unwrap_err();
    assert!(error.is_transient(), "{error:?}");
    server.restart().await.unwrap();
    eventually("reads work", async || kv(&zk).get(&k).await.is_ok()).await;
    let after = kv(&zk).commit(Txn::new().put(&k, "y")).await.unwrap();
    assert!(after > before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_operations_at_once() {
    let Some(server) = ZooKeeper::builder().unsynced().start_or_skip().await else { return };
    let zk = zk_at(&format!("{}/cn?call_timeout=30s", server.connect_string()));
    let operations: Vec<_> = (0..1000)
        .map(|n| {
            let zk = zk.clone();
            tokio::spawn(async move {
                let k = key(&format!("s{}/{n}", n % 10));
                kv(&zk).commit(Txn::new().absent(&k).put(&k, "x")).await.unwrap();
                kv(&zk).get(&k).await.unwrap().unwrap();
            })
        })
        .collect();
    for operation in operations {
        operation.await.unwrap();
    }
    assert_eq!(kv(&zk).scan(&everything()).await.unwrap().entries.len(), 1000);
}

#[test]
fn a_handle_outlives_its_runtime() {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (steady, passing) = (runtime(), runtime());
    let Some(server) = steady.block_on(ZooKeeper::start_or_skip()) else { return };
    let zk = zk(&server.connect_string());
    passing.block_on(async { kv(&zk).commit(Txn::new().put(&key("a"), "x")).await.unwrap() });
    drop(passing);
    steady.block_on(async {
        eventually("another session", async || kv(&zk).get(&key("a")).await.is_ok()).await;
        kv(&zk).commit(Txn::new().put(&key("a"), "y")).await.unwrap();
    });
}
