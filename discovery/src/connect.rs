//! From a locator to a backend.

use std::{collections::BTreeMap, fmt, sync::Arc};

use async_trait::async_trait;

use crate::{Backend, Error, Locator, Result, mem::Mem};

/// Makes backends of one or several schemes.
#[async_trait]
pub trait Connector: fmt::Debug + Send + Sync + 'static {
    /// The schemes it is for.
    fn schemes(&self) -> &'static [&'static str];

    /// The backend at `locator`.
    ///
    /// Checks what can be checked without the server and returns: a server that is down is noticed, and waited for, by
    /// the operations, so that a program may start before its registry does.
    ///
    /// # Errors
    ///
    /// [`Invalid`](crate::ErrorKind::Invalid) for a locator that can never work.
    async fn connect(&self, locator: &Locator) -> Result<Arc<dyn Backend>>;
}

/// Which connector is for which scheme. A value, not a global: two parts of a program may know different backends.
///
/// # Example: choose the backend at run time
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> discovery::Result<()> {
/// use discovery::{Connectors, Discovery};
///
/// let connectors = Connectors::new(); // `.with(discovery_zk::connector())` adds ZooKeeper
/// let discovery = Discovery::connect("mem://", &connectors).await?;
/// let error = Discovery::connect("consul://h", &connectors).await.unwrap_err();
/// assert_eq!(error.to_string(), "no connector for scheme \"consul\"; known are: mem");
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct Connectors(BTreeMap<&'static str, Arc<dyn Connector>>);

impl Connectors {
    /// Knows `mem` and nothing else.
    pub fn new() -> Self {
        Self(BTreeMap::new()).with(MemConnector)
    }

    /// Adds a connector; for a scheme that is known already it takes the place of the other one.
    #[must_use]
    pub fn with(mut self, connector: impl Connector) -> Self {
        let connector: Arc<dyn Connector> = Arc::new(connector);
        self.0.extend(connector.schemes().iter().map(|scheme| (*scheme, connector.clone())));
        self
    }

    /// The backend at `locator`.
    ///
    /// # Errors
    ///
    /// [`Invalid`](crate::ErrorKind::Invalid) for a scheme that no connector is for, and as for
    /// [`Connector::connect`].
    pub async fn connect(&self, locator: &Locator) -> Result<Arc<dyn Backend>> {
        let scheme = locator.scheme();
        let Some(connector) = self.0.get(scheme) else {
            let known: Vec<_> = self.0.keys().copied().collect();
            let known = known.join(", ");
            return Err(Error::invalid(format!("no connector for scheme {scheme:?}; known are: {known}")));
        };
        connector.connect(locator).await
    }
}

impl Default for Connectors {
    fn default() -> Self {
        Self::new()
    }
}

/// `mem://`: a store of its own for each call.
#[derive(Debug)]
struct MemConnector;

#[async_trait]
impl Connector for MemConnector {
    fn schemes(&self) -> &'static [&'static str] {
        &["mem"]
    }

    async fn connect(&self, locator: &Locator) -> Result<Arc<dyn Backend>> {
        locator.check_options(&[])?;
        if !locator.hosts().is_empty() || !locator.path().is_empty() {
            return Err(Error::invalid(format!("locator {locator}: memory is nowhere; write mem://")));
        }
        Ok(Arc::new(Mem::new()))
    }
}
