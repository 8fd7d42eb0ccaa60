//! All begin together, and all are done before anybody goes on.

use std::{sync::Arc, time::Duration};

use super::{
    fence::{Fence, lost},
    known::{Known, json},
    place::{Hold, Place},
};
use crate::{
    Error, Owner, Result, Revision, ServiceName,
    kv::{Guard, Key, Range, Txn},
    lease::{Sessions, Standing},
};

/// A double barrier for a number of parties: [`enter`](Barrier::enter) returns when so many are there, and
/// [`leave`](Entered::leave) when all of them have left.
///
/// Who dies does not count once the lease is over, and is not waited for. It can be used again and again, by the same
/// parties or by others: when more come than asked for, those who come first are let in, and the others are of the next
/// round. One small entry stays in the store.
///
/// # Example: three workers, one phase
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> discovery::Result<()> {
/// use discovery::{Discovery, mem::Mem};
///
/// let discovery = Discovery::new(Mem::new());
/// let barrier = discovery.barrier(&"batch/phase-1".parse()?, 3)?;
/// let work = async || {
///     let entered = barrier.enter().await?;
///     // Three are at work here at the same time.
///     entered.leave().await
/// };
/// tokio::try_join!(work(), work(), work())?;
/// # Ok(()) }
/// ```
///
/// # Safety argument
///
/// A mark says how far parties have been let in: up to which revision of creation. Each party creates an entry under a
/// lease, then reads the mark and lists the entries behind it; so whoever comes last sees all. Whoever lists enough moves
/// the mark to the last one that makes the number full, on condition that it is still where it was and that the own entry
/// is there: a round is opened once, and is never larger than asked for. Those behind it are of the next round; whoever
/// finds that it is full as well moves the mark again.
///
/// On the way out, each takes its entry away and then waits for those of its round that are still there.
///
/// *No herd*: arrivals wake nobody, the mark wakes all, as it must. On the way out each waits for one other at a time,
/// chosen by chance among those who are left, so that it is woken about as often as the logarithm of their number.
#[derive(Clone, Debug)]
pub struct Barrier {
    place: Place,
    parties: usize,
    owner: Owner,
}

impl Barrier {
    pub(crate) fn new(sessions: &Arc<Sessions>, name: &ServiceName, parties: usize) -> Result<Self> {
        if parties == 0 {
            return Err(Error::invalid("a barrier for nobody; give the number of parties, 1 or more"));
        }
        Ok(Self { place: Place::new(sessions, "barriers", name)?, parties, owner: Owner::random() })
    }

    /// How long who died counts as being there; 10 s unless told. The backend may round up.
    #[must_use]
    pub fn ttl(self, ttl: Duration) -> Self {
        Self { place: self.place.ttl(ttl), ..self }
    }

    /// Who the entry says is there, for people who look; random unless told.
    #[must_use]
    pub fn owner(self, owner: Owner) -> Self {
        Self { owner, ..self }
    }

    /// Waits until all parties are there.
    ///
    /// # Errors
    ///
    /// [`LeaseLost`](crate::ErrorKind::LeaseLost) if this party was out of reach of the store for so long that it no longer counts;
    /// what the backend refuses.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves the barrier.
    pub async fn enter(&self) -> Result<Entered> {
        self.pass().await.map_err(|error| error.during("enter"))
    }

    async fn pass(&self) -> Result<Entered> {
        let hold = self.place.create(&self.inside()?, self.owner.as_str().to_owned()).await?;
        let mut standing = hold.session().standing();
        let round = tokio::select! {
            round = self.opened(&hold) => round?,
            _ = standing.wait_for(|standing| matches!(standing, Standing::Ended(_))) => {
                return Err(hold.session().why_ended());
            }
        };
        Ok(Entered { fence: Fence::new(&self.place, &hold), barrier: self.clone(), hold, round })
    }

    /// Waits until this party is let in, and says who is with it.
    async fn opened(&self, hold: &Hold) -> Result<Round> {
        let key = self.mark()?;
        let mut sight = self.place.sight(key.clone());
        let mut pace = self.place.pace();
        let mut behind = Revision::default();
        loop {
            let mark = Known::<u64>::read(&self.place, &key).await?;
            let until = mark.as_ref().map(|mark| Revision(mark.value)).unwrap_or_default();
            if until >= hold.created() {
                return Ok(Round { behind, until });
            }
            behind = until;
            let mut waiting = self.place.scan(&Range::Children(self.inside()?)).await?;
            waiting.retain(|entry| entry.created > behind);
            if !waiting.iter().any(|entry| entry.key == *hold.key()) {
                return Err(lost("the entry in the barrier is gone"));
            }
            waiting.sort_by_key(|entry| entry.created);
            let modified = mark.as_ref().map(|mark| mark.modified);
            let Some(last) = waiting.get(self.parties - 1) else {
                while sight.next().await?.map(|mark| mark.modified) == modified {}
                continue;
            };
            let unchanged = mark.map_or(Guard::Absent(key.clone()), |mark| mark.guard);
            let txn = Txn::new().guard(hold.guard()).guard(unchanged).put(&key, json(&last.created.0));
            if let Err(error) = self.place.kv()?.commit(txn).await {
                pace.after(error).await?;
            }
        }
    }

    fn inside(&self) -> Result<Key> {
        self.place.top().join("in")
    }

    fn mark(&self) -> Result<Key> {
        self.place.top().join("open")
    }
}

/// A party that is inside. Dropping it leaves, without waiting for the others.
#[derive(Debug)]
#[must_use = "whoever drops it has left"]
pub struct Entered {
    barrier: Barrier,
    hold: Hold,
    fence: Fence,
    round: Round,
}

/// Who was let in together: whose entries were created behind the one and until the other. They are the marks that the
/// party has seen; one that was so slow that it missed some counts the neighbouring rounds as its own.
#[derive(Debug)]
struct Round {
    behind: Revision,
    until: Revision,
}

impl Entered {
    /// The proof that the others count on it.
    pub fn fence(&self) -> &Fence {
        &self.fence
    }

    /// Leaves, and waits until all have left who were let in together with it.
    ///
    /// # Errors
    ///
    /// [`LeaseLost`](crate::ErrorKind::LeaseLost) if this party was out of reach of the store for so long that it no longer counts;
    /// what the backend refuses.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves without waiting for the others.
    pub async fn leave(self) -> Result<()> {
        let Self { barrier, hold, round, .. } = self;
        let left = async {
            hold.release().await?;
            loop {
                let mut inside = barrier.place.scan(&Range::Children(barrier.inside()?)).await?;
                inside.retain(|entry| entry.created > round.behind && entry.created <= round.until);
                let Some(other) = fastrand::choice(&inside) else { return Ok(()) };
                barrier.place.gone(other).await?;
            }
        };
        left.await.map_err(|error: Error| error.during("leave"))
    }
}
