//! Watches of all kinds, read step by step.

use std::{
    collections::BTreeMap,
    fmt::{self, Display},
    time::Duration,
};

use futures_util::{StreamExt, stream::BoxStream};
use tokio::time;

use super::context::{Client, instance, key, shows, within};
use crate::{
    Change, Error, Event, Instance, InstanceId, Result, Revision, Snapshot, Update,
    kv::{Entry, Key, KvChange, KvUpdate, Txn},
};

/// What a watch says, whoever's watch it is: a backend's, a key-value store's, or the library's own.
pub(super) trait Item: fmt::Debug {
    /// What the items add up to.
    type Known: Default + Clone + fmt::Debug;
    type Change;

    /// Takes the item in, and returns what it changed; what comes again, as it may, changes nothing.
    fn apply(&self, known: &mut Self::Known) -> Vec<Self::Change>;

    /// Where in history it stands, if it says.
    fn revision(&self) -> Option<Revision>;
}

/// A watch, and what is known by it. Holds the watch to its obligations on the way: no error, no end, no revision
/// that decreases, nothing that takes too long.
pub(super) struct Feed<I: Item> {
    items: BoxStream<'static, Result<I>>,
    patience: Duration,
    known: I::Known,
    revision: Revision,
}

impl<I: Item> Feed<I> {
    pub(super) fn new(items: BoxStream<'static, Result<I>>, patience: Duration) -> Self {
        Self { items, patience, known: I::Known::default(), revision: Revision(0) }
    }

    /// Takes up what an earlier watch knew, so that a resumed one goes on from there.
    pub(super) fn knowing(mut self, earlier: &Self) -> Self {
        self.known = earlier.known.clone();
        self.revision = earlier.revision;
        self
    }

    pub(super) fn known(&self) -> &I::Known {
        &self.known
    }

    pub(super) fn revision(&self) -> Revision {
        self.revision
    }

    /// The next item, and what it changed.
    pub(super) async fn step(&mut self) -> (I, Vec<I::Change>) {
        within(self.patience, "the next item of a watch", self.take()).await
    }

    async fn take(&mut self) -> (I, Vec<I::Change>) {
        let item = self.items.next().await.expect("a watch does not end").expect("a watch does not fail");
        if let Some(revision) = item.revision() {
            assert!(revision >= self.revision, "revision {revision} came after {}", self.revision);
            self.revision = revision;
        }
        let changes = item.apply(&mut self.known);
        (item, changes)
    }

    /// Reads until what is known satisfies `condition`; returns every change on the way.
    pub(super) async fn until(
        &mut self,
        what: impl Display,
        mut condition: impl FnMut(&I::Known) -> bool,
    ) -> Vec<I::Change> {
        let patience = self.patience;
        let read = async {
            let mut seen = Vec::new();
            while !condition(&self.known) {
                seen.extend(self.take().await.1);
            }
            seen
        };
        let read = time::timeout(patience, read).await;
        read.unwrap_or_else(|_| {
            panic!("waited {patience:?} in vain for {what}; known is {}", brief(&self.known))
        })
    }

    /// Reads until an item satisfies `condition`; returns every item on the way, that one included.
    pub(super) async fn until_item(
        &mut self,
        what: impl Display,
        mut condition: impl FnMut(&I) -> bool,
    ) -> Vec<I> {
        let patience = self.patience;
        let read = async {
            let mut seen = Vec::new();
            loop {
                let item = self.take().await.0;
                let met = condition(&item);
                seen.push(item);
                if met {
                    return seen;
                }
            }
        };
        within(patience, what, read).await
    }

    /// Reads to the end, which must come by way of one error.
    pub(super) async fn end(mut self) -> Error {
        let read = async {
            loop {
                match self.items.next().await {
                    Some(Ok(_)) => {}
                    Some(Err(error)) => break error,
                    None => panic!("a watch must not end without saying why"),
                }
            }
        };
        let error = within(self.patience, "the watch to fail", read).await;
        let after = within(self.patience, "the watch to end behind its error", self.items.next()).await;
        assert!(after.is_none(), "nothing comes behind the error of a watch, but this did: {after:?}");
        error
    }
}

impl<I: Item<Known = Snapshot, Change = Change>> Feed<I> {
    /// Reads until it shows exactly this instance; returns every change on the way.
    pub(super) async fn until_shows(&mut self, instance: &Instance) -> Vec<Change> {
        let what = format!("{} as it was last written", instance.key());
        self.until(what, |known| shows(known, instance)).await
    }

    /// Reads until the instance is gone; returns every change on the way.
    pub(super) async fn until_gone(&mut self, instance: &Instance) -> Vec<Change> {
        let what = format!("the removal of {}", instance.key());
        self.until(what, |known| known.get(instance.key()).is_none()).await
    }

    /// Reads until it shows this many instances; returns every change on the way.
    pub(super) async fn until_len(&mut self, len: usize) -> Vec<Change> {
        self.until(format!("{len} instances"), |known| known.len() == len).await
    }

    /// All changes up to now: writes a sentinel into `service`, reads until it comes, and removes it again.
    pub(super) async fn fence(&mut self, writer: &Client, service: &str) -> Vec<Change> {
        let sentinel = instance(service, &InstanceId::random().to_string(), 1);
        writer.put(&sentinel).await;
        let mut seen = self.until_shows(&sentinel).await;
        writer.remove(&sentinel).await;
        seen.extend(self.until_gone(&sentinel).await);
        seen.retain(|change| change.key() != sentinel.key());
        seen
    }
}

impl Feed<KvUpdate> {
    /// All changes up to now: writes a sentinel, and reads until it comes.
    pub(super) async fn fence(&mut self, writer: &Client, sentinel: &str) -> Vec<KvChange> {
        let sentinel = key(sentinel);
        writer.commit(Txn::new().put(&sentinel, "fence")).await;
        let mut seen = self.until("a sentinel", |known| known.contains_key(&sentinel)).await;
        seen.retain(|change| *change.key() != sentinel);
        seen
    }
}

impl Item for Update {
    type Known = Snapshot;
    type Change = Change;

    fn apply(&self, known: &mut Snapshot) -> Vec<Change> {
        match self {
            Self::Reset(newer) => known.advance(newer),
            Self::Delta { revision, changes } => news(known, *revision, changes),
            Self::Progress(_) => Vec::new(),
        }
    }

    fn revision(&self) -> Option<Revision> {
        Some(match self {
            Self::Reset(snapshot) => snapshot.revision(),
            Self::Delta { revision, .. } | Self::Progress(revision) => *revision,
        })
    }
}

impl Item for Event {
    type Known = Snapshot;
    type Change = Change;

    fn apply(&self, known: &mut Snapshot) -> Vec<Change> {
        match self {
            Self::Delta { revision, changes } => news(known, *revision, changes),
            _ => known.take(self),
        }
    }

    /// None: an outage may lead to another server with a history of its own.
    fn revision(&self) -> Option<Revision> {
        None
    }
}

impl Item for KvUpdate {
    type Known = BTreeMap<Key, Entry>;
    type Change = KvChange;

    fn apply(&self, known: &mut BTreeMap<Key, Entry>) -> Vec<KvChange> {
        match self {
            Self::Reset(scan) => {
                let newer: BTreeMap<_, _> =
                    scan.entries.iter().map(|entry| (entry.key.clone(), entry.clone())).collect();
                let gone = known.keys().filter(|key| !newer.contains_key(key));
                let gone: Vec<_> = gone.cloned().map(KvChange::Delete).collect();
                let there = newer.values().filter(|entry| known.get(&entry.key) != Some(entry));
                let changes = there.cloned().map(KvChange::Put).chain(gone).collect();
                *known = newer;
                changes
            }
            Self::Delta { changes, .. } => {
                let is_news = |change: &&KvChange| match change {
                    KvChange::Put(entry) => {
                        known.insert(entry.key.clone(), entry.clone()).as_ref() != Some(entry)
                    }
                    KvChange::Delete(key) => known.remove(key).is_some(),
                };
                changes.iter().filter(is_news).cloned().collect()
            }
            Self::Progress(_) => Vec::new(),
        }
    }

    fn revision(&self) -> Option<Revision> {
        Some(match self {
            Self::Reset(scan) => scan.revision,
            Self::Delta { revision, .. } | Self::Progress(revision) => *revision,
        })
    }
}

/// Takes changes in one by one, and returns those that make a difference.
fn news(known: &mut Snapshot, revision: Revision, changes: &[Change]) -> Vec<Change> {
    let is_news = |change: &&Change| {
        let before = known.get(change.key()).cloned();
        known.apply(revision, std::slice::from_ref(*change));
        before.as_ref() != known.get(change.key())
    };
    changes.iter().filter(is_news).cloned().collect()
}

/// The beginning of what would be too long to read.
fn brief(known: &impl fmt::Debug) -> String {
    let mut text = format!("{known:?}");
    if let Some((end, _)) = text.char_indices().nth(1000) {
        text.truncate(end);
        text.push_str(" ...");
    }
    text
}
