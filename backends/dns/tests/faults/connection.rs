//! The line to the server breaks, in one way or another; the server stays up.

use std::time::Duration;

use discovery::{
    ErrorKind, Outcome,
    conformance::stage::{BRIEF, STEADY, eventually, soon},
    kv::Txn,
};
use discovery_testbed::{NameServer, Proxy};
use tokio::time::{Instant, sleep};

use crate::{
    common::{self, bind, config_at, everything, key, kv, leases, listed, on, zone},
    stage::{self, cleared_behind, noticed},
};

/// A question that is cut off is asked again; a transfer is not, and then that is an outage, which is over at once.
#[tokio::test]
async fn cuts_are_got_over() {
    let Some(server) = bind().await else { return };
    let (line, mut stage) = stage::behind_a_line(&server, STEADY).await;
    for _ in 0..20 {
        line.cut().await;
        soon("to be updated", stage.owner().update_all()).await;
    }
    let truth = stage.wanted();
    eventually("the owner knows", async || stage.owner().lags_behind(&truth)).await;
    let outages = stage.owner().history().outages();
    stage.recovered([outages, 0]).await;
    stage.assert_nobody_left();
    cleared_behind(&line, stage, &server).await;
}

#[tokio::test]
async fn a_line_that_is_refused_for_most_of_the_lease_is_one_outage_and_nobody_leaves() {
    let ttl = Duration::from_secs(6);
    let Some(server) = bind().await else { return };
    let (line, mut stage) = stage::behind_a_line(&server, ttl).await;
    line.refuse().await;
    sleep(ttl * 2 / 3).await;
    line.pass().await;
    let took = stage.recovered([1, 0]).await;
    assert!(took < ttl / 3, "{took:?}");
    // The lease would have ended by now.
    sleep(ttl / 2).await;
    stage.recovered([0, 0]).await;
    stage.assert_nobody_left();
    cleared_behind(&line, stage, &server).await;
}

#[tokio::test]
async fn silence_is_noticed_and_ends_before_the_lease() {
    let Some(server) = bind().await else { return };
    let (line, mut stage) = stage::behind_a_line(&server, STEADY).await;
    line.black_hole().await;
    let start = Instant::now();
    noticed(stage.owner()).await;
    let bound = stage.owner().discovery().info().capabilities().detects_silence_within;
    assert!(start.elapsed() < bound + BRIEF / 5, "{:?}, but the bound is {bound:?}", start.elapsed());
    line.pass().await;
    stage.recovered([1, 0]).await;
    stage.assert_nobody_left();
    cleared_behind(&line, stage, &server).await;
}

/// Others go on to hear of the server, and sweep away who is not heard of.
async fn silence_outlives_the_lease(server: NameServer) {
    // Just past the lease, so that only the others know; or so long that the owner itself has given up.
    for longer in [Duration::ZERO, BRIEF] {
        let (line, mut stage) = stage::behind_a_line(&server, BRIEF).await;
        line.black_hole().await;
        let start = Instant::now();
        eventually("the lease has ended", async || {
            let owned = stage.owner().registrations().iter();
            let left = owned.filter(|one| stage.witness().sees(one.key())).count();
            (left > 0).then(|| format!("{left} are left"))
        })
        .await;
        let lived = start.elapsed();
        // Renewed at a third: up to that of its time may be over when the line dies.
        assert!(lived >= BRIEF / 2 && lived < BRIEF + Duration::from_secs(3), "{lived:?}");
        sleep(longer).await;
        line.pass().await;
        stage.recovered([1, 0]).await;
        stage.assert_owner_left_once();
        cleared_behind(&line, stage, &server).await;
    }
}

on_both!(silence_outlives_the_lease, a_hundred_cuts_amid_changes, an_update_whose_reply_is_lost);

/// What is withdrawn while it is on its way may arrive after its removal.
#[tokio::test]
async fn what_was_withdrawn_on_its_way_stays_away() {
    let patience = Duration::from_millis(500);
    let Some(server) = bind().await else { return };
    let (line, mut stage) =
        stage::behind_a_line_with(&server, STEADY, |config| config.call_timeout(patience)).await;
    line.black_hole().await;
    let leaving: Vec<_> = (100..120).map(|id| stage.owner().register(id).start().unwrap()).collect();
    // On the way by now, which nobody can see.
    sleep(patience / 2).await;
    let leaving: Vec<_> = leaving.into_iter().map(|r| tokio::spawn(r.deregister())).collect();
    // The owner has given up on its writes, and is asking what there is to be removed.
    sleep(patience).await;
    assert!(leaving.iter().all(|leaving| !leaving.is_finished()));
    line.pass().await;
    for leaving in leaving {
        soon("to be deregistered", leaving).await.unwrap().unwrap();
    }
    // Time to arrive late.
    sleep(patience).await;
    // So little patience may take a busy machine for an outage.
    let truth = stage.wanted();
    eventually("the owner knows", async || stage.owner().lags_behind(&truth)).await;
    let outages = stage.owner().history().outages();
    stage.recovered([outages, 0]).await;
    cleared_behind(&line, stage, &server).await;
}

async fn a_hundred_cuts_amid_changes(server: NameServer) {
    let (line, mut stage) = stage::behind_a_line(&server, STEADY).await;
    let mut worst = Duration::ZERO;
    for cut in 0..100 {
        for n in 0..5 {
            if n == cut % 5 {
                line.cut().await;
            }
            stage.witness_mut().change(5 * cut + n).await;
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
    stage.recovered([outages, 0]).await;
    cleared_behind(&line, stage, &server).await;
}

/// It is carried out, and the reply gets lost: the entry is there once, and stays away once it was removed.
async fn an_update_whose_reply_is_lost(server: NameServer) {
    let line = Proxy::start(server.address()).unwrap();
    let zone = zone(config_at(&server, line.address()).call_timeout(Duration::from_secs(2)));
    let direct = on(&server);
    let lease = leases(&zone).grant(Duration::from_secs(60)).await.unwrap().id;
    for round in 0..5 {
        let (a, value) = (key("a"), round.to_string());
        kv(&zone).scan(&everything()).await.unwrap();
        line.lose_replies().await;
        let lost = kv(&zone).commit(Txn::new().absent(&a).put_leased(&a, value.clone(), lease)).await;
        let error = lost.unwrap_err();
        assert_eq!((error.kind(), error.outcome()), (ErrorKind::Timeout, Outcome::Unknown), "{error}");
        line.pass().await;
        assert_eq!(listed(&zone, &everything()).await, [format!("a={value}")]);
        let again = kv(&zone).commit(Txn::new().absent(&a).put_leased(&a, value, lease)).await.unwrap_err();
        assert_eq!(again.kind(), ErrorKind::Conflict, "{again}");
        kv(&zone).commit(Txn::new().delete(&a)).await.unwrap();
        common::eventually("the lease to be renewed", async || leases(&zone).renew(lease).await.is_ok())
            .await;
        assert_eq!(listed(&direct, &everything()).await, [""; 0]);
    }
    leases(&zone).revoke(lease).await.unwrap();
    common::emptied(&server).await;
}

/// What was sent and never answered may arrive at any time, until the lease is renewed.
#[tokio::test]
async fn a_renewal_keeps_late_writes_out() {
    let Some(server) = bind().await else { return };
    for _ in 0..5 {
        let line = Proxy::start(server.address()).unwrap();
        let zone = zone(config_at(&server, line.address()).call_timeout(Duration::from_millis(300)));
        let lease = leases(&zone).grant(Duration::from_secs(60)).await.unwrap().id;
        kv(&zone).scan(&everything()).await.unwrap();
        line.black_hole().await;
        for n in 0..3 {
            let write = kv(&zone).commit(Txn::new().put_leased(&key(&format!("a/{n}")), "late", lease));
            assert!(write.await.is_err());
        }
        line.pass().await;
        common::eventually("the lease to be renewed", async || leases(&zone).renew(lease).await.is_ok())
            .await;
        let there = listed(&zone, &everything()).await;
        // Time to arrive late.
        sleep(Duration::from_millis(300)).await;
        assert_eq!(listed(&on(&server), &everything()).await, there, "arrived behind the renewal");
        leases(&zone).revoke(lease).await.unwrap();
    }
    common::emptied(&server).await;
}

/// A slow line is no outage as long as answers come in time.
#[tokio::test]
async fn a_slow_line_is_no_outage() {
    let Some(server) = bind().await else { return };
    let (line, mut stage) = stage::behind_a_line(&server, STEADY).await;
    line.delay(Duration::from_millis(100), Duration::from_millis(200)).await;
    for _ in 0..3 {
        soon("to be updated", stage.owner().update_all()).await;
        soon("to be updated", stage.witness().update_all()).await;
    }
    stage.recovered([0, 0]).await;
    // Later than a packet by UDP is waited for before it is sent again.
    line.delay(Duration::from_millis(550), Duration::from_millis(10)).await;
    soon("to be updated", stage.owner().update_all()).await;
    stage.recovered([0, 0]).await;
    line.pass().await;
    stage.assert_nobody_left();
    cleared_behind(&line, stage, &server).await;
}
