//! The only server dies, freezes, or is not there yet.

use std::time::Duration;

use discovery::{
    Phase,
    conformance::stage::{BRIEF, STEADY, Stage, eventually, next_version, soon},
};
use tokio::time::sleep;

use crate::stage::{self, cleared, connect, server};

#[tokio::test]
async fn a_server_that_is_killed_and_comes_back_is_one_outage() {
    let Some((server, mut stage)) = stage::on_a_server(STEADY).await else { return };
    server.kill().unwrap();
    server.restart().await.unwrap();
    stage.recovered([1, 1]).await;
    stage.assert_nobody_left();
    cleared(stage, &[server]).await;
}

#[tokio::test]
async fn a_server_that_comes_back_late_finds_everybody_waiting() {
    let Some((server, mut stage)) = stage::on_a_server(BRIEF).await else { return };
    server.kill().unwrap();
    // Longer than the lease. The server gives it its full time again.
    sleep(2 * BRIEF).await;
    server.restart().await.unwrap();
    stage.recovered([1, 1]).await;
    stage.assert_nobody_left();
    cleared(stage, &[server]).await;
}

#[tokio::test]
async fn a_server_that_is_frozen_past_the_lease_comes_back() {
    let Some(server) = server().await else { return };
    let stage = Stage::builder()
        .owner(connect(&format!("{}/cn?silence_timeout=2s", server.address())).await, BRIEF)
        .witness(connect(&format!("{}/cn?silence_timeout=20s", server.address())).await, STEADY);
    let mut stage = stage.set().await;
    server.pause().unwrap();
    sleep(2 * BRIEF).await;
    server.resume().unwrap();
    // The witness has waited on the same connection.
    stage.recovered([1, 0]).await;
    stage
        .witness()
        .history()
        .assert_only_left(stage.owner().registrations().iter().map(discovery::Registration::key));
    cleared(stage, &[server]).await;
}

#[tokio::test]
async fn a_registry_that_is_down_at_the_start_is_waited_for() {
    let Some(server) = server().await else { return };
    let locator = format!("{}/cn", server.address());
    server.kill().unwrap();
    let stage = Stage::builder().owner(connect(&locator).await, STEADY);
    let mut stage = stage.witness(connect(&locator).await, STEADY).empty();
    // One is waited for, the other looked at.
    let mut registering = Box::pin(stage.owner().register(0).into_future());
    let mut started = stage.witness().register(1).start().unwrap();
    let status = soon("an attempt fails", started.wait_for(|status| status.cause.is_some())).await;
    assert_eq!(status.phase, Phase::Pending);
    let cause = status.cause.unwrap().to_string();
    assert!(cause.contains(&server.connect_string()) && cause.contains("cannot be reached"), "{cause}");
    assert!(futures_util::poll!(&mut registering).is_pending());
    server.restart().await.unwrap();
    let registered = soon("to be registered", registering).await.unwrap();
    stage.owner_mut().hold(registered);
    stage.witness_mut().hold(started);
    stage.recovered([1, 1]).await;
    stage.assert_nobody_left();
    cleared(stage, &[server]).await;
}

#[tokio::test]
async fn what_is_wanted_during_an_outage_takes_effect_after_it() {
    let Some((server, mut stage)) = stage::on_a_server(STEADY).await else { return };
    server.kill().unwrap();
    let [leaving, dropped] = [0, 1].map(|id| stage.owner_mut().release(id));
    let gone = [leaving.key().clone(), dropped.key().clone()];
    let mut leaving = tokio::spawn(leaving.deregister());
    drop(dropped);
    let updated = &stage.owner().registrations()[0];
    let mut updating = Box::pin(updated.update(next_version(updated)));
    let arriving = stage.owner().register(100).start().unwrap();
    assert!(futures_util::poll!(&mut updating).is_pending());
    assert!(futures_util::poll!(&mut leaving).is_pending());
    server.restart().await.unwrap();
    soon("to be updated", updating).await.unwrap();
    soon("to be deregistered", leaving).await.unwrap().unwrap();
    stage.owner_mut().hold(arriving);
    stage.recovered([1, 1]).await;
    for client in stage.clients() {
        client.history().assert_only_left(&gone);
    }
    cleared(stage, &[server]).await;
}

#[tokio::test]
async fn a_server_that_flaps_settles() {
    let Some((server, mut stage)) = stage::on_a_server(STEADY).await else { return };
    for _ in 0..5 {
        server.kill().unwrap();
        server.restart().await.unwrap();
        sleep(Duration::from_millis(50)).await;
    }
    let truth = stage.wanted();
    for client in stage.clients() {
        eventually("it knows", async || client.lags_behind(&truth)).await;
    }
    let outages = stage.clients().map(|client| client.history().outages());
    assert!(outages.iter().all(|outages| (1..=5).contains(outages)), "{outages:?}");
    stage.recovered(outages).await;
    stage.assert_nobody_left();
    cleared(stage, &[server]).await;
}
