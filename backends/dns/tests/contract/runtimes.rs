//! Handles that are used on several runtimes, of which one ends: what it was to do for all is done by others.

use discovery::kv::{KvUpdate, Txn};
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
