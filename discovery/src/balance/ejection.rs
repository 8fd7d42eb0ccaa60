//! Keeping away from instances that fail.

use std::{
    collections::{BTreeSet, HashMap},
    time::Duration,
};

use tokio::time::Instant;

use crate::{
    InstanceKey,
    backoff::{Attempts, Backoff},
};

/// When an instance that [fails](super::Pick::failed) is left out, and for how long.
///
/// After 3 failures in a row it is out, for 1 s the first time and up to 60 s if it keeps failing; never more than
/// half of the candidates at a time, and never the only one. Nobody is probed: when the time is over, the next pick
/// tells.
///
/// # Example: quick to leave out, quick to come back
///
/// ```
/// use std::time::Duration;
/// use discovery::{Backoff, balance::Ejection};
///
/// let backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(5));
/// let ejection = Ejection::new().after(1).backoff(backoff).at_most(20);
/// ```
#[derive(Clone, Copy, Debug)]
#[must_use = "does nothing until a balancer is built with it"]
pub struct Ejection {
    pub(super) after: u32,
    backoff: Backoff,
    percent: usize,
}

impl Ejection {
    /// The defaults.
    pub fn new() -> Self {
        Self { after: 3, backoff: Backoff::new(Duration::from_secs(1), Duration::from_secs(60)), percent: 50 }
    }

    /// How many failures in a row it takes. 0 counts as 1.
    pub fn after(self, failures: u32) -> Self {
        Self { after: failures.max(1), ..self }
    }

    /// For how long, from the first time on; it starts over when an instance has been well for long.
    pub fn backoff(self, backoff: Backoff) -> Self {
        Self { backoff, ..self }
    }

    /// The share of the candidates that may be out at a time, in percent. With 0 nobody ever is.
    pub fn at_most(self, percent: u8) -> Self {
        Self { percent: percent.min(100).into(), ..self }
    }
}

impl Default for Ejection {
    fn default() -> Self {
        Self::new()
    }
}

/// Who is out, and who was.
#[derive(Debug)]
pub(super) struct Ejections {
    policy: Ejection,
    records: HashMap<InstanceKey, Record>,
    /// Who is out, by when they come back.
    out: BTreeSet<(Instant, InstanceKey)>,
}

#[derive(Debug)]
struct Record {
    terms: Attempts,
    until: Option<Instant>,
}

impl Ejections {
    pub(super) fn new(policy: Ejection) -> Self {
        Self { policy, records: HashMap::new(), out: BTreeSet::new() }
    }

    /// How many are out.
    pub(super) fn len(&self) -> usize {
        self.out.len()
    }

    pub(super) fn contains(&self, key: &InstanceKey) -> bool {
        self.records.get(key).is_some_and(|record| record.until.is_some())
    }

    /// Takes one of `left` candidates out, for the time that is returned; `None` if too many are out already.
    pub(super) fn eject(&mut self, key: &InstanceKey, left: usize) -> Option<Duration> {
        let all = left + self.out.len();
        if left <= 1 || (self.out.len() + 1) * 100 > self.policy.percent * all {
            return None;
        }
        let record = self
            .records
            .entry(key.clone())
            .or_insert_with(|| Record { terms: self.policy.backoff.start(), until: None });
        let term = record.terms.next_delay();
        let until = Instant::now() + term;
        record.until = Some(until);
        self.out.insert((until, key.clone()));
        Some(term)
    }

    /// When the next one comes back.
    pub(super) fn due(&self) -> Option<Instant> {
        self.out.first().map(|(until, _)| *until)
    }

    /// Takes one back whose time is over.
    pub(super) fn release(&mut self) -> Option<InstanceKey> {
        let (until, _) = self.out.first()?;
        if *until > Instant::now() {
            return None;
        }
        let (_, key) = self.out.pop_first()?;
        if let Some(record) = self.records.get_mut(&key) {
            record.until = None;
        }
        Some(key)
    }

    /// Forgets an instance that is gone.
    pub(super) fn forget(&mut self, key: &InstanceKey) {
        if let Some(until) = self.records.remove(key).and_then(|record| record.until) {
            self.out.remove(&(until, key.clone()));
        }
    }
}
