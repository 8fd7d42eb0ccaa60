//! The line to the server breaks, in one way or another; the server stays up.

use std::time::{Duration, Instant};

use discovery_testbed::{Proxy, ZooKeeper};
use tokio::time::sleep;

use crate::stage::{BRIEF, Client, STEADY, Stage, eventually, instance, next_version, service, soon};

/// A server, a line to it that can be cut, and a stage whose owner is at the end of that line.
async fn cuttable(ttl: Duration) -> Option<(ZooKeeper, Proxy, Stage)> {
    let server = ZooKeeper::start_or_skip().await?;
    let proxy = Proxy::start(server.address()).unwrap();
    let stage = Stage::set(&proxy.address().to_string(), ttl, &server.connect_string()).await;
    Some((server, proxy, stage))
}

#[tokio::test]
async fn a_cut_is_one_outage_and_nobody_leaves() {
    let Some((server, proxy, mut stage)) = cuttable(STEADY).await else { return };
    proxy.cut().await;
    stage.recovered([1, 0]).await;
    stage.assert_nobody_left();
    stage.cleared(&[server]).await;
}

/// A client that doubles its pauses between attempts would let as much time pass again, or the session.
#[tokio::test]
async fn a_line_that_is_refused_for_most_of_the_session_is_one_outage_and_nobody_leaves() {
    let ttl = Duration::from_secs(6);
    let Some((server, proxy, mut stage)) = cuttable(ttl).await else { return };
    proxy.refuse().await;
    sleep(ttl * 2 / 3).await;
    proxy.pass().await;
    let took = stage.recovered([1, 0]).await;
    assert!(took < ttl / 3, "{took:?}");
    // The session that was cut would have ended by now.
    sleep(ttl / 2).await;
    stage.recovered([0, 0]).await;
    stage.assert_nobody_left();
    stage.cleared(&[server]).await;
}

#[tokio::test]
async fn silence_is_noticed_and_ends_before_the_session() {
    let ttl = 2 * BRIEF;
    let Some((server, proxy, mut stage)) = cuttable(ttl).await else { return };
    proxy.black_hole().await;
    let start = Instant::now();
    eventually("the owner notices", async || (!stage.owner.is_stale()).then(|| "live".into())).await;
    let bound = stage.owner.discovery.info().capabilities().detects_silence_within;
    assert!(start.elapsed() < bound + BRIEF / 5, "{:?}, but the bound is {bound:?}", start.elapsed());
    proxy.pass().await;
    stage.recovered([1, 0]).await;
    stage.assert_nobody_left();
    stage.cleared(&[server]).await;
}

#[tokio::test]
async fn silence_outlives_the_session() {
    // Just past the session, so that only the server knows; or so long that the owner itself has given up.
    for longer in [Duration::ZERO, BRIEF] {
        let Some((server, proxy, mut stage)) = cuttable(BRIEF).await else { return };
        proxy.black_hole().await;
        eventually("the server has ended the session", async || {
            let left = stage.owner.wanted().filter(|instance| stage.witness.sees(instance)).count();
            (left > 0).then(|| format!("{left} are left"))
        })
        .await;
        sleep(longer).await;
        proxy.pass().await;
        stage.recovered([1, 0]).await;
        stage.assert_owner_left_once();
        stage.cleared(&[server]).await;
    }
}

/// What is withdrawn while it is on its way may arrive after its removal.
#[tokio::test]
async fn what_was_withdrawn_on_its_way_stays_away() {
    let Some((server, proxy, stage)) = cuttable(STEADY).await else { return };
    let address = proxy.address().to_string();
    let mut hasty = Client::open_with(&address, STEADY, "&call_timeout=500ms").await;
    hasty.populate(200..201).await;
    proxy.black_hole().await;
    let ids = 100..120;
    let registering: Vec<_> = ids.clone().map(|id| hasty.register(id).start().unwrap()).collect();
    // So long that the client has given up on its writes, and asks whether there is anything to be removed.
    sleep(Duration::from_millis(250)).await;
    let mut leaving: Vec<_> = registering.into_iter().map(|r| tokio::spawn(r.deregister())).collect();
    sleep(Duration::from_millis(500)).await;
    assert!(leaving.iter().all(|leaving| !leaving.is_finished()));
    proxy.pass().await;
    for leaving in &mut leaving {
        soon("to be deregistered", leaving).await.unwrap().unwrap();
    }
    sleep(Duration::from_millis(500)).await;
    let there = stage.witness.discovery.lookup(&service()).await.unwrap();
    let left: Vec<_> = ids.filter(|id| there.get(instance(*id).key()).is_some()).collect();
    assert_eq!(left, [0; 0]);
    drop(hasty);
    stage.cleared(&[server]).await;
}

/// Comings, goings and updates, one after the other, of forty instances.
async fn change(client: &mut Client, n: u64) {
    let id = 100 + n * 7 % 40;
    let known = client.registrations.iter().position(|r| r.key() == instance(id).key());
    match known {
        None => {
            let registration = client.register(id).await.unwrap();
            client.registrations.push(registration);
        }
        Some(at) if n.is_multiple_of(5) => client.registrations.swap_remove(at).deregister().await.unwrap(),
        Some(at) => {
            let registration = &client.registrations[at];
            registration.update(next_version(registration)).await.unwrap();
        }
    }
}

#[tokio::test]
async fn a_hundred_cuts_amid_two_thousand_changes() {
    let Some((server, proxy, mut stage)) = cuttable(STEADY).await else { return };
    let mut worst = Duration::ZERO;
    for cut in 0..100 {
        for n in 0..20 {
            if n == cut % 20 {
                proxy.cut().await;
            }
            change(&mut stage.witness, 20 * cut + n).await;
        }
        // Every other cut comes while the one before is still being recovered from.
        if cut % 2 == 1 {
            let start = Instant::now();
            let truth = stage.wanted();
            eventually("the owner knows", async || stage.owner.lags_behind(&truth)).await;
            worst = worst.max(start.elapsed());
        }
    }
    eprintln!("converged after {worst:?} at the worst");
    assert!(worst < Duration::from_secs(5), "{worst:?}");
    let outages = stage.owner.history.outages();
    assert!((50..=100).contains(&outages), "{outages}");
    stage.recovered([outages, 0]).await;
    stage.cleared(&[server]).await;
}
