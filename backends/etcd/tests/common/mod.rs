//! What all tests of this backend need: handles on a server, a follower of a range, waiting with a limit.

#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::{collections::BTreeMap, time::Duration};

use discovery::{
    Backend, Error, Leases, Result, Revision,
    kv::{Entry, Key, Kv, KvChange, KvUpdate, KvUpdates, Range},
};
use discovery_etcd::{Etcd, EtcdConfig};
use futures_util::StreamExt;
use tokio::time::{Instant, sleep, timeout};

/// How long a test waits for what must happen, also on a busy machine.
pub(crate) const SOON: Duration = Duration::from_secs(30);

/// A backend at `authority`: what a locator has between `etcd://` and the namespace `/cn`.
pub(crate) fn etcd(authority: &str) -> Etcd {
    etcd_at(&format!("{authority}/cn"))
}

/// A backend at what a locator has behind `etcd://`.
pub(crate) fn etcd_at(locator: &str) -> Etcd {
    Etcd::new(EtcdConfig::from_locator(&format!("etcd://{locator}").parse().unwrap()).unwrap())
}

pub(crate) fn kv(etcd: &Etcd) -> &dyn Kv {
    etcd.kv().unwrap()
}

pub(crate) fn leases(etcd: &Etcd) -> &dyn Leases {
    etcd.leases().unwrap()
}

pub(crate) fn key(text: &str) -> Key {
    text.parse().unwrap()
}

pub(crate) fn everything() -> Range {
    Range::Subtree(Key::root())
}

/// The keys and values of a range, as text.
pub(crate) async fn listed(etcd: &Etcd, range: &Range) -> Vec<String> {
    let entries = kv(etcd).scan(range).await.unwrap().entries;
    entries.iter().map(|entry| format!("{}={}", entry.key.as_str(), entry.value.escape_ascii())).collect()
}

/// A stranger: a client that knows nothing of this crate.
pub(crate) async fn stranger(authority: &str) -> etcd_client::Client {
    etcd_client::Client::connect([authority], None).await.unwrap()
}

/// Waits until a condition holds.
pub(crate) async fn eventually(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let end = Instant::now() + SOON;
    while !condition().await {
        assert!(Instant::now() < end, "not within {SOON:?}: {what}");
        sleep(Duration::from_millis(10)).await;
    }
}

/// Waits for something that must happen.
pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    timeout(SOON, future).await.unwrap_or_else(|_| panic!("not within {SOON:?}: {what}"))
}

/// A watch and what it has told so far.
pub(crate) struct Follower {
    updates: KvUpdates,
    pub(crate) entries: BTreeMap<Key, Entry>,
    pub(crate) revision: Revision,
    /// Every change behind the first reset, in order.
    pub(crate) changes: Vec<KvChange>,
    /// How often it began with the whole range.
    pub(crate) resets: usize,
}

impl Follower {
    /// Follows a range; returns behind the first reset.
    pub(crate) async fn start(etcd: &Etcd, range: &Range) -> Result<Self> {
        let mut follower = Self {
            updates: kv(etcd).watch(range, None),
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
    pub(crate) async fn resume(&mut self, etcd: &Etcd, range: &Range) -> Result<KvUpdate> {
        self.updates = kv(etcd).watch(range, Some(self.revision));
        self.next().await
    }

    /// Takes the next update, and checks that revisions do not decrease unless all begins anew.
    pub(crate) async fn next(&mut self) -> Result<KvUpdate> {
        let update = soon("an update", self.updates.next()).await.expect("an error before the end")?;
        let revision = match &update {
            KvUpdate::Reset(scan) => {
                let entries = scan.entries.iter().cloned();
                self.entries = entries.map(|entry| (entry.key.clone(), entry)).collect();
                self.resets += 1;
                self.revision = scan.revision;
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
        Ok(update)
    }

    /// Takes updates until something is as wanted.
    pub(crate) async fn until(&mut self, what: &str, mut wanted: impl FnMut(&Self) -> bool) {
        let end = Instant::now() + SOON;
        while !wanted(self) {
            assert!(Instant::now() < end, "not within {SOON:?}: {what}; there is {:?}", self.entries);
            if let Err(error) = self.next().await {
                panic!("{what}: {error:?}");
            }
        }
    }

    /// Takes updates until the stream fails, and checks that this is its end.
    pub(crate) async fn failure(&mut self) -> Error {
        loop {
            if let Err(error) = self.next().await {
                assert!(soon("the end", self.updates.next()).await.is_none(), "an item behind the error");
                return error;
            }
        }
    }

    pub(crate) fn value(&self, text: &str) -> Option<&[u8]> {
        self.entries.get(&key(text)).map(|entry| &entry.value[..])
    }

    /// Whether a key was ever reported as gone.
    pub(crate) fn saw_removal(&self, text: &str) -> bool {
        self.changes.iter().any(|change| matches!(change, KvChange::Delete(gone) if *gone == key(text)))
    }
}
