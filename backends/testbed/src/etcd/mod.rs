//! etcd servers from Debian's packages.

mod builder;
mod cli;
mod cluster;
mod data;
mod metrics;

use std::{
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    slice,
    sync::Arc,
    time::Duration,
};

use self::builder::{Login, Membership, ServerPorts};
pub use self::{builder::EtcdBuilder, cli::EtcdCtl, cluster::EtcdCluster};
use crate::{
    certificates::Certificates,
    process::Process,
    quorum::{self, Member, Serve},
    require,
};

const STOP_WITHIN: Duration = Duration::from_secs(20);

/// What is missing to run etcd here, if anything.
pub(crate) fn missing() -> Option<String> {
    ["etcd", "etcdctl"].iter().find_map(|program| require::missing(program, &[], "etcd-server etcd-client"))
}

/// A running etcd server. Dropping it kills the server and removes its data.
#[derive(Debug)]
pub struct Etcd {
    process: Process,
    ports: ServerPorts,
    member: Membership,
    certificates: Option<Arc<Certificates>>,
    login: Option<Login>,
    /// Of the cluster, if it is to be always the same.
    token: Option<String>,
}

impl Etcd {
    /// Starts a single server with the default options.
    ///
    /// # Errors
    ///
    /// When the server does not come up; the error shows the end of its log.
    pub async fn start() -> io::Result<Self> {
        Self::builder().start().await
    }

    /// Starts a single server, or says why the test is skipped when etcd is not installed.
    ///
    /// # Panics
    ///
    /// When the server does not come up, and when [`REQUIRE`](crate::REQUIRE) forbids to skip.
    pub async fn start_or_skip() -> Option<Self> {
        Self::builder().start_or_skip().await
    }

    /// A server with other options.
    pub fn builder() -> EtcdBuilder {
        EtcdBuilder::default()
    }

    /// Where clients connect.
    pub fn address(&self) -> SocketAddr {
        self.ports.client.address()
    }

    /// Where clients connect: `127.0.0.1:port`, without a scheme.
    pub fn connect_string(&self) -> String {
        self.address().to_string()
    }

    /// What a client needs, on a server started with [`EtcdBuilder::tls`].
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

    /// Ends the server in order (SIGTERM) and waits for it; its data stay for [`restart`](Self::restart). A leader
    /// hands over to another member first.
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

    /// Kills the server and starts it on the same port with nothing: another cluster, whose revisions begin again.
    /// Returns when it serves; a server with [`EtcdBuilder::auth`] then demands a login again.
    ///
    /// # Errors
    ///
    /// When the server is one of a cluster (see [`EtcdCluster::wipe`]), or does not come up; the error shows the
    /// end of its log.
    pub async fn wipe(&self) -> io::Result<()> {
        data::wipe(self.alone()?).await
    }

    /// Writes a backup of all that the server holds into its [`dir`](Self::dir), and returns the file.
    ///
    /// # Errors
    ///
    /// When the server does not serve.
    pub async fn save(&self) -> io::Result<PathBuf> {
        // The client would try again for a minute.
        metrics::health(self.ports.metrics.address()).await?;
        let backup = self.dir().join(format!("backup-{:016x}.db", fastrand::u64(..)));
        let cli = match &self.login {
            Some(Login { password, .. }) => self.cli().login(data::ROOT, password),
            None => self.cli(),
        };
        cli.run(["snapshot".as_ref(), "save".as_ref(), backup.as_os_str()]).await?;
        Ok(backup)
    }

    /// Kills the server and starts it on the same port with what `backup` holds, leases and users too, as another
    /// cluster: its revisions go on from that of the backup, whatever clients have seen since. Returns when it serves.
    ///
    /// # Errors
    ///
    /// When the server is one of a cluster (see [`EtcdCluster::restore`]), there is no such backup, or the server
    /// does not come up; the error shows the end of its log.
    pub async fn restore(&self, backup: &Path) -> io::Result<()> {
        data::restore(self.alone()?, backup).await
    }

    /// The sum of all samples of one of the server's metrics since it was started, e.g. `etcd_server_is_leader`.
    ///
    /// # Errors
    ///
    /// When the server does not answer, or shows no such metric; some appear with their first sample only.
    pub async fn metric(&self, name: &str) -> io::Result<f64> {
        self.metric_labelled(name, "").await
    }

    /// Like [`metric`](Self::metric), of those samples only whose labels contain `label`, which may be none. The
    /// range requests since the server was started are `grpc_server_started_total` with `grpc_method="Range"`.
    ///
    /// # Errors
    ///
    /// When the server does not answer, or shows no such metric; some appear with their first sample only.
    pub async fn metric_labelled(&self, name: &str, label: &str) -> io::Result<f64> {
        metrics::sum(self.ports.metrics.address(), name, label).await
    }

    /// etcd's own command line client, with what this server asks of clients.
    pub fn cli(&self) -> EtcdCtl {
        EtcdCtl::new(self.connect_string(), self.dir(), self.certificates.is_some(), self.login.clone())
    }

    /// The process id, while the server runs.
    pub fn id(&self) -> Option<u32> {
        self.process.id()
    }

    /// The temporary directory with the server's data, log and backups.
    pub fn dir(&self) -> &Path {
        self.process.dir()
    }

    /// Everything the server has logged, over all its starts.
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// All servers of the cluster, if that is this one.
    fn alone(&self) -> io::Result<&[Self]> {
        if self.member.is_alone() {
            Ok(slice::from_ref(self))
        } else {
            Err(io::Error::other("one server of a cluster cannot become another cluster"))
        }
    }
}

impl Member for Etcd {
    async fn leads(&self) -> io::Result<bool> {
        Ok(self.metric("etcd_server_is_leader").await? > 0.0)
    }
}

impl Serve for Etcd {
    fn process(&self) -> &Process {
        &self.process
    }

    async fn serves(&self) -> io::Result<()> {
        // First, as the server logs every question after its health while it knows no leader.
        if self.metric("etcd_server_has_leader").await? > 0.0 {
            metrics::health(self.ports.metrics.address()).await
        } else {
            Err(io::Error::other(format!("etcd on port {} knows no leader", self.ports.client.number())))
        }
    }
}
