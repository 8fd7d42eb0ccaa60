//! Who is to be woken when, the soonest first.

use std::{
    collections::{BTreeSet, HashMap},
    hash::Hash,
};

/// At most one deadline for each of `T`. Setting, moving and cancelling one costs O(log n), wherever it is in the queue.
#[derive(Debug)]
pub(super) struct Timers<T> {
    queue: BTreeSet<(u64, T)>,
    deadlines: HashMap<T, u64>,
}

impl<T: Copy + Ord + Hash> Timers<T> {
    pub(super) fn new() -> Self {
        Self { queue: BTreeSet::new(), deadlines: HashMap::new() }
    }

    /// Sets the deadline, instead of an earlier one.
    pub(super) fn set(&mut self, whose: T, deadline: u64) {
        self.cancel(whose);
        self.queue.insert((deadline, whose));
        self.deadlines.insert(whose, deadline);
    }

    /// Forgets the deadline, if there is one.
    pub(super) fn cancel(&mut self, whose: T) {
        if let Some(deadline) = self.deadlines.remove(&whose) {
            self.queue.remove(&(deadline, whose));
        }
    }

    /// The deadline, if there is one.
    pub(super) fn of(&self, whose: T) -> Option<u64> {
        self.deadlines.get(&whose).copied()
    }

    /// The soonest.
    pub(super) fn peek(&self) -> Option<(u64, T)> {
        self.queue.first().copied()
    }

    /// Takes the soonest out if its time has come.
    pub(super) fn due(&mut self, now: u64) -> Option<T> {
        let (deadline, whose) = self.peek()?;
        (deadline <= now).then(|| {
            self.cancel(whose);
            whose
        })
    }

    pub(super) fn len(&self) -> usize {
        self.queue.len()
    }

    pub(super) fn clear(&mut self) {
        self.queue.clear();
        self.deadlines.clear();
    }
}
