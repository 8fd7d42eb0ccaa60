//! Opens a backend's watch, again and again.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use tokio::time::{self, Instant};

use super::{topic::Topic, unpanicked};
use crate::{
    Backend, Change, Error, ErrorKind, Result, Revision, Scope, Update, Updates, backoff::Backoff,
    lease::Keepers,
};

/// How long, behind an outage, our own registrations may hold up the view of all others.
const OWN_FIRST: Duration = Duration::from_secs(1);

/// Feeds `topic` from `backend`, whatever happens.
pub(super) struct Resume {
    pub(super) backend: Arc<dyn Backend>,
    pub(super) backoff: Backoff,
    pub(super) keepers: Arc<Keepers>,
    pub(super) topic: Weak<Topic>,
    pub(super) scope: Scope,
}

impl Resume {
    /// Runs until the topic is gone or there is no point in going on.
    ///
    /// Each round is the same, the first one included: open the watch behind what is known, pass on what it says,
    /// report its end, wait, but no longer than until somebody else has heard of the backend. Whether a round continues
    /// or starts over is the backend's to say, by its first item.
    pub(super) async fn run(self) {
        let mut attempts = self.backoff.start();
        let mut ended = Instant::now();
        // Whether an answer would be news to the others as well, and not only the echo of theirs.
        let mut is_first_to_hear = false;
        let mut contact = self.keepers.contact().subscribe();
        loop {
            let Some(after) = self.topic.upgrade().map(|topic| topic.revision()) else { return };
            // Who rings from here on may know better than this attempt.
            contact.mark_unchanged();
            let (mut item, mut updates) = self.open(after, ended).await;
            let mut was_live = false;
            let error = loop {
                let Some(topic) = self.topic.upgrade() else { return };
                match item {
                    Some(Ok(update)) => {
                        topic.take(update);
                        if std::mem::take(&mut is_first_to_hear) {
                            self.keepers.contact().send_replace(());
                        }
                        was_live = true;
                    }
                    Some(Err(error)) => break error,
                    None => break Error::new(ErrorKind::Unavailable, "the watch ended without a word"),
                }
                drop(topic);
                item = unpanicked::next(&mut updates).await;
            };
            ended = Instant::now();
            // Release what the old watch holds on the server before the new one asks for the same.
            drop(updates);
            match self.topic.upgrade() {
                Some(topic) if topic.fail(error) => {}
                _ => return,
            }
            if was_live {
                // What was rung while all was well is no news when it is not.
                contact.mark_unchanged();
            }
            is_first_to_hear = tokio::select! {
                () = time::sleep(attempts.next_delay()) => true,
                // The sender is there as long as the keepers are.
                _ = contact.changed() => false,
            };
        }
    }

    /// Opens the watch and waits for its first item; the one before has `ended`.
    ///
    /// An outage may have cost us a lease. Where the watch tells of our departure, because it was put right too late to
    /// be part of the whole, or as one of the steps, the scope is read once more: nobody in this process shall see this
    /// process leave.
    async fn open(&self, after: Option<Revision>, ended: Instant) -> (Option<Result<Update>>, Updates) {
        let asked = Instant::now();
        let mut updates = self.watch(after);
        let first = unpanicked::next(&mut updates).await;
        let is_removal = |change: &Change| matches!(change, Change::Remove(_));
        let too_late = match &first {
            _ if after.is_none() => None,
            Some(Ok(Update::Reset(_))) => Some(asked),
            Some(Ok(Update::Delta { changes, .. })) if changes.iter().any(is_removal) => Some(ended),
            _ => None,
        };
        if let Some(too_late) = too_late
            && self.keepers.in_place_since(OWN_FIRST).await.is_some_and(|since| since >= too_late)
        {
            drop(updates);
            updates = self.watch(None);
            return (unpanicked::next(&mut updates).await, updates);
        }
        (first, updates)
    }

    fn watch(&self, after: Option<Revision>) -> Updates {
        unpanicked::open(|| self.backend.watch(&self.scope, after))
    }
}

/// Whoever still watches when this goes, with its runtime, must not go on in the belief that nothing happens.
impl Drop for Resume {
    fn drop(&mut self) {
        if let Some(topic) = self.topic.upgrade() {
            topic.end(Error::new(ErrorKind::Closed, "the watch is gone with its runtime"));
        }
    }
}
