//! The conformance suite on a real etcd: one server, and a cluster of three.

#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "../common/mod.rs"]
mod common;
mod harness;

use discovery_testbed::{Etcd, EtcdCluster};
use harness::EtcdHarness;

async fn single() -> Option<EtcdHarness<Etcd>> {
    Some(EtcdHarness::new(Etcd::builder().unsynced().start_or_skip().await?))
}

async fn cluster() -> Option<EtcdHarness<EtcdCluster>> {
    Some(EtcdHarness::new(Etcd::builder().unsynced().start_cluster_or_skip(3).await?))
}

discovery::conformance_tests!(single().await);

mod three {
    use super::cluster;

    discovery::conformance_tests!(cluster().await, "conformance-cluster.txt");
}
