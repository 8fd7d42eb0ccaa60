//! Leases: sessions of their own, which end when nobody renews them.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use discovery::{Error, ErrorKind, Grant, LeaseId, Result};
use tokio::time::{Instant, sleep_until, timeout_at};
use zookeeper_client as zk;

use super::{Session, Task, lease_id, lease_lost};
use crate::config::ZkConfig;

/// The leases of one handle.
#[derive(Default)]
pub(crate) struct LeaseSessions {
    /// Held for single looks, never across an `await`.
    leases: Mutex<HashMap<LeaseId, Lease>>,
}

struct Lease {
    session: Arc<Session>,
    ttl: Duration,
    /// When it ends unless it is renewed before.
    deadline: Instant,
    _watchdog: Task<()>,
}

impl LeaseSessions {
    /// Opens a session that ends `ttl` after its last renewal.
    pub(crate) async fn grant(self: &Arc<Self>, config: &ZkConfig, ttl: Duration) -> Result<Grant> {
        let asked = Instant::now();
        let session = Arc::new(Session::open(config, ttl, true).await?);
        let id = lease_id(session.id());
        let ttl = session.client().session_timeout();
        let states = session.client().state_watcher();
        // Under the lock, or the watchdog finds nothing to watch over if it is quicker than we are, and leaves.
        let mut leases = self.lock();
        let watchdog = Task(tokio::spawn(watch_over(Arc::downgrade(self), id, states)));
        leases.insert(id, Lease { session, ttl, deadline: asked + ttl, _watchdog: watchdog });
        Ok(Grant { id, ttl })
    }

    /// The session of a lease.
    pub(crate) fn session(&self, id: LeaseId) -> Result<Arc<Session>> {
        let mut leases = self.lock();
        // The watchdog may have gone with its runtime, and what kept the session alive with it.
        if let Entry::Occupied(lease) = leases.entry(id)
            && lease.get().deadline <= Instant::now()
        {
            lease.remove().session.end();
        }
        leases.get(&id).map(|lease| lease.session.clone()).ok_or_else(|| lease_lost(id))
    }

    /// Whether a lease is one of ours.
    pub(crate) fn contains(&self, id: LeaseId) -> bool {
        self.lock().contains_key(&id)
    }

    /// Proves that the session is alive, at the leader of the ensemble, and starts its time anew.
    ///
    /// `reachable` tells whether a server can be reached. The client waits twice as long before each attempt to come
    /// back, so its next one may be too late, however short the outage was. A lease that has a third of its time left
    /// is then given up in favour of a new one: whoever writes what was bound to it once more, before it ends, spares
    /// everybody a departure.
    pub(crate) async fn renew(
        &self,
        id: LeaseId,
        deadline: Instant,
        reachable: impl Future<Output = Result<Arc<Session>>>,
    ) -> Result<Duration> {
        let session = self.session(id)?;
        let late = self.lock().get(&id).map_or(deadline, |lease| lease.deadline - lease.ttl / 3);
        let sent = Instant::now();
        let reached = async {
            sleep_until(late).await;
            reachable.await
        };
        let renewed = async {
            tokio::select! {
                biased;
                ready = session.ready(deadline) => ready?,
                reached = reached => return Err(reached.map_or_else(|error| error, |_| lease_lost(id))),
            }
            // Not a ping: that only reaches the server we are connected to, which may have lost its leader.
            let answer = session.client().sync("/");
            session.call(deadline, answer).await.map_err(|trouble| session.failed(trouble).not_applied())
        };
        let renewed = renewed.await;
        if renewed.as_ref().is_err_and(|error| error.kind() == ErrorKind::LeaseLost) {
            self.forget(id);
        }
        // It may have ended while the request was under way.
        let mut leases = self.lock();
        let lease = leases.get_mut(&id).ok_or_else(|| lease_lost(id))?;
        renewed?;
        lease.deadline = lease.deadline.max(sent + lease.ttl);
        Ok(lease.ttl)
    }

    /// Closes the session and waits until the server has confirmed it.
    pub(crate) async fn revoke(&self, id: LeaseId, deadline: Instant) -> Result<()> {
        let Some(session) = self.forget(id) else { return Ok(()) };
        let mut states = session.client().state_watcher();
        drop(session);
        let closed =
            async { while !states.state().is_terminated() && !states.changed().await.is_terminated() {} };
        timeout_at(deadline, closed).await.map_err(|_| {
            let message = "the server did not confirm the end of the lease in time; it ends by its ttl";
            Error::new(ErrorKind::Timeout, message)
        })
    }

    /// Takes a lease off the list and ends its session, once the requests under way have let go of it.
    fn forget(&self, id: LeaseId) -> Option<Arc<Session>> {
        let lease = self.lock().remove(&id)?;
        lease.session.end();
        Some(lease.session)
    }

    fn deadline(&self, id: LeaseId) -> Option<Instant> {
        self.lock().get(&id).map(|lease| lease.deadline)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<LeaseId, Lease>> {
        // No step leaves the map half-changed, so a panic elsewhere under the lock does no harm.
        self.leases.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for LeaseSessions {
    fn drop(&mut self) {
        self.lock().values().for_each(|lease| lease.session.end());
    }
}

/// Ends a lease that is not renewed in time, although its client pings by itself, and forgets one whose session is
/// over.
async fn watch_over(leases: Weak<LeaseSessions>, id: LeaseId, mut states: zk::StateWatcher) {
    loop {
        let Some(deadline) = leases.upgrade().and_then(|leases| leases.deadline(id)) else { return };
        let is_over = tokio::select! {
            // Renewed meanwhile or not, the deadline is looked at again.
            () = sleep_until(deadline) => false,
            state = states.changed() => state.is_terminated(),
        };
        let Some(leases) = leases.upgrade() else { return };
        if is_over || leases.deadline(id).is_some_and(|deadline| deadline <= Instant::now()) {
            tracing::debug!(lease = %id, is_over, "lease ended");
            leases.forget(id);
            return;
        }
    }
}
