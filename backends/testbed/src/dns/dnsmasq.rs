//! dnsmasq: what answers in small networks, and much as Docker does.

use std::{fs, io, net::SocketAddr, path::Path, time::Duration};

use super::Dig;
use crate::{
    ports::{self, Port},
    process::{Deadline, Process},
    quorum::{self, Serve},
    require::{self, Server},
};

const CONFIG: &str = "dnsmasq.conf";
const HOSTS: &str = "hosts";
const LOADED_WITHIN: Duration = Duration::from_secs(60);
const STOP_WITHIN: Duration = Duration::from_secs(20);

/// The zone of a server that is not told another.
const DEFAULT_ZONE: &str = "disco.test";

/// What every server is told, beside where it listens and what it knows.
const BASE: &str = "\
keep-in-foreground
log-facility=-
bind-interfaces
pid-file=
no-resolv
no-hosts
# The files of the test are nobody else's.
user=root
group=root
";

/// A running dnsmasq, a resolver that answers from what it is told. Dropping it kills the server and removes its files.
///
/// It asks no other server: what it does not know in its zone is `NXDOMAIN`, without the SOA that would say for how long,
/// and everything else is `REFUSED`. The TTL of all it knows is 0 unless an option says otherwise.
#[derive(Debug)]
pub struct Dnsmasq {
    process: Process,
    port: Port,
    zone: String,
}

impl Dnsmasq {
    /// A server that is told what it knows.
    pub fn builder() -> DnsmasqBuilder {
        DnsmasqBuilder::default()
    }

    /// Where clients send to and connect, with UDP and TCP.
    pub fn address(&self) -> SocketAddr {
        self.port.address()
    }

    /// The zone's name.
    pub fn zone(&self) -> &str {
        &self.zone
    }

    /// A client that asks this server.
    pub fn dig(&self) -> Dig {
        Dig::new(self.address())
    }

    /// Replaces the hosts that the server knows, as [`DnsmasqBuilder::hosts`], while it runs (SIGHUP). Returns when it serves
    /// them.
    ///
    /// # Errors
    ///
    /// When the server is not running, or does not like what it reads (see its [`log`](Self::log)).
    pub async fn set_hosts(&self, lines: &str) -> io::Result<()> {
        // Only who has read the new file knows this name; the address is one of those for documentation.
        let mark = format!("load-{:016x}.{}", fastrand::u64(..), self.zone);
        super::replace_file(&self.dir().join(HOSTS), &format!("{lines}\n192.0.2.255 {mark}\n"))?;
        self.process.hang_up()?;
        let deadline = Deadline::after(LOADED_WITHIN);
        while self.dig().short(&mark, "A").await?.is_empty() {
            self.process.check()?;
            if !deadline.wait().await {
                return Err(self.process.failure("did not load its hosts"));
            }
        }
        Ok(())
    }

    /// Ends the server as a crash would (SIGKILL), with its connections.
    ///
    /// # Errors
    ///
    /// When the signal cannot be sent.
    pub fn kill(&self) -> io::Result<()> {
        // Each connection has a process of its own, which would live on, and have the port, for minutes.
        self.process.kill_with_children()
    }

    /// Ends the server in order (SIGTERM) and waits for it.
    ///
    /// # Errors
    ///
    /// When the server does not end.
    pub async fn stop(&self) -> io::Result<()> {
        self.process.stop(STOP_WITHIN).await
    }

    /// Starts the server again, on the same port with the same hosts, killing it first if it runs. Returns when it serves.
    ///
    /// # Errors
    ///
    /// When the server does not come up; the error shows the end of its log.
    pub async fn restart(&self) -> io::Result<()> {
        self.kill()?;
        self.process.spawn()?;
        quorum::ready(self).await
    }

    /// Freezes the server (SIGSTOP): nothing is answered, and the kernel keeps what comes in. Connections that are open are
    /// served on.
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

    /// The process id, while the server runs.
    pub fn id(&self) -> Option<u32> {
        self.process.id()
    }

    /// The temporary directory with the server's configuration, hosts and log.
    pub fn dir(&self) -> &Path {
        self.process.dir()
    }

    /// Everything the server has logged, over all its starts.
    pub fn log(&self) -> String {
        self.process.log()
    }
}

impl Drop for Dnsmasq {
    fn drop(&mut self) {
        if let Err(error) = self.kill() {
            eprintln!("could not kill dnsmasq: {error}");
        }
    }
}

impl Serve for Dnsmasq {
    fn process(&self) -> &Process {
        &self.process
    }

    async fn serves(&self) -> io::Result<()> {
        // Whatever it answers.
        self.dig().query(&self.zone, "A").await?;
        self.dig().tcp().query(&self.zone, "A").await?;
        Ok(())
    }
}

/// Options of a [`Dnsmasq`] server.
#[derive(Debug, Clone)]
#[must_use]
pub struct DnsmasqBuilder {
    zone: String,
    hosts: String,
    options: Vec<String>,
}

impl Default for DnsmasqBuilder {
    fn default() -> Self {
        Self { zone: DEFAULT_ZONE.to_owned(), hosts: String::new(), options: Vec::new() }
    }
}

impl DnsmasqBuilder {
    /// Another zone than `disco.test`, of which this server alone knows.
    pub fn zone(mut self, name: &str) -> Self {
        name.trim_end_matches('.').clone_into(&mut self.zone);
        self
    }

    /// Which hosts there are in the beginning: lines of a hosts file, e.g. `127.0.0.1 web.disco.test`, of which several may
    /// give one name several addresses. Each address also has its name (PTR).
    pub fn hosts(mut self, lines: impl Into<String>) -> Self {
        self.hosts = lines.into();
        self
    }

    /// Any other option of the server, a line of its configuration, e.g. `txt-record=web.disco.test,zone=a`,
    /// `srv-host=_http._tcp.web.disco.test,web.disco.test,8080`, `host-record=web.disco.test,127.0.0.1` or `local-ttl=5`.
    pub fn option(mut self, line: &str) -> Self {
        self.options.push(line.to_owned());
        self
    }

    /// Starts the server and returns when it serves.
    ///
    /// # Errors
    ///
    /// When the server does not come up; the error shows the end of its log.
    pub async fn start(&self) -> io::Result<Dnsmasq> {
        ports::retry(|| self.start_once()).await
    }

    /// Starts the server, or says why the test is skipped when it is not installed.
    ///
    /// # Panics
    ///
    /// When the server does not come up, and when [`REQUIRE`](crate::REQUIRE) forbids to skip.
    pub async fn start_or_skip(&self) -> Option<Dnsmasq> {
        Server::Dnsmasq.or_skip(self.start()).await
    }

    async fn start_once(&self) -> io::Result<Dnsmasq> {
        let port = Port::reserve()?;
        let dir = tempfile::Builder::new().prefix("discovery-dnsmasq-").tempdir()?;
        let (number, zone, hosts) = (port.number(), &self.zone, dir.path().join(HOSTS));
        let config = format!(
            "{BASE}port={number}\nlisten-address=127.0.0.1\nlocal=/{zone}/\naddn-hosts={hosts}\n{more}\n",
            hosts = hosts.display(),
            more = self.options.join("\n"),
        );
        fs::write(dir.path().join(CONFIG), config)?;
        fs::write(hosts, format!("{}\n", self.hosts))?;
        let label = format!("dnsmasq on port {number}");
        let arguments = ["-C", CONFIG];
        let process = Process::new(label, dir, require::program("dnsmasq"), arguments);
        let server = Dnsmasq { process, port, zone: zone.clone() };
        server.process.spawn()?;
        quorum::ready(&server).await?;
        Ok(server)
    }
}
