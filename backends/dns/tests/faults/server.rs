//! The server dies, freezes, or is not there yet.

use std::time::Duration;

use discovery::{
    Phase,
    conformance::stage::{BRIEF, STEADY, Stage, eventually, next_version, soon},
};
use discovery_testbed::NameServer;
use tokio::time::sleep;

use crate::{
    common::{config, everything, listed},
    stage::{self, cleared, discovery},
};

on_both!(
    a_server_that_is_killed_and_comes_back_is_one_outage,
    a_server_that_comes_back_late_finds_everybody_waiting,
    a_server_that_is_frozen_past_the_lease_comes_back,
    a_server_that_is_down_at_the_start_is_waited_for,
    what_is_wanted_during_an_outage_takes_effect_after_it,
    a_server_that_flaps_settles,
);

async fn a_server_that_is_killed_and_comes_back_is_one_outage(server: NameServer) {
    let mut stage = stage::on(&server, STEADY).await;
    server.kill().unwrap();
    for client in stage.clients() {
        stage::noticed(client).await;
    }
    server.restart().await.unwrap();
    // All are still there before anybody has put anything right.
    let found = listed(&crate::common::on(&server), &everything()).await;
    assert_eq!(found.len(), 6, "{found:?}");
    stage.recovered([1, 1]).await;
    stage.assert_nobody_left();
    cleared(stage, &server).await;
}

async fn a_server_that_comes_back_late_finds_everybody_waiting(server: NameServer) {
    let mut stage = stage::on(&server, BRIEF).await;
    server.kill().unwrap();
    // Longer than the lease. Nobody was able to renew, and so nobody is ended for it.
    sleep(2 * BRIEF).await;
    server.restart().await.unwrap();
    stage.recovered([1, 1]).await;
    sleep(BRIEF).await;
    stage.recovered([0, 0]).await;
    stage.assert_nobody_left();
    cleared(stage, &server).await;
}

async fn a_server_that_is_frozen_past_the_lease_comes_back(server: NameServer) {
    let stage = Stage::builder()
        .owner(discovery(config(&server)), BRIEF)
        .witness(discovery(config(&server).silence_timeout(Duration::from_secs(20))), STEADY);
    let mut stage = stage.set().await;
    server.pause().unwrap();
    sleep(2 * BRIEF).await;
    server.resume().unwrap();
    // The witness has waited on the same question.
    stage.recovered([1, 0]).await;
    sleep(BRIEF).await;
    stage.recovered([0, 0]).await;
    stage.assert_nobody_left();
    cleared(stage, &server).await;
}

async fn a_server_that_is_down_at_the_start_is_waited_for(server: NameServer) {
    server.kill().unwrap();
    let stage = Stage::builder().owner(discovery(config(&server)), STEADY);
    let mut stage = stage.witness(discovery(config(&server)), STEADY).empty();
    // One is waited for, the other looked at.
    let mut registering = Box::pin(stage.owner().register(0).into_future());
    let mut started = stage.witness().register(1).start().unwrap();
    let status = soon("an attempt fails", started.wait_for(|status| status.cause.is_some())).await;
    assert_eq!(status.phase, Phase::Pending);
    let cause = status.cause.unwrap().to_string();
    assert!(cause.contains(&server.address().to_string()) && cause.contains("cannot be reached"), "{cause}");
    assert!(futures_util::poll!(&mut registering).is_pending());
    server.restart().await.unwrap();
    let registered = soon("to be registered", registering).await.unwrap();
    stage.owner_mut().hold(registered);
    stage.witness_mut().hold(started);
    stage.recovered([1, 1]).await;
    stage.assert_nobody_left();
    cleared(stage, &server).await;
}

async fn what_is_wanted_during_an_outage_takes_effect_after_it(server: NameServer) {
    let mut stage = stage::on(&server, STEADY).await;
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
    for client in stage.clients() {
        stage::noticed(client).await;
    }
    server.restart().await.unwrap();
    soon("to be updated", updating).await.unwrap();
    soon("to be deregistered", leaving).await.unwrap().unwrap();
    stage.owner_mut().hold(arriving);
    stage.recovered([1, 1]).await;
    for client in stage.clients() {
        client.history().assert_only_left(&gone);
    }
    cleared(stage, &server).await;
}

async fn a_server_that_flaps_settles(server: NameServer) {
    let mut stage = stage::on(&server, STEADY).await;
    for _ in 0..5 {
        server.kill().unwrap();
        server.restart().await.unwrap();
        // Just long enough for some to be heard again.
        sleep(Duration::from_millis(50)).await;
    }
    let truth = stage.wanted();
    for client in stage.clients() {
        eventually("it knows", async || client.lags_behind(&truth)).await;
    }
    let outages = stage.clients().map(|client| client.history().outages());
    assert!(outages.iter().all(|outages| *outages <= 5), "{outages:?}");
    stage.recovered(outages).await;
    stage.assert_nobody_left();
    cleared(stage, &server).await;
}
