//! Leases: what the server makes of a ttl, and what a renewal puts an end to.

use std::time::Duration;

use discovery::{ErrorKind, Outcome, kv::Txn};
use discovery_testbed::{Etcd, Proxy};
use etcd_client::{DeleteOptions, GetOptions};
use futures_util::{FutureExt, future::join_all};
use tokio::time::{Instant, sleep};

use crate::common::{etcd, etcd_at, eventually, everything, key, kv, leases, listed, soon, stranger};

#[tokio::test]
async fn a_ttl_is_rounded_up() {
    let Some(server) = Etcd::builder().unsynced().start_or_skip().await else { return };
    let etcd = etcd(&server.connect_string());
    for (asked, granted) in [(1, 1000), (1000, 1000), (2001, 3000), (10_000, 10_000)] {
        let grant = leases(&etcd).grant(Duration::from_millis(asked)).await.unwrap();
        assert_eq!(grant.ttl, Duration::from_millis(granted));
        assert_eq!(leases(&etcd).renew(grant.id).await.unwrap(), grant.ttl);
    }
    for bad in [Duration::ZERO, Duration::MAX] {
        assert_eq!(leases(&etcd).grant(bad).await.unwrap_err().kind(), ErrorKind::Invalid);
    }
}

#[tokio::test]
async fn a_transaction_may_bind_to_several_leases() {
    let Some(server) = Etcd::builder().unsynced().start_or_skip().await else { return };
    let etcd = etcd(&server.connect_string());
    let [one, two] = [30, 60].map(Duration::from_secs);
    let one = leases(&etcd).grant(one).await.unwrap().id;
    let two = leases(&etcd).grant(two).await.unwrap().id;
    let both = Txn::new().put_leased(&key("a"), "1", one).put_leased(&key("b"), "2", two);
    kv(&etcd).commit(both).await.unwrap();
    leases(&etcd).revoke(one).await.unwrap();
    assert!(kv(&etcd).get(&key("a")).await.unwrap().is_none());
    assert_eq!(kv(&etcd).get(&key("b")).await.unwrap().unwrap().lease, Some(two));
}

/// What was sent and never answered may arrive at any time, on a connection that was given up, until the lease is
/// renewed.
#[tokio::test]
async fn a_renewal_keeps_late_writes_out() {
    const WRITES: usize = 10;
    const LATE: Duration = Duration::from_secs(5);
    let Some(server) = Etcd::builder().unsynced().start_or_skip().await else { return };
    let [slow, quick] = [(); 2].map(|()| Proxy::start(server.address()).unwrap());
    quick.refuse().await;
    let etcd = etcd_at(&format!("{},{}/cn?call_timeout=500ms", slow.address(), quick.address()));
    let lease = leases(&etcd).grant(Duration::from_secs(60)).await.unwrap().id;
    let transactions = async || {
        let label = "grpc_method=\"Txn\"";
        server.metric_labelled("grpc_server_handled_total", label).await.unwrap()
    };
    let before = transactions().await;
    slow.delay(LATE, Duration::ZERO).await;
    quick.pass().await;
    let late = Instant::now() + LATE;
    let keys: Vec<_> = (0..WRITES).map(|n| key(&format!("a/{n}"))).collect();
    let write = |key| kv(&etcd).commit(Txn::new().put_leased(key, "late", lease));
    for outcome in join_all(keys.iter().map(write)).await {
        assert_eq!(outcome.unwrap_err().outcome(), Outcome::Unknown);
    }
    eventually("the lease to be renewed", async || leases(&etcd).renew(lease).await.is_ok()).await;
    assert!(Instant::now() < late && listed(&etcd, &everything()).await.is_empty());
    let all = before + 10.0;
    eventually("all writes to have arrived", async || transactions().await >= all).await;
    assert_eq!(listed(&etcd, &everything()).await, [""; 0], "arrived behind the renewal");
    // What is written from now on is as good as ever.
    write(&keys[0]).await.unwrap();
    assert_eq!(listed(&etcd, &everything()).await, ["a/0=late"]);
}

/// The fence is not there unless it has to be, is nobody's entry, and goes with its lease.
#[tokio::test]
async fn a_fence_is_put_up_only_in_doubt() {
    let Some(server) = Etcd::builder().unsynced().start_or_skip().await else { return };
    let line = Proxy::start(server.address()).unwrap();
    let etcd = etcd_at(&format!("{}/cn?call_timeout=300ms", line.address()));
    let mut stranger = stranger(&server.connect_string()).await;
    let mut vandal = stranger.clone();
    let mut fences = async || {
        let below = GetOptions::new().with_prefix();
        stranger
            .get("/cn/.fence/", Some(below))
            .await
            .unwrap()
            .kvs()
            .iter()
            .map(etcd_client::KeyValue::version)
            .collect::<Vec<_>>()
    };
    let lease = leases(&etcd).grant(Duration::from_secs(60)).await.unwrap().id;
    kv(&etcd).commit(Txn::new().put_leased(&key("a"), "1", lease)).await.unwrap();
    leases(&etcd).renew(lease).await.unwrap();
    assert_eq!(fences().await, [0; 0]);
    for round in 1..=3 {
        line.black_hole().await;
        // Given up by its caller, which is as good as an answer that was lost.
        let written = kv(&etcd).commit(Txn::new().put_leased(&key("a"), "2", lease));
        assert!(tokio::time::timeout(Duration::from_millis(50), written).await.is_err());
        line.cut().await;
        line.pass().await;
        eventually("the lease to be renewed", async || leases(&etcd).renew(lease).await.is_ok()).await;
        leases(&etcd).renew(lease).await.unwrap();
        assert_eq!(fences().await, [round]);
        kv(&etcd).commit(Txn::new().put_leased(&key("a"), "3", lease)).await.unwrap();
    }
    // A stranger tears it down: no reason to be locked out.
    let below = DeleteOptions::new().with_prefix();
    vandal.delete("/cn/.fence/", Some(below)).await.unwrap();
    kv(&etcd).commit(Txn::new().put_leased(&key("a"), "4", lease)).await.unwrap();
    assert_eq!(kv(&etcd).scan(&everything()).await.unwrap().entries.len(), 1);
    leases(&etcd).revoke(lease).await.unwrap();
    assert_eq!(fences().await, [0; 0]);
}

/// A renewal puts an end to what waits in a queue as well, whose callers have left.
#[tokio::test]
async fn a_renewal_keeps_out_who_waits_in_a_batch() {
    let Some(server) = Etcd::builder().unsynced().start_or_skip().await else { return };
    let line = Proxy::start(server.address()).unwrap();
    let etcd = etcd_at(&format!("{}/cn?call_timeout=1s", line.address()));
    let lease = leases(&etcd).grant(Duration::from_secs(60)).await.unwrap().id;
    line.black_hole().await;
    let keys: Vec<_> = (0..40).map(|n| key(&format!("a/{n}"))).collect();
    let create = |key| kv(&etcd).commit(Txn::new().absent(key).put_leased(key, "late", lease));
    // The first few go at once and hang; the others wait behind them, come later, and leave when those have failed.
    let (first, others) = keys.split_at(4);
    let hanging = join_all(first.iter().map(create));
    let waiting = async {
        sleep(Duration::from_millis(500)).await;
        join_all(others.iter().map(create)).await
    };
    let (hanging, waiting) = tokio::join!(hanging, waiting);
    assert!(hanging.iter().chain(&waiting).all(Result::is_err));
    line.pass().await;
    eventually("the lease to be renewed", async || leases(&etcd).renew(lease).await.is_ok()).await;
    let there = listed(&etcd, &everything()).await;
    // Time to arrive late: the batch was given a second when it was made up.
    sleep(Duration::from_secs(1)).await;
    assert_eq!(listed(&etcd, &everything()).await, there, "arrived behind the renewal");
}

/// Renewing and writing at once: nobody fails because of the other.
#[tokio::test]
async fn fences_that_move_are_no_obstacle_to_those_who_write() {
    let Some(server) = Etcd::builder().unsynced().start_or_skip().await else { return };
    let etcd = etcd(&server.connect_string());
    let lease = leases(&etcd).grant(Duration::from_secs(60)).await.unwrap().id;
    let writes = async {
        for n in 0..300 {
            kv(&etcd).commit(Txn::new().put_leased(&key("a"), n.to_string(), lease)).await.unwrap();
        }
    };
    let doubts = async {
        for n in 0..100 {
            let given_up = kv(&etcd).commit(Txn::new().put_leased(&key("b"), n.to_string(), lease));
            let _ = given_up.now_or_never();
            leases(&etcd).renew(lease).await.unwrap();
        }
    };
    soon("all of it", async { tokio::join!(writes, doubts) }).await;
    let mut stranger = stranger(&server.connect_string()).await;
    let fences = stranger.get("/cn/.fence/", Some(GetOptions::new().with_prefix())).await.unwrap();
    assert!(fences.kvs()[0].version() > 1, "it was moved again and again");
    assert_eq!(&kv(&etcd).get(&key("a")).await.unwrap().unwrap().value[..], b"299");
}
