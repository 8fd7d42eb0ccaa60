//! Handles that are used on several runtimes, of which one ends: what it was to do for all is done by others.

use std::{pin::pin, time::Duration};

use discovery::{ErrorKind, Outcome, kv::Txn};
use discovery_testbed::{Proxy, ZooKeeper};
use futures_util::{FutureExt, StreamExt, future::join_all};
use tokio::{
    runtime::{Builder, Runtime},
    time::timeout,
};

use crate::common::*;

/// A runtime that goes on by itself, with its tasks on one thread.
fn runtime() -> Runtime {
    Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}

#[test]
fn creations_go_on_when_runtimes_end_amid_theirs() {
    let steady = runtime();
    let Some(server) = steady.block_on(ZooKeeper::start_or_skip()) else { return };
    let line = steady.block_on(async { Proxy::start(server.address()).unwrap() });
    let zk = zk_at(&format!("{}/cn?session_timeout=20s&call_timeout=5s", line.address()));
    let create = async |name: &str| kv(&zk).commit(Txn::new().absent(&key(name)).put(&key(name), "x")).await;
    steady.block_on(create("first")).unwrap();
    steady.block_on(line.black_hole());
    // As many as may send at a time.
    for n in 0..4 {
        let passing = runtime();
        let name = format!("passing/{n}");
        let given_up = passing.block_on(async { timeout(Duration::from_millis(100), create(&name)).await });
        given_up.unwrap_err();
    }
    steady.block_on(line.pass());
    steady.block_on(async {
        eventually("the connection", async || kv(&zk).get(&key("first")).await.is_ok()).await;
        create("last").await.unwrap();
    });
}

#[test]
fn a_watch_whose_session_went_with_its_runtime_ends_with_an_error() {
    let (steady, passing) = (runtime(), runtime());
    let Some(server) = steady.block_on(ZooKeeper::start_or_skip()) else { return };
    let zk = zk(&server.connect_string());
    passing.block_on(kv(&zk).commit(Txn::new().put(&key("a"), "x"))).unwrap();
    let mut watch = kv(&zk).watch(&everything(), None);
    steady.block_on(watch.next()).unwrap().unwrap();
    drop(passing);
    steady.block_on(async {
        let error = soon("the end of the watch", watch.next()).await.unwrap().unwrap_err();
        assert!(error.is_transient(), "{error:?}");
        let watch_again = async || {
            let first = kv(&zk).watch(&everything(), None).next().await.unwrap();
            first.is_ok()
        };
        eventually("another watch", watch_again).await;
    });
}

#[test]
fn a_lease_that_went_with_its_runtime_is_lost() {
    let (steady, passing) = (runtime(), runtime());
    let Some(server) = steady.block_on(ZooKeeper::start_or_skip()) else { return };
    let zk = zk(&server.connect_string());
    let grant = passing.block_on(leases(&zk).grant(Duration::from_secs(2))).unwrap();
    drop(passing);
    steady.block_on(async {
        // Its time, from when it was granted at the latest.
        tokio::time::sleep(grant.ttl).await;
        let error = leases(&zk).renew(grant.id).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::LeaseLost, "{error:?}");
    });
}

#[test]
fn who_waits_for_a_connection_that_an_ending_runtime_opens_may_try_again() {
    let (steady, passing) = (runtime(), runtime());
    let Some(server) = steady.block_on(ZooKeeper::start_or_skip()) else { return };
    let line = steady.block_on(async { Proxy::start(server.address()).unwrap() });
    steady.block_on(line.black_hole());
    let zk = zk(&line.address().to_string());
    let get = async || kv(&zk).get(&key("a")).await;
    let (mut first, mut waiting) = (pin!(get()), pin!(get()));
    passing.block_on(async { assert!(first.as_mut().now_or_never().is_none()) });
    steady.block_on(async { assert!(waiting.as_mut().now_or_never().is_none()) });
    drop(passing);
    let error = steady.block_on(async { soon("an answer", waiting).await }).unwrap_err();
    assert!(error.is_transient(), "{error:?}");
    steady.block_on(line.pass());
    steady.block_on(eventually("another connection", async || get().await.is_ok()));
}

#[test]
fn who_waits_for_a_batch_that_an_ending_runtime_sends_may_try_again() {
    let (steady, passing) = (runtime(), Builder::new_current_thread().enable_all().build().unwrap());
    let Some(server) = steady.block_on(ZooKeeper::start_or_skip()) else { return };
    let line = steady.block_on(async { Proxy::start(server.address()).unwrap() });
    let zk = zk(&line.address().to_string());
    let create = async |name: &str| kv(&zk).commit(Txn::new().absent(&key(name)).put(&key(name), "x")).await;
    steady.block_on(create("first")).unwrap();
    steady.block_on(line.black_hole());
    // As many as may send at a time; the first of them takes along what waits.
    let mut passed = pin!(join_all(["a", "b", "c", "d"].map(create)));
    let mut waiting = pin!(create("waiting"));
    passing.block_on(async { assert!(passed.as_mut().now_or_never().is_none()) });
    steady.block_on(async { assert!(waiting.as_mut().now_or_never().is_none()) });
    passing.block_on(tokio::task::yield_now());
    drop(passing);
    let error = steady.block_on(async { soon("an answer", waiting).await }).unwrap_err();
    assert!(error.is_transient() && error.outcome() == Outcome::Unknown, "{error:?}");
}
