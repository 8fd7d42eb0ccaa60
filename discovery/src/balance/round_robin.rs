//! Each in turn.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use super::{Candidate, Draw, Policy, Table, seats::Seats};

/// Each in turn. Who comes waits for the end of the round; who leaves does not disturb it.
///
/// All threads share one counter. Where very many threads pick from few instances, [`Random`](super::Random) spares
/// them that.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RoundRobin;

impl RoundRobin {
    /// Each in turn.
    pub fn new() -> Self {
        Self
    }
}

impl Policy for RoundRobin {
    fn table(&self) -> Box<dyn Table> {
        Box::new(Round::default())
    }
}

#[derive(Clone, Default)]
struct Round {
    seats: Seats,
    /// How many picks there were. Shared by all versions of the table, so that a change does not start over; a lone
    /// counter, so relaxed ordering will do.
    picks: Arc<AtomicUsize>,
    /// The pick that got the first seat.
    ///
    /// The seat of a pick follows from its distance to this one. A change of the row moves it so that the next seat
    /// stays the next seat; picks from an older version at the same time only move that on, in both versions.
    first: usize,
}

impl Table for Round {
    fn change(&mut self, old: Option<&Arc<Candidate>>, new: Option<&Arc<Candidate>>) {
        let picks = self.picks.load(Ordering::Relaxed);
        let next = self.seat(picks).unwrap_or(0);
        self.seats.change(old, new);
        let next = if next < self.seats.len() { next } else { 0 };
        self.first = picks.wrapping_sub(next);
    }

    fn size(&self) -> usize {
        self.seats.len()
    }

    fn pick(&self, _: &mut Draw) -> Option<&Arc<Candidate>> {
        self.seats.get(self.seat(self.picks.fetch_add(1, Ordering::Relaxed))?)
    }

    fn publish(&self) -> Box<dyn Table> {
        Box::new(self.clone())
    }
}

impl Round {
    /// Whose turn it is after so many picks.
    fn seat(&self, picks: usize) -> Option<usize> {
        picks.wrapping_sub(self.first).checked_rem(self.seats.len())
    }
}
