//! The cluster loses its history under a running watch.

use discovery::{
    Registration,
    conformance::stage::{BRIEF, Client, STEADY, Stage, eventually, soon},
};
use discovery_testbed::{Etcd, Proxy};

use crate::stage::{self, cleared, compact, connect, noticed};

fn expect_restart(stage: &Stage) {
    for client in stage.clients() {
        client.history().expect_restart();
    }
}

/// Everybody may have seen everybody leave and come back, once.
fn assert_all_left_once_at_most(stage: &Stage) {
    let all: Vec<_> =
        stage.clients().into_iter().flat_map(Client::registrations).map(Registration::key).collect();
    for client in stage.clients() {
        client.history().assert_only_left(all.iter().copied());
    }
}

#[tokio::test]
async fn a_wiped_server_is_filled_again() {
    let Some((server, mut stage)) = stage::on_a_server(STEADY).await else { return };
    expect_restart(&stage);
    server.wipe().await.unwrap();
    stage.recovered([1, 1]).await;
    assert_all_left_once_at_most(&stage);
    cleared(stage, &[server]).await;
}

#[tokio::test]
async fn three_wiped_servers_are_filled_again() {
    let Some((cluster, mut stage)) = stage::on_three_servers(STEADY).await else { return };
    expect_restart(&stage);
    cluster.wipe().await.unwrap();
    let truth = stage.wanted();
    for client in stage.clients() {
        eventually("it knows", async || client.lags_behind(&truth)).await;
    }
    let outages = stage.clients().map(|client| client.history().outages());
    stage.recovered(outages).await;
    assert_all_left_once_at_most(&stage);
    cleared(stage, cluster.servers()).await;
}

/// The same cluster id, and a higher revision than before: nothing in a header tells that the history is another.
#[tokio::test]
async fn a_wiped_server_that_looks_the_same_is_noticed() {
    let server = Etcd::builder().unsynced().token("always-the-same").start_or_skip().await;
    let Some(server) = server else { return };
    let proxy = Proxy::start(server.address()).unwrap();
    let [owner, witness] = [&proxy.address(), &server.address()].map(|address| format!("{address}/cn"));
    let stage = Stage::builder().owner(connect(&owner).await, STEADY);
    let mut stage = stage.witness(connect(&witness).await, STEADY).set().await;
    let before = header(&server).await;

    proxy.refuse().await;
    noticed(stage.owner()).await;
    expect_restart(&stage);
    server.wipe().await.unwrap();
    let mut stranger = stage::stranger(&server).await;
    for n in 0..2 * before.1 {
        stranger.put(format!("/elsewhere/{n}"), "1", None).await.unwrap();
    }
    drop(stranger);
    let after = header(&server).await;
    assert!(after.0 == before.0 && after.1 > before.1, "{before:?} {after:?}");
    proxy.pass().await;
    stage.recovered([1, 1]).await;
    assert_all_left_once_at_most(&stage);
    cleared(stage, &[server]).await;
}

/// A backup brings leases back, with what was under them at the time.
#[tokio::test]
async fn a_server_that_was_restored_gets_the_latest_data() {
    let Some(server) = stage::server().await else { return };
    let locator = format!("{}/cn", server.address());
    // So short that what comes back with the backup, and is nobody's any more, ends soon.
    let stage = Stage::builder().owner(connect(&locator).await, 2 * BRIEF);
    let mut stage = stage.witness(connect(&locator).await, 2 * BRIEF).set().await;
    let backup = server.save().await.unwrap();
    stage.owner().update_all().await;
    let left = stage.owner_mut().release(1);
    soon("to be deregistered", left.deregister()).await.unwrap();
    stage.owner_mut().populate([7]).await;
    stage.recovered([0, 0]).await;
    expect_restart(&stage);
    server.restore(&backup).await.unwrap();
    // What was deregistered is back, and ends with its lease, which nobody renews.
    stage.recovered([1, 1]).await;
    cleared(stage, &[server]).await;
}

/// Restored, with a higher revision than before, and what was then compacted: nobody can tell, and leases that live on
/// hold what was there when the backup was made.
#[tokio::test]
async fn a_restored_server_that_has_forgotten_is_not_trusted() {
    let server = Etcd::builder().unsynced().token("always-the-same").start_or_skip().await;
    let Some(server) = server else { return };
    let proxy = Proxy::start(server.address()).unwrap();
    let [owner, witness] = [&proxy.address(), &server.address()].map(|address| format!("{address}/cn"));
    let stage = Stage::builder().owner(connect(&owner).await, 2 * BRIEF);
    let mut stage = stage.witness(connect(&witness).await, 2 * BRIEF).set().await;
    let backup = server.save().await.unwrap();
    stage.owner().update_all().await;
    stage.owner_mut().populate([7]).await;
    stage.recovered([0, 0]).await;
    let before = header(&server).await;

    proxy.refuse().await;
    noticed(stage.owner()).await;
    expect_restart(&stage);
    server.restore(&backup).await.unwrap();
    let mut stranger = stage::stranger(&server).await;
    for n in 0..2 * before.1 {
        stranger.put(format!("/elsewhere/{n}"), "1", None).await.unwrap();
    }
    drop(stranger);
    compact(&server).await;
    let after = header(&server).await;
    assert!(after.0 == before.0 && after.1 > before.1, "{before:?} {after:?}");
    proxy.pass().await;
    // The witness may have come back amid all this, and been cut off again.
    let outages = stage::settled(&stage).await;
    stage.recovered(outages).await;
    cleared(stage, &[server]).await;
}

/// Cluster id and revision of a server.
async fn header(server: &Etcd) -> (u64, i64) {
    let mut stranger = stage::stranger(server).await;
    let answer = stranger.get("/", None).await.unwrap();
    let header = answer.header().unwrap();
    (header.cluster_id(), header.revision())
}
