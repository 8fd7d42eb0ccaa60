//! Several servers that elect a leader.

use std::{io, path::Path};

use super::{Etcd, data};
use crate::quorum;

/// etcd servers that form one cluster. Dropping it kills them and removes their data.
///
/// A start takes 0.3 s, or up to 3 s where the first election fails; a silent leader is replaced within one to three
/// seconds.
#[derive(Debug)]
pub struct EtcdCluster {
    servers: Vec<Etcd>,
}

impl EtcdCluster {
    pub(super) fn new(servers: Vec<Etcd>) -> Self {
        Self { servers }
    }

    /// Starts a cluster of `size` servers with the default options and waits until all of them serve.
    ///
    /// # Errors
    ///
    /// When a server does not come up; the error shows the end of its log.
    pub async fn start(size: usize) -> io::Result<Self> {
        Etcd::builder().start_cluster(size).await
    }

    /// Starts a cluster, or says why the test is skipped when etcd is not installed.
    ///
    /// # Panics
    ///
    /// When a server does not come up, and when [`REQUIRE`](crate::REQUIRE) forbids to skip.
    pub async fn start_or_skip(size: usize) -> Option<Self> {
        Etcd::builder().start_cluster_or_skip(size).await
    }

    /// Where clients connect: the addresses of all servers, separated by commas.
    pub fn connect_string(&self) -> String {
        self.servers.iter().map(Etcd::connect_string).collect::<Vec<_>>().join(",")
    }

    /// The servers, to be killed, paused and asked one by one. [`Etcd::restart`] waits until the server serves,
    /// which takes a quorum: after a loss of the majority use [`restart`](Self::restart).
    pub fn servers(&self) -> &[Etcd] {
        &self.servers
    }

    /// Starts server `index` again, with the same ports and data, without waiting for it; see
    /// [`wait_for_quorum`](Self::wait_for_quorum).
    ///
    /// # Errors
    ///
    /// When the process cannot be started.
    ///
    /// # Panics
    ///
    /// When there is no server `index`.
    pub fn restart(&self, index: usize) -> io::Result<()> {
        let server = &self.servers[index];
        server.kill()?;
        server.process.spawn()
    }

    /// The index of the leader.
    ///
    /// # Errors
    ///
    /// When no server leads, or two still believe they do; see [`wait_for_quorum`](Self::wait_for_quorum).
    pub async fn leader(&self) -> io::Result<usize> {
        quorum::leader(&self.servers).await
    }

    /// Waits until every server that is neither down nor paused serves, under one leader, and they are the
    /// majority; returns the index of the leader.
    ///
    /// # Errors
    ///
    /// When that takes too long, or a server ends by itself.
    pub async fn wait_for_quorum(&self) -> io::Result<usize> {
        quorum::wait(&self.servers).await
    }

    /// [`Etcd::wipe`] for a cluster.
    ///
    /// # Errors
    ///
    /// When a server does not come up; the error shows the end of its log.
    pub async fn wipe(&self) -> io::Result<()> {
        data::wipe(&self.servers).await
    }

    /// [`Etcd::restore`] for a cluster.
    ///
    /// # Errors
    ///
    /// When there is no such backup, or a server does not come up; the error shows the end of its log.
    pub async fn restore(&self, backup: &Path) -> io::Result<()> {
        data::restore(&self.servers, backup).await
    }
}
