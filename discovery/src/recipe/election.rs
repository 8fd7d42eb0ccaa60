//! One of many, until it can no longer be proven.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{StreamExt, stream, stream::BoxStream};

use super::{
    fence::Fence,
    place::{Place, Sight},
    queue::{self, Turn},
};
use crate::{Result, Revision, ServiceName, kv::Entry, lease::Sessions};

/// An election: candidates line up, the first leads, and the next one follows when it is gone.
///
/// # Example: lead while it can be proven
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> discovery::Result<()> {
/// use discovery::{Discovery, mem::Mem};
///
/// let discovery = Discovery::new(Mem::new());
/// let election = discovery.election(&"eu1/prod/scheduler".parse()?)?;
///
/// let leadership = election.campaign("10.0.0.7:9000").await?;
/// assert_eq!(election.leader().await?.expect("it is us").value, "10.0.0.7:9000");
/// tokio::select! {
///     why = leadership.fence().lost() => println!("no longer the leader: {why}"),
///     () = async { /* the work of the leader */ } => leadership.resign().await?,
/// }
/// # Ok(()) }
/// ```
///
/// # Safety argument
///
/// *At most one leads, for all that anybody can prove.* Each candidate creates an entry of its own; the store gives each
/// creation a greater revision than all before. Entries are never written by others, so what is in front of a candidate
/// only becomes less, once its own entry is there. A candidate leads when it reads that it is there and nobody is in front
/// of it. Two leaders at a time would mean that the second has read that the first one's entry is gone, while the first
/// still believes in it: an entry goes when its holder takes it back, when somebody removes it by hand, or when its lease
/// ends. The holder believes in it no longer than the lease's ttl after *sending* its last good renewal, so it gives up
/// before the store can end the lease. A removal by hand is noticed a moment after, not before; against that, and against
/// a holder that was frozen between looking at the clock and acting, protect the [token](Fence::token) and the
/// [guard](Fence::guard).
///
/// *Somebody leads*, as long as there are candidates that reach the store: each follows the one in front of it, and
/// entries of the dead end with their leases.
///
/// *No herd*: a departure wakes the one behind, who looks at one key, and reads one list. Entering costs a commit and one
/// list.
#[derive(Clone, Debug)]
pub struct Election {
    place: Place,
}

impl Election {
    pub(crate) fn new(sessions: &Arc<Sessions>, name: &ServiceName) -> Result<Self> {
        Ok(Self { place: Place::new(sessions, "elections", name)? })
    }

    /// How long a leader who died is still the leader; 10 s unless told. The backend may round up.
    #[must_use]
    pub fn ttl(self, ttl: Duration) -> Self {
        Self { place: self.place.ttl(ttl) }
    }

    /// Waits to be the leader. `value`, which must not be empty, is what others see: an address, say. A store that is out
    /// of reach is waited for; who loses the place in the queue because of that lines up again.
    ///
    /// # Errors
    ///
    /// What the backend refuses.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future ends the candidacy.
    pub async fn campaign(&self, value: impl Into<Bytes>) -> Result<Leadership> {
        let turn = queue::first(&self.place, &value.into()).await;
        turn.map(Leadership).map_err(|error| error.during("campaign"))
    }

    /// Who leads now, if anybody does.
    ///
    /// # Errors
    ///
    /// What the backend refuses. A store that is out of reach is waited for.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn leader(&self) -> Result<Option<Leader>> {
        let all = queue::everybody(&self.place).await.map_err(|error| error.during("leader"))?;
        Ok(all.first().map(Leader::of))
    }

    /// Who leads, now and whenever that changes; `None` while nobody does. A watcher that is slow misses leaders, never
    /// the last one. Outages are waited out; the stream ends with an error that the backend refuses with.
    ///
    /// It follows the leader's entry, so candidates who come and go wake nobody; while nobody leads it follows all.
    pub fn leaders(&self) -> BoxStream<'static, Result<Option<Leader>>> {
        let observer = Observer { place: self.place.clone(), following: None, told: Told::Nothing };
        let leaders = stream::try_unfold(observer, |mut observer| async {
            Ok(Some((observer.next().await?, observer)))
        });
        leaders.boxed()
    }
}

/// Whom an election made the leader.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Leader {
    /// What it campaigned with, or proclaimed since.
    pub value: Bytes,
    /// The [token](Fence::token) of its leadership.
    pub token: u64,
}

impl Leader {
    fn of(entry: &Entry) -> Self {
        Self { value: entry.value.clone(), token: entry.created.0 }
    }
}

/// Being the leader. Dropping it resigns, in the background.
#[derive(Debug)]
#[must_use = "whoever drops a leadership resigns"]
pub struct Leadership(Turn);

impl Leadership {
    /// The proof of it.
    pub fn fence(&self) -> &Fence {
        self.0.fence()
    }

    /// Tells others something else than what the campaign began with.
    ///
    /// # Errors
    ///
    /// As for [`Fence::commit`].
    ///
    /// # Cancel safety
    ///
    /// Not cancel safe: a dropped proclamation may be seen or not.
    pub async fn proclaim(&self, value: impl Into<Bytes>) -> Result<()> {
        self.0.write(value.into()).await.map_err(|error| error.during("proclaim"))
    }

    /// Gives it up, and waits until the next one can have it.
    ///
    /// # Errors
    ///
    /// [`LeaseLost`](crate::ErrorKind::LeaseLost) if it had been lost; what the backend refuses.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves it to the background.
    pub async fn resign(self) -> Result<()> {
        self.0.leave().await.map_err(|error| error.during("resign"))
    }
}

/// Somebody who only wants to know.
struct Observer {
    place: Place,
    /// The entry of the leader, and which life of it.
    following: Option<(Sight, Revision)>,
    told: Told,
}

#[derive(PartialEq, Eq)]
enum Told {
    Nothing,
    Leader(Option<Leader>),
}

impl Observer {
    async fn next(&mut self) -> Result<Option<Leader>> {
        loop {
            let leader = match &mut self.following {
                Some((entry, created)) => match entry.next().await? {
                    Some(found) if found.created == *created => Some(Leader::of(&found)),
                    _ => {
                        self.following = None;
                        continue;
                    }
                },
                None => match queue::everybody(&self.place).await?.first() {
                    Some(first) => {
                        let entry = self.place.sight(first.key.clone());
                        self.following = Some((entry, first.created));
                        continue;
                    }
                    None => None,
                },
            };
            let news = Told::Leader(leader.clone());
            if self.told != news {
                self.told = news;
                return Ok(leader);
            }
            if leader.is_none() {
                self.place.filled().await?;
            }
        }
    }
}
