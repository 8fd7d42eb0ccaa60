//! Options of a server, and how they become a configuration and a command.

use std::{fmt::Write as _, fs, io, path::Path, sync::Arc};

use super::{ZooKeeper, ZooKeeperEnsemble, class_path};
use crate::{
    certificates::{Certificates, PemFiles},
    ports::{self, Port},
    process::Process,
    quorum,
    require::Server,
};

/// Short ticks, so that tests may ask for short sessions; the longest session is about that of the default tick.
/// In an ensemble, a server may take 10 s to join and a silent leader is given up after 2 s.
const BASE: &str = "\
tickTime=200
minSessionTimeout=400
maxSessionTimeout=60000
initLimit=50
syncLimit=10
maxClientCnxns=0
admin.enableServer=false
4lw.commands.whitelist=*
";

/// Options of a [`ZooKeeper`] server or [`ZooKeeperEnsemble`].
#[derive(Debug, Clone, Default)]
#[must_use]
pub struct ZooKeeperBuilder {
    tls: bool,
    login: Option<Login>,
    unsynced: bool,
    max_buffer: Option<u32>,
}

impl ZooKeeperBuilder {
    /// Offers clients a TLS port that demands a client certificate, besides the plain port that the testbed asks
    /// for the state of the server. The certificates are [`ZooKeeper::certificates`].
    pub fn tls(mut self) -> Self {
        self.tls = true;
        self
    }

    /// Admits only clients that log in by SASL DIGEST-MD5 as `user` with `password`. Neither may hold a `"`.
    pub fn sasl(mut self, user: impl Into<String>, password: impl Into<String>) -> Self {
        self.login = Some(Login { user: user.into(), password: password.into() });
        self
    }

    /// Acknowledges writes before they are on disk (`forceSync=no`): faster, and a killed server still has its
    /// data, as long as the machine lives.
    pub fn unsynced(mut self) -> Self {
        self.unsynced = true;
        self
    }

    /// The largest request or answer in bytes (`jute.maxbuffer`), 1 MiB by default.
    pub fn max_buffer(mut self, bytes: u32) -> Self {
        self.max_buffer = Some(bytes);
        self
    }

    /// Starts a single server.
    ///
    /// # Errors
    ///
    /// When the server does not come up; the error shows the end of its log.
    pub async fn start(&self) -> io::Result<ZooKeeper> {
        ports::retry(|| self.start_once()).await
    }

    /// Starts a single server, or says why the test is skipped when `ZooKeeper` is not installed.
    ///
    /// # Panics
    ///
    /// When the server does not come up, and when [`REQUIRE`](crate::REQUIRE) forbids to skip.
    pub async fn start_or_skip(&self) -> Option<ZooKeeper> {
        Server::ZooKeeper.or_skip(self.start()).await
    }

    /// Starts an ensemble of `size` servers and waits until all of them serve.
    ///
    /// # Errors
    ///
    /// When a server does not come up; the error shows the end of its log.
    pub async fn start_ensemble(&self, size: usize) -> io::Result<ZooKeeperEnsemble> {
        ports::retry(|| self.start_ensemble_once(size)).await
    }

    /// Starts an ensemble, or says why the test is skipped when `ZooKeeper` is not installed.
    ///
    /// # Panics
    ///
    /// When a server does not come up, and when [`REQUIRE`](crate::REQUIRE) forbids to skip.
    pub async fn start_ensemble_or_skip(&self, size: usize) -> Option<ZooKeeperEnsemble> {
        Server::ZooKeeper.or_skip(self.start_ensemble(size)).await
    }

    async fn start_once(&self) -> io::Result<ZooKeeper> {
        let ports = ServerPorts::reserve(self)?;
        let server = self.prepare("ZooKeeper", ports, &[], self.certificates()?)?;
        server.process.spawn()?;
        quorum::ready(&server).await?;
        Ok(server)
    }

    async fn start_ensemble_once(&self, size: usize) -> io::Result<ZooKeeperEnsemble> {
        let certificates = self.certificates()?;
        let ports: Vec<_> = (0..size).map(|_| ServerPorts::reserve(self)).collect::<io::Result<_>>()?;
        let peers: Vec<_> = ports.iter().map(ServerPorts::peer).collect();
        let servers = ports.into_iter().enumerate().map(|(index, ports)| {
            let label = format!("ZooKeeper {index} of an ensemble");
            let server = self.prepare(&label, ports, &peers, certificates.clone())?;
            fs::write(server.dir().join("data/myid"), (index + 1).to_string())?;
            server.process.spawn()?;
            Ok(server)
        });
        let ensemble = ZooKeeperEnsemble::new(servers.collect::<io::Result<_>>()?);
        ensemble.wait_for_quorum().await?;
        Ok(ensemble)
    }

    fn certificates(&self) -> io::Result<Option<Arc<Certificates>>> {
        if self.tls { Certificates::generate().map(Arc::new).map(Some) } else { Ok(None) }
    }

    /// Writes everything the server reads. `peers` are the addresses that the servers of an ensemble use among
    /// themselves.
    fn prepare(
        &self,
        label: &str,
        ports: ServerPorts,
        peers: &[String],
        certificates: Option<Arc<Certificates>>,
    ) -> io::Result<ZooKeeper> {
        let dir = tempfile::Builder::new().prefix("discovery-zk-").tempdir()?;
        fs::create_dir(dir.path().join("data"))?;
        if let Some(certificates) = &certificates {
            PemFiles::write(dir.path(), certificates)?;
        }
        if let Some(login) = &self.login {
            fs::write(dir.path().join(JAAS_FILE), login.jaas())?;
        }
        fs::write(dir.path().join("zoo.cfg"), self.config(dir.path(), &ports, peers))?;
        let process =
            Process::new(format!("{label} on port {}", ports.client.number()), dir, "java", self.arguments());
        Ok(ZooKeeper { process, ports, certificates, login: self.login.clone() })
    }

    fn config(&self, dir: &Path, ports: &ServerPorts, peers: &[String]) -> String {
        let mut config = BASE.to_owned();
        let mut set = |key: &str, value: &dyn std::fmt::Display| {
            writeln!(config, "{key}={value}").expect("writing to a string does not fail");
        };
        set("dataDir", &dir.join("data").display());
        set("clientPortAddress", &ports.client.address().ip());
        set("clientPort", &ports.client.number());
        if self.unsynced {
            set("forceSync", &"no");
        }
        for (index, peer) in peers.iter().enumerate() {
            set(&format!("server.{}", index + 1), peer);
        }
        if let Some(secure) = &ports.secure {
            let files = PemFiles::in_dir(dir);
            set("secureClientPortAddress", &secure.address().ip());
            set("secureClientPort", &secure.number());
            set("serverCnxnFactory", &"org.apache.zookeeper.server.NettyServerCnxnFactory");
            set("ssl.keyStore.location", &files.server.display());
            set("ssl.trustStore.location", &files.authority.display());
            set("ssl.clientAuth", &"need");
        }
        if self.login.is_some() {
            set("authProvider.1", &"org.apache.zookeeper.server.auth.SASLAuthenticationProvider");
            // Otherwise a client that never logs in is served as anybody.
            set("sessionRequireClientSASLAuth", &"true");
        }
        config
    }

    fn arguments(&self) -> Vec<String> {
        let mut arguments = vec!["-Xmx512m".to_owned(), "-cp".to_owned(), class_path()];
        if let Some(bytes) = self.max_buffer {
            arguments.push(format!("-Djute.maxbuffer={bytes}"));
        }
        if self.login.is_some() {
            arguments.push(format!("-Djava.security.auth.login.config={JAAS_FILE}"));
        }
        arguments
            .extend(["org.apache.zookeeper.server.quorum.QuorumPeerMain", "./zoo.cfg"].map(str::to_owned));
        arguments
    }
}

/// The ports of one server.
#[derive(Debug)]
pub(super) struct ServerPorts {
    pub(super) client: Port,
    pub(super) secure: Option<Port>,
    /// Used by ensembles only; reserving them always is simpler than asking.
    quorum: Port,
    election: Port,
}

impl ServerPorts {
    fn reserve(options: &ZooKeeperBuilder) -> io::Result<Self> {
        Ok(Self {
            client: Port::reserve()?,
            secure: if options.tls { Some(Port::reserve()?) } else { None },
            quorum: Port::reserve()?,
            election: Port::reserve()?,
        })
    }

    /// The right side of a `server.N=` line.
    fn peer(&self) -> String {
        format!("{}:{}", self.quorum.address(), self.election.number())
    }
}

/// The file with the login, in the directory of the server; server and client each read their own section.
pub(super) const JAAS_FILE: &str = "jaas.conf";

/// Who may log in.
#[derive(Debug, Clone)]
pub(super) struct Login {
    user: String,
    password: String,
}

impl Login {
    fn jaas(&self) -> String {
        let Self { user, password } = self;
        let module = "org.apache.zookeeper.server.auth.DigestLoginModule required";
        format!(
            "Server {{ {module} user_{user}=\"{password}\"; }};\n\
             Client {{ {module} username=\"{user}\" password=\"{password}\"; }};\n"
        )
    }
}
