//! The only server dies, freezes, or is not there yet.

use discovery::Phase;
use tokio::time::sleep;

use crate::stage::{BRIEF, STEADY, Stage, counter, eventually, next_version, server, soon};

#[tokio::test]
async fn a_server_that_is_killed_and_comes_back_is_one_outage() {
    let Some((server, mut stage)) = Stage::on_a_server(STEADY).await else { return };
    server.kill().unwrap();
    server.restart().await.unwrap();
    stage.recovered([1, 1]).await;
    stage.assert_nobody_left();
    stage.cleared(&[server]).await;
}

#[tokio::test]
async fn a_server_that_comes_back_late_finds_everybody_waiting() {
    let Some((server, mut stage)) = Stage::on_a_server(BRIEF).await else { return };
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
    stage.cleared(&[server]).await;
}

#[tokio::test]
async fn a_server_that_is_frozen_past_the_session_has_ended_it() {
    let Some((server, mut stage)) = Stage::on_a_server(BRIEF).await else { return };
    server.pause().unwrap();
    sleep(2 * BRIEF).await;
    server.resume().unwrap();
    // The witness, whose session is long, has waited on the same connection.
    stage.recovered([1, 0]).await;
    stage.assert_owner_left_once();
    stage.cleared(&[server]).await;
}

#[tokio::test]
async fn a_registry_that_is_down_at_the_start_is_waited_for() {
    let Some(server) = server().await else { return };
    let address = server.connect_string();
    server.kill().unwrap();
    let mut stage = Stage::empty(&address, STEADY, &address).await;
    // One is waited for, the other looked at.
    let Stage { owner, witness, .. } = &mut stage;
    let mut registering = Box::pin(owner.register(0).into_future());
    let mut started = witness.register(1).start().unwrap();
    let phase = soon("an attempt fails", started.wait_for(|status| status.cause.is_some())).await.phase;
    assert_eq!(phase, Phase::Pending);
    assert!(futures_util::poll!(&mut registering).is_pending());
    server.restart().await.unwrap();
    let registered = soon("to be registered", registering).await.unwrap();
    owner.registrations.push(registered);
    witness.registrations.push(started);
    stage.recovered([1, 1]).await;
    stage.assert_nobody_left();
    stage.cleared(&[server]).await;
}

#[tokio::test]
async fn what_is_wanted_during_an_outage_takes_effect_after_it() {
    let Some((server, mut stage)) = Stage::on_a_server(STEADY).await else { return };
    server.kill().unwrap();
    let Stage { owner, .. } = &mut stage;
    let [leaving, dropped] = [(); 2].map(|()| owner.registrations.pop().unwrap());
    let gone = [leaving.key().clone(), dropped.key().clone()];
    let mut leaving = tokio::spawn(leaving.deregister());
    drop(dropped);
    let updated = &owner.registrations[0];
    let mut updating = Box::pin(updated.update(next_version(updated)));
    let arriving = owner.register(100).start().unwrap();
    assert!(futures_util::poll!(&mut updating).is_pending());
    assert!(futures_util::poll!(&mut leaving).is_pending());
    server.restart().await.unwrap();
    soon("to be updated", updating).await.unwrap();
    soon("to be deregistered", leaving).await.unwrap().unwrap();
    owner.registrations.push(arriving);
    stage.recovered([1, 1]).await;
    for client in [&stage.owner, &stage.witness] {
        let mut departures = client.history.departures();
        departures.sort();
        departures.dedup();
        assert_eq!(departures.len(), client.history.departures().len(), "once each");
        assert!(departures.iter().all(|key| gone.contains(key)), "{departures:?}");
    }
    stage.cleared(&[server]).await;
}
