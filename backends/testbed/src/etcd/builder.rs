//! Options of a server, and how they become a command.

use std::{io, path::Path, sync::Arc, time::Duration};

use super::{Etcd, EtcdCluster, data};
use crate::{
    certificates::{Certificates, PemFiles},
    ports::{self, Port},
    process::Process,
    require::Server,
};

/// What every server is told.
const BASE: [&str; 6] = [
    "--logger=zap",
    "--log-level=warn",
    "--log-outputs=stderr",
    // A server that comes back does not unseat the leader; what etcd 3.5 does unless told otherwise.
    "--pre-vote=true",
    // The least that there is. By default the server spends 50 ms on every login.
    "--bcrypt-cost=4",
    // Nobody speaks JSON to it, and with TLS it would want the server's certificate to be a client's too.
    "--enable-grpc-gateway=false",
];

/// The pace of a server that has nobody to lose touch with. After a restart it waits for one or two election timeouts
/// before it leads.
const ALONE: [&str; 2] = ["--heartbeat-interval=10", "--election-timeout=100"];

/// The pace of several servers, which may have to wait for processor and disk: a follower calls an election when it
/// has heard nothing of its leader for one or two seconds.
const TOGETHER: [&str; 2] = ["--heartbeat-interval=100", "--election-timeout=1000"];

/// Options of an [`Etcd`] server or [`EtcdCluster`].
///
/// The shortest lease that a server grants is one and a half times its election timeout, in whole seconds: 1 s for
/// a single server (100 ms), 2 s in a cluster (1 s). Who asks for less gets that.
#[derive(Debug, Clone, Default)]
#[must_use]
pub struct EtcdBuilder {
    tls: bool,
    login: Option<Login>,
    token_ttl: Option<Duration>,
    unsynced: bool,
    token: Option<String>,
    flags: Vec<String>,
}

impl EtcdBuilder {
    /// Speaks TLS with clients and demands a client certificate. The certificates are [`Etcd::certificates`].
    pub fn tls(mut self) -> Self {
        self.tls = true;
        self
    }

    /// Admits only clients that log in (with TLS, those too that show a certificate in a user's name).
    ///
    /// `user` may read and write all keys. The user `root`, which may do everything, has the same password.
    pub fn auth(mut self, user: impl Into<String>, password: impl Into<String>) -> Self {
        self.login = Some(Login::new(user, password));
        self
    }

    /// How long a login is good for after its last use (`auth-token-ttl`), 5 min by default; in whole seconds, at
    /// least one.
    pub fn token_ttl(mut self, ttl: Duration) -> Self {
        self.token_ttl = Some(ttl);
        self
    }

    /// Starts each cluster with the same token (`initial-cluster-token`): one that is wiped then has the id that it had
    /// before, as when somebody starts a server again by the same command without its data.
    pub fn token(mut self, token: impl Into<String>) -> Self {
        self.token = Some(token.into());
        self
    }

    /// Acknowledges writes before they are on disk (`unsafe-no-fsync`, which the server's help does not mention):
    /// faster, and a killed server still has its data, as long as the machine lives.
    pub fn unsynced(mut self) -> Self {
        self.unsynced = true;
        self
    }

    /// Any other flag of the server, e.g. `max-txn-ops`; it takes precedence over what the testbed sets.
    pub fn flag(mut self, name: &str, value: &str) -> Self {
        self.flags.push(format!("--{name}={value}"));
        self
    }

    /// Starts a single server.
    ///
    /// # Errors
    ///
    /// When the server does not come up; the error shows the end of its log.
    pub async fn start(&self) -> io::Result<Etcd> {
        ports::retry(|| self.start_once()).await
    }

    /// Starts a single server, or says why the test is skipped when etcd is not installed.
    ///
    /// # Panics
    ///
    /// When the server does not come up, and when [`REQUIRE`](crate::REQUIRE) forbids to skip.
    pub async fn start_or_skip(&self) -> Option<Etcd> {
        Server::Etcd.or_skip(self.start()).await
    }

    /// Starts a cluster of `size` servers and waits until all of them serve.
    ///
    /// # Errors
    ///
    /// When a server does not come up; the error shows the end of its log.
    pub async fn start_cluster(&self, size: usize) -> io::Result<EtcdCluster> {
        ports::retry(|| self.start_cluster_once(size)).await
    }

    /// Starts a cluster, or says why the test is skipped when etcd is not installed.
    ///
    /// # Panics
    ///
    /// When a server does not come up, and when [`REQUIRE`](crate::REQUIRE) forbids to skip.
    pub async fn start_cluster_or_skip(&self, size: usize) -> Option<EtcdCluster> {
        Server::Etcd.or_skip(self.start_cluster(size)).await
    }

    async fn start_once(&self) -> io::Result<Etcd> {
        let mut servers = self.prepare(1)?;
        data::bootstrap(&servers).await?;
        Ok(servers.remove(0))
    }

    async fn start_cluster_once(&self, size: usize) -> io::Result<EtcdCluster> {
        let servers = self.prepare(size)?;
        data::bootstrap(&servers).await?;
        Ok(EtcdCluster::new(servers))
    }

    /// Describes `size` servers that know of each other, and writes what they read.
    fn prepare(&self, size: usize) -> io::Result<Vec<Etcd>> {
        let certificates = if self.tls { Some(Arc::new(Certificates::generate()?)) } else { None };
        let ports: Vec<_> = (0..size).map(|_| ServerPorts::reserve()).collect::<io::Result<_>>()?;
        let peers: Vec<_> = ports.iter().map(ServerPorts::peer_url).collect();
        let servers = ports.into_iter().enumerate().map(|(index, ports)| {
            let member = Membership::new(index, &peers);
            let dir = tempfile::Builder::new().prefix("discovery-etcd-").tempdir()?;
            if let Some(certificates) = &certificates {
                PemFiles::write(dir.path(), certificates)?;
            }
            let label =
                if member.is_alone() { "etcd".to_owned() } else { format!("etcd {index} of a cluster") };
            let label = format!("{label} on port {}", ports.client.number());
            let arguments = self.arguments(dir.path(), &ports, &member);
            let process = Process::new(label, dir, "etcd", arguments);
            let (certificates, login) = (certificates.clone(), self.login.clone());
            Ok(Etcd { process, ports, member, certificates, login, token: self.token.clone() })
        });
        servers.collect()
    }

    fn arguments(&self, dir: &Path, ports: &ServerPorts, member: &Membership) -> Vec<String> {
        let mut arguments: Vec<_> = BASE.map(str::to_owned).into();
        arguments.extend(if member.is_alone() { ALONE } else { TOGETHER }.map(str::to_owned));
        arguments.extend(member.flags(dir));
        let scheme = if self.tls { "https" } else { "http" };
        for flag in ["listen-client-urls", "advertise-client-urls"] {
            arguments.push(format!("--{flag}={scheme}://{}", ports.client.address()));
        }
        arguments.push(format!("--listen-peer-urls={}", ports.peer_url()));
        // Without TLS and login, whatever clients have to bring.
        arguments.push(format!("--listen-metrics-urls=http://{}", ports.metrics.address()));
        if self.tls {
            let files = PemFiles::in_dir(dir);
            arguments.push(format!("--trusted-ca-file={}", files.authority.display()));
            // One file with both, from which the server takes what it needs.
            arguments.push(format!("--cert-file={}", files.server.display()));
            arguments.push(format!("--key-file={}", files.server.display()));
            arguments.push("--client-cert-auth=true".to_owned());
        }
        if let Some(ttl) = self.token_ttl {
            let seconds = ttl.as_secs_f64().ceil().max(1.0);
            arguments.push(format!("--auth-token-ttl={seconds}"));
        }
        if self.unsynced {
            arguments.push("--unsafe-no-fsync=true".to_owned());
        }
        // The last of two flags of the same name counts.
        arguments.extend(self.flags.iter().cloned());
        arguments
    }
}

/// The ports of one server.
#[derive(Debug)]
pub(super) struct ServerPorts {
    pub(super) client: Port,
    pub(super) metrics: Port,
    peer: Port,
}

impl ServerPorts {
    fn reserve() -> io::Result<Self> {
        Ok(Self { client: Port::reserve()?, metrics: Port::reserve()?, peer: Port::reserve()? })
    }

    fn peer_url(&self) -> String {
        format!("http://{}", self.peer.address())
    }
}

/// Who a server is among those that it forms a cluster with.
#[derive(Debug)]
pub(super) struct Membership {
    index: usize,
    peers: Vec<String>,
}

impl Membership {
    fn new(index: usize, peers: &[String]) -> Self {
        Self { index, peers: peers.to_owned() }
    }

    pub(super) fn is_alone(&self) -> bool {
        self.peers.len() == 1
    }

    /// What the server in `dir` and a client that restores a backup for it both are told.
    pub(super) fn flags(&self, dir: &Path) -> [String; 4] {
        let all: Vec<_> =
            self.peers.iter().enumerate().map(|(index, peer)| format!("n{index}={peer}")).collect();
        [
            format!("--data-dir={}", dir.join("data").display()),
            format!("--name=n{}", self.index),
            format!("--initial-advertise-peer-urls={}", self.peers[self.index]),
            format!("--initial-cluster={}", all.join(",")),
        ]
    }
}

/// Who may log in.
#[derive(Debug, Clone)]
pub(super) struct Login {
    pub(super) user: String,
    pub(super) password: String,
}

impl Login {
    pub(super) fn new(user: impl Into<String>, password: impl Into<String>) -> Self {
        Self { user: user.into(), password: password.into() }
    }
}
