//! Guards: that what they say holds when the transaction is applied.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use discovery::{
    ErrorKind,
    kv::{Guard, Txn},
};
use discovery_testbed::ZooKeeper;

use crate::common::*;

#[tokio::test]
async fn a_guard_does_not_survive_its_key() {
    let Some(server) = ZooKeeper::start_or_skip().await else { return };
    let zk = zk(&server.connect_string());
    let other = crate::common::zk(&server.connect_string());
    let (kv, k) = (kv(&zk), key("a/b"));
    kv.commit(Txn::new().put(&k, "1")).await.unwrap();
    let old = kv.get(&k).await.unwrap().unwrap();
    for writer in [&zk, &other] {
        crate::common::kv(writer).commit(Txn::new().delete(&k)).await.unwrap();
        crate::common::kv(writer).commit(Txn::new().put(&k, "1")).await.unwrap();
        for txn in [Txn::new().unmodified(&old), Txn::new().alive(&old)] {
            for txn in [txn.clone().put(&k, "2"), txn.clone().delete(&k), txn.clone().put(&key("c"), "2")] {
                let error = kv.commit(txn).await.unwrap_err();
                assert_eq!(error.kind(), ErrorKind::Conflict, "{error:?}");
            }
        }
    }
    assert_eq!(listed(&zk, &everything()).await, ["a/b=1"]);
}

#[tokio::test]
async fn alive_allows_changes_and_unmodified_does_not() {
    let Some(server) = ZooKeeper::start_or_skip().await else { return };
    let zk = zk(&server.connect_string());
    let (kv, k) = (kv(&zk), key("a"));
    kv.commit(Txn::new().put(&k, "1")).await.unwrap();
    let old = kv.get(&k).await.unwrap().unwrap();
    kv.commit(Txn::new().put(&k, "2")).await.unwrap();
    kv.commit(Txn::new().alive(&old).put(&k, "3")).await.unwrap();
    let error = kv.commit(Txn::new().unmodified(&old).put(&k, "4")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert_eq!(listed(&zk, &everything()).await, ["a=3"]);
}

#[tokio::test]
async fn the_last_write_can_be_changed_again_and_again() {
    let Some(server) = ZooKeeper::start_or_skip().await else { return };
    let (zk, other) = (zk(&server.connect_string()), zk(&server.connect_string()));
    let (kv, k) = (kv(&zk), key("a"));
    let mut revision = kv.commit(Txn::new().absent(&k).put(&k, "0")).await.unwrap();
    for n in 1..50 {
        let guard = Guard::Unmodified(k.clone(), revision);
        revision = kv.commit(Txn::new().guard(guard).put(&k, n.to_string())).await.unwrap();
    }
    assert_eq!(kv.get(&k).await.unwrap().unwrap().modified, revision);
    // What this handle remembers is not true any more, and it cannot know.
    for recreate in [false, true] {
        if recreate {
            crate::common::kv(&other).commit(Txn::new().delete(&k)).await.unwrap();
        }
        let theirs = crate::common::kv(&other).commit(Txn::new().put(&k, "theirs")).await.unwrap();
        let guard = Guard::Unmodified(k.clone(), revision);
        let error = kv.commit(Txn::new().guard(guard).put(&k, "ours")).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict);
        let guard = Guard::Unmodified(k.clone(), theirs);
        revision = kv.commit(Txn::new().guard(guard).put(&k, "ours")).await.unwrap();
    }
}

/// One deletes what it created, the other overwrites what it has read, as fast as they can. A value may be deleted or
/// overwritten, never both.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_value_is_both_deleted_and_overwritten() {
    const ROUNDS: usize = 400;
    let Some(server) = ZooKeeper::builder().unsynced().start_or_skip().await else { return };
    let (k, done) = (key("race/x"), Arc::new(AtomicBool::new(false)));
    let mut overwriters = Vec::new();
    for _ in 0..3 {
        let (zk, k, done) = (zk(&server.connect_string()), k.clone(), done.clone());
        overwriters.push(tokio::spawn(async move {
            let mut overwritten = Vec::new();
            while !done.load(Ordering::Relaxed) {
                let Some(entry) = kv(&zk).get(&k).await.unwrap() else { continue };
                match kv(&zk).commit(Txn::new().unmodified(&entry).put(&k, "overwritten")).await {
                    Ok(_) if entry.value != "overwritten" => overwritten.push(entry.value),
                    Ok(_) => {}
                    Err(error) => assert_eq!(error.kind(), ErrorKind::Conflict, "{error:?}"),
                }
            }
            overwritten
        }));
    }
    let zk = zk(&server.connect_string());
    let mut deleted = Vec::new();
    for n in 0..ROUNDS {
        let created = kv(&zk).commit(Txn::new().absent(&k).put(&k, n.to_string())).await.unwrap();
        // Now and then without a guard in between, so that there are versions to be mixed up.
        let guard = Guard::Unmodified(k.clone(), created);
        match kv(&zk).commit(Txn::new().guard(guard).delete(&k)).await {
            Ok(_) => deleted.push(n.to_string().into()),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Conflict, "{error:?}");
                kv(&zk).commit(Txn::new().delete(&k)).await.unwrap();
            }
        }
    }
    done.store(true, Ordering::Relaxed);
    let mut overwritten = Vec::new();
    for overwriter in overwriters {
        overwritten.extend(soon("the end of an overwriter", overwriter).await.unwrap());
    }
    let counts = (deleted.len(), overwritten.len());
    let distinct: BTreeSet<_> = deleted.into_iter().chain(overwritten).collect();
    assert_eq!(distinct.len(), counts.0 + counts.1, "deleted and overwritten: {counts:?}");
    assert!(counts.0 > 0 && counts.1 > 0, "no race at all: {counts:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn increments_add_up() {
    const EACH: usize = 50;
    let Some(server) = ZooKeeper::builder().unsynced().start_or_skip().await else { return };
    let mut counters = Vec::new();
    for _ in 0..4 {
        let zk = zk(&server.connect_string());
        counters.push(tokio::spawn(async move {
            let mut done = 0;
            while done < EACH {
                let k = key("counter");
                let txn = match kv(&zk).get(&k).await.unwrap() {
                    None => Txn::new().absent(&k).put(&k, "1"),
                    Some(entry) => {
                        let count: usize = std::str::from_utf8(&entry.value).unwrap().parse().unwrap();
                        Txn::new().unmodified(&entry).put(&k, (count + 1).to_string())
                    }
                };
                match kv(&zk).commit(txn).await {
                    Ok(_) => done += 1,
                    Err(error) => assert_eq!(error.kind(), ErrorKind::Conflict, "{error:?}"),
                }
            }
        }));
    }
    for counter in counters {
        soon("the end of a counter", counter).await.unwrap();
    }
    assert_eq!(listed(&zk(&server.connect_string()), &everything()).await, ["counter=200"]);
}
