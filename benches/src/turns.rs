//! Sides that take turns, round by round.
//!
//! What is measured in a recipe is often the last of a thousand steps, which take seconds; and other programs come and go
//! meanwhile. So the sides take turns, and what disturbs one disturbs the other: the ratio holds where the times do not.

use std::time::{Duration, Instant};

use crate::{Rounds, print_ratio_of};

/// This crate, among the sides.
pub const OURS: &str = "discovery";

/// How many rounds there are at least, however long they take.
const ROUNDS_MIN: usize = 10;

/// Whether a group is to be measured, or a family of groups that begin with `name`: without arguments each is.
pub fn is_wanted(name: &str) -> bool {
    let mut filters = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).peekable();
    filters.peek().is_none() || filters.any(|filter| name.contains(&filter) || filter.starts_with(name))
}

/// What several sides took for the same thing, in turns.
#[derive(Debug)]
pub struct Turns {
    name: String,
    until: Instant,
    sides: Vec<(&'static str, Rounds)>,
}

impl Turns {
    /// A group of this name, which goes on for about as long as said, and for ten rounds at least. Not started by
    /// `cargo bench`, it goes on for one round.
    pub fn new(name: impl Into<String>, time: Duration) -> Self {
        Self { name: name.into(), until: Instant::now() + time, sides: Vec::new() }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether there is another turn for each.
    pub fn go_on(&self) -> bool {
        let is_measured = std::env::args().any(|arg| arg == "--bench");
        let rounds = self.sides.iter().map(|(_, rounds)| rounds.count()).min().unwrap_or(0);
        rounds < if is_measured { ROUNDS_MIN } else { 1 } || is_measured && Instant::now() < self.until
    }

    /// One round of a side took so long.
    pub fn add(&mut self, side: &'static str, took: Duration) {
        let known = self.sides.iter().position(|(known, _)| *known == side);
        let at = known.unwrap_or_else(|| {
            self.sides.push((side, Rounds::default()));
            self.sides.len() - 1
        });
        self.sides[at].1.push(took);
    }

    /// Prints all sides, and the ratios of `ours` to the others.
    pub fn finish(mut self, ours: &str) {
        let mut medians = Vec::new();
        for (side, mut rounds) in self.sides.drain(..) {
            medians.extend(rounds.median().map(|median| (side, median)));
            rounds.print(&self.name, side);
        }
        let Some(own) = medians.iter().copied().find(|(side, _)| *side == ours) else { return };
        if medians.len() == 1 {
            println!();
        }
        for rival in medians.into_iter().filter(|(side, _)| *side != ours) {
            print_ratio_of(&self.name, rival, own);
        }
    }
}
