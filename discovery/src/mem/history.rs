//! The latest changes of a store, oldest first.

use std::collections::VecDeque;

use crate::{
    Revision,
    kv::{KvChange, Range},
};

/// A ring of changes: complete for every revision behind `floor`.
#[derive(Debug)]
pub(super) struct History {
    changes: VecDeque<(Revision, KvChange)>,
    capacity: usize,
    floor: Revision,
}

impl History {
    pub(super) fn new(capacity: usize) -> Self {
        Self { changes: VecDeque::new(), capacity, floor: Revision(0) }
    }

    /// Adds a change; the oldest one makes room for it.
    pub(super) fn push(&mut self, revision: Revision, change: KvChange) {
        self.changes.push_back((revision, change));
        while self.changes.len() > self.capacity {
            if let Some((forgotten, _)) = self.changes.pop_front() {
                self.floor = forgotten;
            }
        }
    }

    /// Forgets everything up to `revision`.
    pub(super) fn compact(&mut self, revision: Revision) {
        self.changes.clear();
        self.floor = revision;
    }

    /// The changes of a range after a revision, or `None` if some of them may be forgotten.
    pub(super) fn since(&self, after: Revision, range: &Range) -> Option<Vec<KvChange>> {
        if after < self.floor {
            return None;
        }
        let first = self.changes.partition_point(|(revision, _)| *revision <= after);
        let news = self.changes.range(first..).map(|(_, change)| change);
        Some(news.filter(|change| range.contains(change.key())).cloned().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kv::Key;

    #[test]
    fn what_is_forgotten_is_not_guessed() {
        let everything = Range::Subtree(Key::root());
        let change = |n: u64| KvChange::Delete(n.to_string().parse().unwrap());
        let mut history = History::new(2);
        assert_eq!(history.since(Revision(0), &everything), Some(vec![]));
        for n in 1..=3 {
            history.push(Revision(n), change(n));
        }
        assert_eq!(history.since(Revision(0), &everything), None);
        assert_eq!(history.since(Revision(1), &everything), Some(vec![change(2), change(3)]));
        history.compact(Revision(3));
        assert_eq!(history.since(Revision(2), &everything), None);
        assert_eq!(history.since(Revision(3), &everything), Some(vec![]));
    }
}
