//! The contract of `Kv` and `Leases`, against a real server.

mod common;

use common::*;
use discovery::{
    ErrorKind,
    kv::{Key, Range, Txn},
};
use discovery_testbed::ZooKeeper;
use std::time::Duration;

#[tokio::test]
async fn entries_come_and_go() {
    let Some(server) = ZooKeeper::start_or_skip().await else { return };
    let zk = zk(&server.connect_string());
    let (kv, k) = (kv(&zk), key("a/b/c"));
    assert_eq!(kv.get(&k).await.unwrap(), None);
    let created = kv.commit(Txn::new().absent(&k).put(&k, "1")).await.unwrap();
    let first = kv.get(&k).await.unwrap().unwrap();
    assert_eq!((first.created, first.modified, &first.value[..]), (created, created, &b"1"[..]));
    let modified = kv.commit(Txn::new().unmodified(&first).put(&k, "2")).await.unwrap();
    let second = kv.get(&k).await.unwrap().unwrap();
    assert_eq!((second.created, second.modified, &second.value[..]), (created, modified, &b"2"[..]));
    assert!(modified > created);
    let error = kv.commit(Txn::new().unmodified(&first).put(&k, "3")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    let error = kv.commit(Txn::new().absent(&k).put(&k, "3")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert!(error.to_string().starts_with("zk: commit: "), "{error}");
    let gone = kv.commit(Txn::new().alive(&second).delete(&k)).await.unwrap();
    assert!(gone > modified);
    assert_eq!(kv.get(&k).await.unwrap(), None);
    assert_eq!(kv.scan(&Range::Subtree(Key::root())).await.unwrap().entries, []);
}

#[tokio::test]
async fn a_watch_tells_of_everything() {
    let Some(server) = ZooKeeper::start_or_skip().await else { return };
    let zk = zk(&server.connect_string());
    let (kv, leases) = (kv(&zk), leases(&zk));
    let mut follower = Follower::start(&zk, Range::Subtree(key("a"))).await.unwrap();
    assert!(follower.entries.is_empty());
    let (one, two) = (key("a/b/1"), key("a/b/2"));
    kv.commit(Txn::new().put(&one, "1")).await.unwrap();
    follower.until("one", |f| f.value("a/b/1") == Some(b"1")).await;
    let grant = leases.grant(Duration::from_secs(5)).await.unwrap();
    kv.commit(Txn::new().absent(&two).put_leased(&two, "2", grant.id)).await.unwrap();
    assert_eq!(kv.get(&two).await.unwrap().unwrap().lease, Some(grant.id));
    follower.until("two", |f| f.value("a/b/2") == Some(b"2")).await;
    leases.renew(grant.id).await.unwrap();
    leases.revoke(grant.id).await.unwrap();
    assert_eq!(kv.get(&two).await.unwrap(), None);
    follower.until("two is gone", |f| f.value("a/b/2").is_none()).await;
    assert_eq!(leases.renew(grant.id).await.unwrap_err().kind(), ErrorKind::LeaseLost);
}
