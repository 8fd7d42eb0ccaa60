//! What a backend is configured with, checked before the client library sees any of it.

mod locator;
mod tls;

use std::{fmt, time::Duration};

use discovery::{Error, Host, Locator, Result};
use tonic::transport::Endpoint;

pub use self::tls::Tls;
use crate::path::Layout;

/// The port of a server whose locator names none.
const DEFAULT_PORT: u16 = 2379;

/// etcd's own limit for a request is 1.5 MiB in all; a record must leave room for its key and the rest.
const RECORD_MAX: usize = 1_000_000;

/// What a time-out may be, within reason.
const TIME_MIN: Duration = Duration::from_millis(10);
const TIME_MAX: Duration = Duration::from_secs(24 * 3600);

/// How much a stream may have under way before its reader has to ask for more. Small, so that a watch that nobody reads
/// keeps little; a message of any size passes through.
const STREAM_WINDOW: u32 = 1024 * 1024;

/// The same for all streams of a connection: so much that those that nobody reads cannot stop the others.
const CONNECTION_WINDOW: u32 = (1 << 31) - 1;

/// How to reach an etcd and how to behave there.
///
/// # Example: a builder for what a locator says as well
///
/// ```
/// # fn main() -> discovery::Result<()> {
/// use std::time::Duration;
/// use discovery_etcd::EtcdConfig;
///
/// let built = EtcdConfig::builder()
///     .server("etcd1", 2379)
///     .server("etcd2", 2379)
///     .namespace("cn")
///     .user("me", "s3cret")
///     .silence_timeout(Duration::from_secs(10))
///     .build()?;
/// let parsed = EtcdConfig::from_locator(&"etcd://me:s3cret@etcd1,etcd2/cn?silence_timeout=10s".parse()?)?;
/// assert_eq!(built.to_string(), parsed.to_string());
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct EtcdConfig {
    servers: Vec<Server>,
    namespace: String,
    user: Option<(String, String)>,
    tls: Option<Tls>,
    silence_timeout: Duration,
    connect_timeout: Duration,
    call_timeout: Duration,
    max_record: usize,
}

/// Where one member of the cluster is.
#[derive(Clone)]
pub(crate) struct Server {
    address: String,
    host: String,
    endpoint: Endpoint,
}

impl Server {
    /// `host:port`.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// The name that its certificate has to be for.
    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    /// The same as the client library wants it.
    pub(crate) fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }
}

impl EtcdConfig {
    /// A configuration to be filled in; it needs a server at least.
    pub fn builder() -> EtcdConfigBuilder {
        EtcdConfigBuilder::default()
    }

    /// The configuration in a locator: `etcd://[user:secret@]host[:port][,…][/namespace][?option=value&…]`.
    ///
    /// The crate's documentation has the table of options.
    ///
    /// # Errors
    ///
    /// [`Invalid`](discovery::ErrorKind::Invalid) for an option or value that makes no sense, and for a certificate
    /// file that cannot be read.
    pub fn from_locator(locator: &Locator) -> Result<Self> {
        locator::parse(locator)
    }

    /// How long a watch may hear nothing from its server before it is given up.
    pub fn silence_timeout(&self) -> Duration {
        self.silence_timeout
    }

    /// How long a new connection to a server may take, until that server has answered.
    pub fn connect_timeout(&self) -> Duration {
        self.connect_timeout
    }

    /// How long an operation may take in all, waiting for a connection included.
    pub fn call_timeout(&self) -> Duration {
        self.call_timeout
    }

    /// The most bytes a value may have.
    pub fn max_record(&self) -> usize {
        self.max_record
    }

    /// How long a watch is idle before it asks for a sign of life, and how long it waits for an answer.
    pub(crate) fn probe_interval(&self) -> Duration {
        self.silence_timeout / 2
    }

    pub(crate) fn layout(&self) -> Layout {
        Layout::new(&self.namespace)
    }

    pub(crate) fn servers(&self) -> &[Server] {
        &self.servers
    }

    pub(crate) fn tls(&self) -> Option<&Tls> {
        self.tls.as_ref()
    }

    pub(crate) fn user(&self) -> Option<(&str, &str)> {
        self.user.as_ref().map(|(user, secret)| (user.as_str(), secret.as_str()))
    }
}

/// The locator, without the secret and without options.
impl fmt::Display for EtcdConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("etcd://")?;
        if let Some((user, _)) = &self.user {
            write!(f, "{user}:***@")?;
        }
        let servers: Vec<_> = self.servers.iter().map(Server::address).collect();
        write!(f, "{}{}", servers.join(","), self.namespace)
    }
}

impl fmt::Debug for EtcdConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EtcdConfig")
            .field("locator", &self.to_string())
            .field("tls", &self.tls.is_some())
            .field("silence_timeout", &self.silence_timeout)
            .field("connect_timeout", &self.connect_timeout)
            .field("call_timeout", &self.call_timeout)
            .field("max_record", &self.max_record)
            .finish_non_exhaustive()
    }
}

/// Builds an [`EtcdConfig`].
#[derive(Clone)]
#[must_use]
pub struct EtcdConfigBuilder {
    servers: Vec<String>,
    namespace: String,
    user: Option<(String, String)>,
    tls: Option<Tls>,
    silence_timeout: Duration,
    connect_timeout: Duration,
    call_timeout: Duration,
    max_record: usize,
}

impl Default for EtcdConfigBuilder {
    fn default() -> Self {
        Self {
            servers: Vec::new(),
            namespace: String::new(),
            user: None,
            tls: None,
            silence_timeout: Duration::from_secs(6),
            connect_timeout: Duration::from_secs(3),
            call_timeout: Duration::from_secs(5),
            max_record: 64 * 1024,
        }
    }
}

impl EtcdConfigBuilder {
    /// Adds a member of the cluster. One of them is used at a time; the others take over.
    pub fn server(self, host: impl AsRef<str>, port: u16) -> Self {
        let host = host.as_ref();
        let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
        self.address(format!("{host}:{port}"))
    }

    /// The path in front of all keys, such as `cn` or `/apps/cn`; none if never called.
    pub fn namespace(mut self, path: impl AsRef<str>) -> Self {
        self.namespace = path.as_ref().into();
        self
    }

    /// Who we are, for a server that has authentication enabled.
    pub fn user(mut self, user: impl Into<String>, secret: impl Into<String>) -> Self {
        self.user = Some((user.into(), secret.into()));
        self
    }

    /// Encrypts the connections.
    pub fn tls(mut self, tls: Tls) -> Self {
        self.tls = Some(tls);
        self
    }

    /// How long a watch may hear nothing from its server before it is given up (6 s). An idle one asks for a sign of
    /// life after half of it.
    pub fn silence_timeout(mut self, timeout: Duration) -> Self {
        self.silence_timeout = timeout;
        self
    }

    /// How long a new connection to a server may take, until that server has answered (3 s).
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// How long an operation may take in all, waiting for a connection included (5 s).
    pub fn call_timeout(mut self, timeout: Duration) -> Self {
        self.call_timeout = timeout;
        self
    }

    /// The most bytes a value may have (64 KiB): up to a million.
    pub fn max_record(mut self, bytes: usize) -> Self {
        self.max_record = bytes;
        self
    }

    /// The configuration.
    ///
    /// # Errors
    ///
    /// [`Invalid`](discovery::ErrorKind::Invalid) for what can never work; the message names the part and what is
    /// allowed.
    pub fn build(self) -> Result<EtcdConfig> {
        if self.servers.is_empty() {
            return Err(Error::invalid("there is no server; write etcd://host[:port]"));
        }
        for (what, time) in [
            ("silence_timeout", self.silence_timeout),
            ("connect_timeout", self.connect_timeout),
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
        if let Some((user, secret)) = &self.user
            && (user.is_empty() || secret.is_empty())
        {
            return Err(Error::invalid("user or secret is empty; write etcd://user:secret@host"));
        }
        let servers = self.servers.into_iter().map(server);
        Ok(EtcdConfig {
            servers: servers.collect::<Result<_>>()?,
            namespace: crate::path::check_namespace(&self.namespace)?,
            user: self.user,
            tls: self.tls,
            silence_timeout: self.silence_timeout,
            connect_timeout: self.connect_timeout,
            call_timeout: self.call_timeout,
            max_record: self.max_record,
        })
    }

    fn host(self, host: &Host) -> Self {
        self.address(host.with_default_port(DEFAULT_PORT))
    }

    fn address(mut self, address: String) -> Self {
        self.servers.push(address);
        self
    }
}

/// Without the secret.
impl fmt::Debug for EtcdConfigBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EtcdConfigBuilder")
            .field("servers", &self.servers.len())
            .field("namespace", &self.namespace)
            .field("user", &self.user.as_ref().map(|(user, _)| user))
            .field("tls", &self.tls)
            .finish_non_exhaustive()
    }
}

fn server(address: String) -> Result<Server> {
    // What has an @ in it may have a secret in front of that.
    let shown = address.rsplit('@').next().unwrap_or_default();
    let bad = || Error::invalid(format!("{shown:?} is not a host with a port of 1 to 65535"));
    // By the parser of locators, which knows what a host is; the client library takes almost anything.
    let locator: Locator = format!("etcd://{address}").parse().map_err(|error| bad().with_source(error))?;
    let [host] = locator.hosts() else { return Err(bad()) };
    if !locator.path().is_empty() || locator.user().is_some() {
        return Err(bad());
    }
    // TLS, if any, is below what the client library sees of the connection.
    let endpoint = Endpoint::from_shared(format!("http://{address}"))
        .map_err(|error| bad().with_source(error))?
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW);
    let host = host.name().to_owned();
    Ok(Server { address, host, endpoint })
}

#[cfg(test)]
mod tests {
    use discovery::ErrorKind;

    use super::*;

    fn valid() -> EtcdConfigBuilder {
        EtcdConfig::builder().server("h", 1)
    }

    #[test]
    fn what_cannot_work_is_refused_by_name() {
        let ms = Duration::from_millis;
        for (bad, part) in [
            (EtcdConfig::builder(), "server"),
            (valid().server("a b", 1), "host"),
            (valid().server("http://h", 1), "host"),
            (valid().server("u:p@h", 1), "host"),
            (valid().server("h", 0), "port"),
            (valid().silence_timeout(ms(9)), "silence_timeout"),
            (valid().connect_timeout(ms(1)), "connect_timeout"),
            (valid().call_timeout(ms(0)), "call_timeout"),
            (valid().call_timeout(Duration::MAX), "call_timeout"),
            (valid().max_record(0), "max_record"),
            (valid().max_record(RECORD_MAX + 1), "max_record"),
            (valid().user("", "c"), "user"),
            (valid().user("a", ""), "secret"),
            (valid().namespace("a//b"), "namespace"),
            (valid().namespace("a/../b"), "namespace"),
        ] {
            let error = bad.build().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid);
            assert!(error.to_string().contains(part), "{part}: {error}");
        }
    }

    #[test]
    fn secrets_do_not_print() {
        let config = valid().user("me", "hunter2").namespace("/cn/").build().unwrap();
        assert_eq!(config.to_string(), "etcd://me:***@h:1/cn");
        assert!(!format!("{config:?} {:?}", valid().user("me", "hunter2")).contains("hunter2"));
        let astray = valid().server("me:hunter2@h", 1);
        assert!(!format!("{astray:?}").contains("hunter2"));
        let error = astray.build().unwrap_err();
        assert!(!format!("{error} {error:?}").contains("hunter2"), "{error:?}");
    }

    #[test]
    fn addresses_with_colons_get_brackets() {
        assert_eq!(valid().server("::1", 2).build().unwrap().to_string(), "etcd://h:1,[::1]:2");
    }
}
