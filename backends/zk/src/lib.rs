//! ZooKeeper backend for the [`discovery`] crate.
//!
//! # Example: a registration and a watch
//!
//! ```no_run
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> discovery::Result<()> {
//! use discovery::{Connectors, Discovery, Instance};
//!
//! let connectors = Connectors::new().with(discovery_zk::connector());
//! let discovery = Discovery::connect("zk://localhost/cn?session_timeout=10s", &connectors).await?;
//! let cart = Instance::builder("eu1/prod/cart".parse()?).endpoint("http", "10.0.0.7", 8080).build()?;
//! let registration = discovery.register(cart).await?;
//! println!("{:?}", discovery.lookup(&"eu1/prod/cart".parse()?).await?);
//! # drop(registration);
//! # Ok(()) }
//! ```

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

/// A ZooKeeper. Clones share its sessions.
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

/// The connector for `zk://`.
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
