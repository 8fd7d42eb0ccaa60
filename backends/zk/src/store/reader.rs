//! What reading takes: the session for it, the layout, and how far the handle has seen.

use std::sync::{Arc, Weak};

use bytes::Bytes;
use discovery::{
    Error, ErrorKind, Result,
    kv::{Entry, Key},
};
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::{Instant, timeout_at},
};
use zookeeper_client as zk;

use super::scan::Read;
use crate::{
    config::ZkConfig,
    error::Trouble,
    path::Layout,
    session::{AsOf, Horizon, LeaseSessions, Main, Session, WatchSessions, lease_id, revision},
};

/// How many operations may be under way at once. ZooKeeper is fastest with 64 to 512 requests in flight; more only
/// wait in the server, and a client that has lost its connection queues without bound.
const IN_FLIGHT: usize = 256;

/// Reads; shared by a store and the watches that it started.
pub(crate) struct Reader {
    config: Arc<ZkConfig>,
    layout: Layout,
    main: Arc<Main>,
    watches: WatchSessions,
    horizon: Arc<Horizon>,
    in_flight: Semaphore,
    /// To tell which entries are bound to a lease of the store. Weak: a watch keeps no lease alive.
    leases: Weak<LeaseSessions>,
}

impl Reader {
    pub(super) fn new(config: ZkConfig, leases: Weak<LeaseSessions>) -> Self {
        let config = Arc::new(config);
        let main = Arc::new(Main::new(config.clone()));
        Self {
            layout: config.layout(),
            watches: WatchSessions::new(main.clone()),
            main,
            horizon: Arc::default(),
            in_flight: Semaphore::new(IN_FLIGHT),
            leases,
            config,
        }
    }

    pub(crate) fn config(&self) -> &ZkConfig {
        &self.config
    }

    pub(crate) fn layout(&self) -> &Layout {
        &self.layout
    }

    pub(crate) fn horizon(&self) -> &Arc<Horizon> {
        &self.horizon
    }

    /// The end of an operation that begins now.
    pub(crate) fn deadline(&self) -> Instant {
        Instant::now() + self.config.call_timeout()
    }

    /// Waits for a place among the operations under way.
    pub(super) async fn admit(&self, deadline: Instant) -> Result<SemaphorePermit<'_>> {
        acquire(&self.in_flight, deadline).await
    }

    /// The sessions for watches.
    pub(crate) fn watches(&self) -> &WatchSessions {
        &self.watches
    }

    /// The session for reads, permanent entries and, as long as it has room, watches; connected.
    pub(crate) async fn session(&self, deadline: Instant) -> Result<Arc<Session>> {
        let session = self.main.session(deadline).await?;
        session.ready(deadline).await?;
        Ok(session)
    }

    /// The entry under a key.
    pub(super) async fn get(&self, key: &Key) -> Result<Option<Entry>> {
        self.layout.check(key)?;
        if key.is_root() {
            return Ok(None);
        }
        let deadline = self.deadline();
        let session = self.session(deadline).await?;
        let _place = self.admit(deadline).await?;
        let read = self.read_one(&session, key, deadline).await;
        let read = read.map_err(|trouble| session.failed(trouble).not_applied())?;
        Ok(read.and_then(|Read { key, data, stat }| self.entry(&session, key, data, &stat)))
    }

    /// Reads one node, if it is there. One that is not for us to read is an error: it has no neighbours to hide.
    pub(crate) async fn read_one(
        &self,
        session: &Session,
        key: &Key,
        deadline: Instant,
    ) -> Result<Option<Read>, Trouble> {
        let node = self.layout.node(key);
        let ask = || session.client().get_data(&node);
        match session.read(deadline, AsOf::Horizon, &self.horizon, ask).await {
            Ok((data, stat)) => Ok(Some(Read { key: key.clone(), data, stat })),
            Err(trouble) if trouble.is(&zk::Error::NoNode) => Ok(None),
            Err(trouble) => Err(trouble),
        }
    }

    /// The entry in a node that was read; `None` for a directory. Notes how far the server is.
    pub(crate) fn entry(&self, session: &Session, key: Key, data: Vec<u8>, stat: &zk::Stat) -> Option<Entry> {
        session.has_applied(stat.czxid.max(stat.mzxid), &self.horizon);
        if data.is_empty() {
            return None;
        }
        let owner = lease_id(stat.ephemeral_owner);
        let is_ours = || self.leases.upgrade().is_some_and(|leases| leases.contains(owner));
        let lease = (stat.ephemeral_owner != 0 && is_ours()).then_some(owner);
        let (created, modified) = (revision(stat.czxid), revision(stat.mzxid));
        Some(Entry { key, value: Bytes::from(data), created, modified, lease })
    }

    /// Moves the horizon behind what has happened at a zxid that nobody tells us: the end of a session. As well as it
    /// can be done: without a session for reads there is nothing to be late, and without rights to write, little to do.
    pub(super) async fn move_horizon(&self, deadline: Instant) {
        let Some(session) = self.main.present() else { return };
        let node = self.layout.epoch_node();
        match session.call(deadline, session.client().set_data(&node, b"", None)).await {
            Ok(stat) => session.has_written(stat.mzxid, node, &self.horizon),
            Err(trouble) => tracing::debug!(?trouble, "reads may be late behind the end of a lease"),
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

/// Waits for a place.
pub(super) async fn acquire(places: &Semaphore, deadline: Instant) -> Result<SemaphorePermit<'_>> {
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
