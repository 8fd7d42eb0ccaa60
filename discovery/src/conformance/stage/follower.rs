//! What the watch of a range told, step by step.

use std::{collections::BTreeMap, fmt};

use futures_util::StreamExt;
use tokio::time::Instant;

use super::wait::{PATIENCE, soon};
use crate::{
    Backend, Error, Result, Revision,
    kv::{Entry, Key, Kv, KvChange, KvUpdate, KvUpdates, Range},
};

/// Follows a range of a key-value store at the pace of a test, and remembers what it was told.
///
/// All of it panics when something takes longer than [`PATIENCE`], when revisions decrease within a watch, or when a
/// watch ends without an error.
///
/// # Example: each change once
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> discovery::Result<()> {
/// use discovery::{
///     Backend,
///     conformance::stage::Follower,
///     kv::{Key, Kv, Range, Txn},
///     mem::Mem,
/// };
///
/// let mem = Mem::new();
/// let mut follower = Follower::start(&mem, &Range::Subtree(Key::root())).await?;
/// let key = "a".parse()?;
/// mem.kv().unwrap().commit(Txn::new().put(&key, "1")).await?;
/// follower.until("it is seen", |it| it.value("a") == Some(b"1")).await;
/// assert_eq!((follower.changes.len(), follower.resets), (1, 1));
/// # Ok(()) }
/// ```
pub struct Follower {
    updates: KvUpdates,
    /// What there is, as far as it was told.
    pub entries: BTreeMap<Key, Entry>,
    /// How far it was told.
    pub revision: Revision,
    /// Every change behind the first reset, in order.
    pub changes: Vec<KvChange>,
    /// How often it began with the whole range.
    pub resets: usize,
}

impl Follower {
    /// Follows a range; returns behind the first reset.
    ///
    /// # Errors
    ///
    /// The error that the watch ends with before that.
    ///
    /// # Panics
    ///
    /// If the backend has no key-value store, or its watch begins with something else.
    pub async fn start(backend: &dyn Backend, range: &Range) -> Result<Self> {
        let mut follower = Self {
            updates: kv(backend).watch(range, None),
            entries: BTreeMap::new(),
            revision: Revision(0),
            changes: Vec::new(),
            resets: 0,
        };
        match follower.next().await? {
            KvUpdate::Reset(_) => Ok(follower),
            other => panic!("{other:?} before a reset"),
        }
    }

    /// Goes on behind what is known, with another watch; returns behind the first update.
    ///
    /// # Errors
    ///
    /// The error that the watch ends with before that.
    pub async fn resume(&mut self, backend: &dyn Backend, range: &Range) -> Result<KvUpdate> {
        self.updates = kv(backend).watch(range, Some(self.revision));
        let update = self.receive().await?;
        if let KvUpdate::Reset(_) = update {
            // It may be another history, in which numbers begin anew.
            self.revision = Revision(0);
        }
        self.take(&update);
        Ok(update)
    }

    /// Takes the next update in.
    ///
    /// # Errors
    ///
    /// The error that the watch ends with.
    pub async fn next(&mut self) -> Result<KvUpdate> {
        let update = self.receive().await?;
        self.take(&update);
        Ok(update)
    }

    /// Takes updates in until something is as wanted.
    ///
    /// # Panics
    ///
    /// If the watch fails before.
    pub async fn until(&mut self, what: &str, mut wanted: impl FnMut(&Self) -> bool) {
        let end = Instant::now() + PATIENCE;
        while !wanted(self) {
            assert!(Instant::now() < end, "not within {PATIENCE:?}: {what}; there is {:?}", self.entries);
            if let Err(error) = self.next().await {
                panic!("{what}: {error:?}");
            }
        }
    }

    /// Takes updates in until the watch fails.
    ///
    /// # Panics
    ///
    /// If something comes behind the error.
    pub async fn failure(&mut self) -> Error {
        loop {
            if let Err(error) = self.next().await {
                assert!(soon("the end", self.updates.next()).await.is_none(), "an item behind the error");
                return error;
            }
        }
    }

    /// The value of a key, by its text.
    pub fn value(&self, key: &str) -> Option<&[u8]> {
        self.entries.iter().find(|(known, _)| known.as_str() == key).map(|(_, entry)| &entry.value[..])
    }

    /// Whether a key was ever told to be gone.
    pub fn saw_removal(&self, key: &str) -> bool {
        self.changes.iter().any(|change| matches!(change, KvChange::Delete(gone) if gone.as_str() == key))
    }

    async fn receive(&mut self) -> Result<KvUpdate> {
        soon("an update", self.updates.next()).await.expect("an error before the end")
    }

    fn take(&mut self, update: &KvUpdate) {
        let revision = match update {
            KvUpdate::Reset(scan) => {
                self.entries = scan.entries.iter().map(|entry| (entry.key.clone(), entry.clone())).collect();
                self.resets += 1;
                scan.revision
            }
            KvUpdate::Delta { revision, changes } => {
                for change in changes {
                    match change {
                        KvChange::Put(entry) => self.entries.insert(entry.key.clone(), entry.clone()),
                        KvChange::Delete(key) => self.entries.remove(key),
                    };
                }
                self.changes.extend_from_slice(changes);
                *revision
            }
            KvUpdate::Progress(revision) => *revision,
        };
        assert!(revision >= self.revision, "{revision:?} behind {:?}", self.revision);
        self.revision = revision;
    }
}

impl fmt::Debug for Follower {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Follower")
            .field("revision", &self.revision)
            .field("entries", &self.entries)
            .finish_non_exhaustive()
    }
}

fn kv(backend: &dyn Backend) -> &dyn Kv {
    backend.kv().expect("a backend with a key-value store")
}

#[cfg(test)]
mod tests {
    use futures_util::stream;

    use super::*;
    use crate::{ErrorKind, kv::Scan};

    fn following(updates: Vec<Result<KvUpdate>>) -> Follower {
        let updates = stream::iter(updates).boxed();
        let (entries, changes) = (BTreeMap::new(), Vec::new());
        Follower { updates, entries, revision: Revision(0), changes, resets: 0 }
    }

    fn reset(revision: u64) -> KvUpdate {
        KvUpdate::Reset(Scan { revision: Revision(revision), entries: Vec::new() })
    }

    #[tokio::test]
    #[should_panic(expected = "behind")]
    async fn revisions_that_decrease_are_caught() {
        let mut follower = following(vec![Ok(reset(2)), Ok(reset(1))]);
        follower.next().await.unwrap();
        let _ = follower.next().await;
    }

    #[tokio::test]
    #[should_panic(expected = "an error before the end")]
    async fn an_end_without_an_error_is_caught() {
        let _ = following(Vec::new()).next().await;
    }

    #[tokio::test]
    #[should_panic(expected = "an item behind the error")]
    async fn an_item_behind_the_error_is_caught() {
        following(vec![Err(Error::new(ErrorKind::Closed, "over")), Ok(reset(1))]).failure().await;
    }
}
