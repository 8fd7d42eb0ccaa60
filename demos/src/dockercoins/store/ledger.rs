//! The book of the embedded store. It knows no clock and no file: both are the caller's.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde::{Deserialize, Serialize};

use super::{Counted, Done, LATEST, Reading, Verdict};

/// What changes the book, as the journal has it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Entry {
    /// A new unit was handed out.
    Issued(u64),
    /// An open unit was counted; with the hash, if that is a coin.
    Counted(u64, Option<String>),
    /// All that the entries before it come to.
    Summary { units: u64, hashes: u64, open: Vec<u64>, wallet: Vec<String> },
}

/// Which units are open, and what came of the others.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    units: u64,
    /// With the time at which each is overdue, by a clock that is only for that.
    open: BTreeMap<u64, u64>,
    hashes: u64,
    wallet: BTreeSet<String>,
    latest: VecDeque<Counted>,
}

impl Ledger {
    /// Hands out a unit until `due`, and says what to write down, if anything.
    pub(super) fn take(&mut self, now: u64, due: u64) -> (u64, Option<Entry>) {
        if let Some((unit, overdue)) = self.open.iter_mut().find(|(_, due)| **due <= now) {
            *overdue = due;
            return (*unit, None);
        }
        self.units += 1;
        self.open.insert(self.units, due);
        (self.units, Some(Entry::Issued(self.units)))
    }

    /// Counts a unit if it is open, and says what to write down, if anything.
    pub(super) fn bring(&mut self, now: u64, done: Done) -> (Verdict, Option<Entry>) {
        if self.open.remove(&done.unit).is_none() {
            return (Verdict::Known, None);
        }
        self.hashes += 1;
        let coin = done.is_coin().then_some(done.hash);
        let verdict = match &coin {
            None => Verdict::Plain,
            Some(hash) if self.wallet.insert(hash.clone()) => Verdict::Coin,
            Some(_) => Verdict::OldCoin,
        };
        if self.latest.len() == LATEST {
            self.latest.pop_front();
        }
        self.latest.push_back(Counted {
            at: now,
            unit: done.unit,
            worker: done.worker,
            rng: done.rng,
            hasher: done.hasher,
        });
        (verdict, Some(Entry::Counted(done.unit, coin)))
    }

    /// Makes a unit overdue, if it is open.
    pub(super) fn give_back(&mut self, unit: u64) {
        if let Some(due) = self.open.get_mut(&unit) {
            *due = 0;
        }
    }

    pub(super) fn read(&self, now: u64, seen: u64) -> Reading {
        // Whoever has seen more than there is, has seen another store.
        let unseen = self.hashes.checked_sub(seen).unwrap_or(self.hashes);
        let unseen = usize::try_from(unseen).unwrap_or(usize::MAX).min(self.latest.len());
        Reading {
            now,
            units: self.units,
            open: self.open.len() as u64,
            hashes: (self.hashes > 0).then_some(self.hashes),
            coins: self.wallet.len() as u64,
            latest: self.latest.range(self.latest.len() - unseen..).cloned().collect(),
        }
    }

    /// All that has to be written down of a book as it is now.
    pub(super) fn summary(&self) -> Entry {
        Entry::Summary {
            units: self.units,
            hashes: self.hashes,
            open: self.open.keys().copied().collect(),
            wallet: self.wallet.iter().cloned().collect(),
        }
    }

    /// Does again what was written down. All that is open then is overdue: nobody knows any more who has it.
    pub(super) fn replay(&mut self, entry: Entry) {
        match entry {
            Entry::Issued(unit) => {
                self.units = self.units.max(unit);
                self.open.insert(unit, 0);
            }
            Entry::Counted(unit, coin) => {
                self.open.remove(&unit);
                self.hashes += 1;
                self.wallet.extend(coin);
            }
            Entry::Summary { units, hashes, open, wallet } => {
                let open = open.into_iter().map(|unit| (unit, 0)).collect();
                let wallet = wallet.into_iter().collect();
                *self = Self { units, open, hashes, wallet, latest: VecDeque::new() };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dockercoins::call::Took;

    fn done(unit: u64, hash: &str) -> Done {
        let took = |by: &str| Took { by: by.into(), ms: 1.0 };
        let (worker, hash) = ("w".into(), hash.into());
        Done { unit, worker, bytes: "00".into(), hash, rng: took("r"), hasher: took("h") }
    }

    fn numbers(reading: &Reading) -> (u64, u64, Option<u64>, u64) {
        (reading.units, reading.open, reading.hashes, reading.coins)
    }

    #[test]
    fn a_unit_is_counted_once_however_often_it_is_brought() {
        let mut ledger = Ledger::default();
        assert_eq!(ledger.take(0, 10).0, 1);
        assert_eq!(ledger.bring(1, done(1, "ff")).0, Verdict::Plain);
        assert_eq!(ledger.bring(2, done(1, "ff")).0, Verdict::Known);
        assert_eq!(ledger.bring(2, done(2, "ff")).0, Verdict::Known, "it was never handed out");
        assert_eq!(numbers(&ledger.read(3, 0)), (1, 0, Some(1), 0));
    }

    #[test]
    fn an_overdue_unit_goes_to_another_and_the_first_hash_counts() {
        let mut ledger = Ledger::default();
        assert_eq!((ledger.take(0, 10).0, ledger.take(0, 10).0), (1, 2));
        assert_eq!(ledger.take(9, 20).0, 3);
        assert_eq!(ledger.take(10, 20).0, 1);
        assert_eq!(ledger.bring(11, done(1, "0a")).0, Verdict::Coin, "from either");
        assert_eq!(ledger.bring(12, done(1, "0b")).0, Verdict::Known, "from the other");
        assert_eq!(numbers(&ledger.read(12, 0)), (3, 2, Some(1), 1));
    }

    #[test]
    fn a_unit_that_is_given_back_goes_to_whoever_comes_next() {
        let mut ledger = Ledger::default();
        ledger.take(0, 10);
        ledger.give_back(1);
        ledger.give_back(7);
        assert_eq!((ledger.take(1, 10).0, ledger.take(1, 10).0), (1, 2));
    }

    #[test]
    fn a_coin_is_kept_once() {
        let mut ledger = Ledger::default();
        for unit in 1..=3 {
            ledger.take(0, 10);
            let expected = if unit == 1 { Verdict::Coin } else { Verdict::OldCoin };
            assert_eq!(ledger.bring(1, done(unit, "0c")).0, expected);
        }
        assert_eq!(numbers(&ledger.read(1, 0)), (3, 0, Some(3), 1));
    }

    #[test]
    fn readers_get_what_they_have_not_seen() {
        let mut ledger = Ledger::default();
        assert_eq!(ledger.read(0, 0), Reading::default());
        for unit in 1..=LATEST as u64 + 5 {
            ledger.take(unit, 10_000);
            ledger.bring(unit, done(unit, "ff"));
        }
        let times = |seen| ledger.read(0, seen).latest.iter().map(|counted| counted.at).collect::<Vec<_>>();
        assert_eq!(times(1002), [1003, 1004, 1005]);
        assert_eq!(times(1005), [0; 0]);
        assert_eq!((times(0).len(), times(0)[0]), (LATEST, 6), "the oldest are forgotten");
        assert_eq!(times(2000).len(), LATEST, "that was another store");
    }

    #[test]
    fn a_replayed_book_is_the_same_but_that_all_is_overdue() {
        let (mut ledger, mut other) = (Ledger::default(), Ledger::default());
        for unit in [1, 2, 3, 4] {
            other.replay(ledger.take(0, 10).1.unwrap());
            if unit != 2 {
                other.replay(ledger.bring(1, done(unit, "0d")).1.unwrap());
            }
        }
        assert_eq!(numbers(&ledger.read(1, 0)), (4, 1, Some(3), 1));
        let mut short = Ledger::default();
        short.replay(other.summary());
        for mut ledger in [other, short] {
            assert_eq!(numbers(&ledger.read(1, 0)), (4, 1, Some(3), 1));
            assert_eq!((ledger.take(1, 10).0, ledger.take(1, 10).0), (2, 5));
            assert_eq!(ledger.bring(1, done(2, "0d")).0, Verdict::OldCoin);
        }
    }
}
