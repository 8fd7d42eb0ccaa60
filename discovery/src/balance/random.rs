//! Anyone.

use std::sync::Arc;

use super::{Candidate, Draw, Policy, Table, seats::Seats};

/// Anyone, all with the same chance, whatever came before.
///
/// Needs no state that threads share, and many clients that start together do not march in step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Random;

impl Random {
    /// Anyone.
    pub fn new() -> Self {
        Self
    }
}

impl Policy for Random {
    fn table(&self) -> Box<dyn Table> {
        Box::new(Lot::default())
    }
}

#[derive(Clone, Default)]
struct Lot(Seats);

impl Table for Lot {
    fn change(&mut self, old: Option<&Arc<Candidate>>, new: Option<&Arc<Candidate>>) {
        self.0.change(old, new);
    }

    fn size(&self) -> usize {
        self.0.len()
    }

    fn pick(&self, draw: &mut Draw) -> Option<&Arc<Candidate>> {
        self.0.get(draw.index(self.0.len())?)
    }

    fn publish(&self) -> Box<dyn Table> {
        Box::new(self.clone())
    }
}
