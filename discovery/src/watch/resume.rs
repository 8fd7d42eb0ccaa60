//! Opens a backend's watch, again and again.

use std::{
    panic::AssertUnwindSafe,
    sync::{Arc, Weak},
    time::Duration,
};

use futures_util::{FutureExt, StreamExt};
use tokio::time::{self, Instant};

use super::topic::Topic;
use crate::{
    Backend, Error, ErrorKind, Result, Revision, Scope, Update, Updates, backoff::Backoff, lease::Keepers,
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
    /// report its end, wait. Whether a round continues or starts over is the backend's to say, by its first item.
    pub(super) async fn run(self) {
        let mut attempts = self.backoff.start();
        loop {
            let Some(after) = self.topic.upgrade().map(|topic| topic.revision()) else { return };
            let (mut item, mut updates) = self.open(after).await;
            let error = loop {
                let Some(topic) = self.topic.upgrade() else { return };
                match item {
                    Some(Ok(update)) => topic.take(update),
                    Some(Err(error)) => break error,
                    None => break Error::new(ErrorKind::Unavailable, "the watch ended without a word"),
                }
                drop(topic);
                item = next(&mut updates).await;
            };
            // Release what the old watch holds on the server before the new one asks for the same.
            drop(updates);
            match self.topic.upgrade() {
                Some(topic) if topic.fail(error) => {}
                _ => return,
            }
            time::sleep(attempts.next_delay()).await;
        }
    }

    /// Opens the watch and waits for its first item.
    ///
    /// An outage may have cost us a lease. If the scope was read before our own registrations were put back, it is read
    /// once more: nobody in this process shall see this process leave.
    async fn open(&self, after: Option<Revision>) -> (Option<Result<Update>>, Updates) {
        let asked = Instant::now();
        let mut updates = self.backend.watch(&self.scope, after);
        let first = next(&mut updates).await;
        let starts_over = after.is_some() && matches!(first, Some(Ok(Update::Reset(_))));
        if starts_over && self.keepers.in_place_since(OWN_FIRST).await.is_some_and(|since| since >= asked) {
            drop(updates);
            updates = self.backend.watch(&self.scope, after);
            return (next(&mut updates).await, updates);
        }
        (first, updates)
    }
}

/// The next item. A backend that panics is one that fails: else this task would end, and leave everybody in the belief
/// that nothing happens.
async fn next(updates: &mut Updates) -> Option<Result<Update>> {
    // What has panicked is dropped, not polled again.
    let item = AssertUnwindSafe(updates.next()).catch_unwind().await;
    item.unwrap_or_else(|_| Some(Err(Error::new(ErrorKind::Other, "the backend panicked; starting over"))))
}
