//! What one client was told, checked as it comes.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use futures_util::StreamExt;
use tokio::task::AbortHandle;

use super::client::version;
use crate::{Change, Event, Instance, InstanceKey, Result, Revision, Snapshot, Watch};

/// Follows a watch for as long as it lives, and remembers what must be true of it.
///
/// # Example: a departure is remembered
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> discovery::Result<()> {
/// use discovery::{
///     Discovery, Scope,
///     conformance::stage::{History, eventually, instance},
///     mem::Mem,
/// };
///
/// let discovery = Discovery::new(Mem::new());
/// let history = History::record(discovery.watch(Scope::everything()));
/// let registration = discovery.register(instance(0)).await?;
/// eventually("it is seen", async || history.snapshot().is_empty().then(|| "it is not".into())).await;
/// registration.deregister().await?;
/// eventually("it is gone", async || (!history.snapshot().is_empty()).then(|| "it is not".into())).await;
/// assert_eq!(history.departures(), [instance(0).key().clone()]);
/// history.assert_sound();
/// # Ok(()) }
/// ```
pub struct History {
    /// Written by the task only.
    log: Arc<Mutex<Log>>,
    /// Follows the watch; ends with us.
    task: AbortHandle,
}

impl History {
    /// Follows `watch` from here on.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    pub fn record(mut watch: Watch) -> Self {
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
    pub fn snapshot(&self) -> Snapshot {
        lock(&self.log).known.clone()
    }

    /// How many outages were told of and are over.
    pub fn outages(&self) -> usize {
        let log = lock(&self.log);
        log.outages - usize::from(log.is_stale)
    }

    /// Whether an outage was told of and is not over.
    pub fn is_stale(&self) -> bool {
        lock(&self.log).is_stale
    }

    /// Every departure so far, in order; to be replaced by another incarnation is to depart as well.
    pub fn departures(&self) -> Vec<InstanceKey> {
        lock(&self.log).departures.clone()
    }

    /// Checks that nobody departed but some of these, and none of them twice.
    ///
    /// # Panics
    ///
    /// When somebody did.
    #[track_caller]
    pub fn assert_only_left<'a>(&self, these: impl IntoIterator<Item = &'a InstanceKey>) {
        let departures = self.departures();
        let mut may: BTreeSet<_> = these.into_iter().collect();
        let others = departures.iter().filter(|departed| !may.remove(departed));
        let others: Vec<_> = others.map(ToString::to_string).collect();
        assert!(others.is_empty(), "left, or left twice, although nobody expected it: {}", others.join(", "));
    }

    /// Expects the store to lose what it knew, as when it is wiped or restored: once, with an [`Event::Reset`] or with
    /// what comes behind a resync that had nothing to tell, revisions may begin anew, and instances go back to earlier
    /// versions.
    pub fn expect_restart(&self) {
        lock(&self.log).may_restart = true;
    }

    /// Checks the rules that no history may break, whatever happened: the watch neither fails nor ends; an outage is
    /// told once, and its end too; revisions do not decrease; and no incarnation goes back to an earlier
    /// [version](super::version).
    ///
    /// # Panics
    ///
    /// With everything that broke one.
    #[track_caller]
    pub fn assert_sound(&self) {
        let log = lock(&self.log);
        assert!(log.violations.is_empty(), "not sound: {}", log.violations.join("; "));
    }
}

impl Drop for History {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl fmt::Debug for History {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let log = lock(&self.log);
        let state = if log.is_stale { "stale" } else { "live" };
        let (known, outages, departures) = (log.known.len(), log.outages, log.departures.len());
        write!(f, "History({known} instances, {state}, {outages} outages, {departures} departures)")
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
    /// Whether the store is expected to lose its history.
    may_restart: bool,
}

impl Log {
    fn take(&mut self, event: Result<Event>) {
        let restarts = match &event {
            Ok(Event::Reset(_)) => true,
            // The resync told nothing, not even its revision, because everything was back before it looked.
            Ok(Event::Delta { revision, .. }) => *revision < self.revision,
            _ => false,
        };
        if self.may_restart && restarts {
            (self.may_restart, self.revision) = (false, Revision::default());
            self.seen.clear();
        }
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
        // One change of a delta may be of what another has changed, so each is taken in on its own.
        let mut before = self.known.clone();
        for change in self.known.take(&event) {
            let known = before.get(change.key()).map(|known| known.incarnation());
            match &change {
                Change::Put(instance) => {
                    self.put(instance);
                    if known.is_some_and(|known| known != instance.incarnation()) {
                        self.departures.push(change.key().clone());
                    }
                }
                Change::Remove(key) if known.is_some() => self.departures.push(key.clone()),
                Change::Remove(_) => {}
            }
            before.apply(self.known.revision(), &[change]);
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

#[cfg(test)]
mod tests {
    use super::{super::client::instance, *};
    use crate::{Error, ErrorKind};

    /// An instance in a version and an incarnation.
    fn put(id: u64, version: u64, incarnation: u64) -> Change {
        let builder = instance(id).to_builder().metadata("version", version.to_string());
        Change::Put(Arc::new(builder.incarnation(incarnation).build().unwrap()))
    }

    fn remove(id: u64) -> Change {
        Change::Remove(instance(id).key().clone())
    }

    fn delta(revision: u64, changes: impl Into<Arc<[Change]>>) -> Event {
        Event::Delta { revision: Revision(revision), changes: changes.into() }
    }

    fn trouble() -> Error {
        Error::new(ErrorKind::Unavailable, "a test")
    }

    fn log(events: impl IntoIterator<Item = Event>) -> Log {
        let mut log = Log::default();
        events.into_iter().for_each(|event| log.take(Ok(event)));
        log
    }

    #[test]
    fn what_goes_well_breaks_no_rule() {
        let log = log([
            Event::Reset(Snapshot::default()),
            delta(1, [put(1, 1, 7), put(1, 2, 7)]),
            Event::Stale(trouble()),
            delta(2, [put(1, 1, 8)]),
            Event::Live,
            delta(2, [put(1, 1, 8)]),
        ]);
        assert_eq!(log.violations, [""; 0]);
        assert_eq!((log.outages, log.is_stale, log.known.len()), (1, false, 1));
    }

    #[test]
    fn each_broken_rule_is_a_violation() {
        for (events, expected) in [
            (vec![Event::Stale(trouble()), Event::Stale(trouble())], "stale twice in one outage"),
            (vec![Event::Live], "live without an outage"),
            (vec![delta(2, []), delta(1, [])], "revision 1 behind 2"),
            (vec![delta(2, []), Event::Reset(Snapshot::default())], "revision 0 behind 2"),
            (vec![delta(1, [put(1, 2, 7), put(1, 1, 7)])], "eu1/prod/cart/1 went back from version 2 to 1"),
            (vec![delta(1, [put(1, 2, 7), remove(1), put(1, 1, 7)])], "went back from version 2 to 1"),
        ] {
            let log = log(events);
            assert!(
                log.violations.len() == 1 && log.violations[0].contains(expected),
                "{:?}",
                log.violations
            );
        }
        let mut failed = Log::default();
        failed.take(Err(trouble()));
        assert!(failed.violations[0].starts_with("the watch failed: "), "{:?}", failed.violations);
    }

    #[test]
    fn a_store_that_is_expected_to_restart_may_do_so_once() {
        for restart in [delta(1, [put(1, 1, 7)]), Event::Reset(Snapshot::default())] {
            let mut log = log([delta(9, [put(1, 2, 7)])]);
            log.may_restart = true;
            log.take(Ok(delta(10, [put(1, 3, 7)])));
            log.take(Ok(restart));
            assert_eq!(log.violations, [""; 0]);
            log.take(Ok(delta(2, [put(1, 2, 7)])));
            log.take(Ok(delta(1, [put(1, 1, 7)])));
            assert_eq!(log.violations.len(), 2, "{:?}", log.violations);
        }
    }

    #[test]
    fn departures_are_counted_one_by_one() {
        for (changes, expected) in [
            (vec![remove(1)], 0),
            (vec![put(1, 1, 7), put(1, 2, 7)], 0),
            (vec![put(1, 1, 7), remove(1), remove(1)], 1),
            (vec![put(1, 1, 7), put(1, 1, 8)], 1),
            (vec![put(1, 1, 7), remove(1), put(1, 1, 8)], 1),
            (vec![put(1, 1, 7), remove(1), put(1, 1, 7), remove(1)], 2),
        ] {
            let whole = log([delta(1, changes.clone())]);
            let steps = log(changes.iter().map(|change| delta(1, [change.clone()])));
            assert_eq!([whole, steps].map(|log| log.departures.len()), [expected; 2], "{changes:?}");
        }
    }
}
