//! Three servers, of which some are lost, frozen, cut off, or never there.

use std::time::Duration;

use discovery::conformance::stage::{BRIEF, STEADY, Stage, service, soon};
use discovery_testbed::Port;
use tokio::time::{Instant, sleep};

use crate::stage::{self, cleared, connect, noticed};

#[tokio::test]
async fn the_leader_dies_and_nobody_leaves() {
    let Some((cluster, mut stage)) = stage::on_three_servers(STEADY).await else { return };
    let leader = cluster.leader().await.unwrap();
    cluster.servers()[leader].kill().unwrap();
    let outages = stage::settled(&stage).await;
    stage.recovered(outages).await;
    stage.owner().update_all().await;
    cluster.restart(leader).unwrap();
    cluster.wait_for_quorum().await.unwrap();
    stage.recovered([0, 0]).await;
    stage.assert_nobody_left();
    cleared(stage, cluster.servers()).await;
}

/// Its connections stay open and nothing is answered, for those who are connected to it; the others elect another one.
#[tokio::test]
async fn the_leader_freezes_and_nobody_leaves() {
    let Some((cluster, mut stage)) = stage::on_three_servers(STEADY).await else { return };
    let leader = cluster.leader().await.unwrap();
    cluster.servers()[leader].pause().unwrap();
    let start = Instant::now();
    soon("to be updated all the same", stage.owner().update_all()).await;
    eprintln!("the owner could write again after {:?}", start.elapsed());
    stage::settled(&stage).await;
    cluster.servers()[leader].resume().unwrap();
    cluster.wait_for_quorum().await.unwrap();
    let outages = stage::settled(&stage).await;
    stage.recovered(outages).await;
    stage.assert_nobody_left();
    cleared(stage, cluster.servers()).await;
}

/// A member that has lost the others knows nothing new: watches on it must end, not fall silent.
#[tokio::test]
async fn a_member_in_the_minority_is_left() {
    let Some(cluster) = stage::cluster().await else { return };
    // The owner knows one member only; the witness knows all.
    let alone = &cluster.servers()[0];
    let locator = format!("{}/cn", cluster.connect_string());
    let stage = Stage::builder().owner(connect(&format!("{}/cn", alone.address())).await, STEADY);
    let mut stage = stage.witness(connect(&locator).await, STEADY).set().await;
    for other in &cluster.servers()[1..] {
        other.kill().unwrap();
    }
    noticed(stage.owner()).await;
    let freshness = stage.owner().view().freshness();
    let error = soon("an answer", stage.owner().discovery().lookup(&service())).await.unwrap_err();
    assert!(error.is_transient() && error.to_string().contains("leader"), "{error}; {freshness:?}");
    for index in [1, 2] {
        cluster.restart(index).unwrap();
    }
    cluster.wait_for_quorum().await.unwrap();
    let outages = stage::settled(&stage).await;
    stage.recovered(outages).await;
    stage.assert_nobody_left();
    cleared(stage, cluster.servers()).await;
}

#[tokio::test]
async fn the_quorum_is_lost_and_comes_back_and_nobody_leaves() {
    let Some((cluster, mut stage)) = stage::on_three_servers(STEADY).await else { return };
    let leader = cluster.leader().await.unwrap();
    let follower = (leader + 1) % 3;
    for lost in [leader, follower] {
        cluster.servers()[lost].kill().unwrap();
    }
    for client in stage.clients() {
        noticed(client).await;
    }
    // The server that is left goes on trying, and so do its clients.
    sleep(BRIEF).await;
    for lost in [leader, follower] {
        cluster.restart(lost).unwrap();
    }
    cluster.wait_for_quorum().await.unwrap();
    let outages = stage::settled(&stage).await;
    stage.recovered(outages).await;
    stage.assert_nobody_left();
    cleared(stage, cluster.servers()).await;
}

#[tokio::test]
async fn an_endpoint_that_was_never_there_costs_nothing() {
    let Some(cluster) = stage::cluster().await else { return };
    let nobody = Port::reserve().unwrap();
    // Whatever member a handle begins with: none of them fails, and none waits.
    for _ in 0..6 {
        let locator = format!("{},{}/cn", nobody.address(), cluster.connect_string());
        let mut stage = soon("to be set", stage::set(&locator, STEADY)).await;
        for _ in 0..3 {
            stage.owner().update_all().await;
        }
        stage.recovered([0, 0]).await;
        stage.assert_nobody_left();
        cleared(stage, cluster.servers()).await;
    }
}

#[tokio::test]
async fn an_endpoint_that_swallows_everything_delays_a_little() {
    let Some(server) = stage::server().await else { return };
    let hole = discovery_testbed::Proxy::start(server.address()).unwrap();
    hole.black_hole().await;
    // Whatever server a handle begins with.
    for _ in 0..6 {
        let discovery = connect(&format!("{},{}/cn", hole.address(), server.address())).await;
        let start = Instant::now();
        soon("an answer", discovery.lookup(&service())).await.unwrap();
        let took = start.elapsed();
        assert!(took < Duration::from_secs(2), "{took:?}, although the other server is fine");
    }
}
