//! What a run is in the store.
//!
//! | key | holds | written |
//! | --- | --- | --- |
//! | `<run>` | the [`Record`]: state, round, table | by each move |
//! | `<run>/tally` | the [`Tally`]: how many lists are not done | when a list is done, or tasks come or go |
//! | `<run>/tasks/<n>` | a [`List`]: some of the tasks, and which of them are done | by each completion |
//!
//! A list and the tally say which round they are about. In a later round nothing is done, so a move has nothing to reset:
//! it writes the record and nothing else.

use std::{collections::BTreeSet, time::Duration};

use serde::{Deserialize, Serialize};

use super::{Move, table::Table};
use crate::{Error, Result, recipe::known::json};

/// How many tasks a list is made for. A completion writes its list: longer lists cost bytes, shorter ones more often the
/// tally.
const LIST: usize = 32;

/// How many lists a run has at most, so that all are looked at in one scan.
const LISTS_MAX: usize = 64;

/// How many characters of a cause are remembered.
const CAUSE: usize = 200;

/// How many moves the record remembers.
pub(super) const MOVES: usize = 16;

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) state: String,
    /// Grows with each move.
    pub(super) round: u64,
    /// What the first task that completed the round decided for all, where there was a choice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) heading: Option<String>,
    pub(super) table: Table,
    /// How many lists there are. Never changes: it decides in which list a task is.
    pub(super) lists: usize,
    /// How long a round may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) limit: Option<Limit>,
    /// Names the attempt that created it.
    pub(super) created_by: String,
    /// The latest moves, the last one last.
    #[serde(default)]
    pub(super) moves: Vec<Move>,
    /// Whether there is no such run yet, or no more: to create or to delete it may take several transactions.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) hidden: bool,
}

impl Record {
    pub(super) fn new(table: Table, tasks: usize) -> Self {
        Self {
            state: table.start().to_owned(),
            round: 1,
            heading: None,
            table,
            lists: tasks.div_ceil(LIST).clamp(1, LISTS_MAX),
            limit: None,
            created_by: String::new(),
            moves: Vec::new(),
            hidden: false,
        }
    }

    /// Which list a task is in.
    pub(super) fn list_of(&self, task: &str) -> usize {
        // FNV-1a (Fowler, Noll, Vo): stable for ever, which the hasher of the standard library is not.
        let hash = task.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        usize::try_from(hash % self.lists.max(1) as u64).unwrap_or_default()
    }

    /// What stands for a run while it is taken away.
    pub(super) fn gone(by: &str) -> Self {
        Self { hidden: true, created_by: by.to_owned(), ..Self::new(Table::new("gone"), 0) }
    }

    /// The record behind a move.
    pub(super) fn moved(&self, to: &str, cause: &str, by: &str) -> Self {
        let mut next = self.clone();
        next.moves.push(Move {
            round: self.round,
            from: self.state.clone(),
            to: to.to_owned(),
            cause: cause.chars().take(CAUSE).collect(),
            by: by.to_owned(),
        });
        next.moves.drain(..next.moves.len().saturating_sub(MOVES));
        to.clone_into(&mut next.state);
        next.round = self.round.saturating_add(1);
        next.heading = None;
        next
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Limit {
    ms: u64,
    /// The exit for a round that takes longer.
    pub(super) to: String,
}

impl Limit {
    pub(super) fn new(after: Duration, to: &str) -> Self {
        Self { ms: u64::try_from(after.as_millis()).unwrap_or(u64::MAX), to: to.to_owned() }
    }

    pub(super) fn after(&self) -> Duration {
        Duration::from_millis(self.ms)
    }
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct List {
    round: u64,
    pub(super) tasks: BTreeSet<String>,
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub(super) done: BTreeSet<String>,
}

impl List {
    /// The list in this round.
    pub(super) fn in_round(mut self, round: u64) -> Self {
        if self.round != round {
            (self.round, self.done) = (round, BTreeSet::new());
        }
        self
    }

    /// Whether it is about a later round.
    pub(super) fn is_ahead_of(&self, round: u64) -> bool {
        self.round > round
    }

    /// Checks that it fits into a record of `max` bytes also when all is done.
    pub(super) fn check(&self, max: usize) -> Result<()> {
        let bytes = json(&Self { done: self.tasks.clone(), ..self.clone() }).len();
        if bytes > max {
            return Err(Error::invalid(format!(
                "the names of {} tasks that share a record take {bytes} bytes, twice each; it has {max}: take fewer tasks, or \
                 shorter names",
                self.tasks.len(),
            )));
        }
        Ok(())
    }

    /// Whether there is a task left to do.
    pub(super) fn is_open(&self) -> bool {
        self.done.len() < self.tasks.len()
    }
}

#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(super) struct Tally {
    round: u64,
    /// How many lists have tasks left to do.
    pub(super) open: usize,
    /// How many have tasks at all.
    pub(super) filled: usize,
}

impl Tally {
    pub(super) fn new(round: u64, filled: usize) -> Self {
        Self { round, open: filled, filled }
    }

    /// The tally behind a change of one list.
    pub(super) fn with(self, before: &List, after: &List) -> Self {
        let change =
            |count: usize, was: bool, is: bool| count.saturating_add(is.into()).saturating_sub(was.into());
        Self {
            open: change(self.open, before.is_open(), after.is_open()),
            filled: change(self.filled, !before.tasks.is_empty(), !after.tasks.is_empty()),
            ..self
        }
    }

    /// The tally in this round.
    pub(super) fn in_round(self, round: u64) -> Self {
        if self.round == round { self } else { Self::new(round, self.filled) }
    }
}
