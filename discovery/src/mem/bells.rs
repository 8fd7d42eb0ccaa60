//! Who is to look at the store again: a change wakes those whose range it is in, and nobody else.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use tokio::sync::Notify;

use crate::{
    Revision,
    kv::{Key, Range},
};

/// A bell for each watch, by range.
#[derive(Debug, Default)]
pub(super) struct Bells {
    ranges: HashMap<Range, BTreeMap<u64, Bell>>,
    last: u64,
}

#[derive(Debug, Default)]
struct Bell {
    rung: Arc<Notify>,
    /// The first change that its watch has not seen. Everything before is known to be none of its business, also if the
    /// store has forgotten it by now.
    first: Option<Revision>,
}

impl Bells {
    /// A bell for a new watch: its number, and what it rings by.
    pub(super) fn hang(&mut self, range: &Range) -> (u64, Arc<Notify>) {
        self.last += 1;
        let bell = Bell::default();
        let rung = bell.rung.clone();
        self.ranges.entry(range.clone()).or_default().insert(self.last, bell);
        (self.last, rung)
    }

    pub(super) fn take_down(&mut self, range: &Range, number: u64) {
        if let Some(bells) = self.ranges.get_mut(range) {
            bells.remove(&number);
            if bells.is_empty() {
                self.ranges.remove(range);
            }
        }
    }

    /// Rings for a change of `key`.
    pub(super) fn ring(&mut self, key: &Key, revision: Revision) {
        let mut top = key.parent();
        self.ring_of(&Range::Key(key.clone()), revision);
        self.ring_of(&Range::Children(top.clone()), revision);
        while !top.is_root() {
            let above = top.parent();
            self.ring_of(&Range::Subtree(top), revision);
            top = above;
        }
        self.ring_of(&Range::Subtree(top), revision);
    }

    fn ring_of(&mut self, range: &Range, revision: Revision) {
        for bell in self.ranges.get_mut(range).into_iter().flat_map(BTreeMap::values_mut) {
            bell.first.get_or_insert(revision);
            bell.rung.notify_one();
        }
    }

    /// The first change that a watch has not seen; it is about to.
    pub(super) fn answer(&mut self, range: &Range, number: u64) -> Option<Revision> {
        self.ranges.get_mut(range)?.get_mut(&number)?.first.take()
    }

    pub(super) fn len(&self) -> usize {
        self.ranges.values().map(BTreeMap::len).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_rung_for_whose_range_it_is_in_and_for_nobody_else() {
        let key = |text: &str| text.parse::<Key>().unwrap();
        let concerned = [
            Range::Key(key("a/b/c")),
            Range::Children(key("a/b")),
            Range::Subtree(key("a/b")),
            Range::Subtree(key("a")),
            Range::Subtree(Key::root()),
        ];
        let others = [
            Range::Key(key("a/b")),
            Range::Key(key("a/b/d")),
            Range::Children(key("a/b/c")),
            Range::Children(key("a")),
            Range::Children(Key::root()),
            Range::Subtree(key("a/b/c")),
            Range::Subtree(key("a/c")),
        ];
        let mut bells = Bells::default();
        let mut rung = |range: &Range| {
            let (number, _) = bells.hang(range);
            bells.ring(&key("a/b/c"), Revision(7));
            bells.ring(&key("a/b/c"), Revision(8));
            let first = bells.answer(range, number);
            assert_eq!(bells.answer(range, number), None, "answered");
            bells.take_down(range, number);
            assert_eq!(bells.len(), 0);
            first
        };
        for range in &concerned {
            assert!(range.contains(&key("a/b/c")) && rung(range) == Some(Revision(7)), "{range:?}");
        }
        for range in &others {
            assert!(!range.contains(&key("a/b/c")) && rung(range).is_none(), "{range:?}");
        }
        bells.ring(&Key::root(), Revision(9));
    }
}
