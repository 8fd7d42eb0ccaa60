//! `ZooKeeper` servers from Debian's packages.

mod builder;
mod cli;
mod ensemble;
mod status;

use std::{io, net::SocketAddr, path::Path, sync::Arc, time::Duration};

use self::builder::{Login, ServerPorts};
pub use self::{builder::ZooKeeperBuilder, cli::ZkCli, ensemble::ZooKeeperEnsemble, status::Role};
use crate::{
    certificates::Certificates,
    process::Process,
    quorum::{self, Member, Serve},
    require,
};

const STOP_WITHIN: Duration = Duration::from_secs(20);

/// The server; its manifest names most of what it depends on.
const SERVER_JAR: &str = "/usr/share/java/zookeeper.jar";

/// Without a binding for its log façade the server says nothing at all, not even why it ends.
const LOG_JAR: &str = "/usr/share/java/slf4j-simple.jar";

/// What the network layer for TLS needs and the manifest of Debian's package forgets.
const NETTY_JARS: [&str; 3] = [
    "/usr/share/java/netty-codec.jar",
    "/usr/share/java/netty-resolver.jar",
    "/usr/share/java/netty-transport-native-unix-common.jar",
];

/// What is missing to run `ZooKeeper` here, if anything.
pub(crate) fn missing() -> Option<String> {
    let files = [&[SERVER_JAR, LOG_JAR], &NETTY_JARS[..]].concat();
    require::missing("java", &files, "default-jre-headless libzookeeper-java libslf4j-java libnetty-java")
}

fn class_path() -> String {
    [&[SERVER_JAR, LOG_JAR], &NETTY_JARS[..]].concat().join(":")
}

/// A running `ZooKeeper` server. Dropping it kills the server and removes its data.
#[derive(Debug)]
pub struct ZooKeeper {
    process: Process,
    ports: ServerPorts,
    certificates: Option<Arc<Certificates>>,
    login: Option<Login>,
}

impl ZooKeeper {
    /// Starts a single server with the default options.
    ///
    /// # Errors
    ///
    /// When the server does not come up; the error shows the end of its log.
    pub async fn start() -> io::Result<Self> {
        Self::builder().start().await
    }

    /// Starts a single server, or says why the test is skipped when `ZooKeeper` is not installed.
    ///
    /// # Panics
    ///
    /// When the server does not come up, and when [`REQUIRE`](crate::REQUIRE) forbids to skip.
    pub async fn start_or_skip() -> Option<Self> {
        Self::builder().start_or_skip().await
    }

    /// A server with other options.
    pub fn builder() -> ZooKeeperBuilder {
        ZooKeeperBuilder::default()
    }

    /// Where clients connect: the TLS port if there is one.
    pub fn address(&self) -> SocketAddr {
        self.ports.secure.as_ref().unwrap_or(&self.ports.client).address()
    }

    /// Where clients connect, as `ZooKeeper` clients want it: `127.0.0.1:port`.
    pub fn connect_string(&self) -> String {
        self.address().to_string()
    }

    /// What a client needs for the TLS port, on a server started with [`ZooKeeperBuilder::tls`].
    pub fn certificates(&self) -> Option<&Certificates> {
        self.certificates.as_deref()
    }

    /// Ends the server as a crash would (SIGKILL); its data stay for [`restart`](Self::restart).
    ///
    /// # Errors
    ///
    /// When the signal cannot be sent.
    pub fn kill(&self) -> io::Result<()> {
        self.process.kill()
    }

    /// Ends the server in order (SIGTERM) and waits for it; its data stay for [`restart`](Self::restart).
    ///
    /// # Errors
    ///
    /// When the server does not end.
    pub async fn stop(&self) -> io::Result<()> {
        self.process.stop(STOP_WITHIN).await
    }

    /// Starts the server again, on the same port with the same data, killing it first if it runs. Returns when
    /// it serves.
    ///
    /// # Errors
    ///
    /// When the server does not come up; the error shows the end of its log.
    pub async fn restart(&self) -> io::Result<()> {
        self.kill()?;
        self.process.spawn()?;
        quorum::ready(self).await
    }

    /// Freezes the server (SIGSTOP): its connections stay open and nothing is answered.
    ///
    /// # Errors
    ///
    /// When the server is not running.
    pub fn pause(&self) -> io::Result<()> {
        self.process.pause()
    }

    /// Lets a paused server go on (SIGCONT).
    ///
    /// # Errors
    ///
    /// When the server is not running.
    pub fn resume(&self) -> io::Result<()> {
        self.process.resume()
    }

    /// What the server is at the moment.
    ///
    /// # Errors
    ///
    /// When the server does not answer or does not serve, as without a quorum.
    pub async fn role(&self) -> io::Result<Role> {
        status::role(self.ports.client.address()).await
    }

    /// The answer to a four letter word, e.g. `cons` or `mntr`.
    ///
    /// # Errors
    ///
    /// When the server does not answer.
    pub async fn four_letter_word(&self, word: &str) -> io::Result<String> {
        status::four_letter_word(self.ports.client.address(), word).await
    }

    /// `ZooKeeper`'s own command line client, with what this server asks of clients.
    pub fn cli(&self) -> ZkCli {
        ZkCli::new(self.connect_string(), self.dir(), self.certificates.is_some(), self.login.is_some())
    }

    /// The process id, while the server runs.
    pub fn id(&self) -> Option<u32> {
        self.process.id()
    }

    /// The temporary directory with the server's configuration, data and log.
    pub fn dir(&self) -> &Path {
        self.process.dir()
    }

    /// Everything the server has logged, over all its starts.
    pub fn log(&self) -> String {
        self.process.log()
    }
}

impl Member for ZooKeeper {
    async fn leads(&self) -> io::Result<bool> {
        Ok(self.role().await? == Role::Leader)
    }
}

impl Serve for ZooKeeper {
    fn process(&self) -> &Process {
        &self.process
    }

    async fn serves(&self) -> io::Result<()> {
        // Not `ruok`: it is answered before the server serves.
        self.role().await?;
        Ok(())
    }
}
