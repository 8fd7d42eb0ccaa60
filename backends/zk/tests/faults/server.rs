//! The only server dies, freezes, or is not there yet.

use discovery::{
    Phase,
    conformance::stage::{BRIEF, STEADY, Stage, eventually, next_version, soon},
};
use tokio::time::sleep;

use crate::stage::{self, cleared, connect, counter, server};

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
    // So long that the owner has given up its sessions. The server has not: it counts from its start.
    sleep(2 * BRIEF).await;
    server.restart().await.unwrap();
    stage.recovered([1, 1]).await;
    eventually("the old sessions end", async || {
        let sessions = counter(&server, "zk_global_sessions").await;
        (sessions > 4).then(|| format!("{sessions} sessions"))
    })
    .await;
    stage.recovered([0, 0]).await;
    stage.assert_nobody_left();
    cleared(stage, &[server]).await;
}

#[tokio::test]
async fn a_server_that_is_frozen_past_the_session_has_ended_it() {
    let Some((server, mut stage)) = stage::on_a_server(BRIEF).await else { return };
    server.pause().unwrap();
    sleep(2 * BRIEF).await;
    server.resume().unwrap();
    // The witness, whose session is long, has waited on the same connection.
    stage.recovered([1, 0]).await;
    stage.assert_owner_left_once();
    cleared(stage, &[server]).await;
}

#[tokio::test]
async fn a_registry_that_is_down_at_the_start_is_waited_for() {
    let Some(server) = server().await else { return };
    let address = server.connect_string();
    server.kill().unwrap();
    let stage = Stage::builder().owner(connect(&address, STEADY).await, STEADY);
    let mut stage = stage.witness(connect(&address, STEADY).await, STEADY).empty();
    // One is waited for, the other looked at.
    let mut registering = stage.owner().register(0).into_future();
    let mut started = stage.witness().register(1).start().unwrap();
    let phase = soon("an attempt fails", started.wait_for(|status| status.cause.is_some())).await.phase;
    assert_eq!(phase, Phase::Pending);
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
    let owner = stage.owner_mut();
    let [leaving, dropped] = [1, 2].map(|id| owner.release(id));
    let gone = [leaving.key().clone(), dropped.key().clone()];
    let mut leaving = tokio::spawn(leaving.deregister());
    drop(dropped);
    let updated = &owner.registrations()[0];
    let mut updating = Box::pin(updated.update(next_version(updated)));
    let arriving = owner.register(100).start().unwrap();
    assert!(futures_util::poll!(&mut updating).is_pending());
    assert!(futures_util::poll!(&mut leaving).is_pending());
    server.restart().await.unwrap();
    soon("to be updated", updating).await.unwrap();
    soon("to be deregistered", leaving).await.unwrap().unwrap();
    owner.hold(arriving);
    stage.recovered([1, 1]).await;
    for client in stage.clients() {
        client.history().assert_only_left(&gone);
    }
    cleared(stage, &[server]).await;
}
