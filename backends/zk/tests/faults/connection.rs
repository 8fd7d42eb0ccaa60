//! The line to the server breaks, in one way or another; the server stays up.

use std::time::Duration;

use discovery::conformance::stage::{BRIEF, STEADY, eventually, soon};
use tokio::time::{Instant, sleep};

use crate::stage::{self, cleared};

#[tokio::test]
async fn a_cut_is_one_outage_and_nobody_leaves() {
    let Some((server, proxy, mut stage)) = stage::behind_a_line(STEADY).await else { return };
    proxy.cut().await;
    stage.recovered([1, 0]).await;
    stage.assert_nobody_left();
    cleared(stage, &[server]).await;
}

/// A client that doubles its pauses between attempts would let as much time pass again, or the session.
#[tokio::test]
async fn a_line_that_is_refused_for_most_of_the_session_is_one_outage_and_nobody_leaves() {
    let ttl = Duration::from_secs(6);
    let Some((server, proxy, mut stage)) = stage::behind_a_line(ttl).await else { return };
    proxy.refuse().await;
    sleep(ttl * 2 / 3).await;
    proxy.pass().await;
    let took = stage.recovered([1, 0]).await;
    assert!(took < ttl / 3, "{took:?}");
    // The session that was cut would have ended by now.
    sleep(ttl / 2).await;
    stage.recovered([0, 0]).await;
    stage.assert_nobody_left();
    cleared(stage, &[server]).await;
}

#[tokio::test]
async fn silence_is_noticed_and_ends_before_the_session() {
    let Some((server, proxy, mut stage)) = stage::behind_a_line(2 * BRIEF).await else { return };
    proxy.black_hole().await;
    let start = Instant::now();
    eventually("the owner notices", async || (!stage.owner().is_stale()).then(|| "live".into())).await;
    let bound = stage.owner().discovery().info().capabilities().detects_silence_within;
    assert!(start.elapsed() < bound + BRIEF / 5, "{:?}, but the bound is {bound:?}", start.elapsed());
    proxy.pass().await;
    stage.recovered([1, 0]).await;
    stage.assert_nobody_left();
    cleared(stage, &[server]).await;
}

#[tokio::test]
async fn silence_outlives_the_session() {
    // Just past the session, so that only the server knows; or so long that the owner itself has given up.
    for longer in [Duration::ZERO, BRIEF] {
        let Some((server, proxy, mut stage)) = stage::behind_a_line(BRIEF).await else { return };
        proxy.black_hole().await;
        eventually("the server has ended the session", async || {
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

/// What is withdrawn while it is on its way may arrive after its removal.
#[tokio::test]
async fn what_was_withdrawn_on_its_way_stays_away() {
    let patience = Duration::from_millis(500);
    let options = format!("&call_timeout={}ms", patience.as_millis());
    let staged = stage::behind_a_line_with(STEADY, &options).await;
    let Some((server, proxy, mut stage)) = staged else { return };
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
