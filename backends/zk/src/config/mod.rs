//! What a backend is configured with, checked before the client library sees any of it.

mod auth;
mod locator;
mod tls;

use std::{fmt, time::Duration};

use discovery::{Error, Host, Locator, Result};
use zookeeper_client as zk;

pub use self::{
    auth::{Access, Auth},
    tls::Tls,
};
use crate::path::Layout;

/// The port of a server whose locator names none.
const DEFAULT_PORT: u16 = 2181;

/// ZooKeeper's own limit for a request is 1 MiB in all; a record must leave room for its path and the rest.
const RECORD_MAX: usize = 1_000_000;

/// What the protocol can carry, with reason: a server refuses or clamps what it finds unreasonable.
const SESSION_TIMEOUT_MAX: Duration = Duration::from_secs(3600);

/// How to reach a ZooKeeper and how to behave there.
///
/// # Example: a builder for what a locator says as well
///
/// ```
/// # fn main() -> discovery::Result<()> {
/// use std::time::Duration;
/// use discovery_zk::{Auth, ZkConfig};
///
/// let built = ZkConfig::builder()
///     .server("zk1", 2181)
///     .server("zk2", 2181)
///     .chroot("cn")
///     .auth(Auth::digest("me", "s3cret"))
///     .session_timeout(Duration::from_secs(15))
///     .build()?;
/// let parsed = ZkConfig::from_locator(&"zk://me:s3cret@zk1,zk2/cn?session_timeout=15s".parse()?)?;
/// assert_eq!(built.to_string(), parsed.to_string());
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct ZkConfig {
    servers: Vec<String>,
    chroot: String,
    auth: Option<Auth>,
    access: Access,
    tls: Option<Tls>,
    session_timeout: Duration,
    connect_timeout: Duration,
    call_timeout: Duration,
    max_record: usize,
}

impl ZkConfig {
    /// A configuration to be filled in; it needs a server at least.
    pub fn builder() -> ZkConfigBuilder {
        ZkConfigBuilder::default()
    }

    /// The configuration in a locator: `zk://[user:secret@]host[:port][,…][/chroot][?option=value&…]`.
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

    /// How long a silent session lives: the one for reads and watches, not those of leases, which have their ttl.
    pub fn session_timeout(&self) -> Duration {
        self.session_timeout
    }

    /// How long a new connection may take.
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

    /// The bound within which a watch notices that its server fell silent.
    ///
    /// An idle watch asks for a sign of life after a third of the session timeout and gives up on it after another;
    /// the client usually notices earlier, after two fifths of the timeout that the server granted.
    pub fn detects_silence_within(&self) -> Duration {
        self.probe_interval() * 2
    }

    /// How long a watch is idle before it asks for a sign of life, and how long it waits for an answer.
    pub(crate) fn probe_interval(&self) -> Duration {
        self.session_timeout / 3
    }

    pub(crate) fn layout(&self) -> Layout {
        Layout::new(&self.chroot)
    }

    /// The access rights of what we create.
    pub(crate) fn acl(&self) -> zk::Acls<'static> {
        match self.access {
            Access::Open => zk::Acls::anyone_all(),
            Access::Creator => zk::Acls::creator_all(),
        }
    }

    /// Opens a session of its own.
    pub(crate) async fn connect(&self, session_timeout: Duration) -> Result<zk::Client, zk::Error> {
        let mut connector = zk::Client::connector()
            .with_session_timeout(session_timeout)
            // Each server is tried once and that is it: whoever calls knows better when to try again.
            .with_fail_eagerly();
        if let Some(auth) = &self.auth {
            connector = auth.present(connector);
        }
        let servers = self.servers.join(",");
        match &self.tls {
            Some(tls) => connector.with_tls(tls.options().clone()).secure_connect(&servers).await,
            None => connector.connect(&servers).await,
        }
    }
}

/// The locator, without the secret and without options.
impl fmt::Display for ZkConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("zk://")?;
        if let Some(auth) = &self.auth {
            write!(f, "{}:***@", auth.user())?;
        }
        write!(f, "{}{}", self.servers.join(","), self.chroot)
    }
}

impl fmt::Debug for ZkConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ZkConfig")
            .field("locator", &self.to_string())
            .field("access", &self.access)
            .field("tls", &self.tls.is_some())
            .field("session_timeout", &self.session_timeout)
            .field("connect_timeout", &self.connect_timeout)
            .field("call_timeout", &self.call_timeout)
            .field("max_record", &self.max_record)
            .finish_non_exhaustive()
    }
}

/// Builds a [`ZkConfig`].
#[derive(Clone, Debug)]
#[must_use]
pub struct ZkConfigBuilder {
    servers: Vec<String>,
    chroot: String,
    auth: Option<Auth>,
    access: Access,
    tls: Option<Tls>,
    session_timeout: Duration,
    connect_timeout: Duration,
    call_timeout: Duration,
    max_record: usize,
}

impl Default for ZkConfigBuilder {
    fn default() -> Self {
        Self {
            servers: Vec::new(),
            chroot: String::new(),
            auth: None,
            access: Access::default(),
            tls: None,
            session_timeout: Duration::from_secs(10),
            connect_timeout: Duration::from_secs(5),
            call_timeout: Duration::from_secs(5),
            max_record: 64 * 1024,
        }
    }
}

impl ZkConfigBuilder {
    /// Adds a server of the ensemble.
    pub fn server(self, host: impl AsRef<str>, port: u16) -> Self {
        let host = host.as_ref();
        let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
        self.address(format!("{host}:{port}"))
    }

    /// The path under which everything is, such as `cn` or `/apps/cn`; created when it is missing. The root of the
    /// server if never called.
    pub fn chroot(mut self, path: impl AsRef<str>) -> Self {
        self.chroot = path.as_ref().into();
        self
    }

    /// Who we are.
    pub fn auth(mut self, auth: Auth) -> Self {
        self.auth = Some(auth);
        self
    }

    /// Who may read and write what we create.
    pub fn access(mut self, access: Access) -> Self {
        self.access = access;
        self
    }

    /// Encrypts the connections.
    pub fn tls(mut self, tls: Tls) -> Self {
        self.tls = Some(tls);
        self
    }

    /// How long a silent session lives (10 s): up to an hour, and the server may round.
    pub fn session_timeout(mut self, timeout: Duration) -> Self {
        self.session_timeout = timeout;
        self
    }

    /// How long a new connection may take (5 s).
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
    pub fn build(self) -> Result<ZkConfig> {
        if self.servers.is_empty() {
            return Err(Error::invalid("no server is given; name one host at least, as in zk://localhost"));
        }
        for server in &self.servers {
            // The locator's rules for hosts, for those that came through the builder.
            format!("zk://{server}").parse::<Locator>()?;
        }
        for (name, timeout) in [
            ("session_timeout", self.session_timeout),
            ("connect_timeout", self.connect_timeout),
            ("call_timeout", self.call_timeout),
        ] {
            if timeout < Duration::from_millis(10) || timeout > SESSION_TIMEOUT_MAX {
                return Err(Error::invalid(format!("{name} is {timeout:?}; allowed are 10ms to 1h")));
            }
        }
        if !(1..=RECORD_MAX).contains(&self.max_record) {
            let given = self.max_record;
            return Err(Error::invalid(format!(
                "max_record is {given}; allowed are 1 to {RECORD_MAX} bytes"
            )));
        }
        if let Some(auth) = &self.auth {
            auth.check()?;
        }
        if self.access == Access::Creator && self.auth.is_none() && self.tls.is_none() {
            return Err(Error::invalid(
                "acl creator needs somebody to be the creator; give user and secret, or a client certificate",
            ));
        }
        Ok(ZkConfig {
            chroot: crate::path::check_chroot(&self.chroot)?,
            servers: self.servers,
            auth: self.auth,
            access: self.access,
            tls: self.tls,
            session_timeout: self.session_timeout,
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

#[cfg(test)]
mod tests {
    use discovery::ErrorKind;

    use super::*;

    fn valid() -> ZkConfigBuilder {
        ZkConfig::builder().server("h", 1)
    }

    #[test]
    fn what_cannot_work_is_refused_by_name() {
        let ms = Duration::from_millis;
        for (bad, part) in [
            (ZkConfig::builder(), "server"),
            (valid().server("a b", 1), "host"),
            (valid().server("tcp+tls://h", 1), "host"),
            (valid().server("h", 0), "port"),
            (valid().session_timeout(ms(0)), "session_timeout"),
            (valid().session_timeout(ms(3_600_001)), "session_timeout"),
            (valid().connect_timeout(ms(1)), "connect_timeout"),
            (valid().call_timeout(ms(0)), "call_timeout"),
            (valid().max_record(0), "max_record"),
            (valid().max_record(RECORD_MAX + 1), "max_record"),
            (valid().auth(Auth::digest("a:b", "c")), "user"),
            (valid().auth(Auth::sasl_digest_md5("a", "")), "secret"),
            (valid().access(Access::Creator), "creator"),
            (valid().chroot("a//b"), "chroot"),
            (valid().chroot("a/../b"), "chroot"),
            (valid().chroot("zookeeper/x"), "chroot"),
        ] {
            let error = bad.build().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid);
            assert!(error.to_string().contains(part), "{part}: {error}");
        }
    }

    #[test]
    fn secrets_do_not_print() {
        let config = valid().auth(Auth::digest("me", "hunter2")).chroot("/cn/").build().unwrap();
        assert_eq!(config.to_string(), "zk://me:***@h:1/cn");
        assert!(!format!("{config:?} {:?}", valid().auth(Auth::digest("me", "hunter2"))).contains("hunter2"));
    }

    #[test]
    fn addresses_with_colons_get_brackets() {
        assert_eq!(valid().server("::1", 2).build().unwrap().to_string(), "zk://h:1,[::1]:2");
    }
}
