//! What a zone is reached with.

use std::{fmt, net::SocketAddr, time::Duration};

use discovery::{Error, Host, Locator, Result};

use super::SCHEME;
use crate::{names::Origin, tsig::TsigKey};

/// The port of DNS.
const PORT: u16 = 53;
/// The most bytes of a value that fit into a message with what belongs to it.
const RECORD_MAX: usize = 48 * 1024;
/// The bounds of every time that can be set.
const TIME_MIN: Duration = Duration::from_millis(10);
const TIME_MAX: Duration = Duration::from_secs(24 * 3600);

const OPTIONS: &[&str] = &[
    "algorithm",
    "call_timeout",
    "max_record",
    "notify",
    "poll_interval",
    "record_ttl",
    "serve",
    "silence_timeout",
];

/// How changes are heard of before the next poll.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Notify {
    /// A free port is listened at for NOTIFY. The embedded authority is told of it with each
    /// question; stock servers do not look.
    #[default]
    Auto,
    /// This address is listened at, which the server is configured to send NOTIFY to (BIND: `also-notify`).
    At(SocketAddr),
    /// Polling only.
    Off,
}

/// How a zone is reached.
#[derive(Clone, PartialEq, Eq)]
pub struct DnsZoneConfig {
    server: String,
    origin: Origin,
    key: Option<TsigKey>,
    poll_interval: Duration,
    silence_timeout: Duration,
    call_timeout: Duration,
    record_ttl: u32,
    max_record: usize,
    notify: Notify,
    serve: Option<SocketAddr>,
}

impl DnsZoneConfig {
    /// Starts a configuration.
    pub fn builder() -> DnsZoneConfigBuilder {
        DnsZoneConfigBuilder::default()
    }

    /// The configuration in a locator; the crate's documentation has its parts.
    ///
    /// # Errors
    ///
    /// [`Invalid`](discovery::ErrorKind::Invalid) for what makes no sense; the message names the part.
    pub fn from_locator(locator: &Locator) -> Result<Self> {
        locator.check_options(OPTIONS)?;
        let [host] = locator.hosts() else {
            let count = locator.hosts().len();
            return Err(Error::invalid(format!(
                "locator {locator}: {count} hosts; name one, the primary of the zone: dns+zone://host/zone"
            )));
        };
        let mut builder = Self::builder().host(host).zone(locator.path());
        match (locator.credentials()?, locator.option("algorithm")) {
            (Some((name, secret)), algorithm) => {
                let key = TsigKey::new(name, secret)?;
                builder = builder.key(match algorithm {
                    Some(algorithm) => key.algorithm(algorithm)?,
                    None => key,
                });
            }
            (None, Some(_)) => {
                return Err(Error::invalid(format!(
                    "locator {locator}: an algorithm but no key; write dns+zone://name:secret@host/zone"
                )));
            }
            (None, None) => {}
        }
        if let Some(time) = locator.duration("poll_interval")? {
            builder = builder.poll_interval(time);
        }
        if let Some(time) = locator.duration("silence_timeout")? {
            builder = builder.silence_timeout(time);
        }
        if let Some(time) = locator.duration("call_timeout")? {
            builder = builder.call_timeout(time);
        }
        if let Some(ttl) = locator.duration("record_ttl")? {
            builder = builder.record_ttl(ttl);
        }
        if let Some(bytes) = locator.bytes("max_record")? {
            builder = builder.max_record(bytes);
        }
        builder = match locator.option("serve") {
            None | Some("false") => builder,
            Some("true") => builder.serve(),
            Some(other) => {
                return Err(Error::invalid(format!(
                    "locator {locator}: serve is {other:?}; write true or false"
                )));
            }
        };
        builder = match locator.option("notify") {
            None | Some("auto") => builder,
            Some("off") => builder.notify(Notify::Off),
            Some(address) => builder.notify(Notify::At(address.parse().map_err(|_| {
                Error::invalid(format!(
                    "locator {locator}: notify is {address:?}; write auto, off or an address with a port, such as 10.0.0.7:5353"
                ))
            })?)),
        };
        builder.build()
    }

    /// How often the server is asked for the serial of the zone.
    pub fn poll_interval(&self) -> Duration {
        self.poll_interval
    }

    /// How long a watch may hear nothing from the server before it is given up.
    pub fn silence_timeout(&self) -> Duration {
        self.silence_timeout
    }

    /// How long an operation may take in all.
    pub fn call_timeout(&self) -> Duration {
        self.call_timeout
    }

    /// The most bytes a value may have.
    pub fn max_record(&self) -> usize {
        self.max_record
    }

    /// How changes are heard of before the next poll.
    pub fn notify(&self) -> Notify {
        self.notify
    }

    /// Where the zone is served if nobody else does.
    pub(crate) fn serve(&self) -> Option<SocketAddr> {
        self.serve
    }

    /// The ttl of records, in seconds.
    pub(crate) fn record_ttl(&self) -> u32 {
        self.record_ttl
    }

    pub(crate) fn server(&self) -> &str {
        &self.server
    }

    pub(crate) fn origin(&self) -> &Origin {
        &self.origin
    }

    pub(crate) fn key(&self) -> Option<&TsigKey> {
        self.key.as_ref()
    }
}

/// As a locator, without the secret.
impl fmt::Display for DnsZoneConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}://")?;
        if let Some(key) = &self.key {
            write!(f, "{}:***@", key.name().to_ascii().trim_end_matches('.'))?;
        }
        write!(f, "{}/{}", self.server, self.origin)
    }
}

impl fmt::Debug for DnsZoneConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DnsZoneConfig({self})")
    }
}

/// Builds a [`DnsZoneConfig`].
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until `build`"]
pub struct DnsZoneConfigBuilder {
    server: String,
    zone: String,
    key: Option<TsigKey>,
    poll_interval: Duration,
    silence_timeout: Duration,
    call_timeout: Duration,
    record_ttl: Duration,
    max_record: usize,
    notify: Notify,
    serve: bool,
}

impl Default for DnsZoneConfigBuilder {
    fn default() -> Self {
        Self {
            server: String::new(),
            zone: String::new(),
            key: None,
            poll_interval: Duration::from_secs(1),
            silence_timeout: Duration::from_secs(6),
            call_timeout: Duration::from_secs(5),
            record_ttl: Duration::from_secs(5),
            max_record: 32 * 1024,
            notify: Notify::Auto,
            serve: false,
        }
    }
}

impl DnsZoneConfigBuilder {
    /// The primary server of the zone.
    pub fn server(mut self, host: impl AsRef<str>, port: u16) -> Self {
        let host = host.as_ref();
        self.server = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
        self
    }

    /// The zone, such as `disco.example`. It should hold nothing else.
    pub fn zone(mut self, name: impl Into<String>) -> Self {
        self.zone = name.into();
        self
    }

    /// The key that updates and transfers are signed with.
    pub fn key(mut self, key: TsigKey) -> Self {
        self.key = Some(key);
        self
    }

    /// How often the server is asked for the serial of the zone while there are watches or leases (1 s).
    pub fn poll_interval(mut self, interval: Duration) -> Self {
        self.poll_interval = interval;
        self
    }

    /// How long a watch may hear nothing from the server before it is given up (6 s).
    pub fn silence_timeout(mut self, timeout: Duration) -> Self {
        self.silence_timeout = timeout;
        self
    }

    /// How long an operation may take in all (5 s).
    pub fn call_timeout(mut self, timeout: Duration) -> Self {
        self.call_timeout = timeout;
        self
    }

    /// The ttl of records (5 s; whole seconds): how long others may go on using what they read.
    pub fn record_ttl(mut self, ttl: Duration) -> Self {
        self.record_ttl = ttl;
        self
    }

    /// The most bytes a value may have (32 KiB): up to 48 KiB.
    pub fn max_record(mut self, bytes: usize) -> Self {
        self.max_record = bytes;
        self
    }

    /// How changes are heard of before the next poll.
    pub fn notify(mut self, notify: Notify) -> Self {
        self.notify = notify;
        self
    }

    /// Serves the zone at the address of the server, on loopback, as long as nobody else does: of all programs that name
    /// the same address, the first one serves the zone, and when it ends another takes its place.
    pub fn serve(mut self) -> Self {
        self.serve = true;
        self
    }

    /// The configuration.
    ///
    /// # Errors
    ///
    /// [`Invalid`](discovery::ErrorKind::Invalid) for what can never work; the message names the part and what is
    /// allowed.
    pub fn build(self) -> Result<DnsZoneConfig> {
        if self.server.is_empty() {
            return Err(Error::invalid("there is no server; write dns+zone://host[:port]/zone"));
        }
        let is_host = |server: &str| {
            let locator: Option<Locator> = format!("{SCHEME}://{server}").parse().ok();
            locator.is_some_and(|it| it.hosts().len() == 1 && it.path().is_empty() && it.user().is_none())
        };
        if !is_host(&self.server) {
            return Err(Error::invalid(format!("{:?} is not a host with a port of 1 to 65535", self.server)));
        }
        if self.zone.is_empty() {
            return Err(Error::invalid(
                "there is no zone; write dns+zone://host/zone, such as disco.example",
            ));
        }
        for (what, time) in [
            ("poll_interval", self.poll_interval),
            ("silence_timeout", self.silence_timeout),
            ("call_timeout", self.call_timeout),
        ] {
            if !(TIME_MIN..=TIME_MAX).contains(&time) {
                return Err(Error::invalid(format!(
                    "{what} is {time:?}; allowed are {TIME_MIN:?} to {TIME_MAX:?}"
                )));
            }
        }
        if !(1..=RECORD_MAX).contains(&self.max_record) {
            return Err(Error::invalid(format!(
                "max_record is {}; allowed are 1 to {RECORD_MAX} bytes",
                self.max_record
            )));
        }
        if self.record_ttl > TIME_MAX || self.record_ttl.subsec_nanos() != 0 {
            return Err(Error::invalid(format!(
                "record_ttl is {:?}; allowed are whole seconds up to {TIME_MAX:?}",
                self.record_ttl
            )));
        }
        let serve = if self.serve { Some(loopback(&self.server)?) } else { None };
        Ok(DnsZoneConfig {
            serve,
            server: self.server,
            origin: Origin::parse(&self.zone)?,
            key: self.key,
            poll_interval: self.poll_interval,
            silence_timeout: self.silence_timeout,
            call_timeout: self.call_timeout,
            record_ttl: u32::try_from(self.record_ttl.as_secs()).unwrap_or(u32::MAX),
            max_record: self.max_record,
            notify: self.notify,
        })
    }

    fn host(mut self, host: &Host) -> Self {
        self.server = host.with_default_port(PORT);
        self
    }
}

/// The address to serve a zone at.
fn loopback(server: &str) -> Result<SocketAddr> {
    let address = server.parse().ok().filter(|address: &SocketAddr| address.ip().is_loopback());
    address.ok_or_else(|| {
        Error::invalid(format!(
            "a zone can be served at a loopback address only, such as 127.0.0.1:5300, not at {server}; \
             for other machines start an Authority"
        ))
    })
}

#[cfg(test)]
mod tests {
    use discovery::ErrorKind;

    use super::*;

    fn config(text: &str) -> Result<DnsZoneConfig> {
        DnsZoneConfig::from_locator(&text.parse()?)
    }

    #[test]
    fn everything_a_locator_may_say() {
        let config = config(
            "dns+zone://disco-key:c2VjcmV0@ns1:5353/disco.example?algorithm=hmac-sha512&poll_interval=200ms&silence_timeout=2s&call_timeout=3s&record_ttl=10s&max_record=1000&notify=127.0.0.1:5300",
        )
        .unwrap();
        assert_eq!(config.to_string(), "dns+zone://disco-key:***@ns1:5353/disco.example");
        assert_eq!(config.poll_interval(), Duration::from_millis(200));
        assert_eq!(config.silence_timeout(), Duration::from_secs(2));
        assert_eq!(config.call_timeout(), Duration::from_secs(3));
        assert_eq!((config.record_ttl(), config.max_record()), (10, 1000));
        assert_eq!(config.notify(), Notify::At("127.0.0.1:5300".parse().unwrap()));
        assert!(!format!("{config:?}").contains("c2Vj"));
        assert_eq!(self::config("dns+zone://[::1]/z").unwrap().to_string(), "dns+zone://[::1]:53/z");
    }

    #[test]
    fn what_a_locator_may_not_say() {
        for (bad, part) in [
            ("dns+zone:///z", "0 hosts"),
            ("dns+zone://a,b/z", "2 hosts"),
            ("dns+zone://h", "no zone"),
            ("dns+zone://h/a..b", "domain name"),
            ("dns+zone://h/z?poll=1s", "poll"),
            ("dns+zone://h/z?algorithm=hmac-sha256", "no key"),
            ("dns+zone://k:c2VjcmV0@h/z?algorithm=hmac-md5", "hmac-md5"),
            ("dns+zone://k:!@h/z", "base64"),
            ("dns+zone://k@h/z", "secret"),
            ("dns+zone://h/z?notify=never", "notify"),
            ("dns+zone://h/z?poll_interval=1ms", "poll_interval"),
            ("dns+zone://h/z?record_ttl=1500ms", "record_ttl"),
            ("dns+zone://h/z?max_record=60000", "max_record"),
            ("dns+zone://h/z?serve=true", "loopback"),
            ("dns+zone://127.0.0.1/z?serve=maybe", "serve"),
        ] {
            let error = config(bad).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid, "{bad}");
            assert!(error.to_string().contains(part), "{bad}: {error}");
        }
        let bad = DnsZoneConfig::builder().server("a b", 53).zone("z").build();
        assert!(bad.unwrap_err().to_string().contains("host"));
    }
}
