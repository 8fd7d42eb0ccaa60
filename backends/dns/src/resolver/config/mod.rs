//! What a resolver is configured with, checked before the client library sees any of it.

mod locator;
mod system;

use std::{fmt, net::SocketAddr, time::Duration};

use discovery::{Endpoint, Error, Host, Locator, Result};
use hickory_proto::rr::Name;

/// The port of a server whose locator names none.
const DEFAULT_PORT: u16 = 53;

/// What a time may be, within reason.
const TIME_MIN: Duration = Duration::from_millis(10);
const TIME_MAX: Duration = Duration::from_secs(24 * 3600);

/// The most servers, and the most domains of a search list.
const SERVERS_MAX: usize = 16;
/// The most answers that an instance may be missing from before it is gone.
const MISSES_MAX: u32 = 100;

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

/// Builds a [`DnsConfig`].
#[derive(Clone, Debug)]
#[must_use]
pub struct DnsConfigBuilder {
    servers: Vec<SocketAddr>,
    domain: Option<String>,
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

impl Default for DnsConfigBuilder {
    fn default() -> Self {
        Self {
            servers: Vec::new(),
            domain: None,
            port: None,
            endpoint: "http".into(),
            records: Records::default(),
            family: Family::default(),
            floor: Duration::from_secs(1),
            ceiling: Duration::from_secs(30),
            jitter: 10,
            misses: 2,
            probe: Probe::default(),
            probe_timeout: Duration::from_secs(1),
            deadline: Duration::from_secs(2),
        }
    }
}

impl DnsConfigBuilder {
    /// Adds a server. One of them is asked; the others take over when it fails or is slow. Without any, the servers and
    /// the search list are those of `resolv.conf`.
    pub fn server(mut self, address: SocketAddr) -> Self {
        self.servers.push(address);
        self
    }

    /// The domain that all names are in, such as `disco.example`; names are then looked for nowhere else, and not as
    /// those of Compose.
    pub fn domain(mut self, domain: impl Into<String>) -> Self {
        self.domain = Some(domain.into());
        self
    }

    /// The port of what has only an address; without it addresses alone are not looked for.
    pub fn port(mut self, port: u16) -> Self {
        self.port = Some(port);
        self
    }

    /// The name of the endpoint that is looked for (`http`): `_http._tcp` in SRV records.
    pub fn endpoint(mut self, name: impl Into<String>) -> Self {
        self.endpoint = name.into();
        self
    }

    /// Which records a service is looked for in.
    pub fn records(mut self, records: Records) -> Self {
        self.records = records;
        self
    }

    /// Which addresses are asked for.
    pub fn family(mut self, family: Family) -> Self {
        self.family = family;
        self
    }

    /// The shortest time from one look at a service to the next (1 s), whatever the time to live.
    pub fn floor(mut self, floor: Duration) -> Self {
        self.floor = floor;
        self
    }

    /// The longest time from one look at a service to the next (30 s), whatever the time to live.
    pub fn ceiling(mut self, ceiling: Duration) -> Self {
        self.ceiling = ceiling;
        self
    }

    /// How much is added to each interval at random at most, in percent (10).
    pub fn jitter(mut self, percent: u8) -> Self {
        self.jitter = percent;
        self
    }

    /// How many answers in a row an instance is missing from before it is gone (2).
    pub fn misses(mut self, misses: u32) -> Self {
        self.misses = misses;
        self
    }

    /// Finds out whether what DNS lists is serving; what is not has the status [`Down`](discovery::Status::Down).
    pub fn probe(mut self, probe: Probe) -> Self {
        self.probe = probe;
        self
    }

    /// How long a probe may take (1 s).
    pub fn probe_timeout(mut self, timeout: Duration) -> Self {
        self.probe_timeout = timeout;
        self
    }

    /// How long a lookup may take in all (2 s), however many questions it takes; probes come on top.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// The configuration. Reads `resolv.conf` if there is no server.
    ///
    /// # Errors
    ///
    /// [`Invalid`](discovery::ErrorKind::Invalid) for what can never work; the message names the part and what is
    /// allowed.
    pub fn build(self) -> Result<DnsConfig> {
        for (what, time) in [
            ("floor", self.floor),
            ("ceiling", self.ceiling),
            ("deadline", self.deadline),
            ("probe_timeout", self.probe_timeout),
        ] {
            if !(TIME_MIN..=TIME_MAX).contains(&time) {
                return Err(Error::invalid(format!(
                    "{what} is {time:?}; allowed are {TIME_MIN:?} to {TIME_MAX:?}"
                )));
            }
        }
        if self.floor > self.ceiling {
            return Err(Error::invalid(format!(
                "floor is {:?} and over the ceiling, {:?}; raise one or lower the other",
                self.floor, self.ceiling
            )));
        }
        if self.jitter > 100 {
            return Err(Error::invalid(format!("jitter is {}; allowed are 0 to 100 percent", self.jitter)));
        }
        if !(1..=MISSES_MAX).contains(&self.misses) {
            return Err(Error::invalid(format!("misses is {}; allowed are 1 to {MISSES_MAX}", self.misses)));
        }
        if self.port == Some(0) {
            return Err(Error::invalid("port is 0; allowed are 1 to 65535"));
        }
        if self.records == Records::Addresses && self.port.is_none() {
            return Err(Error::invalid(
                "an address has no port; say which with port, as in dns://?records=a&port=80",
            ));
        }
        if let Probe::Http(path) = &self.probe
            && (!path.starts_with('/') || path.chars().any(|c| c.is_whitespace() || c.is_control()))
        {
            return Err(Error::invalid(format!(
                "probe is a GET of {path:?}; write a path, as in http:/health"
            )));
        }
        let endpoint = Endpoint::new(&self.endpoint, "::1", 1)
            .map_err(|error| Error::invalid(format!("endpoint {:?}: {error}", self.endpoint)))?;
        let domain = self.domain.as_deref().map(check_domain).transpose()?;
        if self.servers.len() > SERVERS_MAX {
            return Err(Error::invalid(format!(
                "there are {} servers; at most {SERVERS_MAX} are asked",
                self.servers.len()
            )));
        }
        let is_system = self.servers.is_empty();
        let (servers, search) = if is_system { system::read()? } else { (self.servers, Vec::new()) };
        Ok(DnsConfig {
            servers,
            is_system,
            domain,
            search: search.into_iter().take(SERVERS_MAX).chain([Name::root()]).collect(),
            port: self.port,
            endpoint: endpoint.name().into(),
            records: self.records,
            family: self.family,
            floor: self.floor,
            ceiling: self.ceiling,
            jitter: self.jitter,
            misses: self.misses,
            probe: self.probe,
            probe_timeout: self.probe_timeout,
            deadline: self.deadline,
        })
    }

    fn host(self, host: &Host) -> Result<Self> {
        let ip = host.name().parse().map_err(|_| {
            Error::invalid(format!(
                "server {:?} is no address; who finds servers by name needs another one for that",
                host.name()
            ))
        })?;
        Ok(self.server(SocketAddr::new(ip, host.port().unwrap_or(DEFAULT_PORT))))
    }
}

/// A domain, absolute and lower-case.
fn check_domain(text: &str) -> Result<Name> {
    let bad = |why: &str| Error::invalid(format!("domain {text:?} {why}; write one such as disco.example"));
    let mut name = Name::from_ascii(text).map_err(|_| bad("is no domain name"))?.to_lowercase();
    name.set_fqdn(true);
    if name.is_root() { Err(bad("is the root")) } else { Ok(name) }
}

#[cfg(test)]
mod tests {
    use discovery::ErrorKind;

    use super::*;

    fn valid() -> DnsConfigBuilder {
        DnsConfig::builder().server("127.0.0.1:53".parse().unwrap())
    }

    #[test]
    fn what_cannot_work_is_refused_by_name() {
        let ms = Duration::from_millis;
        let many = (0..17).fold(valid(), |config, n| config.server(SocketAddr::from(([127, 0, 0, n], 53))));
        for (bad, part) in [
            (valid().floor(ms(9)), "floor"),
            (valid().ceiling(Duration::MAX), "ceiling"),
            (valid().floor(ms(2000)).ceiling(ms(1000)), "over the ceiling"),
            (valid().deadline(ms(0)), "deadline"),
            (valid().probe_timeout(ms(0)), "probe_timeout"),
            (valid().jitter(101), "percent"),
            (valid().misses(0), "misses"),
            (valid().port(0), "port"),
            (valid().records(Records::Addresses), "port"),
            (valid().endpoint("a_b"), "endpoint"),
            (valid().endpoint(""), "endpoint"),
            (valid().domain(""), "domain"),
            (valid().domain("."), "domain"),
            (valid().domain("a..b"), "domain"),
            (valid().probe(Probe::Http("health".into())), "probe"),
            (valid().probe(Probe::Http("/a b".into())), "probe"),
            (many, "servers"),
        ] {
            let error = bad.build().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid, "{part}");
            assert!(error.to_string().contains(part), "{part}: {error}");
        }
    }

    #[test]
    fn names_are_looked_for_in_the_root_if_nowhere_else() {
        assert_eq!(valid().build().unwrap().search(), [Name::root()]);
    }
}
