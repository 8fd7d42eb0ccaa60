//! Entries: reading, writing, listing, and what else is in the tree.

use discovery::{
    ErrorKind,
    kv::{Key, Range, Txn},
};
use discovery_testbed::{ZooKeeper, ZooKeeperEnsemble};
use futures_util::future::join_all;

use crate::common::*;

#[tokio::test]
async fn entries_come_and_go() {
    let Some(server) = ZooKeeper::start_or_skip().await else { return };
    let zk = zk(&server.connect_string());
    let (kv, k) = (kv(&zk), key("a/b/c"));
    assert_eq!(kv.get(&k).await.unwrap(), None);
    assert_eq!(kv.scan(&everything()).await.unwrap().entries, []);

    let created = kv.commit(Txn::new().absent(&k).put(&k, "1")).await.unwrap();
    let first = kv.get(&k).await.unwrap().unwrap();
    assert_eq!((first.created, first.modified, &first.value[..]), (created, created, &b"1"[..]));

    let modified = kv.commit(Txn::new().put(&k, "2")).await.unwrap();
    let second = kv.get(&k).await.unwrap().unwrap();
    assert_eq!((second.created, second.modified, &second.value[..]), (created, modified, &b"2"[..]));
    assert_eq!(listed(&zk, &everything()).await, ["a/b/c=2"]);
    assert_eq!(kv.scan(&everything()).await.unwrap().revision, modified);

    let deleted = kv.commit(Txn::new().delete(&k)).await.unwrap();
    assert!(created < modified && modified < deleted);
    assert_eq!(kv.get(&k).await.unwrap(), None);
    kv.commit(Txn::new().delete(&k)).await.expect("a key that is not there stays so");
}

#[tokio::test]
async fn transactions_are_all_or_nothing() {
    let Some(server) = ZooKeeper::start_or_skip().await else { return };
    let zk = zk(&server.connect_string());
    let (kv, [a, b, c]) = (kv(&zk), ["x/a", "y/b", "z/c"].map(key));
    let together = kv.commit(Txn::new().absent(&a).absent(&b).put(&a, "1").put(&b, "1")).await.unwrap();
    let (entry_a, entry_b) = (kv.get(&a).await.unwrap().unwrap(), kv.get(&b).await.unwrap().unwrap());
    assert_eq!((entry_a.modified, entry_b.created), (together, together));

    let error = kv.commit(Txn::new().absent(&c).absent(&b).put(&c, "2").put(&b, "2")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict, "{error:?}");
    assert!(error.to_string().starts_with("zk: commit: /y/b"), "{error}");
    assert_eq!(kv.get(&c).await.unwrap(), None);

    kv.commit(
        Txn::new().unmodified(&entry_a).alive(&entry_b).absent(&c).put(&c, "3").delete(&a).put(&b, "3"),
    )
    .await
    .unwrap();
    assert_eq!(listed(&zk, &everything()).await, ["y/b=3", "z/c=3"]);
    let error = kv.commit(Txn::new().unmodified(&entry_a).put(&c, "4")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
}

#[tokio::test]
async fn many_creations_at_once_are_each_on_their_own() {
    let Some(server) = ZooKeeper::start_or_skip().await else { return };
    let zk = zk(&server.connect_string());
    let (kv, keys) = (kv(&zk), (0..500).map(|n| key(&format!("s{}/n{n}", n % 7))).collect::<Vec<_>>());
    kv.commit(Txn::new().put(&keys[123], "theirs")).await.unwrap();

    // Two want the same key, and one a key that exists: none of that is any of the others' business.
    let wanted = keys.iter().chain([&keys[7]]);
    let create = |key| kv.commit(Txn::new().absent(key).put(key, "ours"));
    let outcomes = join_all(wanted.map(create)).await;
    let refused: Vec<_> = outcomes.iter().filter_map(|outcome| outcome.as_ref().err()).collect();
    assert_eq!(refused.len(), 2, "{refused:?}");
    assert!(refused.iter().all(|error| error.kind() == ErrorKind::Conflict), "{refused:?}");
    assert!(outcomes[123].is_err());

    let entries = kv.scan(&everything()).await.unwrap().entries;
    assert_eq!(entries.len(), 500);
    for (key, outcome) in keys.iter().zip(&outcomes) {
        let Ok(revision) = outcome else { continue };
        let entry = kv.get(key).await.unwrap().unwrap();
        assert_eq!((entry.created, entry.modified), (*revision, *revision), "{key}");
    }
}

#[tokio::test]
async fn ranges_are_sorted_and_complete() {
    let Some(server) = ZooKeeper::start_or_skip().await else { return };
    let zk = zk(&server.connect_string());
    for chunk in (0..1050).collect::<Vec<_>>().chunks(90) {
        let txn =
            chunk.iter().fold(Txn::new(), |txn, n| txn.put(&key(&format!("a/b/{n:04}")), n.to_string()));
        kv(&zk).commit(txn).await.unwrap();
    }
    for other in ["a-b/1", "a/0", "a/b/c/deep/er", "ab/1"] {
        kv(&zk).commit(Txn::new().put(&key(other), "x")).await.unwrap();
    }
    let numbered: Vec<_> = (0..1050).map(|n| format!("a/b/{n:04}={n}")).collect();
    assert_eq!(listed(&zk, &Range::Children(key("a/b"))).await, numbered);
    let subtree = listed(&zk, &Range::Subtree(key("a"))).await;
    assert_eq!(subtree.len(), 1052);
    assert_eq!((subtree[0].as_str(), subtree[1051].as_str()), ("a/0=x", "a/b/c/deep/er=x"));
    assert_eq!(listed(&zk, &Range::Children(key("a"))).await, ["a/0=x"]);
    assert_eq!(listed(&zk, &Range::Children(Key::root())).await, [""; 0]);
    assert_eq!(kv(&zk).scan(&everything()).await.unwrap().entries.len(), 1054);
}

#[tokio::test]
async fn a_key_may_have_a_value_and_keys_below_it() {
    let Some(server) = ZooKeeper::start_or_skip().await else { return };
    let zk = zk(&server.connect_string());
    let (kv, top, below) = (kv(&zk), key("top"), key("top/below"));
    kv.commit(Txn::new().absent(&below).put(&below, "b")).await.unwrap();
    assert_eq!(kv.get(&top).await.unwrap(), None, "a directory is no entry");

    for round in 0..2 {
        kv.commit(Txn::new().absent(&top).put(&top, "t")).await.unwrap_or_else(|e| panic!("{round}: {e}"));
        assert_eq!(listed(&zk, &everything()).await, ["top=t", "top/below=b"]);
        let entry = kv.get(&top).await.unwrap().unwrap();
        kv.commit(Txn::new().unmodified(&entry).delete(&top)).await.unwrap();
        assert_eq!(listed(&zk, &everything()).await, ["top/below=b"]);
    }

    let lease = leases(&zk).grant(STEADY).await.unwrap().id;
    let error = kv.commit(Txn::new().put_leased(&top, "t", lease)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error:?}");
    kv.commit(Txn::new().delete(&below)).await.unwrap();
    let leaf = key("leaf");
    kv.commit(Txn::new().put_leased(&leaf, "l", lease)).await.unwrap();
    let error = kv.commit(Txn::new().put(&key("leaf/x/y"), "b")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error:?}");
}

#[tokio::test]
async fn a_transaction_may_write_keys_above_and_below() {
    let Some(server) = ZooKeeper::start_or_skip().await else { return };
    let zk = zk(&server.connect_string());
    let (kv, [a, b, c]) = (kv(&zk), ["a", "a/b", "a/b/c"].map(key));
    for order in [[&a, &b, &c], [&c, &b, &a], [&b, &a, &c]] {
        let absent = order.iter().fold(Txn::new(), |txn, key| txn.absent(key));
        kv.commit(order.iter().fold(absent, |txn, key| txn.put(key, "x"))).await.unwrap();
        assert_eq!(listed(&zk, &everything()).await, ["a=x", "a/b=x", "a/b/c=x"]);
        kv.commit(Txn::new().delete(&a).put(&key("a/d"), "x").delete(&c)).await.unwrap();
        assert_eq!(listed(&zk, &everything()).await, ["a/b=x", "a/d=x"]);
        kv.commit(Txn::new().delete(&key("a/d")).delete(&b).put(&a, "y")).await.unwrap();
        assert_eq!(listed(&zk, &everything()).await, ["a=y"]);
        kv.commit(Txn::new().delete(&a)).await.unwrap();
    }
}

#[tokio::test]
async fn foreign_nodes_hide_nothing() {
    let Some(server) = ZooKeeper::start_or_skip().await else { return };
    let zk = zk(&server.connect_string());
    let stranger = stranger(&server.connect_string()).await;
    let secret = [raw_acl()];
    for (path, data) in [
        ("/cn/s/1", &b"one"[..]),
        ("/cn/s/a name", b"x"),
        ("/cn/s/n\u{f6}n/below", b"x"),
        ("/cn/s/empty/but/deep", b"y"),
        ("/elsewhere/1", b"x"),
        ("/cn/s/2", b"\xff\0two"),
    ] {
        plant(&stranger, path, data).await;
    }
    for n in 0..5 {
        plant(&stranger, &format!("/cn/s/huge{n}"), &vec![b'!'; 1_000_000]).await;
    }
    let hidden = zookeeper_client::CreateMode::Persistent.with_acls(zookeeper_client::Acls::new(&secret));
    stranger.create("/cn/s/hidden", b"x", &hidden).await.unwrap();

    let scan = kv(&zk).scan(&Range::Subtree(key("s"))).await.unwrap();
    let keys: Vec<_> = scan.entries.iter().map(|entry| entry.key.as_str()).collect();
    let huge = ["s/huge0", "s/huge1", "s/huge2", "s/huge3", "s/huge4"];
    assert_eq!(keys, [&["s/1", "s/2", "s/empty/but/deep"], &huge[..]].concat());
    assert_eq!(scan.entries[1].value, &b"\xff\0two"[..]);
    assert_eq!(scan.entries[7].value.len(), 1_000_000);
    assert_eq!(kv(&zk).get(&key("s/hidden")).await.unwrap_err().kind(), ErrorKind::Denied);
}

/// Lets nobody read.
fn raw_acl() -> zookeeper_client::Acl {
    zookeeper_client::Acl::new(zookeeper_client::Permission::CREATE, zookeeper_client::AuthId::anyone())
}

#[tokio::test]
async fn what_is_too_large_never_reaches_the_server() {
    let Some(server) = ZooKeeper::start_or_skip().await else { return };
    let zk = zk_at(&format!("{}/cn?max_record=100000", server.connect_string()));
    let large = "x".repeat(100_001);
    let error = kv(&zk).commit(Txn::new().put(&key("a"), large)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    let txn = (0..11).fold(Txn::new(), |txn, n| txn.put(&key(&n.to_string()), "x".repeat(100_000)));
    let error = kv(&zk).commit(txn).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error:?}");
    let error = kv(&zk).commit(Txn::new().put(&key(".epoch/1"), "x")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error:?}");
    assert!(kv(&zk).get(&key("a/.keep")).await.is_err());
    kv(&zk).commit(Txn::new().put(&key("a"), "x".repeat(100_000))).await.unwrap();
}

#[tokio::test]
async fn the_root_of_the_server_can_be_the_chroot() {
    let Some(server) = ZooKeeper::start_or_skip().await else { return };
    let zk = zk_at(&server.connect_string());
    kv(&zk).commit(Txn::new().put(&key("a/1"), "x")).await.unwrap();
    assert_eq!(listed(&zk, &everything()).await, ["a/1=x"]);
    let mut follower = Follower::start(&zk, &everything()).await.unwrap();
    kv(&zk).commit(Txn::new().put(&key("b"), "y")).await.unwrap();
    follower.until("b", |f| f.value("b").is_some()).await;
    assert_eq!(follower.changes.len(), 1, "counters do not show: {:?}", follower.changes);
    assert_eq!(kv(&zk).get(&key("zookeeper/quota")).await.unwrap_err().kind(), ErrorKind::Invalid);
}

#[tokio::test]
async fn a_missing_chroot_is_created_by_the_first_write_only() {
    let Some(server) = ZooKeeper::start_or_skip().await else { return };
    let zk = zk_at(&format!("{}/deep/down", server.connect_string()));
    let stranger = stranger(&server.connect_string()).await;
    assert_eq!(listed(&zk, &everything()).await, [""; 0]);
    assert_eq!(stranger.check_stat("/deep").await.unwrap(), None);
    kv(&zk).commit(Txn::new().put(&key("a/b"), "x")).await.unwrap();
    assert_eq!(stranger.get_data("/deep/down/a/b").await.unwrap().0, b"x");
    // Somebody wipes everything while we are at it.
    let wiped = server.cli().run(["deleteall", "/deep"]).await.unwrap();
    assert_eq!(kv(&zk).get(&key("a/b")).await.unwrap(), None, "{wiped}");
    kv(&zk).commit(Txn::new().put(&key("a/b"), "y")).await.unwrap();
    assert_eq!(listed(&zk, &everything()).await, ["a/b=y"]);
}

#[tokio::test]
async fn reads_see_the_writes_of_all_sessions_of_a_handle() {
    let Some(ensemble) = ZooKeeperEnsemble::start_or_skip(3).await else { return };
    let zk = zk(&ensemble.connect_string());
    let mut sessions = Vec::new();
    for _ in 0..4 {
        sessions.push(leases(&zk).grant(STEADY).await.unwrap().id);
    }
    for n in 0..400 {
        let (k, lease) = (key(&format!("own/{}", n % 7)), sessions[n % 4]);
        let written = kv(&zk).commit(Txn::new().put_leased(&k, n.to_string(), lease)).await.unwrap();
        let read = kv(&zk).get(&k).await.unwrap().unwrap();
        assert_eq!((read.modified, &read.value[..]), (written, n.to_string().as_bytes()));
        if n % 10 == 0 {
            assert!(kv(&zk).scan(&Range::Children(key("own"))).await.unwrap().revision >= written);
        }
    }
    leases(&zk).revoke(sessions[0]).await.unwrap();
    let left = kv(&zk).scan(&Range::Children(key("own"))).await.unwrap().entries;
    assert!(left.iter().all(|entry| entry.lease != Some(sessions[0]) && entry.lease.is_some()), "{left:?}");
}
