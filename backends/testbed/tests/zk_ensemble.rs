//! An ensemble of three real `ZooKeeper` servers.

mod common;

use common::is_alive;
use discovery_testbed::{Role, ZooKeeperEnsemble};

#[tokio::test]
async fn losing_and_regaining_the_leader() {
    let Some(ensemble) = ZooKeeperEnsemble::start_or_skip(3).await else { return };
    let cli = ensemble.servers()[0].cli().connect_string(ensemble.connect_string());
    cli.run(["create", "/kept", "data"]).await.unwrap();

    let first = ensemble.leader().await.unwrap();
    ensemble.servers()[first].kill().unwrap();
    let second = ensemble.wait_for_quorum().await.unwrap();
    assert_ne!(second, first);
    assert_eq!(cli.run(["get", "/kept"]).await.unwrap(), "data");

    ensemble.restart(first).unwrap();
    assert_eq!(ensemble.wait_for_quorum().await.unwrap(), second);
    assert_eq!(ensemble.servers()[first].role().await.unwrap(), Role::Follower);
    assert_eq!(ensemble.servers()[first].cli().run(["get", "/kept"]).await.unwrap(), "data");
}

#[tokio::test]
async fn a_paused_leader_is_replaced_and_follows_when_it_wakes() {
    let Some(ensemble) = ZooKeeperEnsemble::start_or_skip(3).await else { return };
    let first = ensemble.leader().await.unwrap();
    ensemble.servers()[first].pause().unwrap();
    let second = ensemble.wait_for_quorum().await.unwrap();
    assert_ne!(second, first);
    ensemble.servers()[first].resume().unwrap();
    assert_eq!(ensemble.wait_for_quorum().await.unwrap(), second);
    assert_eq!(ensemble.servers()[first].role().await.unwrap(), Role::Follower);
}

#[tokio::test]
async fn a_lost_majority_comes_back() {
    let Some(ensemble) = ZooKeeperEnsemble::start_or_skip(3).await else { return };
    for server in ensemble.servers() {
        server.kill().unwrap();
    }
    assert!(ensemble.leader().await.is_err());
    ensemble.restart(0).unwrap();
    ensemble.restart(1).unwrap();
    let leader = ensemble.wait_for_quorum().await.unwrap();
    assert!(leader < 2);
    ensemble.servers()[2].restart().await.unwrap();
    assert_eq!(ensemble.wait_for_quorum().await.unwrap(), leader);
}

#[tokio::test]
async fn drop_leaves_no_process() {
    let Some(ensemble) = ZooKeeperEnsemble::start_or_skip(3).await else { return };
    let ids: Vec<_> = ensemble.servers().iter().map(|server| server.id().unwrap()).collect();
    drop(ensemble);
    assert!(!ids.into_iter().any(is_alive));
}
