//! ZooKeeper backend for the [`discovery`] crate: services in a ZooKeeper that is there already.
//!
//! # Example: a registration that ends with the process
//!
//! ```no_run
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> discovery::Result<()> {
//! use discovery::{Connectors, Discovery, Instance};
//!
//! let connectors = Connectors::new().with(discovery_zk::connector());
//! let discovery = Discovery::connect("zk://zk1,zk2,zk3/cn?session_timeout=10s", &connectors).await?;
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
//! `zk://[user:secret@]host[:port][,host[:port]…][/chroot][?option=value&…]`, or [`ZkConfig::builder`] for the same
//! in code. The port is 2181 unless given; the chroot is created by the first write if it is missing.
//!
//! | option | meaning | default |
//! |---|---|---|
//! | `session_timeout` | how long the session for reads and watches lives in silence; leases have their own ttl | `10s` |
//! | `connect_timeout` | how long a new connection may take | `5s` |
//! | `call_timeout` | how long an operation may take in all | `5s` |
//! | `max_record` | the most bytes of a value, up to 1000000 | `65536` |
//! | `auth` | how user and secret are presented: `digest`, or `sasl` for SASL DIGEST-MD5 | `digest` |
//! | `acl` | who may read and write what we create: `open`, or `creator` | `open` |
//! | `tls_ca` | PEM file with the authorities that servers are signed by; turns TLS on | |
//! | `tls_cert`, `tls_key` | PEM files with the certificate and key that we show | |
//!
//! # What it offers
//!
//! | facet | |
//! |---|---|
//! | [`Backend`] | watches are pushed; one change costs one read, in a service of any size |
//! | [`Registrar`] | yes; taking over an entry, or moving it to another lease, is one step that no watch sees as a removal |
//! | [`Leases`] | a lease is a session of its own; the server rounds its ttl to what it allows, by default 4 s to 40 s |
//! | [`Kv`] | transactions of up to 1 MB; one that binds entries to a lease binds all of them to the same |
//!
//! | question | answer |
//! |---|---|
//! | revisions | zxids: comparable across all keys |
//! | reads | see all writes of the same handle and never go back in time; those of others may be late by what a server lags behind its leader |
//! | guards | hold when the transaction is applied, also against deletion and creation anew; a program that creates entries without this crate can slip in between the last look and the write |
//! | [`Guard::Alive`](discovery::kv::Guard::Alive) | cannot tell whether a key that has keys *below it* was deleted and written anew |
//! | resume | never: each watch begins with the whole range |
//! | many watches | one session more for each 100 KiB of their paths; servers limit those of a client (`maxClientCnxns`) |
//! | silence | noticed within two thirds of the session timeout |
//! | lease not renewed | ends after its ttl, although the connection lives |
//! | handle dropped | its leases end at once; watches go on |
//! | key with keys below it | yes, if permanent; a leased one is refused, as ephemeral nodes have no children |
//! | a deleted key's directory | goes when it is empty, unless it ever was an entry with keys below it |
//! | other nodes in the tree | without data, unreadable, or with names that no key can have: left out |
//!
//! All operations may be cancelled by dropping their futures; a write may then be in effect or not, as after an error
//! whose outcome is [unknown](discovery::Outcome::Unknown).
//!
//! # What it needs
//!
//! ZooKeeper 3.6 or later (tested with 3.8), and a tokio runtime. With TLS, the `rustls` in use must know one crypto
//! provider only, or have a default one installed: it is built with `aws-lc-rs` here, and refuses to choose if another
//! crate adds `ring`.

mod config;
mod error;
mod path;
mod session;
mod store;
mod watch;

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use discovery::{
    Backend, Capabilities, Connector, Info, Leases, Locator, Registrar, Result, Revision, Scope, Snapshot,
    Updates,
    kv::{Kv, KvBackend},
};

pub use crate::config::{Access, Auth, Tls, ZkConfig, ZkConfigBuilder};
use crate::{error::SCHEME, store::Store};

/// A ZooKeeper as a [`Backend`]. Clones share its sessions.
///
/// For use with [`Discovery::new`](discovery::Discovery::new), where the configuration is not a locator.
///
/// # Example: a configuration in code
///
/// ```no_run
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> discovery::Result<()> {
/// use discovery::Discovery;
/// use discovery_zk::{Auth, Zk, ZkConfig};
///
/// let config = ZkConfig::builder().server("localhost", 2181).chroot("cn").auth(Auth::digest("me", "s3cret"));
/// let discovery = Discovery::new(Zk::new(config.build()?));
/// # drop(discovery);
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Zk(Arc<KvBackend<Store>>);

impl Zk {
    /// The backend that `config` describes. Nothing is sent before it is first used.
    pub fn new(config: ZkConfig) -> Self {
        let mut capabilities = Capabilities::default();
        capabilities.max_record = config.max_record();
        capabilities.detects_silence_within = config.detects_silence_within();
        let info = Info::new(SCHEME, config.to_string(), capabilities);
        Self(Arc::new(KvBackend::new(Store::new(config), info)))
    }
}

impl fmt::Debug for Zk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Zk({})", self.info())
    }
}

#[async_trait]
impl Backend for Zk {
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

/// The connector for `zk://`, and for `zookeeper://`, which is the same.
///
/// See the [crate](crate#locators) for what a locator may say.
pub fn connector() -> impl Connector {
    ZkConnector
}

#[derive(Debug)]
struct ZkConnector;

#[async_trait]
impl Connector for ZkConnector {
    fn schemes(&self) -> &'static [&'static str] {
        &[SCHEME, "zookeeper"]
    }

    async fn connect(&self, locator: &Locator) -> Result<Arc<dyn Backend>> {
        Ok(Arc::new(Zk::new(ZkConfig::from_locator(locator)?)))
    }
}
