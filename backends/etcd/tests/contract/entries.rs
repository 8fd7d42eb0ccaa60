//! Entries: what is one, how many are read with how many requests, and where the limits are.

use discovery::{
    ErrorKind,
    kv::{Range, Txn},
};
use discovery_testbed::Etcd;
use etcd_client::{Client, TxnOp};

use crate::common::{Follower, etcd, etcd_at, everything, key, kv, listed, stranger};

async fn ranges(server: &Etcd) -> f64 {
    server.metric_labelled("grpc_server_started_total", "grpc_method=\"Range\"").await.unwrap()
}

/// Writes many small entries, as a stranger.
async fn fill(stranger: &mut Client, dir: &str, count: usize, value: &str) {
    for chunk in (0..count).collect::<Vec<_>>().chunks(100) {
        let puts: Vec<_> = chunk.iter().map(|n| TxnOp::put(format!("{dir}/{n:06}"), value, None)).collect();
        stranger.txn(etcd_client::Txn::new().and_then(puts)).await.unwrap();
    }
}

#[tokio::test]
async fn entries_are_where_etcdctl_finds_them() {
    let Some(server) = Etcd::builder().unsynced().start_or_skip().await else { return };
    let (etcd, bare) = (etcd(&server.connect_string()), etcd_at(&server.connect_string()));
    kv(&etcd).commit(Txn::new().put(&key("a/b"), "1")).await.unwrap();
    kv(&bare).commit(Txn::new().put(&key("a/b"), "2")).await.unwrap();
    let all = server.cli().run(["get", "--prefix", "/"]).await.unwrap();
    assert_eq!(all.lines().collect::<Vec<_>>(), ["/a/b", "2", "/cn/a/b", "1"]);
}

#[tokio::test]
async fn what_is_no_entry_is_left_out() {
    let Some(server) = Etcd::builder().unsynced().start_or_skip().await else { return };
    let etcd = etcd(&server.connect_string());
    let mut stranger = stranger(&server.connect_string()).await;
    for (path, value) in [
        ("/cn/a", "1"),
        ("/cn/a/empty", ""),
        ("/cn/a//b", "1"),
        ("/cn/a/b ", "1"),
        ("/cn/a/", "1"),
        ("/cn/", "1"),
        ("/cn", "1"),
        ("/cnx/a", "1"),
        ("/cn/.fence/7", "1"),
        ("cn/a", "1"),
    ] {
        stranger.put(path, value, None).await.unwrap();
    }
    assert_eq!(listed(&etcd, &everything()).await, ["a=1"]);
    assert!(kv(&etcd).get(&key("a/empty")).await.unwrap().is_none());
    let error = kv(&etcd).get(&key(".fence/7")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(kv(&etcd).commit(Txn::new().delete(&key(".fence/7"))).await.is_err());
}

/// A service is itself alone: what is below its children is passed over, however much that is.
#[tokio::test]
async fn children_are_read_without_what_is_below_them() {
    let Some(server) = Etcd::builder().unsynced().start_or_skip().await else { return };
    let etcd = etcd(&server.connect_string());
    let mut stranger = stranger(&server.connect_string()).await;
    fill(&mut stranger, "/cn/a/b", 5000, "below").await;
    fill(&mut stranger, "/cn/a/b/c", 5000, "further below").await;
    for child in ["1", "b", "b-1", "b0", "z"] {
        stranger.put(format!("/cn/a/{child}"), "1", None).await.unwrap();
    }
    let before = (ranges(&server).await, sent(&server).await);
    let children = Range::Children(key("a"));
    assert_eq!(listed(&etcd, &children).await, ["a/1=1", "a/b=1", "a/b-1=1", "a/b0=1", "a/z=1"]);
    let (ranges, sent) = (ranges(&server).await - before.0, sent(&server).await - before.1);
    // The first request is to see whether the cluster is the same.
    assert!(ranges <= 3.0, "{ranges} requests");
    assert!(sent < 100_000.0, "{sent} bytes");
    assert_eq!(listed(&etcd, &Range::Subtree(key("a"))).await.len(), 10_005);
}

/// However much is beside it and below it, and however much happens there.
#[tokio::test]
async fn one_key_costs_one_key() {
    let Some(server) = Etcd::builder().unsynced().start_or_skip().await else { return };
    let etcd = etcd(&server.connect_string());
    let mut stranger = stranger(&server.connect_string()).await;
    fill(&mut stranger, "/cn/a/b", 5000, "below").await;
    fill(&mut stranger, "/cn/a", 5000, "beside").await;
    kv(&etcd).commit(Txn::new().put(&key("a/b"), "1")).await.unwrap();
    let before = (ranges(&server).await, sent(&server).await);
    let one = Range::Key(key("a/b"));
    assert_eq!(listed(&etcd, &one).await, ["a/b=1"]);
    let mut follower = Follower::start(&etcd, &one).await.unwrap();
    assert!(ranges(&server).await - before.0 < 3.0);
    fill(&mut stranger, "/cn/a/b", 5000, "below").await;
    kv(&etcd).commit(Txn::new().put(&key("a/b"), "2")).await.unwrap();
    follower.until("the news", |follower| follower.value("a/b") == Some(b"2")).await;
    // Mostly what the stranger is answered for 5000 writes.
    let sent = sent(&server).await - before.1;
    assert!(sent < 150_000.0, "{sent} bytes");
    assert_eq!(follower.changes.len(), 1);
}

async fn sent(server: &Etcd) -> f64 {
    server.metric("etcd_network_client_grpc_sent_bytes_total").await.unwrap()
}

#[tokio::test]
async fn a_range_of_many_pages_is_of_one_moment() {
    let Some(server) = Etcd::builder().unsynced().start_or_skip().await else { return };
    let etcd = etcd(&server.connect_string());
    let mut stranger = stranger(&server.connect_string()).await;
    fill(&mut stranger, "/cn/a", 25_000, "1").await;
    let writer = tokio::spawn(async move {
        for n in 0.. {
            // Whoever sees the second has to see the first.
            let both = [
                TxnOp::put("/cn/a/000000", n.to_string(), None),
                TxnOp::put("/cn/a/024999", n.to_string(), None),
            ];
            stranger.txn(etcd_client::Txn::new().and_then(both)).await.unwrap();
        }
    });
    for range in [Range::Subtree(key("a")), Range::Children(key("a"))] {
        for _ in 0..5 {
            let scan = kv(&etcd).scan(&range).await.unwrap();
            assert_eq!(scan.entries.len(), 25_000);
            assert!(scan.entries.is_sorted_by(|a, b| a.key < b.key));
            let (first, last) = (&scan.entries[0], &scan.entries[24_999]);
            assert_eq!((&first.value, first.modified), (&last.value, last.modified));
            assert!(last.modified <= scan.revision);
        }
    }
    writer.abort();
}

/// The client library takes 4 MiB of an answer unless told otherwise.
#[tokio::test]
async fn answers_may_be_large() {
    let Some(server) = Etcd::builder().unsynced().start_or_skip().await else { return };
    let etcd = etcd_at(&format!("{}/cn?max_record=1000000", server.address()));
    let value = vec![b'x'; 1_000_000];
    for n in 0..20 {
        kv(&etcd).commit(Txn::new().put(&key(&format!("a/{n}")), value.clone())).await.unwrap();
    }
    let scan = kv(&etcd).scan(&everything()).await.unwrap();
    assert_eq!(scan.entries.iter().map(|entry| entry.value.len()).sum::<usize>(), 20_000_000);
    let error = kv(&etcd).commit(Txn::new().put(&key("a/1"), vec![b'x'; 1_000_001])).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    // Each of them fits, all of them do not.
    let together = (0..3).fold(Txn::new(), |txn, n| txn.put(&key(&format!("b/{n}")), value.clone()));
    let error = kv(&etcd).commit(together).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    assert!(error.to_string().contains("limit"), "{error}");
}
