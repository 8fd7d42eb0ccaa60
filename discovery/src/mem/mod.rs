//! The reference backend: everything in memory, for tests and for programs that are one process.
//!
//! It keeps every obligation of the contract and is meant to be read first by authors of backends. The parts:
//! `store` has the entries, leases and transactions; `history` remembers the latest changes, so that a watch can
//! continue where an earlier one ended; `bells` wakes the watches that a change is of. There is no task: whoever looks
//! at the store first ends what is due.

mod bells;
mod history;
mod store;

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;

use self::store::Store;
use crate::{
    Backend, Capabilities, Info, LeaseId, Leases, Registrar, Result, Resume, Revision, Scope, Snapshot,
    backend::Updates,
    kv::{Key, Kv, KvBackend},
};

/// How many changes a store remembers unless told otherwise.
const HISTORY: usize = 1024;

/// A backend in memory. Clones share the store, as two clients share a server.
///
/// # Example: test a service without a server
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> discovery::Result<()> {
/// use discovery::{Discovery, Instance, mem::Mem};
///
/// let discovery = Discovery::new(Mem::new());
/// let cart = Instance::builder("cart".parse()?).endpoint("http", "127.0.0.1", 8080).build()?;
/// let registration = discovery.register(cart).await?;
/// assert_eq!(discovery.lookup(&"cart".parse()?).await?.len(), 1);
/// # drop(registration);
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Mem(Arc<KvBackend<Store>>);

impl Mem {
    /// An empty store.
    pub fn new() -> Self {
        Self::with_history(HISTORY)
    }

    /// An empty store that remembers the last `changes` changes: how far back a watch can resume.
    pub fn with_history(changes: usize) -> Self {
        let capabilities = Capabilities {
            resume: Resume::Bounded,
            detects_silence_within: Duration::ZERO,
            ..Capabilities::default()
        };
        let info = Info::new("mem", "mem://", capabilities);
        Self(Arc::new(KvBackend::new(Store::new(changes, capabilities.max_record), info)))
    }

    /// Ends a lease at once, as if its holder had died: for tests.
    pub fn expire(&self, lease: LeaseId) {
        self.0.store().expire(lease);
    }

    /// Ends all leases at once: for tests.
    pub fn expire_all(&self) {
        self.0.store().expire_all();
    }

    /// Forgets the history, so that every watch that resumes has to start over: for tests.
    pub fn compact(&self) {
        self.0.store().compact();
    }

    /// Writes an entry past all limits, as a program might that knows nothing of this crate: for tests.
    pub fn plant(&self, key: &Key, value: impl Into<Bytes>) {
        self.0.store().plant(key.clone(), value.into());
    }

    /// How many watches are open: for tests.
    pub fn open_watches(&self) -> usize {
        self.0.store().open_watches()
    }
}

impl Default for Mem {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Mem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Mem")
    }
}

#[async_trait]
impl Backend for Mem {
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
