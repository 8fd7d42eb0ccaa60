//! etcd backend for the [`discovery`] crate: services in an etcd that is there already.
//!
//! # Example: a registration that ends with the process
//!
//! ```no_run
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> discovery::Result<()> {
//! use discovery::{Connectors, Discovery, Instance};
//!
//! let connectors = Connectors::new().with(discovery_etcd::connector());
//! let discovery = Discovery::connect("etcd://etcd1,etcd2,etcd3/cn", &connectors).await?;
//!
//! let cart = Instance::builder("eu1/prod/cart".parse()?).endpoint("http", "10.0.0.7", 8080).build()?;
//! let registration = discovery.register(cart).await?;
//! println!("{:?}", discovery.lookup(&"eu1/prod/cart".parse()?).await?);
//! # drop(registration);
//! # Ok(()) }
//! ```
//!
//! # Locators
//!
//! `etcd://[user:secret@]host[:port][,host[:port]…][/namespace][?option=value&…]`, or [`EtcdConfig::builder`] for the
//! same in code. The port is 2379 unless given; the namespace is in front of all keys. Special characters in user and
//! secret are percent-encoded. A user needs a role with `readwrite` on the keys with the prefix `/namespace/`.
//!
//! | option | meaning | default |
//! |---|---|---|
//! | `silence_timeout` | how long a watch may hear nothing from its server before it is given up | `6s` |
//! | `connect_timeout` | how long a new connection to a server may take, until that server has answered | `3s` |
//! | `call_timeout` | how long an operation may take in all | `5s` |
//! | `max_record` | the most bytes of a value, up to 1000000 | `65536` |
//! | `tls_ca` | PEM file with the authorities that servers are signed by; turns TLS on, and is needed for it | |
//! | `tls_cert`, `tls_key` | PEM files with the certificate and key that we show; read once | |
//!
//! # What it offers
//!
//! | facet | |
//! |---|---|
//! | [`Backend`] | watches are pushed; a change costs no read at all |
//! | [`Registrar`] | yes; taking over an entry, or moving it to another lease, is one step that no watch sees as a removal |
//! | [`Leases`] | the server rounds a ttl up to whole seconds, and to what its election timeout demands, by default 2 s; a registry's leases carry [200](discovery::Capabilities::max_per_lease) registrations each |
//! | [`Kv`] | transactions of up to 1.5 MB, with several leases if need be |
//!
//! | question | answer |
//! |---|---|
//! | revisions | etcd's own, comparable across all keys |
//! | reads | linearizable |
//! | guards | hold when the transaction is applied, whoever writes |
//! | resume | behind any revision that the handle has met and that is not compacted; a wiped or restored cluster is noticed, and a watch then begins with the whole range |
//! | silence | noticed within `silence_timeout` |
//! | lease not renewed | ends after its ttl; a restarted server gives all of them their full time again |
//! | handle dropped | registrations are taken back; other leases end by their ttl; watches go on |
//! | a write under a lease whose answer was lost | in effect or never, once the lease has been renewed |
//! | key with keys below it | yes |
//! | keys of others in the namespace | without value, or with names that no key can have: left out |
//! | members | one at a time is connected to, the others take over; the choice is random at first |
//!
//! The entry `a/b/c` is under the key `/namespace/a/b/c`, and its value is what `discovery` makes of an instance: JSON.
//! `etcdctl get --prefix /namespace/` shows everything.
//!
//! All operations may be cancelled by dropping their futures; a write may then be in effect or not, as after an error
//! whose outcome is [unknown](discovery::Outcome::Unknown).
//!
//! # What it needs
//!
//! etcd 3.4 or later (tested with 3.4), and a tokio runtime. To build it, `protoc` (Debian: `protobuf-compiler`). TLS is
//! `rustls` with `aws-lc-rs`, as in `discovery-zk`; both may be in one process.

mod config;
mod connection;
mod error;
mod lease;
mod path;
mod store;
mod watch;

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use discovery::{
    Backend, Capabilities, Connector, Info, Leases, Locator, Registrar, Result, Resume, Revision, Scope,
    Snapshot, Updates,
    kv::{Kv, KvBackend},
};

pub use crate::config::{EtcdConfig, EtcdConfigBuilder, Tls};
use crate::{error::SCHEME, store::Store};

/// How many registrations share a lease: writing under one costs the server more the more keys it has.
const MAX_PER_LEASE: usize = 200;

/// An etcd as a [`Backend`]. Clones share its connection.
///
/// For use with [`Discovery::new`](discovery::Discovery::new), where the configuration is not a locator.
///
/// # Example: a configuration in code
///
/// ```no_run
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> discovery::Result<()> {
/// use discovery::Discovery;
/// use discovery_etcd::{Etcd, EtcdConfig};
///
/// let config = EtcdConfig::builder().server("localhost", 2379).namespace("cn").user("me", "s3cret");
/// let discovery = Discovery::new(Etcd::new(config.build()?));
/// # drop(discovery);
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Etcd(Arc<KvBackend<Store>>);

impl Etcd {
    /// The backend that `config` describes. Nothing is sent before it is first used.
    pub fn new(config: EtcdConfig) -> Self {
        let mut capabilities = Capabilities::default();
        capabilities.resume = Resume::Bounded;
        capabilities.max_record = config.max_record();
        capabilities.max_per_lease = MAX_PER_LEASE;
        capabilities.detects_silence_within = config.silence_timeout();
        let info = Info::new(SCHEME, config.to_string(), capabilities);
        Self(Arc::new(KvBackend::new(Store::new(config), info)))
    }
}

impl fmt::Debug for Etcd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Etcd({})", self.info())
    }
}

#[async_trait]
impl Backend for Etcd {
    fn info(&self) -> &Info {
        self.0.info()
    }

    async fn fetch(&self, scope: &Scope) -> Result<Snapshot> {
        self.0.fetch(scope).await
    }

    fn watch(&self, scope: &Scope, after: Option<Revision>) -> Updates {
        self.0.watch(scope, after)
    }

    fn registrar(&self) -> Option<&dyn Registrar> {
        self.0.registrar()
    }

    fn leases(&self) -> Option<&dyn Leases> {
        self.0.leases()
    }

    fn kv(&self) -> Option<&dyn Kv> {
        self.0.kv()
    }
}

/// The connector for `etcd://`.
///
/// See the [crate](crate#locators) for what a locator may say.
pub fn connector() -> impl Connector {
    EtcdConnector
}

#[derive(Debug)]
struct EtcdConnector;

#[async_trait]
impl Connector for EtcdConnector {
    fn schemes(&self) -> &'static [&'static str] {
        &[SCHEME]
    }

    async fn connect(&self, locator: &Locator) -> Result<Arc<dyn Backend>> {
        Ok(Arc::new(Etcd::new(EtcdConfig::from_locator(locator)?)))
    }
}
