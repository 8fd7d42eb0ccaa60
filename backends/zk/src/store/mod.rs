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
//! The gap is closed by counting. Each key belongs to one of 64 nodes under `.epoch`, its *stripe*, and every
//! transaction that makes a key come or go also writes the stripe, in the same multi. A transaction reads the stripes
//! of its keys *before* the keys, on the same connection, which the server answers in order; and its multi checks the
//! stripes' versions. Suppose the multi succeeds and a key had been created anew in between. That creation wrote the
//! stripe. Either it came before the stripe was read: then it also came before the key was read, and the revision read
//! is that of the new node. Or it came after: then the stripe has another version, and the multi fails. So what was
//! read still holds when the multi is applied. How a node went does not matter, so sessions may expire and strangers
//! may delete as they like; only strangers who *create* entries without counting have the gap between read and multi.
//!
//! Writing a stripe has a second use: ZooKeeper before 3.9 does not say at which zxid a multi created a node, but does
//! say so for a node that it wrote.
//!
//! A multi that fails because something moved is tried again from the read on. A guard that seems broken is looked at
//! again behind a `sync`, since the server that was read from may lag behind.

mod commit;
mod memory;
mod multi;
mod scan;
mod view;

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use discovery::{
    Error, ErrorKind, Grant, LeaseId, Leases, Result, Revision,
    kv::{Entry, Key, Kv, KvUpdates, Range, Scan, Txn},
};
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::{Instant, timeout_at},
};
use zookeeper_client as zk;

use self::memory::Memory;
use crate::{
    config::ZkConfig,
    error::{SCHEME, Trouble},
    path::Layout,
    session::{Horizon, LeaseSessions, Main, Session, lease_id, revision},
    watch,
};

/// How many operations may be under way at once. ZooKeeper is fastest with 64 to 512 requests in flight; more only
/// wait in the server, and a client that has lost its connection queues without bound.
const IN_FLIGHT: usize = 256;

/// A store; clones share its sessions.
#[derive(Clone)]
pub(crate) struct Store(Arc<Inner>);

struct Inner {
    config: Arc<ZkConfig>,
    layout: Layout,
    main: Main,
    leases: Arc<LeaseSessions>,
    horizon: Horizon,
    memory: Memory,
    in_flight: Semaphore,
    /// One at a time makes missing directories, or each of many writers would make all of them.
    making: Semaphore,
}

impl Store {
    pub(crate) fn new(config: ZkConfig) -> Self {
        let config = Arc::new(config);
        Self(Arc::new(Inner {
            layout: config.layout(),
            main: Main::new(config.clone()),
            leases: Arc::default(),
            horizon: Horizon::default(),
            memory: Memory::default(),
            in_flight: Semaphore::new(IN_FLIGHT),
            making: Semaphore::new(1),
            config,
        }))
    }

    pub(crate) fn config(&self) -> &ZkConfig {
        &self.0.config
    }

    pub(crate) fn layout(&self) -> &Layout {
        &self.0.layout
    }

    pub(crate) fn horizon(&self) -> &Horizon {
        &self.0.horizon
    }

    /// The end of an operation that begins now.
    pub(crate) fn deadline(&self) -> Instant {
        Instant::now() + self.0.config.call_timeout()
    }

    /// Waits for a place among the operations under way.
    pub(crate) async fn admit(&self, deadline: Instant) -> Result<SemaphorePermit<'_>> {
        acquire(&self.0.in_flight, deadline).await
    }

    /// The session for reads, permanent entries and watches; connected.
    pub(crate) async fn main(&self, deadline: Instant) -> Result<Arc<Session>> {
        let session = self.0.main.session(deadline).await?;
        session.ready(deadline).await?;
        Ok(session)
    }

    /// The session of a lease, whose ephemeral nodes it alone can create; connected.
    async fn leased(&self, lease: LeaseId, deadline: Instant) -> Result<Arc<Session>> {
        let session = self.0.leases.session(lease)?;
        session.ready(deadline).await?;
        Ok(session)
    }

    /// The entry in a node that was read; `None` for a directory. Notes how far the server is.
    pub(crate) fn entry(&self, session: &Session, key: Key, data: Vec<u8>, stat: &zk::Stat) -> Option<Entry> {
        session.has_applied(stat.czxid.max(stat.mzxid), self.horizon());
        if data.is_empty() {
            return None;
        }
        let owner = lease_id(stat.ephemeral_owner);
        let lease = (stat.ephemeral_owner != 0 && self.0.leases.contains(owner)).then_some(owner);
        let (created, modified) = (revision(stat.czxid), revision(stat.mzxid));
        Some(Entry { key, value: Bytes::from(data), created, modified, lease })
    }

    async fn read(&self, key: &Key) -> Result<Option<Entry>> {
        self.layout().check(key)?;
        if key.is_root() {
            return Ok(None);
        }
        let deadline = self.deadline();
        let _place = self.admit(deadline).await?;
        let session = self.main(deadline).await?;
        let node = self.layout().node(key);
        let sync = session.catch_up(self.horizon());
        let data = session.client().get_data(&node);
        let answer = async {
            session.caught_up(deadline, sync).await?;
            session.call(deadline, data).await
        };
        match answer.await {
            Ok((data, stat)) => Ok(self.entry(&session, key.clone(), data, &stat)),
            Err(trouble) if trouble.is(&zk::Error::NoNode) => Ok(None),
            Err(trouble) => Err(session.failed(trouble).not_applied()),
        }
    }
}

#[async_trait]
impl Kv for Store {
    async fn get(&self, key: &Key) -> Result<Option<Entry>> {
        self.read(key).await.map_err(named("get"))
    }

    async fn scan(&self, range: &Range) -> Result<Scan> {
        let scanned = async {
            let session = self.main(self.deadline()).await?;
            self.scan_on(&session, range).await
        };
        scanned.await.map_err(named("scan"))
    }

    async fn commit(&self, txn: Txn) -> Result<Revision> {
        self.apply(&txn).await.map_err(named("commit"))
    }

    /// Starts over whatever `after` says: ZooKeeper has no history.
    fn watch(&self, range: &Range, _after: Option<Revision>) -> KvUpdates {
        watch::follow(self.clone(), range.clone())
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
        self.0.leases.grant(self.config(), ttl).await.map_err(named("grant"))
    }

    async fn renew(&self, id: LeaseId) -> Result<Duration> {
        self.0.leases.renew(id, self.deadline()).await.map_err(named("renew"))
    }

    async fn revoke(&self, id: LeaseId) -> Result<()> {
        let deadline = self.deadline();
        self.0.leases.revoke(id, deadline).await.map_err(named("revoke"))?;
        // The end of a session has a zxid that nobody tells us; so that the next read sees it, wherever it is read.
        if let Some(session) = self.0.main.present() {
            let sync = session.sync(self.horizon().get());
            if let Err(trouble) = session.caught_up(deadline, Some(sync)).await {
                tracing::debug!(?trouble, "no sync behind the end of a lease");
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Store({})", self.config())
    }
}

/// Names backend and operation in an error.
pub(crate) fn named(operation: &'static str) -> impl Fn(Error) -> Error {
    move |error| error.on_backend(SCHEME).during(operation)
}

async fn acquire(places: &Semaphore, deadline: Instant) -> Result<SemaphorePermit<'_>> {
    match timeout_at(deadline, places.acquire()).await {
        Ok(Ok(place)) => Ok(place),
        // Nobody closes them.
        Ok(Err(closed)) => Err(Error::new(ErrorKind::Closed, "the store is closed").with_source(closed)),
        Err(_) => {
            let message = "too many operations are under way, and none ended within the call timeout";
            Err(Error::new(ErrorKind::Timeout, message).not_applied())
        }
    }
}

/// The answers to requests of one session that have all been sent, in the same order.
pub(crate) async fn answers<T>(
    session: &Session,
    deadline: Instant,
    sent: Vec<impl Future<Output = Result<T, zk::Error>>>,
) -> Vec<Result<T, Trouble>> {
    let mut answers = Vec::with_capacity(sent.len());
    for answer in sent {
        answers.push(session.call(deadline, answer).await);
    }
    answers
}
