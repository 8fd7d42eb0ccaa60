//! Leases, and the fences that keep late writes out.
//!
//! A write whose answer is lost may be on its way still, in a buffer of a connection that was given up, and take effect
//! later: when what it registered has been withdrawn. A renewal must put an end to that. But etcd serves requests as
//! they come, each on its own, and two connections even more so: that a renewal was answered says nothing about a write
//! that was sent before.
//!
//! So every write under a lease demands that the *fence* of the lease was last moved when the caller of the write last
//! knew it to be. The fence is a key that is usually not there: revision 0. A renewal that finds writes in doubt moves
//! the fence: it writes that key, which gives it another revision. What is still on its way then fails. The fence is
//! bound to the lease, and goes with it.
//!
//! A renewal keeps the lease alive also if the fence cannot be moved just now; but then it says so by failing.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use discovery::{Error, ErrorKind, Grant, LeaseId, Result};
use etcd_client::PutOptions;
use tokio::time::Instant;

use crate::{
    connection::{Connection, History},
    store::Store,
};

/// Longer than this no server grants.
const TTL_MAX: Duration = Duration::from_secs(9_000_000_000);

impl Store {
    pub(crate) async fn grant_lease(&self, ttl: Duration) -> Result<Grant> {
        if ttl.is_zero() || ttl > TTL_MAX {
            return Err(Error::invalid(format!(
                "a ttl of {ttl:?} cannot be granted; give one of more than nothing, up to {TTL_MAX:?}"
            )));
        }
        let seconds = ttl.as_secs() + u64::from(ttl.subsec_nanos() > 0);
        let deadline = self.cluster.deadline();
        let grant = |connection: &Connection| {
            let mut client = connection.lease();
            async move { client.grant(seconds.cast_signed(), None).await }
        };
        // Of no effect, if it is lost: nothing is bound to a lease that nobody knows.
        let (_, granted) = self.cluster.call(deadline, grant).await?;
        let granted = granted.map_err(|trouble| Error::from(trouble).not_applied())?;
        let (id, ttl) = (LeaseId(granted.id().cast_unsigned()), granted.ttl().cast_unsigned());
        let ttl = Duration::from_secs(ttl);
        self.leases.add(id, ttl);
        Ok(Grant { id, ttl })
    }

    pub(crate) async fn renew_lease(&self, id: LeaseId) -> Result<Duration> {
        let ttl = self.leases.ttl(id)?;
        // Whoever keeps the lease has a third of its time for an answer: so little is left that a member which does not
        // answer in less must be given up for another.
        let deadline = self.cluster.deadline().min(Instant::now() + ttl / 4);
        let connection = self.cluster.connection(deadline).await?;
        // Now that there is one, it is known which history this is.
        self.leases.ttl(id)?;
        let fence = async {
            let Some(doubt) = self.leases.doubt(id) else { return Ok(()) };
            self.move_fence(id, deadline).await?;
            doubt.dispel();
            Ok(())
        };
        let mut client = connection.lease();
        let kept = connection.call(deadline, client.keep_alive(id.0.cast_signed()));
        let (fenced, kept) = tokio::join!(fence, kept);
        match kept {
            Ok(_) => fenced.map(|()| ttl),
            Err(trouble) if trouble.is_lease_gone() => Err(self.leases.lost(id)),
            Err(trouble) => Err(Error::from(trouble).not_applied()),
        }
    }

    pub(crate) async fn revoke_lease(&self, id: LeaseId) -> Result<()> {
        self.leases.forget(id);
        let deadline = self.cluster.deadline();
        let revoke = |connection: &Connection| {
            let mut client = connection.lease();
            async move { client.revoke(id.0.cast_signed()).await }
        };
        let (connection, answer) = self.cluster.call(deadline, revoke).await?;
        match answer {
            Ok(answer) => {
                self.cluster.history().met(connection.era(), answer.header());
                Ok(())
            }
            Err(trouble) if trouble.is_lease_gone() => Ok(()),
            Err(trouble) => Err(trouble.into()),
        }
    }

    /// Keeps out all writes under a lease that were sent before.
    async fn move_fence(&self, id: LeaseId, deadline: Instant) -> Result<()> {
        let connection = self.cluster.connection(deadline).await?;
        let path = self.cluster.layout().fence(id);
        let bound = PutOptions::new().with_lease(id.0.cast_signed());
        let mut kv = connection.kv();
        let answer = match connection.call(deadline, kv.put(path, "1", Some(bound))).await {
            Ok(answer) => answer,
            Err(trouble) if trouble.is_lease_gone() => return Err(self.leases.lost(id)),
            Err(trouble) => return Err(Error::from(trouble).not_applied()),
        };
        let moved = answer.header().map_or(0, etcd_client::ResponseHeader::revision);
        self.leases.moved(id, moved);
        tracing::debug!(lease = %id, "writes of unknown outcome are fenced off");
        Ok(())
    }
}

/// The leases of one handle.
#[derive(Debug)]
pub(crate) struct LeaseBook {
    history: Arc<History>,
    /// Held for single looks, never across an `await`.
    page: Mutex<Page>,
}

/// The leases of one history of the cluster. In another one there may be a lease of the same name, with entries of
/// yesterday.
#[derive(Debug, Default)]
struct Page {
    era: u64,
    leases: HashMap<LeaseId, Lease>,
}

#[derive(Debug)]
struct Lease {
    ttl: Duration,
    /// The revision at which its fence was last moved, as far as we know; 0 if never.
    moved: i64,
    /// Whether a write under it may be on its way still, although nobody waits for it.
    in_doubt: bool,
}

impl LeaseBook {
    pub(crate) fn new(history: Arc<History>) -> Self {
        Self { history, page: Mutex::default() }
    }

    /// Whether a lease is one of ours.
    pub(crate) fn contains(&self, id: LeaseId) -> bool {
        self.page().leases.contains_key(&id)
    }

    /// What a write under these leases has to demand. Until it is settled, its outcome counts as unknown.
    ///
    /// # Errors
    ///
    /// [`LeaseLost`](ErrorKind::LeaseLost) if one of them is not ours.
    pub(crate) fn pledge(self: &Arc<Self>, ids: &BTreeSet<LeaseId>) -> Result<Pledge> {
        let page = self.page();
        let fence = |id: &LeaseId| {
            let lease = page.leases.get(id).ok_or_else(|| lost(*id))?;
            Ok(Fence { lease: *id, moved: lease.moved })
        };
        let fences = ids.iter().map(fence).collect::<Result<_>>()?;
        Ok(Pledge { book: self.clone(), fences, is_settled: false })
    }

    fn add(&self, id: LeaseId, ttl: Duration) {
        self.page().leases.insert(id, Lease { ttl, moved: 0, in_doubt: false });
    }

    fn ttl(&self, id: LeaseId) -> Result<Duration> {
        self.page().leases.get(&id).map(|lease| lease.ttl).ok_or_else(|| lost(id))
    }

    /// The doubt about the writes under a lease, if there is any.
    fn doubt(self: &Arc<Self>, id: LeaseId) -> Option<Doubt> {
        let mut page = self.page();
        let lease = page.leases.get_mut(&id).filter(|lease| lease.in_doubt)?;
        // Writes that come into doubt from now on are the next renewal's.
        lease.in_doubt = false;
        Some(Doubt { book: self.clone(), id, is_dispelled: false })
    }

    fn moved(&self, id: LeaseId, moved: i64) {
        if let Some(lease) = self.page().leases.get_mut(&id) {
            lease.moved = lease.moved.max(moved);
        }
    }

    /// Takes in that a fence was found elsewhere than pledged, unless more is known by now. It may even be gone: anybody
    /// can delete a key.
    fn was_elsewhere(&self, pledged: Fence, found: i64) {
        let mut page = self.page();
        if let Some(lease) = page.leases.get_mut(&pledged.lease).filter(|lease| lease.moved == pledged.moved)
        {
            lease.moved = found;
        }
    }

    fn raise_doubt(&self, id: LeaseId) {
        if let Some(lease) = self.page().leases.get_mut(&id) {
            lease.in_doubt = true;
        }
    }

    fn forget(&self, id: LeaseId) {
        self.page().leases.remove(&id);
    }

    /// Forgets a lease, and says so.
    fn lost(&self, id: LeaseId) -> Error {
        self.forget(id);
        lost(id)
    }

    /// The page of the present history: a new one if that has begun since the last look.
    fn page(&self) -> MutexGuard<'_, Page> {
        let era = self.history.era();
        // No step leaves the map half-changed, so a panic elsewhere under the lock does no harm.
        let mut page = self.page.lock().unwrap_or_else(PoisonError::into_inner);
        if page.era != era {
            *page = Page { era, leases: HashMap::new() };
        }
        page
    }
}

/// Where the fence of a lease has to be: at the revision at which it was last moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Fence {
    pub(crate) lease: LeaseId,
    pub(crate) moved: i64,
}

/// What a write under leases demands. One that is dropped before it is settled leaves its leases in doubt.
#[must_use]
pub(crate) struct Pledge {
    book: Arc<LeaseBook>,
    fences: Vec<Fence>,
    is_settled: bool,
}

impl Pledge {
    pub(crate) fn fences(&self) -> &[Fence] {
        &self.fences
    }

    /// It is known what became of the write, and nothing more will.
    pub(crate) fn settle(&mut self) {
        self.is_settled = true;
    }

    /// Takes in where the fences really are, in the same order; says whether any of them was elsewhere.
    pub(crate) fn is_outdated(&self, found: &[i64]) -> bool {
        let elsewhere = self.fences.iter().zip(found).filter(|(pledged, found)| pledged.moved != **found);
        elsewhere.map(|(pledged, found)| self.book.was_elsewhere(*pledged, *found)).count() > 0
    }
}

impl Drop for Pledge {
    fn drop(&mut self) {
        if !self.is_settled {
            self.fences.iter().for_each(|fence| self.book.raise_doubt(fence.lease));
        }
    }
}

/// Comes back unless it is dispelled.
#[must_use]
struct Doubt {
    book: Arc<LeaseBook>,
    id: LeaseId,
    is_dispelled: bool,
}

impl Doubt {
    fn dispel(mut self) {
        self.is_dispelled = true;
    }
}

impl Drop for Doubt {
    fn drop(&mut self) {
        if !self.is_dispelled {
            self.book.raise_doubt(self.id);
        }
    }
}

fn lost(lease: LeaseId) -> Error {
    Error::new(ErrorKind::LeaseLost, format!("lease {lease} is gone; grant a new one"))
}
