//! Opens a backend's watch, again and again.

use std::sync::{Arc, Weak};

use futures_util::StreamExt;
use tokio::time;

use super::topic::Topic;
use crate::{Backend, Error, ErrorKind, Scope, backoff::Backoff};

/// Feeds `topic` from `backend` until the topic is gone or there is no point in going on.
///
/// Each round is the same, the first one included: open the watch behind what is known, pass on what it says, report
/// its end, wait. Whether a round continues or starts over is the backend's to say, by its first item.
pub(super) async fn run(backend: Arc<dyn Backend>, backoff: Backoff, topic: Weak<Topic>, scope: Scope) {
    let mut attempts = backoff.start();
    loop {
        let Some(after) = topic.upgrade().map(|topic| topic.revision()) else { return };
        let mut updates = backend.watch(&scope, after);
        let error = loop {
            let item = updates.next().await;
            let Some(topic) = topic.upgrade() else { return };
            match item {
                Some(Ok(update)) => topic.take(update),
                Some(Err(error)) => break error,
                None => break Error::new(ErrorKind::Unavailable, "the watch ended without a word"),
            }
        };
        // Release what the old watch holds on the server before the new one asks for the same.
        drop(updates);
        match topic.upgrade() {
            Some(topic) if topic.fail(error) => {}
            _ => return,
        }
        time::sleep(attempts.next_delay()).await;
    }
}
