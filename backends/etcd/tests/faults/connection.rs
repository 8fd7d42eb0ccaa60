//! The line to the server breaks, in one way or another; the server stays up.

use std::time::Duration;

use discovery::{
    Scope,
    conformance::stage::{BRIEF, STEADY, eventually, service, soon},
    kv::Range,
};
use futures_util::StreamExt;
use tokio::time::{Instant, sleep};

use crate::stage::{self, cleared, compact, noticed, requests};

#[tokio::test]
async fn a_cut_is_one_outage_and_nobody_leaves() {
    let Some((server, proxy, mut stage)) = stage::behind_a_line(STEADY).await else { return };
    proxy.cut().await;
    stage.recovered([1, 0]).await;
    stage.assert_nobody_left();
    cleared(stage, &[server]).await;
}

#[tokio::test]
async fn a_line_that_is_refused_for_most_of_the_lease_is_one_outage_and_nobody_leaves() {
    let ttl = Duration::from_secs(6);
    let Some((server, proxy, mut stage)) = stage::behind_a_line(ttl).await else { return };
    proxy.refuse().await;
    sleep(ttl * 2 / 3).await;
    proxy.pass().await;
    let took = stage.recovered([1, 0]).await;
    assert!(took < ttl / 3, "{took:?}");
    // The lease would have ended by now.
    sleep(ttl / 2).await;
    stage.recovered([0, 0]).await;
    stage.assert_nobody_left();
    cleared(stage, &[server]).await;
}

#[tokio::test]
async fn silence_is_noticed_and_ends_before_the_lease() {
    let staged = stage::behind_a_line_with(STEADY, "silence_timeout=3s&call_timeout=2s").await;
    let Some((server, proxy, mut stage)) = staged else { return };
    proxy.black_hole().await;
    let start = Instant::now();
    noticed(stage.owner()).await;
    let bound = stage.owner().discovery().info().capabilities().detects_silence_within;
    assert!(start.elapsed() < bound + BRIEF / 5, "{:?}, but the bound is {bound:?}", start.elapsed());
    proxy.pass().await;
    stage.recovered([1, 0]).await;
    stage.assert_nobody_left();
    cleared(stage, &[server]).await;
}

#[tokio::test]
async fn silence_outlives_the_lease() {
    // Just past the lease, so that only the server knows; or so long that the owner itself has given up.
    for longer in [Duration::ZERO, BRIEF] {
        let staged = stage::behind_a_line_with(BRIEF, "silence_timeout=2s").await;
        let Some((server, proxy, mut stage)) = staged else { return };
        proxy.black_hole().await;
        eventually("the server has ended the lease", async || {
            let owned = stage.owner().registrations().iter();
            let left = owned.filter(|one| stage.witness().sees(one.key())).count();
            (left > 0).then(|| format!("{left} are left"))
        })
        .await;
        sleep(longer).await;
        proxy.pass().await;
        stage.recovered([1, 0]).await;
        stage.assert_owner_left_once();
        cleared(stage, &[server]).await;
    }
}

/// A watch that continues is told what it missed, and reads nothing.
#[tokio::test]
async fn behind_a_cut_only_what_was_missed_is_read() {
    const OTHERS: u64 = 500;
    let Some((server, proxy, mut stage)) = stage::behind_a_line(STEADY).await else { return };
    stage.witness_mut().populate(1000..1000 + OTHERS).await;
    stage.recovered([0, 0]).await;
    let leaving = stage.witness_mut().release(1000);
    let ranges = requests(&server, "Range").await;
    let sent = server.metric("etcd_network_client_grpc_sent_bytes_total").await.unwrap();

    proxy.refuse().await;
    noticed(stage.owner()).await;
    soon("to be deregistered", leaving.deregister()).await.unwrap();
    proxy.pass().await;
    let truth = stage.wanted();
    eventually("the owner knows", async || stage.owner().lags_behind(&truth)).await;

    // A few to see whether the cluster is still the same.
    let ranges = requests(&server, "Range").await - ranges;
    assert!(ranges <= 4.0, "{ranges} range requests");
    let sent = server.metric("etcd_network_client_grpc_sent_bytes_total").await.unwrap() - sent;
    assert!(sent < 20_000.0, "{sent} bytes, of {OTHERS} instances");
    stage.recovered([1, 0]).await;
    cleared(stage, &[server]).await;
}

#[tokio::test]
async fn what_was_compacted_during_an_outage_is_read_again() {
    let Some((server, proxy, mut stage)) = stage::behind_a_line(STEADY).await else { return };
    proxy.refuse().await;
    noticed(stage.owner()).await;
    let left = stage.witness_mut().release(3);
    soon("to be deregistered", left.deregister()).await.unwrap();
    stage.witness_mut().populate(10..15).await;
    stage.witness().update_all().await;
    compact(&server).await;
    proxy.pass().await;
    stage.recovered([1, 0]).await;
    cleared(stage, &[server]).await;
}

/// Servers before 3.5.16, and 3.4.23, forget a deletion that is compacted at its own revision, and do not say so.
#[tokio::test]
async fn a_deletion_that_is_compacted_at_once_is_not_missed() {
    let Some((server, proxy, mut stage)) = stage::behind_a_line(STEADY).await else { return };
    proxy.refuse().await;
    noticed(stage.owner()).await;
    let left = stage.witness_mut().release(3);
    soon("to be deregistered", left.deregister()).await.unwrap();
    compact(&server).await;
    proxy.pass().await;
    stage.recovered([1, 0]).await;
    cleared(stage, &[server]).await;
}

/// What is withdrawn while it is on its way may arrive after its removal.
#[tokio::test]
async fn what_was_withdrawn_on_its_way_stays_away() {
    let patience = Duration::from_millis(500);
    let options = format!("call_timeout={}ms", patience.as_millis());
    let Some((server, proxy, mut stage)) = stage::behind_a_line_with(STEADY, &options).await else { return };
    proxy.black_hole().await;
    let leaving: Vec<_> = (100..120).map(|id| stage.owner().register(id).start().unwrap()).collect();
    // On the way by now, which nobody can see.
    sleep(patience / 2).await;
    let leaving: Vec<_> = leaving.into_iter().map(|r| tokio::spawn(r.deregister())).collect();
    // The owner has given up on its writes, and is asking what there is to be removed.
    sleep(patience).await;
    assert!(leaving.iter().all(|leaving| !leaving.is_finished()));
    proxy.pass().await;
    for leaving in leaving {
        soon("to be deregistered", leaving).await.unwrap().unwrap();
    }
    // Time to arrive late.
    sleep(patience).await;
    // So little patience may take a busy machine for an outage.
    let outages = stage.owner().history().outages();
    stage.recovered([outages, 0]).await;
    cleared(stage, &[server]).await;
}

#[tokio::test]
async fn a_hundred_cuts_amid_two_thousand_changes() {
    let Some((server, proxy, mut stage)) = stage::behind_a_line(STEADY).await else { return };
    let mut worst = Duration::ZERO;
    for cut in 0..100 {
        for n in 0..20 {
            if n == cut % 20 {
                proxy.cut().await;
            }
            stage.witness_mut().change(20 * cut + n).await;
        }
        if cut % 10 == 9 {
            compact(&server).await;
        }
        // Every other cut comes while the one before is still being recovered from.
        if cut % 2 == 1 {
            let start = Instant::now();
            let truth = stage.wanted();
            eventually("the owner knows", async || stage.owner().lags_behind(&truth)).await;
            worst = worst.max(start.elapsed());
        }
    }
    eprintln!("converged after {worst:?} at the worst");
    assert!(worst < Duration::from_secs(5), "{worst:?}");
    let outages = stage.owner().history().outages();
    assert!((50..=100).contains(&outages), "{outages}");
    stage.recovered([outages, 0]).await;
    cleared(stage, &[server]).await;
}

/// Some look, some follow all, and one takes what it gets: whoever does not read must not stop the others.
#[tokio::test]
async fn watches_that_nobody_reads_stop_nobody() {
    let Some((server, mut stage)) = stage::on_a_server(STEADY).await else { return };
    let kv = stage.owner().discovery().kv().unwrap();
    let range = Range::Subtree("big".parse().unwrap());
    let mut idle = Vec::new();
    for _ in 0..40 {
        let mut watch = kv.watch(&range, None).unwrap();
        soon("the first item", watch.next()).await.unwrap().unwrap();
        idle.push(watch);
    }
    // Together more than any window: 40 times 12 MB are never read.
    let mut stranger = stage::stranger(&server).await;
    for n in 0..200 {
        stranger.put(format!("/cn/big/{n}"), vec![b'x'; 60_000], None).await.unwrap();
    }
    stage.owner().update_all().await;
    stage.recovered([0, 0]).await;
    let found = soon("a look", stage.owner().discovery().lookup(&service())).await.unwrap();
    assert_eq!(found.len(), stage.wanted().len());
    soon("all of it", stage.owner().discovery().fetch(Scope::everything())).await.unwrap();
    drop((idle, kv));
    let below = etcd_client::DeleteOptions::new().with_prefix();
    stranger.delete("/cn/big/", Some(below)).await.unwrap();
    drop(stranger);
    cleared(stage, &[server]).await;
}
