//! A store of its own for every check: compaction is for a whole cluster, and so is the number of its watches.

use std::{net::SocketAddr, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use discovery::{
    Backend,
    conformance::{Disrupt, Disruption, Harness},
    kv::Key,
};
use discovery_testbed::{Etcd, EtcdCluster, Proxy};
use etcd_client::LeaseTimeToLiveOptions;

use crate::common;

/// Servers, and lines to each of them that can be cut.
pub(crate) struct EtcdHarness<S> {
    servers: S,
    lines: Vec<Proxy>,
}

/// One server, or several.
pub(crate) trait Servers: Send + Sync + 'static {
    fn servers(&self) -> &[Etcd];
}

impl Servers for Etcd {
    fn servers(&self) -> &[Etcd] {
        std::slice::from_ref(self)
    }
}

impl Servers for EtcdCluster {
    fn servers(&self) -> &[Etcd] {
        Self::servers(self)
    }
}

impl<S: Servers> EtcdHarness<S> {
    pub(crate) fn new(servers: S) -> Self {
        let lines = servers.servers().iter().map(|server| Proxy::start(server.address()).unwrap());
        Self { lines: lines.collect(), servers }
    }

    fn client(addresses: impl Iterator<Item = SocketAddr>) -> Arc<dyn Backend> {
        let addresses: Vec<_> = addresses.map(|address| address.to_string()).collect();
        Arc::new(common::etcd(&addresses.join(",")))
    }

    async fn stranger(&self) -> etcd_client::Client {
        common::stranger(&self.servers.servers()[0].connect_string()).await
    }
}

#[async_trait]
impl<S: Servers> Harness for EtcdHarness<S> {
    async fn backend(&self) -> Arc<dyn Backend> {
        Self::client(self.servers.servers().iter().map(Etcd::address))
    }

    fn disrupt(&self) -> Option<&dyn Disrupt> {
        Some(self)
    }

    async fn plant(&self, key: &Key, value: Bytes) {
        self.stranger().await.put(format!("/cn/{}", key.as_str()), value, None).await.unwrap();
    }

    fn plants_without_limit(&self) -> bool {
        true
    }

    async fn open_watches(&self) -> Option<usize> {
        let mut open = 0.0;
        for server in self.servers.servers() {
            open += server.metric("etcd_debugging_mvcc_watcher_total").await.unwrap();
        }
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a small count")]
        Some(open as usize)
    }
}

#[async_trait]
impl<S: Servers> Disrupt for EtcdHarness<S> {
    fn can(&self, _: Disruption) -> bool {
        true
    }

    async fn backend(&self) -> Arc<dyn Backend> {
        Self::client(self.lines.iter().map(Proxy::address))
    }

    async fn cause(&self, disruption: Disruption) {
        let mut stranger = self.stranger().await;
        match disruption {
            Disruption::Cut => {
                for line in &self.lines {
                    line.refuse().await;
                }
            }
            // Whoever holds them: nobody else's are to be seen on a store of its own.
            Disruption::Expire => {
                for lease in stranger.leases().await.unwrap().leases() {
                    let keys = LeaseTimeToLiveOptions::new().with_keys();
                    let held = stranger.lease_time_to_live(lease.id(), Some(keys)).await.unwrap();
                    if !held.keys().is_empty() {
                        stranger.lease_revoke(lease.id()).await.unwrap();
                    }
                }
            }
            Disruption::Compact => {
                let now = stranger.get("/", None).await.unwrap().header().unwrap().revision();
                // Once more is an error: there is nothing new to be forgotten.
                let _ = stranger.compact(now, None).await;
            }
            other => panic!("a disruption that came later: {other:?}"),
        }
    }

    async fn heal(&self) {
        for line in &self.lines {
            line.pass().await;
        }
    }
}
