//! ZooKeeper ends sessions whose owners live.

use std::time::Duration;

use discovery::conformance::stage::{STEADY, eventually};
use discovery_testbed::Proxy;
use futures_util::future::{join, join_all};

use crate::{
    intruder,
    stage::{self, cleared, client, ephemerals, server},
};

/// How long the owner's sessions live. Tells them apart from those of the witness; nobody waits for it.
const TTL: Duration = Duration::from_secs(8);

#[tokio::test]
async fn a_lease_that_was_ended_is_replaced() {
    let Some((server, _proxy, mut stage)) = stage::behind_a_line(TTL).await else { return };
    let sessions = intruder::sessions(&server, TTL).await;
    assert_eq!(sessions.len(), 2, "one to read and watch, and one lease for all registrations");
    for lease in intruder::holders(&server).await.intersection(&sessions) {
        intruder::end(&server, *lease).await;
    }
    stage.recovered([0, 0]).await;
    // The owner reads and watches on another session, and so it saw the truth like everybody.
    assert_eq!(stage.owner().history().departures(), stage.witness().history().departures());
    let now = intruder::sessions(&server, TTL).await;
    assert_eq!((now.len(), now.intersection(&sessions).count()), (2, 1), "another lease, the same reader");
    cleared(stage, &[server]).await;
}

#[tokio::test]
async fn a_lease_that_ended_during_a_cut_is_replaced() {
    let Some((server, proxy, mut stage)) = stage::behind_a_line(TTL).await else { return };
    let sessions = intruder::sessions(&server, TTL).await;
    proxy.refuse().await;
    for lease in intruder::holders(&server).await.intersection(&sessions) {
        intruder::end(&server, *lease).await;
    }
    proxy.pass().await;
    stage.recovered([1, 0]).await;
    stage.assert_owner_left_once();
    cleared(stage, &[server]).await;
}

#[tokio::test]
async fn sessions_that_were_all_ended_are_all_replaced() {
    let Some((server, proxy, mut stage)) = stage::behind_a_line(TTL).await else { return };
    let sessions = intruder::sessions(&server, TTL).await;
    proxy.refuse().await;
    join_all(sessions.iter().map(|session| intruder::end(&server, *session))).await;
    proxy.pass().await;
    stage.recovered([1, 0]).await;
    stage.assert_owner_left_once();
    assert!(intruder::sessions(&server, TTL).await.is_disjoint(&sessions));
    assert!(intruder::holders(&server).await.is_disjoint(&sessions));
    cleared(stage, &[server]).await;
}

#[tokio::test]
async fn who_was_away_for_longer_saw_nothing_of_it() {
    let Some(server) = server().await else { return };
    let [proxy, away] = [(); 2].map(|()| Proxy::start(server.address()).unwrap());
    let mut stage = stage::set(&proxy.address().to_string(), TTL, &server.connect_string()).await;
    let bystander = client(&away.address().to_string(), STEADY).await;
    let truth = stage.wanted();
    eventually("the bystander knows", async || bystander.lags_behind(&truth)).await;
    let sessions = intruder::sessions(&server, TTL).await;
    join(proxy.refuse(), away.refuse()).await;
    join_all(sessions.iter().map(|session| intruder::end(&server, *session))).await;
    proxy.pass().await;
    stage.recovered([1, 0]).await;
    away.pass().await;
    eventually("the bystander knows again", async || bystander.lags_behind(&truth)).await;
    assert_eq!((bystander.history().outages(), bystander.history().departures()), (1, Vec::new()));
    bystander.history().assert_sound();
    drop(bystander);
    cleared(stage, &[server]).await;
}

#[tokio::test]
async fn a_thousand_registrations_come_back_with_their_latest_data() {
    let Some((server, proxy, mut stage)) = stage::behind_a_line(TTL).await else { return };
    stage.owner_mut().populate(1000..2000).await;
    stage.recovered([0, 0]).await;
    let sessions = intruder::sessions(&server, TTL).await;
    proxy.refuse().await;
    join_all(sessions.iter().map(|session| intruder::end(&server, *session))).await;
    // The latest data are those that were asked for while nothing was registered.
    let updating = stage.owner().update_all();
    join(updating, proxy.pass()).await;
    stage.recovered([1, 0]).await;
    stage.assert_owner_left_once();
    assert_eq!(ephemerals(&server).await.len(), stage.wanted().len());
    cleared(stage, &[server]).await;
}
