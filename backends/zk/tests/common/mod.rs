//! What all tests of this backend need: a server, a proxy in front of it, and handles.

#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::{sync::Arc, time::Duration};

use discovery::{
    Backend, ErrorKind, LeaseId, Leases, Locator, Result, Revision,
    kv::{Entry, Key, Kv, KvChange, KvUpdate, KvUpdates, Range},
};
use discovery_testbed::{Proxy, ZooKeeper};
use discovery_zk::{Zk, ZkConfig};
use futures_util::StreamExt;

/// How long a test waits for what must happen, on a loaded machine.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// A session timeout that tests can wait for.
pub(crate) const SHORT: Duration = Duration::from_millis(1500);

/// A backend at `authority`, as a locator has it between `zk://` and the chroot.
pub(crate) fn zk(authority: &str) -> Zk {
    zk_with(authority, "session_timeout=1500ms&call_timeout=5s")
}

/// A backend with options of its own.
pub(crate) fn zk_with(authority: &str, options: &str) -> Zk {
    let locator: Locator = format!("zk://{authority}/cn?{options}").parse().unwrap();
    Zk::new(ZkConfig::from_locator(&locator).unwrap())
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

/// Waits until a condition holds.
pub(crate) async fn eventually(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let end = tokio::time::Instant::now() + SOON;
    while !condition().await {
        assert!(tokio::time::Instant::now() < end, "not within {SOON:?}: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Waits for something that must happen soon.
pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(SOON, future).await.unwrap_or_else(|_| panic!("not within {SOON:?}: {what}"))
}

/// A watch, and the entries that it has told of.
pub(crate) struct Follower {
    updates: KvUpdates,
    pub(crate) entries: std::collections::BTreeMap<Key, Entry>,
    pub(crate) revision: Revision,
    /// Every change since the last look, in order.
    pub(crate) changes: Vec<KvChange>,
}

impl Follower {
    /// Follows a range, from its first reset on.
    pub(crate) async fn start(zk: &Zk, range: Range) -> Result<Self> {
        let mut follower = Self {
            updates: kv(zk).watch(&range, None),
            entries: Default::default(),
            revision: Revision(0),
            changes: Vec::new(),
        };
        follower.next().await?;
        Ok(follower)
    }

    /// Takes the next update; checks that revisions do not decrease.
    pub(crate) async fn next(&mut self) -> Result<()> {
        let update = soon("an update", self.updates.next()).await.expect("an error before the end")?;
        let revision = match update {
            KvUpdate::Reset(scan) => {
                self.entries = scan.entries.into_iter().map(|entry| (entry.key.clone(), entry)).collect();
                scan.revision
            }
            KvUpdate::Delta { revision, changes } => {
                for change in &changes {
                    match change {
                        KvChange::Put(entry) => self.entries.insert(entry.key.clone(), entry.clone()),
                        KvChange::Delete(key) => self.entries.remove(key),
                    };
                }
                self.changes.extend(changes);
                revision
            }
            KvUpdate::Progress(revision) => revision,
        };
        assert!(revision >= self.revision, "{revision:?} after {:?}", self.revision);
        self.revision = revision;
        Ok(())
    }

    /// Takes updates until the entries are as wanted.
    pub(crate) async fn until(&mut self, what: &str, mut wanted: impl FnMut(&Self) -> bool) {
        let end = tokio::time::Instant::now() + SOON;
        while !wanted(self) {
            assert!(tokio::time::Instant::now() < end, "not within {SOON:?}: {what}; has {:?}", self.entries);
            self.next().await.unwrap_or_else(|error| panic!("{what}: {error:?}"));
        }
    }

    /// Takes updates until the stream fails; checks that it ends with that.
    pub(crate) async fn failure(&mut self) -> discovery::Error {
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
}
