//! Watches: that they tell everything, once there is trouble nothing, and leave nothing behind.

use std::time::Duration;

use discovery::{
    Backend, Discovery, ErrorKind, KeyView,
    kv::{Key, KvUpdate, Range, Txn},
};
use discovery_testbed::{Proxy, ZooKeeper};
use futures_util::{FutureExt, StreamExt, future::join_all};
use tokio::time::Instant;

use crate::common::*;

#[tokio::test]
async fn a_watch_tells_what_is_there_and_what_happens() {
    let Some(server) = ZooKeeper::start_or_skip().await else { return };
    let zk = zk(&server.connect_string());
    let kv = kv(&zk);
    kv.commit(Txn::new().put(&key("a/1"), "x").put(&key("b/1"), "x")).await.unwrap();
    let mut children = Follower::start(&zk, &Range::Children(key("a"))).await.unwrap();
    let mut subtree = Follower::start(&zk, &Range::Subtree(key("a"))).await.unwrap();
    assert_eq!((children.value("a/1"), children.entries.len()), (Some(&b"x"[..]), 1));

    kv.commit(Txn::new().put(&key("a/1"), "y").put(&key("a/2"), "x").put(&key("a/s/3"), "x")).await.unwrap();
    kv.commit(Txn::new().put(&key("b/1"), "y")).await.unwrap();
    let deleted = kv.commit(Txn::new().delete(&key("a/1"))).await.unwrap();
    let last = kv.commit(Txn::new().put(&key("a/last"), "x")).await.unwrap();
    children.until("the last", |f| f.value("a/last").is_some()).await;
    subtree.until("the last", |f| f.value("a/last").is_some()).await;
    let keys = |f: &Follower| f.entries.keys().map(|key| key.as_str().to_owned()).collect::<Vec<_>>();
    assert_eq!(keys(&children), ["a/2", "a/last"]);
    assert_eq!(keys(&subtree), ["a/2", "a/last", "a/s/3"]);
    assert!(deleted < last && children.revision >= last && subtree.revision >= last);
}

#[tokio::test]
async fn a_deletion_comes_with_its_revision() {
    let Some(server) = ZooKeeper::start_or_skip().await else { return };
    let zk = zk(&server.connect_string());
    for (range, deleted) in
        [(Range::Children(key("a")), "a/1"), (Range::Key(key("a/1")), "a/1"), (Range::Key(key("b")), "b")]
    {
        kv(&zk).commit(Txn::new().put(&key(deleted), "x")).await.unwrap();
        let mut follower = Follower::start(&zk, &range).await.unwrap();
        let revision = kv(&zk).commit(Txn::new().delete(&key(deleted))).await.unwrap();
        follower.until("the deletion", |f| f.saw_removal(deleted)).await;
        assert_eq!(follower.revision, revision, "{range:?}");
    }
}

#[tokio::test]
async fn a_service_that_does_not_exist_can_be_watched() {
    let Some(server) = ZooKeeper::start_or_skip().await else { return };
    let zk = zk(&server.connect_string());
    let mut follower = Follower::start(&zk, &Range::Children(key("not/yet"))).await.unwrap();
    let mut alone = Follower::start(&zk, &Range::Key(key("not/yet/1"))).await.unwrap();
    assert!(follower.entries.is_empty() && alone.entries.is_empty());
    for round in 0..3 {
        kv(&zk).commit(Txn::new().put(&key("not/yet/1"), "x")).await.unwrap();
        for follower in [&mut follower, &mut alone] {
            follower.until("it is there", |f| f.value("not/yet/1").is_some()).await;
        }
        kv(&zk).commit(Txn::new().delete(&key("not/yet/1"))).await.unwrap();
        for follower in [&mut follower, &mut alone] {
            follower.until("it is gone", |f| f.entries.is_empty()).await;
        }
        // The directories go as well, as the server does to containers when it cleans up.
        let cli = server.cli();
        cli.run(["delete", "/cn/not/yet"]).await.unwrap_or_else(|error| panic!("round {round}: {error}"));
        cli.run(["delete", "/cn/not"]).await.unwrap();
    }
    assert!(
        follower.changes.iter().all(|change| change.key() == &key("not/yet/1")),
        "{:?}",
        follower.changes
    );
}

#[tokio::test]
async fn an_idle_watch_shows_that_it_lives() {
    let Some(server) = ZooKeeper::start_or_skip().await else { return };
    let zk = zk_at(&format!("{}/cn?session_timeout=3s", server.connect_string()));
    let mut follower = Follower::start(&zk, &Range::Children(key("a"))).await.unwrap();
    let elsewhere = kv(&zk).commit(Txn::new().put(&key("b"), "x")).await.unwrap();
    for _ in 0..3 {
        assert!(matches!(follower.next().await.unwrap(), KvUpdate::Progress(_)));
    }
    assert!(follower.revision >= elsewhere);
}

#[tokio::test]
async fn idle_watches_ask_for_a_sign_of_life_together() {
    let Some(server) = ZooKeeper::start_or_skip().await else { return };
    let zk = zk_at(&format!("{}/cn?session_timeout=3s", server.connect_string()));
    let ranges: Vec<_> = (0..100).map(|n| Range::Key(key(&format!("a/{n}")))).collect();
    let started = join_all(ranges.iter().map(|range| Follower::start(&zk, range))).await;
    let mut followers: Vec<_> = started.into_iter().map(Result::unwrap).collect();
    let before = requests(&server).await;
    for _ in 0..3 {
        for update in join_all(followers.iter_mut().map(Follower::next)).await {
            assert!(matches!(update.unwrap(), KvUpdate::Progress(_)));
        }
    }
    let requests = requests(&server).await - before;
    assert!(requests < 50, "{requests}");
}

#[tokio::test]
async fn a_cut_ends_a_watch_and_the_next_one_knows_all() {
    let Some(server) = ZooKeeper::start_or_skip().await else { return };
    let proxy = Proxy::start(server.address()).unwrap();
    let (zk, writer) = (zk(&proxy.address().to_string()), zk(&server.connect_string()));
    for round in 0..5 {
        let mut follower = started(&zk, &Range::Children(key("a"))).await;
        assert_eq!(follower.entries.len(), round);
        proxy.cut().await;
        kv(&writer).commit(Txn::new().put(&key(&format!("a/{round}")), "x")).await.unwrap();
        let error = follower.failure().await;
        assert!(error.is_transient() && error.to_string().starts_with("zk: watch: "), "{error:?}");
    }
}

#[tokio::test]
async fn silence_is_noticed_in_time() {
    let Some(server) = ZooKeeper::start_or_skip().await else { return };
    let proxy = Proxy::start(server.address()).unwrap();
    for timeout in ["3s", "1s"] {
        let zk = zk_at(&format!("{}/cn?session_timeout={timeout}", proxy.address()));
        let bound = zk.info().capabilities().detects_silence_within;
        let mut follower = started(&zk, &everything()).await;
        proxy.black_hole().await;
        let start = Instant::now();
        let error = follower.failure().await;
        // With room for a busy machine.
        assert!(start.elapsed() < bound + Duration::from_secs(1), "{:?}, not {bound:?}", start.elapsed());
        assert!(error.is_transient(), "{error:?}");
        proxy.pass().await;
    }
}

#[tokio::test]
async fn watches_on_one_key_do_not_know_of_each_other() {
    let Some(server) = ZooKeeper::start_or_skip().await else { return };
    let zk = zk(&server.connect_string());
    let (a, below) = (Range::Children(key("a")), Range::Children(key("a/b")));
    let mut stays = Follower::start(&zk, &a).await.unwrap();
    for n in 0..20 {
        let goes = Follower::start(&zk, &a).await.unwrap();
        let goes_too = Follower::start(&zk, &below).await.unwrap();
        drop(goes);
        drop(goes_too);
        let late = Follower::start(&zk, &a).await.unwrap();
        kv(&zk).commit(Txn::new().put(&key(&format!("a/{n}")), "x")).await.unwrap();
        stays.until("the news", |f| f.entries.len() == n + 1).await;
        drop(late);
    }
    assert_eq!(watched(&server).await, ["/cn/a"]);
    drop(stays);
    eventually("the server forgets the watch", async || watched(&server).await.is_empty()).await;
    kv(&zk).commit(Txn::new().put(&key("a/x"), "x")).await.expect("the session lives on");
}

#[tokio::test]
async fn many_changes_are_all_told_in_the_end() {
    let Some(server) = ZooKeeper::builder().unsynced().start_or_skip().await else { return };
    let (zk, writer) = (zk(&server.connect_string()), zk(&server.connect_string()));
    let mut follower = Follower::start(&zk, &Range::Subtree(Key::root())).await.unwrap();
    let mut state = std::collections::BTreeMap::new();
    // More than are taken at once, each key once, and nobody looks meanwhile: what is forgotten stays so.
    for n in 0..1200 {
        let k = key(&format!("once/{n}"));
        kv(&writer).commit(Txn::new().absent(&k).put(&k, "x")).await.unwrap();
        state.insert(k, "x".to_owned());
    }
    let mut random = 12345_u64;
    for n in 0..1000_u32 {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let k = key(&format!("s{}/{}", (random >> 33) % 3, (random >> 40) % 20));
        if (random >> 50).is_multiple_of(3) {
            kv(&writer).commit(Txn::new().delete(&k)).await.unwrap();
            state.remove(&k);
        } else {
            kv(&writer).commit(Txn::new().put(&k, n.to_string())).await.unwrap();
            state.insert(k, n.to_string());
        }
    }
    let same = |f: &Follower| {
        f.entries.len() == state.len() && state.iter().all(|(k, v)| f.value(k.as_str()) == Some(v.as_bytes()))
    };
    follower.until("the same state", same).await;
}

#[tokio::test]
async fn a_range_that_may_not_be_read_is_no_empty_range() {
    let Some(server) = ZooKeeper::start_or_skip().await else { return };
    let owner = zk_at(&format!("me:secret@{}/cn?acl=creator", server.connect_string()));
    kv(&owner).commit(Txn::new().put(&key("a/1"), "x")).await.unwrap();
    let zk = zk(&server.connect_string());
    for range in [Range::Children(key("a")), Range::Key(key("a/1"))] {
        let error = Follower::start(&zk, &range).await.err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Denied, "{error:?}");
    }
}

#[tokio::test]
async fn a_watch_of_one_key_reads_that_key_alone() {
    let Some(server) = ZooKeeper::builder().unsynced().start_or_skip().await else { return };
    let zk = zk(&server.connect_string());
    kv(&zk).commit(Txn::new().put(&key("a/b"), "x")).await.unwrap();
    let stranger = stranger(&server.connect_string()).await;
    let mut follower = Follower::start(&zk, &Range::Key(key("a/b"))).await.unwrap();
    let before = requests(&server).await;
    let writes = async {
        for n in 0..100 {
            for node in [format!("/cn/a/{n}"), format!("/cn/a/b/{n}")] {
                plant(&stranger, &node, b"x").await;
            }
        }
        stranger.set_data("/cn/a/b", b"y", None).await.unwrap();
    };
    tokio::join!(writes, follower.until("the news", |f| f.value("a/b") == Some(b"y")));
    let requests = requests(&server).await - before;
    // A write and a look at its directory each; one read; our own look at the counter, and pings.
    assert!(requests < 420, "{requests}");
    assert_eq!(follower.changes.len(), 1);
}

/// The client library can set watches anew on one session up to 128 KiB of their paths.
#[tokio::test]
async fn as_many_keys_as_one_likes_can_be_watched() {
    let Some(server) = ZooKeeper::builder().unsynced().start_or_skip().await else { return };
    let proxy = Proxy::start(server.address()).unwrap();
    let (zk, writer) = (zk(&proxy.address().to_string()), zk(&server.connect_string()));
    let keys: Vec<_> = (0..3000).map(|n| key(&format!("a/{n:057}"))).collect();
    let write = async |value: &str| {
        for keys in keys.chunks(100) {
            let txn = keys.iter().fold(Txn::new(), |txn, key| txn.put(key, value.to_owned()));
            kv(&writer).commit(txn).await.unwrap();
        }
    };
    let watcher = Discovery::new(zk.clone()).kv().unwrap();
    let mut views: Vec<_> = keys.iter().map(|key| watcher.view(Range::Key(key.clone()))).collect();
    all_told(&mut views, None).await;
    write("1").await;
    all_told(&mut views, Some("1")).await;
    for round in ["2", "3"] {
        proxy.cut().await;
        write(round).await;
        all_told(&mut views, Some(round)).await;
    }
    assert_eq!(watched(&server).await.len(), keys.len());
    drop(views);
    eventually("the server forgets the watches, and the sessions that were opened for them", async || {
        watched(&server).await.is_empty() && counter(&server, "zk_global_sessions").await == 2
    })
    .await;
}

#[tokio::test]
async fn a_watch_that_finds_no_room_says_what_to_do() {
    let Some(server) = ZooKeeper::builder().unsynced().start_or_skip().await else { return };
    let proxy = Proxy::start(server.address()).unwrap();
    let zk = zk_at(&format!("{}/cn?session_timeout=20s&connect_timeout=300ms", proxy.address()));
    let start = async |n| Follower::start(&zk, &Range::Key(key(&format!("a/{n:0500}")))).await;
    let sessions = async || counter(&server, "zk_global_sessions").await;
    let mut followers = Vec::new();
    while sessions().await < 2 {
        followers.push(start(followers.len()).await.unwrap());
    }
    followers.pop();
    eventually("its session ends", async || sessions().await == 1).await;

    proxy.black_hole().await;
    let error = start(followers.len()).await.err().unwrap();
    assert!(error.is_transient() && error.to_string().contains("maxClientCnxns"), "{error:?}");
    proxy.pass().await;
    start(followers.len()).await.unwrap();
}

/// Waits until each of the views of one key knows its value.
async fn all_told(views: &mut [KeyView], value: Option<&str>) {
    let told = views.iter_mut().map(async |view| {
        let known = |view: &KeyView| view.entries().values().next().map(|entry| entry.value.clone());
        while view.changed().await.is_ok() && known(view).as_deref() != value.map(str::as_bytes) {}
    });
    soon("all views", join_all(told)).await;
}

/// A watch, whatever happened to the connection just before.
async fn started(zk: &discovery_zk::Zk, range: &Range) -> Follower {
    let mut follower = None;
    eventually("a watch", async || {
        follower = Follower::start(zk, range).await.ok();
        follower.is_some()
    })
    .await;
    follower.unwrap()
}

/// How many requests a server has had.
async fn requests(server: &ZooKeeper) -> u64 {
    counter(server, "zk_packets_received").await
}

/// One of the counters that a server keeps.
async fn counter(server: &ZooKeeper, name: &str) -> u64 {
    let counters = server.four_letter_word("mntr").await.unwrap();
    let value = counters.lines().find_map(|line| line.strip_prefix(name));
    value.unwrap().trim().parse().unwrap()
}

/// The paths that a server has watches on.
async fn watched(server: &ZooKeeper) -> Vec<String> {
    let watches = server.four_letter_word("wchp").await.unwrap();
    watches.lines().filter(|line| line.starts_with('/')).map(str::to_owned).collect()
}

#[tokio::test]
async fn a_watch_that_is_seldom_polled_holds_up_nobody() {
    let Some(server) = ZooKeeper::start_or_skip().await else { return };
    let zk = zk_at(&format!("{}/cn?session_timeout=6s", server.connect_string()));
    let (mut seldom, mut other) = (kv(&zk).watch(&everything(), None), kv(&zk).watch(&everything(), None));
    seldom.next().await.unwrap().unwrap();
    other.next().await.unwrap().unwrap();
    // Its sign of life, and a while, so that one that is asked for from then on needs another one.
    assert!(matches!(soon("progress", other.next()).await, Some(Ok(KvUpdate::Progress(_)))));
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(seldom.next().now_or_never().is_none(), "it asks, and is not polled from now on");
    for _ in 0..2 {
        let next = soon("progress", other.next()).await;
        assert!(matches!(next, Some(Ok(KvUpdate::Progress(_)))), "{next:?}");
    }
}
