//! Entries, leases and transactions, under one lock that is never held across an `await`.

use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
    ops::Bound,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use tokio::{sync::Notify, time::Instant};

use super::{bells::Bells, history::History};
use crate::{
    Error, ErrorKind, Grant, LeaseId, Leases, Result, Revision,
    backoff::sleep_until,
    kv::{Entry, Guard, Key, Kv, KvChange, KvUpdate, KvUpdates, Op, Range, Scan, Txn},
};

/// A handle on the store; clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    state: Arc<Mutex<State>>,
    max_value: usize,
}

#[derive(Debug)]
struct State {
    revision: Revision,
    entries: BTreeMap<Key, Entry>,
    history: History,
    bells: Bells,
    leases: BTreeMap<LeaseId, Lease>,
    last_lease: u64,
}

#[derive(Debug)]
struct Lease {
    ttl: Duration,
    deadline: Instant,
    keys: BTreeSet<Key>,
}

impl Store {
    pub(super) fn new(history: usize, max_value: usize) -> Self {
        let state = State {
            revision: Revision(0),
            entries: BTreeMap::new(),
            history: History::new(history),
            bells: Bells::default(),
            leases: BTreeMap::new(),
            last_lease: 0,
        };
        Self { state: Arc::new(Mutex::new(state)), max_value }
    }

    pub(super) fn expire(&self, lease: LeaseId) {
        self.state().end(lease);
    }

    pub(super) fn expire_all(&self) {
        let mut state = self.state();
        let all: Vec<_> = state.leases.keys().copied().collect();
        for lease in all {
            state.end(lease);
        }
    }

    pub(super) fn compact(&self) {
        let mut state = self.state();
        let now = state.revision;
        state.history.compact(now);
    }

    pub(super) fn plant(&self, key: Key, value: Bytes) {
        let mut state = self.state();
        state.revision.0 += 1;
        state.put(key, value, None);
    }

    pub(super) fn open_watches(&self) -> usize {
        self.state().bells.len()
    }

    /// The state as of now: leases that are due are ended first.
    fn state(&self) -> MutexGuard<'_, State> {
        // No step leaves the state half-changed, so a panic elsewhere under the lock does no harm.
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.end_due(Instant::now());
        state
    }
}

#[async_trait]
impl Kv for Store {
    async fn get(&self, key: &Key) -> Result<Option<Entry>> {
        Ok(self.state().entries.get(key).cloned())
    }

    async fn scan(&self, range: &Range) -> Result<Scan> {
        Ok(self.state().scan(range))
    }

    async fn commit(&self, txn: Txn) -> Result<Revision> {
        txn.check(self.max_value)?;
        self.state().commit(txn)
    }

    fn watch(&self, range: &Range, after: Option<Revision>) -> KvUpdates {
        let (number, bell) = self.state().bells.hang(range);
        let watcher =
            Watcher { store: self.clone(), range: range.clone(), number, bell, after, greeted: false };
        stream::unfold(watcher, |mut watcher| async { Some((Ok(watcher.next().await), watcher)) }).boxed()
    }
}

#[async_trait]
impl Leases for Store {
    async fn grant(&self, ttl: Duration) -> Result<Grant> {
        if ttl.is_zero() {
            return Err(Error::invalid("a lease of no time ends before it begins; give a ttl"));
        }
        let mut state = self.state();
        state.last_lease += 1;
        let id = LeaseId(state.last_lease);
        state.leases.insert(id, Lease { ttl, deadline: Instant::now() + ttl, keys: BTreeSet::new() });
        Ok(Grant { id, ttl })
    }

    async fn renew(&self, id: LeaseId) -> Result<Duration> {
        let mut state = self.state();
        let lease = state.leases.get_mut(&id).ok_or_else(|| lost(id))?;
        lease.deadline = Instant::now() + lease.ttl;
        Ok(lease.ttl)
    }

    async fn revoke(&self, id: LeaseId) -> Result<()> {
        self.state().end(id);
        Ok(())
    }
}

impl State {
    fn scan(&self, range: &Range) -> Scan {
        if let Range::Key(only) = range {
            let entries = self.entries.get(only).cloned().into_iter().collect();
            return Scan { revision: self.revision, entries };
        }
        let top = range.top();
        let below = if top.is_root() { Bound::Unbounded } else { Bound::Excluded(top) };
        // Keys below `a` start with `a/`; between them and `a` there may be others, such as `a-b`.
        let entries = self
            .entries
            .range((below, Bound::Unbounded))
            .take_while(|(key, _)| key.as_str().starts_with(top.as_str()))
            .filter(|(key, _)| range.contains(key))
            .map(|(_, entry)| entry.clone())
            .collect();
        Scan { revision: self.revision, entries }
    }

    fn commit(&mut self, txn: Txn) -> Result<Revision> {
        for guard in txn.guards() {
            let found = self.entries.get(guard.key());
            let holds = match guard {
                Guard::Absent(_) => found.is_none(),
                Guard::Unmodified(_, revision) => found.is_some_and(|entry| entry.modified == *revision),
                Guard::Alive(_, revision) => found.is_some_and(|entry| entry.created == *revision),
            };
            if !holds {
                return Err(Error::new(ErrorKind::Conflict, format!("{} is not as expected", guard.key())));
            }
        }
        for op in txn.ops() {
            if let Op::Put { lease: Some(lease), .. } = op
                && !self.leases.contains_key(lease)
            {
                return Err(lost(*lease));
            }
        }
        self.revision.0 += 1;
        for op in txn.into_ops() {
            match op {
                Op::Put { key, value, lease } => self.put(key, value, lease),
                Op::Delete(key) => self.delete(&key),
            }
        }
        Ok(self.revision)
    }

    fn put(&mut self, key: Key, value: Bytes, lease: Option<LeaseId>) {
        let old = self.entries.get(&key);
        let created = old.map_or(self.revision, |entry| entry.created);
        self.unbind(old.and_then(|entry| entry.lease), &key);
        if let Some(lease) = lease.and_then(|lease| self.leases.get_mut(&lease)) {
            lease.keys.insert(key.clone());
        }
        let entry = Entry { key: key.clone(), value, created, modified: self.revision, lease };
        self.bells.ring(&key, self.revision);
        self.history.push(self.revision, KvChange::Put(entry.clone()));
        self.entries.insert(key, entry);
    }

    fn delete(&mut self, key: &Key) {
        if let Some(entry) = self.entries.remove(key) {
            self.unbind(entry.lease, key);
            self.bells.ring(key, self.revision);
            self.history.push(self.revision, KvChange::Delete(entry.key));
        }
    }

    fn unbind(&mut self, lease: Option<LeaseId>, key: &Key) {
        if let Some(lease) = lease.and_then(|lease| self.leases.get_mut(&lease)) {
            lease.keys.remove(key);
        }
    }

    /// Ends a lease, and all that is bound to it in one revision.
    fn end(&mut self, lease: LeaseId) {
        if let Some(lease) = self.leases.remove(&lease) {
            self.revision.0 += 1;
            lease.keys.iter().for_each(|key| self.delete(key));
        }
    }

    fn end_due(&mut self, now: Instant) {
        let due: Vec<_> =
            self.leases.iter().filter(|(_, lease)| lease.deadline <= now).map(|(id, _)| *id).collect();
        for lease in &due {
            self.end(*lease);
        }
    }

    /// When something in the range may end by itself. Leases that do not matter may be among those that count.
    fn next_due(&self, range: &Range) -> Option<Instant> {
        if let Range::Key(only) = range {
            let lease = self.entries.get(only)?.lease?;
            return self.leases.get(&lease).map(|lease| lease.deadline);
        }
        self.leases.values().map(|lease| lease.deadline).min()
    }

    /// What a watch that has seen everything up to `cursor` must hear next.
    fn news(&self, range: &Range, cursor: Option<Revision>) -> Option<KvUpdate> {
        let known = cursor.filter(|cursor| *cursor <= self.revision);
        match known.and_then(|cursor| self.history.since(cursor, range)) {
            None => Some(KvUpdate::Reset(self.scan(range))),
            Some(changes) if changes.is_empty() => None,
            Some(changes) => Some(KvUpdate::Delta { revision: self.revision, changes }),
        }
    }
}

/// One watch: reads the history at its own pace, so a slow one costs the store nothing.
struct Watcher {
    store: Store,
    range: Range,
    /// Of its bell.
    number: u64,
    bell: Arc<Notify>,
    /// What its reader knew before.
    after: Option<Revision>,
    /// Whether it has said anything yet: one that continues must say so at once.
    greeted: bool,
}

impl Watcher {
    async fn next(&mut self) -> KvUpdate {
        loop {
            let due = {
                let mut state = self.store.state();
                let first = state.bells.answer(&self.range, self.number);
                let news = if mem::replace(&mut self.greeted, true) {
                    first.and_then(|first| state.news(&self.range, Some(Revision(first.0 - 1))))
                } else {
                    state.news(&self.range, self.after).or(Some(KvUpdate::Progress(state.revision)))
                };
                if let Some(news) = news {
                    return news;
                }
                state.next_due(&self.range)
            };
            tokio::select! {
                () = self.bell.notified() => {}
                () = sleep_until(due) => {}
            }
        }
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.store.state().bells.take_down(&self.range, self.number);
    }
}

fn lost(lease: LeaseId) -> Error {
    Error::new(ErrorKind::LeaseLost, format!("lease {lease} is gone; grant a new one"))
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_watch_does_not_start_over_because_others_have_filled_the_history() {
        let store = Store::new(4, 1024);
        let (ours, theirs): (Key, Key) = ("ours".parse().unwrap(), "theirs".parse().unwrap());
        let mut watch = store.watch(&Range::Key(ours.clone()), None);
        assert!(matches!(watch.next().await, Some(Ok(KvUpdate::Reset(_)))));
        for n in 0..100 {
            store.commit(Txn::new().put(&theirs, n.to_string())).await.unwrap();
            assert!(watch.next().now_or_never().is_none());
        }
        store.compact();
        let lease = store.grant(Duration::from_secs(1)).await.unwrap().id;
        let txn = Txn::new().op(Op::Put { key: ours.clone(), value: "1".into(), lease: Some(lease) });
        let revision = store.commit(txn).await.unwrap();
        let Some(Ok(KvUpdate::Delta { revision: told, changes })) = watch.next().await else {
            panic!("a change")
        };
        assert!(told == revision && matches!(&changes[..], [KvChange::Put(entry)] if entry.key == ours));
        // Nobody touches the store, and it ends all the same.
        let Some(Ok(KvUpdate::Delta { changes, .. })) = watch.next().await else { panic!("the end") };
        assert_eq!(changes, [KvChange::Delete(ours)]);
    }
}
