//! Watches: where they continue, what they pass over, and what they cost.

use std::time::Duration;

use discovery::{
    ErrorKind, Revision,
    kv::{KvUpdate, Range, Txn},
};
use discovery_testbed::{Etcd, Proxy};
use etcd_client::{Client, TxnOp};
use futures_util::StreamExt;
use tokio::time::timeout;

use crate::common::{Follower, etcd, etcd_at, eventually, everything, key, kv, soon, stranger};

async fn compact(stranger: &mut Client) {
    let now = stranger.get("/", None).await.unwrap().header().unwrap().revision();
    stranger.compact(now, None).await.unwrap();
}

#[tokio::test]
async fn what_others_write_elsewhere_does_not_delay_a_watch_that_continues() {
    let Some(server) = Etcd::builder().unsynced().start_or_skip().await else { return };
    let etcd = etcd(&server.connect_string());
    let range = Range::Subtree(key("a"));
    kv(&etcd).commit(Txn::new().put(&key("a/1"), "1")).await.unwrap();
    let mut follower = Follower::start(&etcd, &range).await.unwrap();
    kv(&etcd).commit(Txn::new().put(&key("b/1"), "1")).await.unwrap();
    let update = follower.resume(&etcd, &range).await.unwrap();
    assert!(matches!(update, KvUpdate::Progress(_)), "{update:?}");
    kv(&etcd).commit(Txn::new().put(&key("a/2"), "1")).await.unwrap();
    follower.until("the news", |follower| follower.value("a/2").is_some()).await;
    assert_eq!((follower.resets, follower.changes.len()), (1, 1));
}

/// Else a client that has nothing else to do would fail, attempt by attempt, if the pauses between them are longer than
/// a connection lives.
#[tokio::test]
async fn a_watch_begins_and_continues_though_the_connection_broke_while_nobody_looked() {
    let Some(server) = Etcd::builder().unsynced().start_or_skip().await else { return };
    let proxy = Proxy::start(server.address()).unwrap();
    let etcd = etcd(&proxy.address().to_string());
    let seen = kv(&etcd).commit(Txn::new().put(&key("a"), "1")).await.unwrap();
    for after in [None, Some(seen)] {
        proxy.cut().await;
        // Often enough for the runtime to look at its sockets.
        for _ in 0..1000 {
            tokio::task::yield_now().await;
        }
        let first = soon("something is told", kv(&etcd).watch(&everything(), after).next()).await;
        first.expect("a watch tells something first").unwrap();
    }
}

/// Else nothing is ever told where no connection lives for as long as it takes to be sure that there is nothing more.
#[tokio::test]
async fn what_was_missed_is_told_though_the_connection_breaks_before_that_is_all() {
    let Some(server) = Etcd::builder().unsynced().start_or_skip().await else { return };
    let proxy = Proxy::start(server.address()).unwrap();
    let etcd = etcd(&proxy.address().to_string());
    let put = async |name| kv(&etcd).commit(Txn::new().put(&key(name), "1")).await.unwrap();
    let seen = put("a/1").await;
    put("a/2").await;
    put("b/1").await;
    eventually("something is told", async || {
        let mut updates = kv(&etcd).watch(&Range::Subtree(key("a")), Some(seen));
        // Longer than the server needs, mostly, and shorter than the watch waits for more.
        let life = Duration::from_millis(200);
        let told = if let Ok(told) = timeout(life, updates.next()).await {
            told
        } else {
            proxy.cut().await;
            updates.next().await
        };
        matches!(told, Some(Ok(KvUpdate::Delta { .. })))
    })
    .await;
}

/// Thousands of revisions, which the server tells in several messages, each headed by the last of all.
#[tokio::test]
async fn a_long_absence_is_made_up_for_in_order() {
    let Some(server) = Etcd::builder().unsynced().start_or_skip().await else { return };
    let etcd = etcd(&server.connect_string());
    let mut stranger = stranger(&server.connect_string()).await;
    let mut follower = Follower::start(&etcd, &everything()).await.unwrap();
    for n in 1..=3500 {
        stranger.put("/cn/a", n.to_string(), None).await.unwrap();
    }
    follower.resume(&etcd, &everything()).await.unwrap();
    // Left again in the middle of it, and again.
    for _ in 0..3 {
        follower.resume(&etcd, &everything()).await.unwrap();
    }
    follower.until("the last", |follower| follower.value("a") == Some(b"3500")).await;
    assert_eq!(follower.resets, 1);
    let told: Vec<usize> = follower
        .changes
        .iter()
        .map(|change| match change {
            discovery::kv::KvChange::Put(entry) => str::from_utf8(&entry.value).unwrap().parse().unwrap(),
            discovery::kv::KvChange::Delete(_) => panic!("nothing was deleted"),
        })
        .collect();
    assert_eq!(told, (1..=3500).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_message_may_be_large() {
    let Some(server) = Etcd::builder().unsynced().start_or_skip().await else { return };
    let etcd = etcd_at(&format!("{}/cn?max_record=1000000", server.address()));
    let mut stranger = stranger(&server.connect_string()).await;
    let mut follower = Follower::start(&etcd, &everything()).await.unwrap();
    // Together in one message, to who has been away.
    for n in 0..12 {
        stranger.put(format!("/cn/a/{n}"), vec![b'x'; 1_000_000], None).await.unwrap();
    }
    follower.resume(&etcd, &everything()).await.unwrap();
    follower.until("all", |follower| follower.entries.len() == 12).await;
    assert_eq!(follower.resets, 1);
}

#[tokio::test]
async fn what_is_compacted_is_read_again_and_only_then() {
    let Some(server) = Etcd::builder().unsynced().start_or_skip().await else { return };
    let etcd = etcd(&server.connect_string());
    let mut stranger = stranger(&server.connect_string()).await;
    kv(&etcd).commit(Txn::new().put(&key("a"), "1").put(&key("b"), "1")).await.unwrap();
    let mut follower = Follower::start(&etcd, &everything()).await.unwrap();
    // Nothing was missed, so nothing that was compacted matters.
    compact(&mut stranger).await;
    follower.resume(&etcd, &everything()).await.unwrap();
    assert_eq!(follower.resets, 1);
    stranger.delete("/cn/a", None).await.unwrap();
    stranger.put("/cn/c", "1", None).await.unwrap();
    compact(&mut stranger).await;
    let update = follower.resume(&etcd, &everything()).await.unwrap();
    assert!(matches!(update, KvUpdate::Reset(_)), "{update:?}");
    assert_eq!(follower.entries.keys().map(discovery::kv::Key::as_str).collect::<Vec<_>>(), ["b", "c"]);
}

#[tokio::test]
async fn what_was_never_and_what_is_to_come_are_not_continued_from() {
    let Some(server) = Etcd::builder().unsynced().start_or_skip().await else { return };
    let etcd = etcd(&server.connect_string());
    kv(&etcd).commit(Txn::new().put(&key("a"), "1")).await.unwrap();
    for after in [0, u64::MAX, u64::MAX / 2, 1_000_000] {
        let mut follower = Follower::start(&etcd, &everything()).await.unwrap();
        follower.revision = Revision(after);
        let update = follower.resume(&etcd, &everything()).await;
        let told = matches!(&update, Ok(KvUpdate::Reset(_) | KvUpdate::Delta { .. }));
        assert!(told, "{after}: {update:?}");
        assert_eq!(follower.value("a"), Some(&b"1"[..]));
    }
}

/// A service is itself alone: what happens below its children is passed over.
#[tokio::test]
async fn what_happens_below_children_is_progress() {
    let Some(server) = Etcd::builder().unsynced().start_or_skip().await else { return };
    let etcd = etcd(&server.connect_string());
    let mut follower = Follower::start(&etcd, &Range::Children(key("a"))).await.unwrap();
    let below = kv(&etcd).commit(Txn::new().put(&key("a/b/c"), "1")).await.unwrap();
    follower.until("to have come so far", |follower| follower.revision >= below).await;
    assert!(follower.changes.is_empty());
    kv(&etcd).commit(Txn::new().put(&key("a/b"), "1").put(&key("a/b/d"), "1")).await.unwrap();
    follower.until("the news", |follower| !follower.changes.is_empty()).await;
    assert_eq!(follower.changes.len(), 1);
}

#[tokio::test]
async fn what_loses_its_value_is_gone() {
    let Some(server) = Etcd::builder().unsynced().start_or_skip().await else { return };
    let etcd = etcd(&server.connect_string());
    let mut stranger = stranger(&server.connect_string()).await;
    kv(&etcd).commit(Txn::new().put(&key("a"), "1")).await.unwrap();
    let mut follower = Follower::start(&etcd, &everything()).await.unwrap();
    stranger.put("/cn/a", "", None).await.unwrap();
    follower.until("it is gone", |follower| follower.saw_removal("a")).await;
    // And what never was an entry does not arrive: its deletion is told, which harms nobody.
    let puts = [TxnOp::put("/cn/.fence/1", "1", None), TxnOp::put("/cn/x y", "1", None)];
    stranger.txn(etcd_client::Txn::new().and_then(puts)).await.unwrap();
    kv(&etcd).commit(Txn::new().put(&key("b"), "1")).await.unwrap();
    follower.until("what comes after", |follower| follower.value("b").is_some()).await;
    assert_eq!(follower.entries.len(), 1);
}

#[tokio::test]
async fn a_change_costs_no_request() {
    let Some(server) = Etcd::builder().unsynced().start_or_skip().await else { return };
    let etcd = etcd(&server.connect_string());
    let mut stranger = stranger(&server.connect_string()).await;
    let mut follower = Follower::start(&etcd, &everything()).await.unwrap();
    let requests = async || server.metric("grpc_server_started_total").await.unwrap();
    let before = requests().await;
    for n in 0..100 {
        stranger.put("/cn/a", n.to_string(), None).await.unwrap();
    }
    follower.until("the last", |follower| follower.value("a") == Some(b"99")).await;
    assert!(requests().await - before < 101.0 + 1.0, "one for each write, by the stranger");
}

#[tokio::test]
async fn a_silent_server_is_noticed_in_time_and_a_quiet_one_is_not_silent() {
    let Some(server) = Etcd::builder().unsynced().start_or_skip().await else { return };
    let line = discovery_testbed::Proxy::start(server.address()).unwrap();
    let etcd = etcd_at(&format!("{}/cn?silence_timeout=1s", line.address()));
    let mut follower = Follower::start(&etcd, &everything()).await.unwrap();
    // Several times the bound: the signs of life that are asked for must not look like an attack to the server.
    let quiet = tokio::time::timeout(Duration::from_secs(8), follower.next()).await;
    assert!(quiet.is_err(), "{quiet:?}");
    line.black_hole().await;
    let start = tokio::time::Instant::now();
    let error = soon("the end", follower.failure()).await;
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
    // And what a busy machine adds.
    assert!(start.elapsed() < Duration::from_millis(2500), "{:?}", start.elapsed());
}

/// The server says so by ending the watch, not by refusing the request.
#[tokio::test]
async fn a_login_that_has_expired_is_renewed_for_watches_too() {
    let server = Etcd::builder().unsynced().auth("me", "s3cret").token_ttl(Duration::from_secs(1));
    let Some(server) = server.start_or_skip().await else { return };
    let etcd = etcd(&format!("me:s3cret@{}", server.address()));
    kv(&etcd).commit(Txn::new().put(&key("a"), "1")).await.unwrap();
    let mut follower = Follower::start(&etcd, &everything()).await.unwrap();
    // Nobody calls for longer than a token lives.
    tokio::time::sleep(Duration::from_secs(4)).await;
    if let Err(error) = follower.resume(&etcd, &everything()).await {
        assert!(error.is_transient(), "{error}");
        follower.resume(&etcd, &everything()).await.unwrap();
    }
    kv(&etcd).commit(Txn::new().put(&key("a"), "2")).await.unwrap();
    follower.until("the news", |follower| follower.value("a") == Some(b"2")).await;
}

/// Whoever reads seldom has not heard the signs of life, which is not the server's fault.
#[tokio::test]
async fn a_slow_reader_does_not_take_the_server_for_silent() {
    let Some(server) = Etcd::builder().unsynced().start_or_skip().await else { return };
    let etcd = etcd_at(&format!("{}/cn?silence_timeout=600ms", server.address()));
    let mut follower = Follower::start(&etcd, &everything()).await.unwrap();
    tokio::time::sleep(Duration::from_secs(2)).await;
    kv(&etcd).commit(Txn::new().put(&key("a"), "1")).await.unwrap();
    follower.until("the news", |follower| follower.value("a").is_some()).await;
}

/// A revision that this handle has not met may be of another history.
#[tokio::test]
async fn what_another_handle_has_met_is_not_continued_from() {
    let Some(server) = Etcd::builder().unsynced().start_or_skip().await else { return };
    let first = etcd(&server.connect_string());
    kv(&first).commit(Txn::new().put(&key("a"), "1")).await.unwrap();
    let mut follower = Follower::start(&first, &everything()).await.unwrap();
    kv(&first).commit(Txn::new().put(&key("a"), "2")).await.unwrap();
    let second = etcd(&server.connect_string());
    follower.resume(&second, &everything()).await.unwrap();
    assert_eq!((follower.resets, follower.value("a")), (2, Some(&b"2"[..])));
}
