//! A range of keys, at hand through every kind of trouble.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::time::{self, Instant};

use super::unpanicked;
use crate::{
    Backend, Error, ErrorKind, Result, Revision,
    backoff::{Attempts, Backoff},
    kv::{Entry, Key, KvChange, KvUpdate, KvUpdates, Range, Scan},
};

/// A range of keys as it was last known, kept up to date by whoever [waits](KeyView::changed) for changes. There is no task
/// behind it: who does not wait, is not told.
///
/// # Example: follow a counter
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> discovery::Result<()> {
/// use discovery::{Discovery, kv::{Key, Range, Txn}, mem::Mem};
///
/// let kv = Discovery::new(Mem::new()).kv()?;
/// let counter: Key = "counter".parse()?;
/// let mut view = kv.view(Range::Key(counter.clone()));
/// assert!(view.changed().await?.is_empty()); // The first time it tells what there is.
///
/// kv.commit(Txn::new().put(&counter, "1")).await?;
/// view.changed().await?;
/// assert_eq!(view.entries()[&counter].value, "1");
/// # Ok(()) }
/// ```
pub struct KeyView {
    backend: Arc<dyn Backend>,
    range: Range,
    /// Never locked: it makes this `Sync`, which streams are not, so that those who have one can be borrowed by tasks.
    updates: Mutex<Option<KvUpdates>>,
    attempts: Attempts,
    /// How many attempts in a row have failed.
    failed: usize,
    /// Until when it waits before it tries again, if something failed. Kept here, so that who stops waiting for changes
    /// and asks again does not cut it short.
    pause: Option<Instant>,
    entries: BTreeMap<Key, Entry>,
    /// Up to when everything is known; `None` before the first answer.
    revision: Option<Revision>,
}

impl KeyView {
    pub(crate) fn new(backend: Arc<dyn Backend>, backoff: Backoff, range: Range) -> Self {
        let attempts = backoff.start();
        Self {
            backend,
            range,
            updates: Mutex::default(),
            attempts,
            failed: 0,
            pause: None,
            entries: BTreeMap::new(),
            revision: None,
        }
    }

    /// What is in the range, as far as it was told.
    pub fn entries(&self) -> &BTreeMap<Key, Entry> {
        &self.entries
    }

    /// Up to which revision everything was told.
    pub fn revision(&self) -> Revision {
        self.revision.unwrap_or_default()
    }

    /// Waits for changes, applies them to the entries, and returns them. The first time, it returns what there is, even if
    /// that is nothing. Behind an outage it returns the difference, if there is one: steps in between may be left out.
    ///
    /// # Errors
    ///
    /// What the backend refuses before it ever answered, and [`Closed`](ErrorKind::Closed). Everything else is waited out.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn changed(&mut self) -> Result<Vec<KvChange>> {
        loop {
            let updates = self.updates.get_mut().unwrap_or_else(PoisonError::into_inner);
            let updates = match updates {
                Some(updates) => updates,
                none => {
                    if let Some(pause) = self.pause {
                        time::sleep_until(pause).await;
                    }
                    let kv = self.backend.kv().ok_or_else(|| self.backend.info().lacks("kv"))?;
                    none.insert(unpanicked::open(|| kv.watch(&self.range, self.revision)))
                }
            };
            let error = match unpanicked::next(updates).await {
                Some(Ok(update)) => {
                    let is_first = self.revision.is_none();
                    let changes = self.take(update);
                    if is_first || !changes.is_empty() {
                        return Ok(changes);
                    }
                    continue;
                }
                Some(Err(error)) => error,
                None => Error::new(ErrorKind::Unavailable, "the watch ended without a word"),
            };
            self.updates = Mutex::default();
            let hopeless = match error.kind() {
                ErrorKind::Closed => true,
                // What worked before may work again.
                ErrorKind::Denied | ErrorKind::Invalid | ErrorKind::Unsupported => self.revision.is_none(),
                _ => false,
            };
            if hopeless {
                return Err(error);
            }
            self.failed += 1;
            // One is a mere interruption; a second one is told, and only that, however long it goes on.
            if self.failed == 2 {
                tracing::warn!(range = ?self.range, %error, "cannot watch; trying again, what is known is getting old");
            } else {
                tracing::debug!(range = ?self.range, %error, "watch interrupted; trying again");
            }
            self.pause = Some(Instant::now() + self.attempts.next_delay());
        }
    }

    fn take(&mut self, update: KvUpdate) -> Vec<KvChange> {
        let (revision, changes) = match update {
            KvUpdate::Reset(scan) => (scan.revision, self.difference(scan)),
            KvUpdate::Delta { revision, changes } => (revision, changes),
            KvUpdate::Progress(revision) => (revision, Vec::new()),
        };
        self.revision = Some(revision);
        self.failed = 0;
        for change in &changes {
            match change {
                KvChange::Put(entry) => self.entries.insert(entry.key.clone(), entry.clone()),
                KvChange::Delete(key) => self.entries.remove(key),
            };
        }
        changes
    }

    fn difference(&self, scan: Scan) -> Vec<KvChange> {
        let still: BTreeSet<&Key> = scan.entries.iter().map(|entry| &entry.key).collect();
        let gone = self.entries.keys().filter(|key| !still.contains(key)).cloned().map(KvChange::Delete);
        let mut changes: Vec<_> = gone.collect();
        changes.extend(scan.entries.into_iter().filter_map(|entry| {
            let known = self.entries.get(&entry.key);
            known.is_none_or(|known| known.modified != entry.modified).then_some(KvChange::Put(entry))
        }));
        changes
    }
}

impl fmt::Debug for KeyView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyView({:?} of {})", self.range, self.backend.info())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{Discovery, layer::Fault, mem::Mem};

    #[tokio::test(start_paused = true)]
    async fn who_asks_again_and_again_does_not_cut_a_pause_short() {
        let (first, moment) = (Duration::from_secs(1), Duration::from_millis(10));
        let fault = Fault::new();
        let pace = Backoff::new(first, 10 * first);
        let discovery = Discovery::new(Mem::new()).backoff(pace).layer(fault.clone());
        let mut view = discovery.kv().expect("memory has keys").view(Range::Subtree(Key::root()));
        fault.partition();
        assert!(time::timeout(moment, view.changed()).await.is_err(), "it is out of reach");
        fault.heal();
        let asked = Instant::now();
        while time::timeout(moment, view.changed()).await.is_err() {}
        let pause = asked.elapsed() + moment;
        assert!(pause >= first && pause <= 2 * first, "{pause:?}");
    }
}
