//! Handles that are used on several runtimes, of which one ends: what it was to do for all is done by others.

use discovery::{Outcome, Result, Revision, kv::Txn};
use discovery_etcd::Etcd;
use discovery_testbed::{Etcd as Server, Proxy};
use futures_util::{
    FutureExt,
    future::{BoxFuture, join_all},
};
use tokio::runtime::{Builder, Runtime};

use crate::common::*;

/// A runtime that goes on by itself, with its tasks on one thread.
fn runtime() -> Runtime {
    Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}

fn create(etcd: &Etcd, name: &str) -> BoxFuture<'static, Result<Revision>> {
    let (etcd, name) = (etcd.clone(), key(name));
    async move { kv(&etcd).commit(Txn::new().absent(&name).put(&name, "x")).await }.boxed()
}

/// Has as many creations be under way as may be, on a runtime that passes, and more wait on one that stays.
/// Those are to be served also if the ones under way end as told.
fn are_served_when_others_end(end: impl FnOnce(Runtime, Vec<BoxFuture<'static, Result<Revision>>>)) {
    let (steady, passing) = (runtime(), runtime());
    let Some(server) = steady.block_on(Server::start_or_skip()) else { return };
    let line = steady.block_on(async { Proxy::start(server.address()).unwrap() });
    let etcd = etcd_at(&format!("{}/cn?call_timeout=10s", line.address()));
    steady.block_on(create(&etcd, "first")).unwrap();
    steady.block_on(line.black_hole());
    let mut under_way: Vec<_> = (0..4).map(|n| create(&etcd, &format!("under-way/{n}"))).collect();
    passing.block_on(async { assert!(join_all(&mut under_way).now_or_never().is_none()) });
    let mut waiting = join_all((0..3).map(|n| create(&etcd, &format!("waiting/{n}"))));
    steady.block_on(async { assert!((&mut waiting).now_or_never().is_none()) });
    end(passing, under_way);
    steady.block_on(line.pass());
    for outcome in steady.block_on(waiting) {
        outcome.unwrap();
    }
}

#[test]
fn who_waits_is_served_when_those_under_way_are_dropped_outside_of_any_runtime() {
    are_served_when_others_end(|_, under_way| drop(under_way));
}

#[test]
fn who_waits_is_served_when_those_under_way_end_with_their_runtime() {
    are_served_when_others_end(|passing, under_way| {
        for creation in under_way {
            passing.spawn(creation);
        }
        drop(passing);
    });
}

#[test]
fn who_waits_for_a_batch_that_an_ending_runtime_sends_may_try_again() {
    let (steady, passing) = (runtime(), Builder::new_current_thread().enable_all().build().unwrap());
    let Some(server) = steady.block_on(Server::start_or_skip()) else { return };
    let line = steady.block_on(async { Proxy::start(server.address()).unwrap() });
    let etcd = etcd(&line.address().to_string());
    steady.block_on(create(&etcd, "first")).unwrap();
    steady.block_on(line.black_hole());
    let mut under_way = join_all((0..4).map(|n| create(&etcd, &format!("under-way/{n}"))));
    passing.block_on(async { assert!((&mut under_way).now_or_never().is_none()) });
    let mut waiting = create(&etcd, "waiting");
    steady.block_on(async { assert!((&mut waiting).now_or_never().is_none()) });
    passing.block_on(async {
        // Given up here, they leave what waits to a task here.
        drop(under_way);
        tokio::task::yield_now().await;
    });
    drop(passing);
    let error = steady.block_on(async { soon("an answer", waiting).await }).unwrap_err();
    assert!(error.is_transient() && error.outcome() == Outcome::Unknown, "{error:?}");
}
