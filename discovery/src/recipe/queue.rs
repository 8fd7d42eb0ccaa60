//! First come, first served: what locks and elections have in common.
//!
//! Whoever wants to be first creates an entry of his own under a lease, in one commit with nobody else. The revision at
//! which it was created is his number. Whoever has the smallest number among the entries that are there is first.
//!
//! *At most one is first.* Numbers are given by the store, and grow. So once an entry is there, those before it can only
//! become fewer, and a list that is read afterwards has all of them. Whoever finds himself at its head is first; and as
//! long as he is there, nobody else can find himself there.
//!
//! *No herd.* Each waits for the one before him only, with a watch of that one key; when that one goes, he alone reads the
//! list again. A list is one call, however long; to follow those before him one by one would be as many calls as they
//! were.
//!
//! *Nobody waits for the dead*, for longer than a ttl: entries end with their leases.

use bytes::Bytes;

use super::{
    fence::{Fence, lost},
    place::{Hold, Place},
};
use crate::{
    ErrorKind, Result, Revision,
    kv::{Entry, Key, Range, Txn},
    lease::Standing,
};

/// Who is in the queue, the first first.
pub(super) async fn everybody(place: &Place) -> Result<Vec<Entry>> {
    let mut all = place.scan(&Range::Children(place.top().clone())).await?;
    all.sort_by(|a, b| order(a).cmp(&order(b)));
    Ok(all)
}

/// Lines up, waits to be first, and lines up anew whenever the place in the queue is lost.
///
/// Dropping the future leaves the queue.
pub(super) async fn first(place: &Place, value: &Bytes) -> Result<Turn> {
    let mut attempts = place.pace();
    loop {
        let ticket = Ticket::draw(place, value).await;
        let turn = match ticket {
            Ok(ticket) => ticket.turn().await,
            Err(error) => Err(error),
        };
        match turn {
            Err(error) if error.kind() == ErrorKind::LeaseLost => {
                tracing::info!(queue = ?place, %error, "lost the place in the queue; lining up again");
                attempts.later().await;
            }
            outcome => return outcome,
        }
    }
}

/// The first place if it is free, without waiting.
pub(super) async fn first_if_free(place: &Place, value: &Bytes) -> Result<Option<Turn>> {
    // Whoever does not want to wait does not want to be in anybody's way either.
    if !everybody(place).await?.is_empty() {
        return Ok(None);
    }
    let ticket = Ticket::draw(place, value).await?;
    if ticket.before().await?.is_empty() {
        return Ok(Some(ticket.into_turn()));
    }
    ticket.hold.release().await?;
    Ok(None)
}

/// A place in the queue.
struct Ticket {
    place: Place,
    hold: Hold,
}

impl Ticket {
    async fn draw(place: &Place, value: &Bytes) -> Result<Self> {
        let hold = place.create(place.top(), value.clone()).await?;
        Ok(Self { place: place.clone(), hold })
    }

    /// Who is before us, the next one last.
    async fn before(&self) -> Result<Vec<Entry>> {
        let mut all = everybody(&self.place).await?;
        let is_ours = |entry: &Entry| entry.key == *self.hold.key() && entry.created == self.hold.created();
        let ours = all.iter().position(is_ours);
        all.truncate(ours.ok_or_else(|| lost("the entry in the queue is gone"))?);
        Ok(all)
    }

    /// Waits to be first.
    async fn turn(self) -> Result<Turn> {
        let mut standing = self.hold.session().standing();
        let advance = async {
            // Each time anew: the others may have gone as well, or all of them, with the whole store.
            while let Some(next) = self.before().await?.pop() {
                self.place.gone(&next).await?;
            }
            Ok(())
        };
        tokio::select! {
            advanced = advance => advanced?,
            _ = standing.wait_for(|standing| matches!(standing, Standing::Ended(_))) => {
                return Err(self.hold.session().why_ended());
            }
        }
        Ok(self.into_turn())
    }

    fn into_turn(self) -> Turn {
        Turn { fence: Fence::new(&self.place, &self.hold), hold: self.hold }
    }
}

/// The first place in a queue; given up when it is dropped.
#[derive(Debug)]
pub(super) struct Turn {
    hold: Hold,
    fence: Fence,
}

impl Turn {
    pub(super) fn fence(&self) -> &Fence {
        &self.fence
    }

    /// Replaces the value of the entry.
    pub(super) async fn write(&self, value: Bytes) -> Result<()> {
        let txn = Txn::new().op(self.hold.op(value));
        self.fence.commit(txn).await.map(drop)
    }

    /// Leaves, and waits until the next one can know.
    pub(super) async fn leave(self) -> Result<()> {
        self.hold.release().await
    }
}

/// Entries that were created in one step are told apart by key.
fn order(entry: &Entry) -> (Revision, &Key) {
    (entry.created, &entry.key)
}
