//! One at a time.

use std::time::Duration;

use super::{
    fence::Fence,
    place::Place,
    queue::{self, Turn},
};
use crate::{Owner, Result, ServiceName, lease::Sessions};

/// A lock that is fair and fenced: who waits longest gets it next, and what is done under it can be guarded against a
/// holder who lost it without noticing.
///
/// # Example: write only while it is held
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> discovery::Result<()> {
/// use discovery::{Discovery, kv::{Key, Txn}, mem::Mem};
///
/// let discovery = Discovery::new(Mem::new());
/// let lock = discovery.lock(&"eu1/prod/billing".parse()?)?;
///
/// let held = lock.acquire().await?;
/// assert!(lock.try_acquire().await?.is_none());
///
/// let report: Key = "reports/today".parse()?;
/// held.fence().commit(Txn::new().put(&report, "42")).await?; // Refused if the lock is lost.
/// held.release().await?;
/// # Ok(()) }
/// ```
///
/// # Safety argument
///
/// It is a queue of entries under leases, ordered by the revisions at which the store created them; see
/// [`Election`](super::Election), which is the same thing with another purpose.
#[derive(Clone, Debug)]
pub struct Lock {
    place: Place,
    owner: Owner,
}

impl Lock {
    pub(crate) fn new(sessions: &std::sync::Arc<Sessions>, name: &ServiceName) -> Result<Self> {
        Ok(Self { place: Place::new(sessions, "locks", name)?, owner: Owner::random() })
    }

    /// How long a holder who died has it; 10 s unless told. The backend may round up.
    #[must_use]
    pub fn ttl(self, ttl: Duration) -> Self {
        Self { place: self.place.ttl(ttl), ..self }
    }

    /// Who the entry says has it or waits for it, for people who look; random unless told.
    #[must_use]
    pub fn owner(self, owner: Owner) -> Self {
        Self { owner, ..self }
    }

    /// Waits for the lock. A store that is out of reach is waited for; who loses the place in the queue because of that
    /// lines up again.
    ///
    /// # Errors
    ///
    /// What the backend refuses.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves the queue.
    pub async fn acquire(&self) -> Result<LockGuard> {
        queue::first(&self.place, &self.value()).await.map(LockGuard).map_err(|error| error.during("lock"))
    }

    /// Takes the lock if nobody has it or waits for it. A store that is out of reach is waited for.
    ///
    /// # Errors
    ///
    /// [`LeaseLost`](crate::ErrorKind::LeaseLost) if that took too long; what the backend refuses.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future gives back what it may have got.
    pub async fn try_acquire(&self) -> Result<Option<LockGuard>> {
        let turn = queue::first_if_free(&self.place, &self.value()).await;
        turn.map(|turn| turn.map(LockGuard)).map_err(|error| error.during("lock"))
    }

    fn value(&self) -> bytes::Bytes {
        self.owner.as_str().to_owned().into()
    }
}

/// A lock that is held. Dropping it gives it back, in the background.
#[derive(Debug)]
#[must_use = "a lock is held for as long as its guard lives"]
pub struct LockGuard(Turn);

impl LockGuard {
    /// The proof that it is held.
    pub fn fence(&self) -> &Fence {
        self.0.fence()
    }

    /// Gives it back, and waits until the next one can have it.
    ///
    /// # Errors
    ///
    /// [`LeaseLost`](crate::ErrorKind::LeaseLost) if it had been lost; what the backend refuses.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves it to the background.
    pub async fn release(self) -> Result<()> {
        self.0.leave().await.map_err(|error| error.during("unlock"))
    }
}
