//! Entries and transactions on the tree of nodes: [`Kv`] and [`Leases`] for ZooKeeper.
//!
//! | contract | ZooKeeper |
//! |---|---|
//! | entry | node with data; one without is a mere directory |
//! | created, modified | czxid, mzxid |
//! | lease | ephemeral node of the lease's session |
//! | transaction | multi |
//! | missing parents | container nodes, which the server reaps when they have become empty |
//!
//! # Guards
//!
//! A guard names a revision, but a multi can only check *data versions*, and those start at 0 again when a node is
//! deleted and created anew. So a transaction first reads what it is about, compares revisions, and then has the multi
//! check the versions it has read. That leaves a gap: between read and multi a node may be deleted, created anew, and
//! come to the same version.
//!
//! The gap is closed by counting. Each key belongs to one of 256 nodes under `.epoch`, its *stripe*, and every
//! transaction that makes a key come to be also writes the stripe, in the same multi. A transaction reads the stripes
//! of its keys *before* the keys, on the same connection, which the server answers in order; and its multi checks the
//! stripes' versions. Suppose the multi succeeds and a key had been created anew in between. That creation wrote the
//! stripe. Either it came before the stripe was read: then it also came before the key was read, and the revision read
//! is that of the new node. Or it came after: then the stripe has another version, and the multi fails. So what was
//! read still holds when the multi is applied; and what was absent still is.
//!
//! How a node went does not matter, so sessions may expire and strangers may delete as they like. Only strangers who
//! *create* entries, and so do not count, have the gap between read and multi.
//!
//! Deletions need not count, and creations that were not preceded by a look count without checking; so the storms that
//! a registry sees, everybody coming and everybody going, do not run into each other. Writing a stripe has a second
//! use: ZooKeeper before 3.9 does not say at which zxid a multi created a node, but does say so for one it wrote.
//!
//! Creations that come together share a multi, and stripes (see `batch`).
//!
//! A multi that fails because something moved is tried again from the read on. A guard that seems broken is looked at
//! again behind a `sync`, since the server that was read from may lag behind.

mod batch;
mod commit;
mod line;
mod memory;
mod multi;
mod reader;
mod scan;
mod view;

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use discovery::{
    Error, Grant, LeaseId, Leases, Result, Revision,
    kv::{Entry, Key, Kv, KvUpdates, Range, Scan, Txn},
};
use tokio::{sync::Semaphore, time::Instant};

pub(crate) use self::reader::{Reader, answers};
use self::{batch::Batches, memory::Memory};
use crate::{
    config::ZkConfig,
    error::SCHEME,
    session::{LeaseSessions, Session},
    watch,
};

/// The store behind one handle. Its leases end with it; watches, which share the reader, go on.
pub(crate) struct Store {
    reader: Arc<Reader>,
    leases: Arc<LeaseSessions>,
    memory: Arc<Memory>,
    batches: Batches,
    making: Arc<Semaphore>,
}

impl Store {
    pub(crate) fn new(config: ZkConfig) -> Self {
        let leases = Arc::default();
        let reader = Arc::new(Reader::new(config, Arc::downgrade(&leases)));
        Self {
            reader,
            leases,
            memory: Arc::default(),
            batches: Batches::default(),
            making: Arc::new(Semaphore::new(1)),
        }
    }

    /// The session of a lease, whose ephemeral nodes it alone can create; connected.
    async fn leased(&self, lease: LeaseId, deadline: Instant) -> Result<Arc<Session>> {
        let session = self.leases.session(lease)?;
        session.ready(deadline).await?;
        Ok(session)
    }
}

#[async_trait]
impl Kv for Store {
    async fn get(&self, key: &Key) -> Result<Option<Entry>> {
        self.reader.get(key).await.map_err(named("get"))
    }

    async fn scan(&self, range: &Range) -> Result<Scan> {
        self.reader.scan(range).await.map_err(named("scan"))
    }

    async fn commit(&self, txn: Txn) -> Result<Revision> {
        self.apply(&txn).await.map_err(named("commit"))
    }

    /// Starts over whatever `after` says: ZooKeeper has no history.
    fn watch(&self, range: &Range, _after: Option<Revision>) -> KvUpdates {
        watch::follow(self.reader.clone(), range.clone())
    }
}

#[async_trait]
impl Leases for Store {
    async fn grant(&self, ttl: Duration) -> Result<Grant> {
        if ttl.is_zero() {
            return Err(Error::invalid("a lease of no time ends before it begins; give a ttl"));
        }
        if i32::try_from(ttl.as_millis()).is_err() {
            return Err(Error::invalid(format!(
                "a ttl of {ttl:?} is longer than 24 days, the longest session"
            )));
        }
        self.leases.grant(self.reader.config(), ttl).await.map_err(named("grant"))
    }

    async fn renew(&self, id: LeaseId) -> Result<Duration> {
        let deadline = self.reader.deadline();
        self.leases.renew(id, deadline, self.reader.session(deadline)).await.map_err(named("renew"))
    }

    async fn revoke(&self, id: LeaseId) -> Result<()> {
        let deadline = self.reader.deadline();
        self.leases.revoke(id, deadline).await.map_err(named("revoke"))?;
        self.reader.move_horizon(deadline).await;
        Ok(())
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Store({})", self.reader.config())
    }
}

/// Names backend and operation in an error.
pub(crate) fn named(operation: &'static str) -> impl Fn(Error) -> Error {
    move |error| error.on_backend(SCHEME).during(operation)
}
