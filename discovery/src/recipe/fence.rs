//! Proof of what is held.

use std::{fmt, sync::Arc};

use tokio::{
    sync::watch,
    task::JoinSet,
    time::{self, Instant},
};

use super::place::{Hold, Place, Sight};
use crate::{
    Error, ErrorKind, Result, Revision,
    kv::{Guard, Key, Txn},
    lease::{Sessions, Standing},
};

/// Proof that something is held: a lock, a leadership, a place in a group. Clones are the same proof.
///
/// It offers three protections, from the weakest to the strongest:
///
/// 1. [`lost`](Fence::lost) and [`is_valid`](Fence::is_valid) tell the holder. What is held ends, for its holder, before
///    anybody else can have it: the deadline counts from *sending* the last good renewal of the lease.
/// 2. The [`token`](Fence::token) grows from holder to holder. A resource that remembers the greatest it has seen, and
///    refuses smaller ones, is safe from a holder that was frozen between looking at the clock and acting.
/// 3. What is written to the same store by [`commit`](Fence::commit) is written only if what is held still is, in one step.
///    Nothing has to be believed for that.
///
/// The clock is the monotonic one of the machine. It does not count the time that the machine itself is suspended; then
/// only 2 and 3 protect.
#[derive(Clone)]
pub struct Fence(Arc<Inner>);

struct Inner {
    /// Not the place: that would keep the lease alive.
    sessions: Arc<Sessions>,
    key: Key,
    created: Revision,
    standing: watch::Receiver<Standing>,
    /// Looks at the entry and at the lease; aborted with the last clone.
    _lookout: JoinSet<()>,
}

impl Fence {
    pub(super) fn new(place: &Place, hold: &Hold) -> Self {
        let (key, created) = (hold.key().clone(), hold.created());
        let (mut session, publish) = (hold.session().standing(), hold.standing().clone());
        tell(&publish, session.borrow_and_update().clone());
        let standing = publish.subscribe();
        let mut lookout = JoinSet::new();
        lookout.spawn(look_out(place.sight(key.clone()), created, session, publish));
        let sessions = place.sessions().clone();
        Self(Arc::new(Inner { sessions, key, created, standing, _lookout: lookout }))
    }

    /// A number that is greater than that of all who held the same before.
    ///
    /// It is the revision of the store at which the entry came to be that stands for what is held, so it grows as long as
    /// the store keeps its history: a store that is wiped, or restored from a backup, starts over.
    pub fn token(&self) -> u64 {
        self.0.created.0
    }

    /// Until when it is certain that nobody else can hold it; in the past if it is lost.
    pub fn valid_until(&self) -> Instant {
        self.0.standing.borrow().until().unwrap_or_else(Instant::now)
    }

    /// Whether it is certain that nobody else holds it. May be wrong a moment later: see the three protections above.
    pub fn is_valid(&self) -> bool {
        self.0.standing.borrow().until().is_some()
    }

    /// Waits until it is lost or given back, and says why: when it can no longer be proven, at the latest.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn lost(&self) -> Error {
        let mut standing = self.0.standing.clone();
        loop {
            let deadline = match &*standing.borrow_and_update() {
                Standing::Ended(error) => return error.clone(),
                Standing::Until(deadline) => *deadline,
            };
            tokio::select! {
                // First: who was not polled for a while may have missed a renewal.
                biased;
                changed = standing.changed() => if changed.is_err() {
                    return lost("whoever looked after it is gone with its runtime");
                },
                () = time::sleep_until(deadline) => return lost("the lease was not renewed in time"),
            }
        }
    }

    /// The condition that it is still held, for a transaction on the same store.
    pub fn guard(&self) -> Guard {
        Guard::Alive(self.0.key.clone(), self.0.created)
    }

    /// Commits a transaction if it is still held, in one step.
    ///
    /// # Errors
    ///
    /// [`LeaseLost`](ErrorKind::LeaseLost) if it is not held any more, and nothing was written;
    /// [`Conflict`](ErrorKind::Conflict) if a guard of `txn` did not hold; otherwise as for
    /// [`Kv::commit`](crate::kv::Kv::commit).
    ///
    /// # Cancel safety
    ///
    /// Not cancel safe: a dropped commit may take effect or not.
    pub async fn commit(&self, txn: Txn) -> Result<Revision> {
        let kv = self.0.sessions.kv()?;
        match kv.commit(txn.guard(self.guard())).await {
            // Whose guard was it?
            Err(error) if error.kind() == ErrorKind::Conflict => match kv.get(&self.0.key).await {
                Ok(Some(entry)) if entry.created == self.0.created => Err(error),
                Ok(_) => Err(lost("the entry that stood for it is gone")),
                // Nothing was written; why, cannot be told now.
                Err(unknown) => Err(unknown.not_applied()),
            },
            outcome => outcome,
        }
    }
}

impl fmt::Debug for Fence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fence({} as {})", self.0.key, self.token())
    }
}

/// Publishes how a session stands until it or the entry is gone.
async fn look_out(
    mut entry: Sight,
    created: Revision,
    mut session: watch::Receiver<Standing>,
    publish: watch::Sender<Standing>,
) {
    let mut blind = false;
    let mut is_over = false;
    while !is_over {
        tokio::select! {
            seen = entry.next(), if !blind => match seen {
                Ok(Some(found)) if found.created == created => {}
                Ok(_) => {
                    is_over = tell(&publish, Standing::Ended(lost("it was removed by somebody else")));
                }
                // What cannot be watched may still be held: the lease says so.
                Err(error) => {
                    tracing::warn!(%error, "cannot watch what is held");
                    blind = true;
                }
            },
            changed = session.changed() => {
                let standing = match changed {
                    Ok(()) => session.borrow_and_update().clone(),
                    Err(_) => Standing::Ended(lost("its lease was given back")),
                };
                is_over = tell(&publish, standing);
            }
        }
    }
}

/// Publishes how it stands, unless it is over for good, and says whether it is now.
fn tell(publish: &watch::Sender<Standing>, standing: Standing) -> bool {
    let mut is_over = false;
    publish.send_if_modified(|now| {
        let news = matches!(now, Standing::Until(_));
        if news {
            *now = standing;
        }
        is_over = matches!(now, Standing::Ended(_));
        news
    });
    is_over
}

pub(super) fn lost(why: &str) -> Error {
    Error::new(ErrorKind::LeaseLost, why)
}
