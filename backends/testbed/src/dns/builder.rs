//! Options of a server, and how it is described.

use std::{fmt, io, net::SocketAddr, sync::Arc};

use super::{NameServer, bind, key::Key, knot, zone::Zone};
use crate::{
    ports::{self, Port},
    process::Process,
    quorum,
    require::{self, Server},
};

/// The zone of a server that is not told another.
const DEFAULT_ZONE: &str = "disco.test";

/// What a server is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Software {
    Bind,
    Knot,
}

impl fmt::Display for Software {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bind => "bind",
            Self::Knot => "knot",
        })
    }
}

/// Options of a [`NameServer`].
#[derive(Debug, Clone)]
#[must_use]
pub struct NameServerBuilder {
    pub(super) software: Software,
    pub(super) zone: Zone,
    pub(super) key: Option<Key>,
    pub(super) open: bool,
    pub(super) also_notify: Vec<SocketAddr>,
    pub(super) primary: Option<SocketAddr>,
    options: Vec<String>,
    port: Option<Arc<Port>>,
}

impl NameServerBuilder {
    pub(super) fn new(software: Software) -> Self {
        let zone = Zone { name: DEFAULT_ZONE.to_owned(), records: String::new(), serial: 1 };
        Self {
            software,
            zone,
            key: None,
            open: false,
            also_notify: Vec::new(),
            primary: None,
            options: Vec::new(),
            port: None,
        }
    }

    /// Another zone than `disco.test`; with or without the last dot.
    pub fn zone(mut self, name: &str) -> Self {
        name.trim_end_matches('.').clone_into(&mut self.zone.name);
        self
    }

    /// What the zone holds in the beginning, beside its SOA and NS: lines of a zone file, e.g. `web 60 A 127.0.0.1`. Names
    /// without a last dot are in the zone; the TTL is a minute where a line has none.
    pub fn records(mut self, lines: impl Into<String>) -> Self {
        self.zone.records = lines.into();
        self
    }

    /// The zone's first serial, 1 by default.
    pub fn serial(mut self, serial: u32) -> Self {
        self.zone.serial = serial;
        self
    }

    /// Lets everybody change and transfer the zone, with the key or without.
    pub fn open(mut self) -> Self {
        self.open = true;
        self
    }

    /// Tells a listener of each change of the zone (NOTIFY): BIND at once and with a datagram, Knot a second later and over
    /// TCP. Both try again until they are answered.
    pub fn also_notify(mut self, listener: SocketAddr) -> Self {
        self.also_notify.push(listener);
        self
    }

    /// A secondary of the zone of `primary`: it transfers the zone with the primary's key, which is its own too, when it
    /// hears of a change ([`also_notify`](Self::also_notify) of the primary) and at the latest after a second or two.
    pub fn secondary_of(mut self, primary: &NameServer) -> Self {
        primary.zone().clone_into(&mut self.zone.name);
        self.key = Some(primary.key.clone());
        self.primary = Some(primary.address());
        self
    }

    /// A secondary of a zone of any server, as [`secondary_of`](Self::secondary_of); the key (hmac-sha256) is what the server
    /// at `primary` wants to see, its secret in base64.
    pub fn secondary_at(mut self, primary: SocketAddr, zone: &str, key_name: &str, secret: &str) -> Self {
        self.key = Some(Key::new(key_name, secret));
        self.primary = Some(primary);
        self.zone(zone)
    }

    /// Serves on this port, e.g. because the primary has to know where its secondary will be.
    pub fn port(mut self, port: Port) -> Self {
        self.port = Some(Arc::new(port));
        self
    }

    /// Any other option of the zone, a whole line in the language of the server: `max-journal-size 1k;` for BIND,
    /// `zone-max-size: 1M` for Knot.
    pub fn option(mut self, line: &str) -> Self {
        self.options.push(line.to_owned());
        self
    }

    /// Starts the server and returns when it serves its zone.
    ///
    /// # Errors
    ///
    /// When the server does not come up; the error shows the end of its log.
    pub async fn start(&self) -> io::Result<NameServer> {
        ports::retry(|| self.start_once()).await
    }

    /// Starts the server, or says why the test is skipped when it is not installed.
    ///
    /// # Panics
    ///
    /// When the server does not come up, and when [`REQUIRE`](crate::REQUIRE) forbids to skip.
    pub async fn start_or_skip(&self) -> Option<NameServer> {
        let server = match self.software {
            Software::Bind => Server::Bind,
            Software::Knot => Server::Knot,
        };
        server.or_skip(self.start()).await
    }

    /// The lines of [`option`](Self::option).
    pub(super) fn more(&self, indent: &str) -> String {
        self.options.iter().fold(String::new(), |all, line| all + indent + line + "\n")
    }

    async fn start_once(&self) -> io::Result<NameServer> {
        let server = self.prepare()?;
        server.fill()?;
        server.process.spawn()?;
        quorum::ready(&server).await?;
        Ok(server)
    }

    /// Describes the server and writes what it reads, but for the zone.
    fn prepare(&self) -> io::Result<NameServer> {
        let port = match &self.port {
            Some(port) => Arc::clone(port),
            None => Arc::new(Port::reserve()?),
        };
        let key = self.key.clone().unwrap_or_else(Key::generate);
        let dir = tempfile::Builder::new().prefix(&format!("discovery-{}-", self.software)).tempdir()?;
        let label = format!("{} on port {}", self.software, port.number());
        let (control, process) = match self.software {
            Software::Bind => {
                let control = Port::reserve()?;
                bind::configure(dir.path(), self, &key, &port, &control)?;
                let program = bind::program(dir.path())?;
                (Some(control), Process::new(label, dir, program, bind::ARGUMENTS))
            }
            Software::Knot => {
                knot::configure(dir.path(), self, &key, &port)?;
                (None, Process::new(label, dir, require::program("knotd"), knot::ARGUMENTS))
            }
        };
        Ok(NameServer { process, port, _control: control, key, options: self.clone() })
    }
}
