//! A cluster of three real etcd servers.

mod common;

use common::is_alive;
use discovery_testbed::{Etcd, EtcdCluster};

const PRINT: &str = "--print-value-only";

#[tokio::test]
async fn losing_and_regaining_the_leader() {
    let Some(cluster) = EtcdCluster::start_or_skip(3).await else { return };
    let cli = cluster.servers()[0].cli().endpoints(cluster.connect_string());
    cli.run(["put", "/kept", "data"]).await.unwrap();

    let first = cluster.leader().await.unwrap();
    cluster.servers()[first].kill().unwrap();
    let second = cluster.wait_for_quorum().await.unwrap();
    assert_ne!(second, first);
    assert_eq!(cli.run(["get", "/kept", PRINT]).await.unwrap(), "data");

    cluster.restart(first).unwrap();
    assert_eq!(cluster.wait_for_quorum().await.unwrap(), second);
    assert_eq!(cluster.leader().await.unwrap(), second);
    assert_eq!(cluster.servers()[first].cli().run(["get", "/kept", PRINT]).await.unwrap(), "data");
}

#[tokio::test]
async fn a_paused_leader_is_replaced_and_follows_when_it_wakes() {
    let Some(cluster) = EtcdCluster::start_or_skip(3).await else { return };
    let first = cluster.leader().await.unwrap();
    cluster.servers()[first].pause().unwrap();
    let second = cluster.wait_for_quorum().await.unwrap();
    assert_ne!(second, first);
    cluster.servers()[first].resume().unwrap();
    assert_eq!(cluster.wait_for_quorum().await.unwrap(), second);
}

#[tokio::test]
async fn a_lost_majority_comes_back() {
    let Some(cluster) = EtcdCluster::start_or_skip(3).await else { return };
    for server in cluster.servers() {
        server.kill().unwrap();
    }
    assert!(cluster.leader().await.is_err());
    cluster.restart(0).unwrap();
    cluster.restart(1).unwrap();
    let leader = cluster.wait_for_quorum().await.unwrap();
    assert!(leader < 2);
    cluster.servers()[2].restart().await.unwrap();
    assert_eq!(cluster.wait_for_quorum().await.unwrap(), leader);
}

#[tokio::test]
async fn a_cluster_is_wiped_and_restored_as_a_whole() {
    let Some(cluster) = EtcdCluster::start_or_skip(3).await else { return };
    let one = &cluster.servers()[0];
    one.cli().run(["put", "/kept", "data"]).await.unwrap();
    let backup = one.save().await.unwrap();
    assert!(one.wipe().await.is_err() && one.restore(&backup).await.is_err());

    cluster.wipe().await.unwrap();
    for server in cluster.servers() {
        assert_eq!(server.cli().run(["get", "/kept", PRINT]).await.unwrap(), "");
    }
    cluster.restore(&backup).await.unwrap();
    for server in cluster.servers() {
        assert_eq!(server.cli().run(["get", "/kept", PRINT]).await.unwrap(), "data");
    }
}

#[tokio::test]
async fn options_hold_for_every_server() {
    let options = Etcd::builder().tls().auth("alice", "secret").unsynced();
    let Some(cluster) = options.start_cluster_or_skip(3).await else { return };
    for server in cluster.servers() {
        assert_eq!(server.cli().run(["put", "/key", "value"]).await.unwrap(), "OK");
        assert!(server.cli().without_login().run(["get", "/key"]).await.is_err());
    }
    // The certificates are of one authority, so that one client can speak with all.
    let cli = cluster.servers()[0].cli().endpoints(cluster.connect_string());
    assert_eq!(cli.run(["get", "/key", PRINT]).await.unwrap(), "value");
    let granted = cli.run(["lease", "grant", "1"]).await.unwrap();
    assert!(granted.ends_with("granted with TTL(2s)"), "{granted}");
}

#[tokio::test]
async fn drop_leaves_no_process() {
    let Some(cluster) = EtcdCluster::start_or_skip(3).await else { return };
    let ids: Vec<_> = cluster.servers().iter().map(|server| server.id().unwrap()).collect();
    drop(cluster);
    assert!(!ids.into_iter().any(is_alive));
}
