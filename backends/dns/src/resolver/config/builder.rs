//! Builds a configuration, and refuses what can never work.

use std::{net::SocketAddr, time::Duration};

use discovery::{Endpoint, Error, Host, Result};
use hickory_proto::rr::Name;

use super::{DEFAULT_PORT, DnsConfig, Family, Probe, Records, system};

/// What a time may be, within reason.
const TIME_MIN: Duration = Duration::from_millis(10);
const TIME_MAX: Duration = Duration::from_secs(24 * 3600);

/// The most servers, and the most domains of a search list.
const SERVERS_MAX: usize = 16;
/// The most answers that an instance may be missing from before it is gone.
const MISSES_MAX: u32 = 100;

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

    pub(super) fn host(self, host: &Host) -> Result<Self> {
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
