//! Several servers that elect a leader.

use std::io;

use super::ZooKeeper;
use crate::quorum;

/// `ZooKeeper` servers that form one ensemble. Dropping it kills them and removes their data.
#[derive(Debug)]
pub struct ZooKeeperEnsemble {
    servers: Vec<ZooKeeper>,
}

impl ZooKeeperEnsemble {
    pub(super) fn new(servers: Vec<ZooKeeper>) -> Self {
        Self { servers }
    }

    /// Starts an ensemble of `size` servers with the default options and waits until all of them serve.
    ///
    /// # Errors
    ///
    /// When a server does not come up; the error shows the end of its log.
    pub async fn start(size: usize) -> io::Result<Self> {
        ZooKeeper::builder().start_ensemble(size).await
    }

    /// Starts an ensemble, or says why the test is skipped when `ZooKeeper` is not installed.
    ///
    /// # Panics
    ///
    /// When a server does not come up, and when [`REQUIRE`](crate::REQUIRE) forbids to skip.
    pub async fn start_or_skip(size: usize) -> Option<Self> {
        ZooKeeper::builder().start_ensemble_or_skip(size).await
    }

    /// Where clients connect: the addresses of all servers, separated by commas.
    pub fn connect_string(&self) -> String {
        self.servers.iter().map(ZooKeeper::connect_string).collect::<Vec<_>>().join(",")
    }

    /// The servers, to be killed, paused and asked one by one. [`ZooKeeper::restart`] waits until the server
    /// serves, which takes a quorum: after a loss of the majority use [`restart`](Self::restart).
    pub fn servers(&self) -> &[ZooKeeper] {
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
}
