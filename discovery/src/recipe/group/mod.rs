//! The buddy circle: each looks after one other.

mod circle;
mod membership;

use std::{sync::Arc, time::Duration};

use futures_util::{
    StreamExt,
    stream::{self, BoxStream},
};

use self::circle::Circle;
pub use self::membership::{Buddy, Departure, Membership, News};
use super::{known::corrupt, place::Place};
use crate::{Result, ServiceName, lease::Sessions};

/// How often a circle is read that does not close, because it is changing.
const LOOKS: usize = 20;

/// A circle of members, each of which watches exactly one other, its buddy, and covers for it when it dies: exactly one
/// member does, exactly once.
///
/// The buddy of a member is the one that joined before it; that of the first is the last. What a member has in hand it
/// can [entrust](Membership::entrust) to the group: whoever covers for it gets that.
///
/// # Example: cover for a buddy
///
/// ```
/// # #[tokio::main(flavor = "current_thread", start_paused = true)] async fn main() -> discovery::Result<()> {
/// use discovery::{Discovery, kv::{Key, Txn}, mem::Mem, recipe::News};
///
/// let mem = Mem::new();
/// let discovery = Discovery::new(mem.clone());
/// let workers = discovery.group(&"batch/workers".parse()?)?;
/// let first = workers.join("first").await?;
/// first.entrust("invoice 17").await?;
/// mem.expire_all(); // The first one dies, as far as the store can tell.
///
/// let mut second = workers.join("second").await?;
/// loop {
///     if let News::Departed(gone) = second.next().await? {
///         assert_eq!(gone.label(), "first");
///         assert_eq!(*gone.duties().expect("something in hand"), "invoice 17");
///         let done: Key = "done/17".parse()?;
///         gone.settle(Txn::new().put(&done, "by the second")).await?; // Both or nothing.
///         break;
///     }
/// }
/// # Ok(()) }
/// ```
///
/// # Safety argument
///
/// A member has a permanent record, which names its buddy, and an entry under a lease, which says that it is alive; both
/// are created in one commit, together with the change of the circle. The records form one closed circle at any time,
/// because each commit that changes it does so as a whole, on condition that all records that it is based on are unchanged:
///
/// - *joining* puts the newcomer between the last and the first;
/// - *settling* takes a member out that is not alive any more, and gives its buddy to the one behind it.
///
/// In a circle exactly one record names a given member, so exactly one member may settle its departure; and it can do so
/// only as long as its own entry is alive, in the same commit. So a departure is settled exactly once, whoever else was
/// frozen, cut off or died in the middle of it: what was not settled is found by whoever is next in the circle, even if
/// all have died and somebody joins a day later.
///
/// *No herd, and no dependence on size*: a departure wakes the one behind; joining wakes the first. Each costs a fixed
/// number of reads and one commit, however large the group is.
#[derive(Clone, Debug)]
pub struct Group {
    circle: Circle,
}

impl Group {
    pub(crate) fn new(sessions: &Arc<Sessions>, name: &ServiceName) -> Result<Self> {
        Ok(Self { circle: Circle { place: Place::new(sessions, "groups", name)? } })
    }

    /// How long a member who died counts as alive; 10 s unless told. The backend may round up.
    #[must_use]
    pub fn ttl(self, ttl: Duration) -> Self {
        Self { circle: Circle { place: self.circle.place.ttl(ttl) } }
    }

    /// Joins, as the last one. `label` is for people who look. A store that is out of reach is waited for.
    ///
    /// # Errors
    ///
    /// [`LeaseLost`](crate::ErrorKind::LeaseLost) if that took too long; what the backend refuses.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future may leave a member behind that is found dead, and had nothing in hand.
    pub async fn join(&self, label: &str) -> Result<Membership> {
        Membership::begin(&self.circle, label).await.map_err(|error| error.during("join"))
    }

    /// All members in order, with those who are gone but not settled yet. Reads all of them.
    ///
    /// # Errors
    ///
    /// [`Corrupt`](crate::ErrorKind::Corrupt) if the circle does not close; what the backend refuses.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn seats(&self) -> Result<Vec<Seat>> {
        let mut pace = self.circle.place.pace();
        for _ in 0..LOOKS {
            // A list that is not of one moment may show a circle that never was.
            if let Some(seats) = self.circle.look().await.map_err(|error| error.during("seats"))? {
                return Ok(seats);
            }
            pace.later().await;
        }
        Err(corrupt(self.circle.place.top(), "the circle does not close").during("seats"))
    }

    /// All members in order, now and whenever that changes. Reads all of them, and all that happens among them: for people
    /// who look. Who is slow misses what was in between, never the latest. Outages are waited out.
    pub fn watch(&self) -> BoxStream<'static, Result<Vec<Seat>>> {
        let observer = (self.circle.clone(), self.circle.place.view(self.circle.range()));
        let circles = stream::try_unfold(observer, |(circle, mut view)| async {
            loop {
                view.changed().await?;
                // Half of a commit may show a circle that never was; the other half comes in a moment.
                if let Some(seats) = circle.arrange(view.entries().values())? {
                    return Ok(Some((seats, (circle, view))));
                }
            }
        });
        circles.boxed()
    }
}

/// A member, as others see it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Seat {
    /// Its id in the group, which nobody else ever has.
    pub id: String,
    /// What it joined as.
    pub label: String,
    /// Whether its lease lives.
    pub is_alive: bool,
    /// Whether it left of its own will; one that is neither alive nor has left is waiting to be covered for.
    pub has_left: bool,
}
