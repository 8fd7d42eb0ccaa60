//! Reading your own writes, whichever server of an ensemble each session of a handle is on.
//!
//! A server may lag behind the others. A [`Horizon`] remembers the highest transaction id (zxid) that the handle has
//! met, and each session how far its server is known to be. A session that may be behind is read from in one flight: a
//! `sync`, a look at the node that was written at the horizon (its *witness*), and the read.
//!
//! The `sync` makes a follower catch up with its leader. It does nothing on the leader itself, which acknowledges a
//! write before it has applied it, so that a faster follower may answer the writer first. There the witness has the
//! last word: if it shows the horizon, the read behind it does so too; if not, all is done again. That is rare, and
//! over in a moment.

use std::{
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::{Instant, sleep};
use zookeeper_client as zk;

use super::Session;
use crate::error::Trouble;

/// How long a server may contradict what the handle has seen. A leader takes a moment to apply what it acknowledged;
/// one that does not come to it was restored from an older state, or wiped.
const ANOTHER_HISTORY: Duration = Duration::from_secs(1);

/// How long to wait before a server that is behind is asked again.
const PAUSE: Duration = Duration::from_millis(2);

/// How far a handle has seen.
#[derive(Debug, Default)]
pub(crate) struct Horizon(Mutex<Mark>);

/// A point in the history of the store.
#[derive(Clone, Debug, Default)]
pub(crate) struct Mark {
    pub(crate) zxid: i64,
    /// A node that was written then, if it was this handle that did.
    witness: Option<Arc<str>>,
}

impl Horizon {
    /// The highest zxid met.
    pub(crate) fn zxid(&self) -> i64 {
        self.lock().zxid
    }

    /// Notes a zxid that was read.
    pub(super) fn raise(&self, zxid: i64) {
        let mut mark = self.lock();
        if zxid > mark.zxid {
            *mark = Mark { zxid, witness: None };
        }
    }

    /// Notes that a node was written.
    pub(super) fn raise_to_write(&self, zxid: i64, node: String) {
        let mut mark = self.lock();
        if zxid >= mark.zxid {
            *mark = Mark { zxid, witness: Some(node.into()) };
        }
    }

    /// Forgets what was seen: the store has another history now.
    fn restart(&self) {
        *self.lock() = Mark::default();
    }

    fn mark(&self) -> Mark {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Mark> {
        // A mark is replaced as a whole, so a panic elsewhere under the lock does no harm.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Has a server catch up; under way.
pub(super) struct CatchUp<'s> {
    target: i64,
    sync: Answer<'s, ()>,
    witness: Option<Answer<'s, Option<zk::Stat>>>,
}

type Answer<'s, T> = Pin<Box<dyn Future<Output = Result<T, zk::Error>> + Send + 's>>;

/// How new what is read has to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AsOf {
    /// No older than what the handle has seen.
    Horizon,
    /// No older than what the leader had acknowledged to anybody, but for the moment that it takes to apply it.
    Now,
}

impl Session {
    /// Reads. `send` sends the requests when it is called.
    pub(crate) async fn read<T, F>(
        &self,
        deadline: Instant,
        as_of: AsOf,
        horizon: &Horizon,
        send: impl Fn() -> F,
    ) -> Result<T, Trouble>
    where
        F: Future<Output = Result<T, zk::Error>>,
    {
        let since = Instant::now();
        loop {
            let is_behind = as_of == AsOf::Now || self.seen.zxid() < horizon.zxid();
            let catch_up = is_behind.then(|| self.catch_up(horizon));
            let answer = send();
            if self.has_caught_up(deadline, catch_up).await? {
                return self.call(deadline, answer).await;
            }
            if Instant::now() >= deadline {
                return Err(Trouble::Late);
            }
            if since.elapsed() > ANOTHER_HISTORY {
                tracing::warn!(
                    "the server knows less than it did: was it restored or wiped? starting over from there"
                );
                horizon.restart();
            }
            sleep(PAUSE).await;
        }
    }

    /// Sends what makes the server catch up, whatever is known of it.
    pub(super) fn catch_up(&self, horizon: &Horizon) -> CatchUp<'_> {
        let Mark { zxid, witness } = horizon.mark();
        let sync = Box::pin(self.client.sync("/"));
        let witness = witness.map(|node| Box::pin(self.client.check_stat(&node)) as Answer<'_, _>);
        CatchUp { target: zxid, sync, witness }
    }

    /// Whether the server has proved to have caught up, if it had to.
    pub(super) async fn has_caught_up(
        &self,
        deadline: Instant,
        catch_up: Option<CatchUp<'_>>,
    ) -> Result<bool, Trouble> {
        let Some(CatchUp { target, sync, witness }) = catch_up else { return Ok(true) };
        self.call(deadline, sync).await?;
        if let Some(witness) = witness {
            // A witness that is gone says nothing; then the sync must do.
            let stat = self.call(deadline, witness).await?;
            if stat.is_some_and(|stat| stat.mzxid < target) {
                return Ok(false);
            }
        }
        self.seen.raise(target);
        Ok(true)
    }

    /// Notes that the server of this session has applied `zxid`.
    pub(crate) fn has_applied(&self, zxid: i64, horizon: &Horizon) {
        self.seen.raise(zxid);
        horizon.raise(zxid);
    }

    /// Notes that this session has written a node.
    pub(crate) fn has_written(&self, zxid: i64, node: String, horizon: &Horizon) {
        self.seen.raise(zxid);
        horizon.raise_to_write(zxid, node);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_witness_is_of_the_highest_zxid() {
        let horizon = Horizon::default();
        horizon.raise(5);
        horizon.raise_to_write(4, "/early".into());
        assert_eq!((horizon.mark().zxid, horizon.mark().witness), (5, None));
        horizon.raise_to_write(5, "/same".into());
        horizon.raise(5);
        assert_eq!(horizon.mark().witness.as_deref(), Some("/same"));
        horizon.raise(6);
        assert_eq!((horizon.zxid(), horizon.mark().witness), (6, None));
    }
}
