//! The paved path: what users of this crate hold.

use std::{fmt, sync::Arc};

use crate::{
    Backend, Connectors, Error, ErrorKind, Info, Instance, InstanceKey, KeyView, Result, Revision, Scope,
    ServiceName, Snapshot, ViewBuilder, Watch,
    backoff::Backoff,
    kv::{Entry, Key, Kv, KvUpdates, Range, Scan, Txn},
    layer::Layer,
    lease::{Keepers, Sessions},
    recipe::{Barrier, Election, Group, Lock, Runs},
    registration::Register,
    watch::Hub,
};

/// A handle on a service registry, whatever is behind it. Clones share watches, leases and connections.
///
/// # Example: register, find and follow
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> discovery::Result<()> {
/// use discovery::{Discovery, Instance, ServiceName, mem::Mem};
///
/// let discovery = Discovery::new(Mem::new());
/// let cart: ServiceName = "eu1/prod/cart".parse()?;
///
/// let instance = Instance::builder(cart.clone()).endpoint("http", "10.0.0.7", 8080).build()?;
/// let registration = discovery.register(instance).await?;
///
/// let view = discovery.view(&cart).await?;
/// view.read(|snapshot, _| assert_eq!(snapshot.len(), 1));
///
/// registration.deregister().await?;
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Discovery {
    base: Arc<dyn Backend>,
    /// Innermost first.
    layers: Vec<Arc<dyn Layer>>,
    backoff: Backoff,
    stack: Arc<Stack>,
}

/// The backend with its layers folded over it, and the machines that run on it.
struct Stack {
    backend: Arc<dyn Backend>,
    hub: Hub,
    keepers: Arc<Keepers>,
    sessions: Arc<Sessions>,
}

impl Stack {
    fn new(base: &Arc<dyn Backend>, layers: &[Arc<dyn Layer>], backoff: Backoff) -> Arc<Self> {
        let backend = layers.iter().fold(base.clone(), |inner, layer| layer.wrap(inner));
        let keepers = Arc::new(Keepers::new(backend.clone(), backoff));
        let hub = Hub::new(backend.clone(), backoff, keepers.clone());
        let sessions = Arc::new(Sessions::new(backend.clone(), backoff));
        Arc::new(Self { backend, hub, keepers, sessions })
    }
}

impl Discovery {
    /// A handle on `backend`.
    pub fn new(backend: impl Backend) -> Self {
        Self::from_arc(Arc::new(backend))
    }

    /// A handle on a backend that others hold as well.
    pub fn from_arc(base: Arc<dyn Backend>) -> Self {
        let backoff = Backoff::default();
        let stack = Stack::new(&base, &[], backoff);
        Self { base, layers: Vec::new(), backoff, stack }
    }

    /// A handle on the backend at `locator`, such as `zk://127.0.0.1:2181/cn`.
    ///
    /// Succeeds while the server is down: operations then fail with
    /// [`Unavailable`](ErrorKind::Unavailable), views are stale, and registrations are pending until it is up.
    ///
    /// # Errors
    ///
    /// [`Invalid`](ErrorKind::Invalid) for a malformed locator, an unknown scheme or an unknown option.
    pub async fn connect(locator: &str, connectors: &Connectors) -> Result<Self> {
        connectors.connect(&locator.parse()?).await.map(Self::from_arc)
    }

    /// The same backend with one more layer; the last one added is the innermost. Watches, views and registrations
    /// made before go on without it.
    #[must_use]
    pub fn layer(mut self, layer: impl Layer) -> Self {
        self.layers.insert(0, Arc::new(layer));
        self.refold()
    }

    /// The same backend with another pace of attempts, for watches and registrations made from now on.
    #[must_use]
    pub fn backoff(mut self, backoff: Backoff) -> Self {
        self.backoff = backoff;
        self.refold()
    }

    /// What the backend is and can do.
    pub fn info(&self) -> &Info {
        self.stack.backend.info()
    }

    /// The backend with its layers, for what this handle does not offer.
    pub fn backend(&self) -> &Arc<dyn Backend> {
        &self.stack.backend
    }

    /// The instances of a service now. Asks the backend each time; for a hot path keep a [`view`](Discovery::view).
    ///
    /// # Errors
    ///
    /// As for [`Backend::fetch`]; a service that nobody registered is an empty snapshot.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn lookup(&self, service: &ServiceName) -> Result<Snapshot> {
        self.fetch(service).await
    }

    /// The instances of a scope now.
    ///
    /// # Errors
    ///
    /// As for [`Backend::fetch`].
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn fetch(&self, scope: impl Into<Scope>) -> Result<Snapshot> {
        let info = self.info();
        let fetched = self.stack.backend.fetch(&scope.into()).await;
        fetched.map_err(|error| error.during("fetch").on_backend(info.scheme()))
    }

    /// Follows a scope. All watches of a scope share one watch of the backend.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    pub fn watch(&self, scope: impl Into<Scope>) -> Watch {
        self.stack.hub.watch(scope.into())
    }

    /// Opens a live view of a scope; await the builder.
    ///
    /// # Errors
    ///
    /// When awaited: [`Timeout`](ErrorKind::Timeout) if there is no first snapshot within 10 s (see
    /// [`ViewBuilder::first_wait`]), and what the backend refuses.
    pub fn view(&self, scope: impl Into<Scope>) -> ViewBuilder<'_> {
        ViewBuilder::new(&self.stack.hub, scope.into())
    }

    /// Registers an instance and keeps it registered; await the builder.
    ///
    /// # Errors
    ///
    /// When awaited: what the backend refuses. Being out of reach is no refusal: the future waits.
    pub fn register(&self, instance: Instance) -> Register<'_> {
        Register::new(&self.stack.keepers, instance)
    }

    /// Removes an instance, whoever registered it; `Ok(false)` if there was none. Meant for permanent entries and for
    /// operators: an owner that is alive is not told, and writes the entry again with its next update or lease.
    ///
    /// # Errors
    ///
    /// [`Unsupported`](ErrorKind::Unsupported) on a backend that only reads; otherwise as for
    /// [`Registrar::remove`](crate::Registrar::remove).
    pub async fn remove(&self, key: &InstanceKey) -> Result<bool> {
        let registrar = self.stack.backend.registrar().ok_or_else(|| self.info().lacks("registrar"))?;
        registrar
            .remove(key, None)
            .await
            .map_err(|error| error.during("remove").on_backend(self.info().scheme()))
    }

    /// Raw keys with compare-and-set.
    ///
    /// # Errors
    ///
    /// [`Unsupported`](ErrorKind::Unsupported) on a backend without them.
    pub fn kv(&self) -> Result<KvHandle> {
        match self.stack.backend.kv() {
            Some(_) => Ok(KvHandle { backend: self.stack.backend.clone(), backoff: self.backoff }),
            None => Err(self.info().lacks("kv")),
        }
    }

    /// An election among those who name the same one.
    ///
    /// # Errors
    ///
    /// [`Unsupported`](ErrorKind::Unsupported) on a backend without keys and leases, [`Invalid`](ErrorKind::Invalid) for
    /// the root.
    pub fn election(&self, name: &ServiceName) -> Result<Election> {
        Election::new(&self.stack.sessions, name)
    }

    /// A lock among those who name the same one.
    ///
    /// # Errors
    ///
    /// As for [`election`](Discovery::election).
    pub fn lock(&self, name: &ServiceName) -> Result<Lock> {
        Lock::new(&self.stack.sessions, name)
    }

    /// A group whose members look after each other.
    ///
    /// # Errors
    ///
    /// As for [`election`](Discovery::election).
    pub fn group(&self, name: &ServiceName) -> Result<Group> {
        Group::new(&self.stack.sessions, name)
    }

    /// A double barrier for so many parties that name the same one.
    ///
    /// # Errors
    ///
    /// As for [`election`](Discovery::election), and [`Invalid`](ErrorKind::Invalid) for no parties at all.
    pub fn barrier(&self, name: &ServiceName, parties: usize) -> Result<Barrier> {
        Barrier::new(&self.stack.sessions, name, parties)
    }

    /// The runs that are kept under this name: state machines that many move together.
    ///
    /// # Errors
    ///
    /// As for [`election`](Discovery::election).
    pub fn runs(&self, name: &ServiceName) -> Result<Runs> {
        Runs::new(&self.stack.sessions, name)
    }

    fn refold(mut self) -> Self {
        self.stack = Stack::new(&self.base, &self.layers, self.backoff);
        self
    }
}

impl fmt::Debug for Discovery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Discovery({:?})", self.stack.backend)
    }
}

/// Raw keys of a backend that has them. See [`Kv`] for the contract of each call.
#[derive(Clone, Debug)]
pub struct KvHandle {
    /// Has the facet: it was looked at when the handle was made, and facets do not come and go.
    backend: Arc<dyn Backend>,
    backoff: Backoff,
}

impl KvHandle {
    fn kv(&self) -> Result<&dyn Kv> {
        self.backend.kv().ok_or_else(|| Error::new(ErrorKind::Unsupported, "the backend lost its kv facet"))
    }

    /// The entry under `key`.
    ///
    /// # Errors
    ///
    /// As for [`Kv::get`].
    pub async fn get(&self, key: &Key) -> Result<Option<Entry>> {
        self.kv()?.get(key).await
    }

    /// The entries of a range.
    ///
    /// # Errors
    ///
    /// As for [`Kv::scan`].
    pub async fn scan(&self, range: &Range) -> Result<Scan> {
        self.kv()?.scan(range).await
    }

    /// Applies all operations if all guards hold.
    ///
    /// # Errors
    ///
    /// As for [`Kv::commit`].
    ///
    /// # Cancel safety
    ///
    /// Not cancel safe: a dropped commit may take effect or not.
    pub async fn commit(&self, txn: Txn) -> Result<Revision> {
        self.kv()?.commit(txn).await
    }

    /// Has a range at hand, through outages.
    pub fn view(&self, range: Range) -> KeyView {
        KeyView::new(self.backend.clone(), self.backoff, range)
    }

    /// Follows a range, as the backend does it: on trouble the stream ends with one error.
    ///
    /// # Errors
    ///
    /// None today; the facet is looked up on each call.
    pub fn watch(&self, range: &Range, after: Option<Revision>) -> Result<KvUpdates> {
        Ok(self.kv()?.watch(range, after))
    }
}
