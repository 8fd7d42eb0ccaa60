//! What all tests of this backend need: handles on a server, a follower of a range, waiting with a limit.

#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::{collections::BTreeMap, time::Duration};

use discovery::{
    Backend, Error, Leases, Result, Revision,
    kv::{Entry, Key, Kv, KvChange, KvUpdate, KvUpdates, Range},
};
use discovery_zk::{Zk, ZkConfig};
use futures_util::StreamExt;
use tokio::time::{Instant, sleep, timeout};
use zookeeper_client as raw;

/// How long a test waits for what must happen, also on a busy machine.
pub(crate) const SOON: Duration = Duration::from_secs(30);

/// A backend at `authority`: what a locator has between `zk://` and the chroot `/cn`.
pub(crate) fn zk(authority: &str) -> Zk {
    zk_at(&format!("{authority}/cn"))
}

/// A backend at what a locator has behind `zk://`.
pub(crate) fn zk_at(locator: &str) -> Zk {
    Zk::new(ZkConfig::from_locator(&format!("zk://{locator}").parse().unwrap()).unwrap())
}

pub(crate) fn kv(zk: &Zk) -> &dyn Kv {
    zk.kv().unwrap()
}

pub(crate) fn leases(zk: &Zk) -> &dyn Leases {
    zk.leases().unwrap()
}

pub(crate) fn key(text: &str) -> Key {
    text.parse().unwrap()
}

pub(crate) fn everything() -> Range {
    Range::Subtree(Key::root())
}

/// The keys and values of a range, as text.
pub(crate) async fn listed(zk: &Zk, range: &Range) -> Vec<String> {
    let entries = kv(zk).scan(range).await.unwrap().entries;
    entries.iter().map(|entry| format!("{}={}", entry.key.as_str(), entry.value.escape_ascii())).collect()
}

/// A stranger: a client that knows nothing of this crate.
pub(crate) async fn stranger(authority: &str) -> raw::Client {
    raw::Client::connect(authority).await.unwrap()
}

/// Has a stranger write a node, with the nodes above it.
pub(crate) async fn plant(stranger: &raw::Client, path: &str, data: &[u8]) {
    let options = raw::CreateMode::Persistent.with_acls(raw::Acls::anyone_all());
    if let Some((parent, _)) = path.rsplit_once('/').filter(|(parent, _)| !parent.is_empty()) {
        stranger.mkdir(parent, &options).await.unwrap();
    }
    stranger.create(path, data, &options).await.unwrap();
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
}

impl Follower {
    /// Follows a range; returns behind the first reset.
    pub(crate) async fn start(zk: &Zk, range: &Range) -> Result<Self> {
        let updates = kv(zk).watch(range, None);
        let mut follower =
            Self { updates, entries: BTreeMap::new(), revision: Revision(0), changes: Vec::new() };
        match follower.next().await? {
            KvUpdate::Reset(_) => Ok(follower),
            other => panic!("{other:?} before a reset"),
        }
    }

    /// Takes the next update, and checks that revisions do not decrease.
    pub(crate) async fn next(&mut self) -> Result<KvUpdate> {
        let update = soon("an update", self.updates.next()).await.expect("an error before the end")?;
        let revision = match &update {
            KvUpdate::Reset(scan) => {
                let entries = scan.entries.iter().cloned();
                self.entries = entries.map(|entry| (entry.key.clone(), entry)).collect();
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
