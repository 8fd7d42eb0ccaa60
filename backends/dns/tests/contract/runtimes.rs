//! Handles that are used on several runtimes, of which one ends: what it was to do for all is done by others.

use std::pin::pin;

use discovery::{
    Outcome,
    kv::{KvUpdate, Txn},
};
use discovery_testbed::Proxy;
use futures_util::{FutureExt, StreamExt};
use tokio::runtime::{Builder, Runtime};

use crate::common::*;

/// A runtime that goes on by itself, with its tasks on one thread.
fn runtime() -> Runtime {
    Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}

#[test]
fn a_watch_that_is_opened_while_the_eye_closes_hears_of_changes() {
    let (steady, passing) = (runtime(), runtime());
    let Some(server) = steady.block_on(bind()) else { return };
    let line = steady.block_on(async { Proxy::start(server.address()).unwrap() });
    let zone = zone(config_at(&server, line.address()));
    // The eye is on the runtime that passes.
    let mut first = kv(&zone).watch(&everything(), None);
    passing.block_on(first.next()).unwrap().unwrap();
    steady.block_on(line.black_hole());
    let mut second = kv(&zone).watch(&everything(), None);
    steady.block_on(async { assert!(second.next().now_or_never().is_none()) });
    drop(passing);
    steady.block_on(line.pass());
    steady.block_on(async {
        let begun = soon("what is there", second.next()).await.unwrap().unwrap();
        assert!(matches!(begun, KvUpdate::Reset(_)), "{begun:?}");
        kv(&on(&server)).commit(Txn::new().put(&key("a"), "1")).await.unwrap();
        loop {
            match soon("a word of the change", second.next()).await.unwrap() {
                Ok(KvUpdate::Progress(_)) => {}
                told => {
                    assert!(matches!(told, Ok(KvUpdate::Delta { .. })), "{told:?}");
                    break;
                }
            }
        }
    });
}

#[test]
fn who_waits_behind_the_writer_of_an_ending_runtime_may_try_again() {
    let (steady, passing) = (runtime(), runtime());
    let Some(server) = steady.block_on(bind()) else { return };
    let line = steady.block_on(async { Proxy::start(server.address()).unwrap() });
    let zone = zone(config_at(&server, line.address()));
    let write = async |name: &str| kv(&zone).commit(Txn::new().put(&key(name), "1")).await;
    steady.block_on(write("a")).unwrap();
    steady.block_on(line.black_hole());
    let (mut first, mut waiting) = (pin!(write("b")), pin!(write("c")));
    passing.block_on(async { assert!(first.as_mut().now_or_never().is_none()) });
    steady.block_on(async { assert!(waiting.as_mut().now_or_never().is_none()) });
    drop(passing);
    let error = steady.block_on(async { soon("an answer", waiting).await }).unwrap_err();
    assert!(error.is_transient() && error.outcome() == Outcome::Unknown, "{error:?}");
    steady.block_on(line.pass());
    steady.block_on(async { soon("a write", write("d")).await }).unwrap();
}
