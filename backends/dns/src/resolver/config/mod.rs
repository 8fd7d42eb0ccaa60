//! What a resolver is configured with, checked before the client library sees any of it.

mod builder;
mod locator;
mod system;

use std::{fmt, net::SocketAddr, time::Duration};

use discovery::{Locator, Result};
use hickory_proto::rr::Name;

pub use self::builder::DnsConfigBuilder;

/// The port of a server whose locator names none.
const DEFAULT_PORT: u16 = 53;

/// Where to look services up, how, and how often.
///
/// # Example: a builder for what a locator says as well
///
/// ```
/// # fn main() -> discovery::Result<()> {
/// use std::time::Duration;
/// use discovery_dns::{DnsConfig, Probe, Records};
///
/// let built = DnsConfig::builder()
///     .server("127.0.0.11:53".parse().unwrap())
///     .port(5432)
///     .endpoint("postgres")
///     .records(Records::Addresses)
///     .ceiling(Duration::from_secs(1))
///     .probe(Probe::Tcp)
///     .build()?;
/// let parsed = DnsConfig::from_locator(
///     &"dns://127.0.0.11?port=5432&endpoint=postgres&records=a&ceiling=1s&probe=tcp".parse()?,
/// )?;
/// assert_eq!(format!("{built:?}"), format!("{parsed:?}"));
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct DnsConfig {
    servers: Vec<SocketAddr>,
    /// Whether the servers are those of the system.
    is_system: bool,
    domain: Option<Name>,
    search: Vec<Name>,
    port: Option<u16>,
    endpoint: String,
    records: Records,
    family: Family,
    floor: Duration,
    ceiling: Duration,
    jitter: u8,
    misses: u32,
    probe: Probe,
    probe_timeout: Duration,
    deadline: Duration,
}

/// Which records a service is looked for in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Records {
    /// All of the below, the best that there are: DNS-SD, else SRV, else addresses if there is a port for them.
    #[default]
    Auto,
    /// DNS-SD (RFC 6763) alone.
    Sd,
    /// SRV (RFC 2782) alone.
    Srv,
    /// A and AAAA alone.
    Addresses,
}

/// Which addresses are asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Family {
    /// Both; an answer to one of the two questions alone is not taken for the whole.
    #[default]
    Both,
    /// IPv4 alone.
    V4,
    /// IPv6 alone.
    V6,
}

/// How to find out whether what DNS lists is serving.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Probe {
    /// Not at all.
    #[default]
    None,
    /// By a connection.
    Tcp,
    /// By a GET of this path, without TLS: a status of 200 to 399 is serving.
    Http(String),
}

impl DnsConfig {
    /// A configuration to be filled in; as it is, it has the servers of the system and needs nothing else.
    pub fn builder() -> DnsConfigBuilder {
        DnsConfigBuilder::default()
    }

    /// The configuration in a locator: `dns://[server[:port][,…]][/domain][?option=value&…]`.
    ///
    /// [`Dns`](crate::Dns) has the table of options. Reads `resolv.conf` if there is no server.
    ///
    /// # Errors
    ///
    /// [`Invalid`](discovery::ErrorKind::Invalid) for an option or value that makes no sense, and for a `resolv.conf`
    /// that cannot be read.
    pub fn from_locator(locator: &Locator) -> Result<Self> {
        locator::parse(locator)
    }

    /// The shortest time from one look at a service to the next.
    pub fn floor(&self) -> Duration {
        self.floor
    }

    /// The longest time from one look at a service to the next, jitter aside.
    pub fn ceiling(&self) -> Duration {
        self.ceiling
    }

    /// How long a lookup may take in all.
    pub fn deadline(&self) -> Duration {
        self.deadline
    }

    /// How many answers in a row an instance is missing from before it is gone.
    pub fn misses(&self) -> u32 {
        self.misses
    }

    pub(crate) fn servers(&self) -> &[SocketAddr] {
        &self.servers
    }

    pub(crate) fn domain(&self) -> Option<&Name> {
        self.domain.as_ref()
    }

    /// The domains that names are looked for in, if there is no domain: the search list and then the root.
    pub(crate) fn search(&self) -> &[Name] {
        &self.search
    }

    pub(crate) fn port(&self) -> Option<u16> {
        self.port
    }

    pub(crate) fn endpoint(&self) -> &str {
        &self.endpoint
    }

    pub(crate) fn records(&self) -> Records {
        self.records
    }

    pub(crate) fn family(&self) -> Family {
        self.family
    }

    /// The most that is added to an interval, as a share of it.
    pub(crate) fn jitter(&self) -> f64 {
        f64::from(self.jitter) / 100.0
    }

    pub(crate) fn probe(&self) -> &Probe {
        &self.probe
    }

    pub(crate) fn probe_timeout(&self) -> Duration {
        self.probe_timeout
    }
}

/// The locator, without options.
impl fmt::Display for DnsConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let servers: Vec<_> = self.servers.iter().map(SocketAddr::to_string).collect();
        write!(f, "dns://{}", if self.is_system { String::new() } else { servers.join(",") })?;
        self.domain
            .as_ref()
            .map_or(Ok(()), |domain| write!(f, "/{}", domain.to_ascii().trim_end_matches('.')))
    }
}

impl fmt::Debug for DnsConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DnsConfig")
            .field("locator", &self.to_string())
            .field("port", &self.port)
            .field("endpoint", &self.endpoint)
            .field("records", &self.records)
            .field("family", &self.family)
            .field("floor", &self.floor)
            .field("ceiling", &self.ceiling)
            .field("jitter", &self.jitter)
            .field("misses", &self.misses)
            .field("probe", &self.probe)
            .field("probe_timeout", &self.probe_timeout)
            .field("deadline", &self.deadline)
            .finish_non_exhaustive()
    }
}
