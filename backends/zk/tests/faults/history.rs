//! What one client was told, checked as it comes.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use discovery::{Change, Event, Instance, InstanceKey, Revision, Snapshot, Watch};
use futures_util::StreamExt;
use tokio::task::AbortHandle;

use crate::stage::version;

/// Follows a watch for as long as it lives.
pub(crate) struct History {
    log: Arc<Mutex<Log>>,
    task: AbortHandle,
}

impl History {
    pub(crate) fn record(mut watch: Watch) -> Self {
        let log = Arc::<Mutex<Log>>::default();
        let writer = log.clone();
        let task = tokio::spawn(async move {
            while let Some(event) = watch.next().await {
                lock(&writer).take(event);
            }
            lock(&writer).violation("the watch has ended");
        });
        Self { log, task: task.abort_handle() }
    }

    /// What the events add up to.
    pub(crate) fn snapshot(&self) -> Snapshot {
        lock(&self.log).known.clone()
    }

    /// The outages that were told of and are over.
    pub(crate) fn outages(&self) -> usize {
        let log = lock(&self.log);
        log.outages - usize::from(log.is_stale)
    }

    pub(crate) fn is_stale(&self) -> bool {
        lock(&self.log).is_stale
    }

    /// Every departure so far, in order; to be replaced by another incarnation is to depart as well.
    pub(crate) fn departures(&self) -> Vec<InstanceKey> {
        lock(&self.log).departures.clone()
    }

    /// The rules that no history may break, whatever happened.
    #[track_caller]
    pub(crate) fn assert_sound(&self) {
        assert_eq!(lock(&self.log).violations, [""; 0]);
    }
}

impl Drop for History {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[derive(Default)]
struct Log {
    known: Snapshot,
    revision: Revision,
    is_stale: bool,
    outages: usize,
    departures: Vec<InstanceKey>,
    /// Incarnation and version of what was last seen under a key.
    seen: BTreeMap<InstanceKey, (u64, u64)>,
    violations: Vec<String>,
}

impl Log {
    fn take(&mut self, event: discovery::Result<Event>) {
        match &event {
            Ok(Event::Stale(_)) if self.is_stale => self.violation("stale twice in one outage"),
            Ok(Event::Live) if !self.is_stale => self.violation("live without an outage"),
            Ok(Event::Stale(_)) => (self.is_stale, self.outages) = (true, self.outages + 1),
            Ok(Event::Live) => self.is_stale = false,
            Ok(Event::Reset(snapshot)) => self.revision(snapshot.revision()),
            Ok(Event::Delta { revision, .. }) => self.revision(*revision),
            Err(error) => self.violation(format!("the watch failed: {error}")),
        }
        let Ok(event) = event else { return };
        let before = self.known.clone();
        for change in self.known.take(&event) {
            let known = before.get(change.key());
            match &change {
                Change::Put(instance) => {
                    self.put(instance);
                    if known.is_some_and(|known| known.incarnation() != instance.incarnation()) {
                        self.departures.push(change.key().clone());
                    }
                }
                Change::Remove(key) if known.is_some() => self.departures.push(key.clone()),
                Change::Remove(_) => {}
            }
        }
    }

    fn put(&mut self, instance: &Instance) {
        let now = (instance.incarnation(), version(instance));
        if let Some(before) = self.seen.insert(instance.key().clone(), now)
            && before.0 == now.0
            && before.1 > now.1
        {
            self.violation(format!("{} went back from version {} to {}", instance.key(), before.1, now.1));
        }
    }

    fn revision(&mut self, revision: Revision) {
        if revision < self.revision {
            self.violation(format!("revision {revision} behind {}", self.revision));
        }
        self.revision = revision;
    }

    fn violation(&mut self, what: impl Into<String>) {
        self.violations.push(what.into());
    }
}

fn lock(log: &Mutex<Log>) -> MutexGuard<'_, Log> {
    log.lock().unwrap_or_else(PoisonError::into_inner)
}
