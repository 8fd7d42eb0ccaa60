//! The power of two choices.

use std::sync::Arc;

use super::{Candidate, Draw, Policy, Table, seats::Seats};

/// The less loaded of two random ones, where load is the number of [picks](super::Pick) under way for its weight.
///
/// Two choices even out load nearly as well as looking at all (M. Mitzenmacher, "The power of two choices in
/// randomized load balancing", IEEE TPDS 12(10), 2001), and slow instances get less by themselves. Unlike "the least
/// loaded of all", many clients do not run to the same one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LeastLoaded;

impl LeastLoaded {
    /// The less loaded of two.
    pub fn new() -> Self {
        Self
    }
}

impl Policy for LeastLoaded {
    fn table(&self) -> Box<dyn Table> {
        Box::new(Pairs::default())
    }
}

#[derive(Clone, Default)]
struct Pairs(Seats);

impl Table for Pairs {
    fn change(&mut self, old: Option<&Arc<Candidate>>, new: Option<&Arc<Candidate>>) {
        self.0.change(old, new);
    }

    fn size(&self) -> usize {
        self.0.len()
    }

    fn pick(&self, draw: &mut Draw) -> Option<&Arc<Candidate>> {
        let len = self.0.len();
        let first = draw.index(len)?;
        // Two different ones: the second is drawn from the others, and the last stands in for the first.
        let second = match draw.index(len - 1) {
            None => return self.0.get(first),
            Some(second) if second == first => len - 1,
            Some(second) => second,
        };
        let (first, second) = (self.0.get(first)?, self.0.get(second)?);
        Some(if is_less_loaded(second, first) { second } else { first })
    }

    fn publish(&self) -> Box<dyn Table> {
        Box::new(self.clone())
    }
}

/// Compares the loads that one more pick would make, divided by the weights.
fn is_less_loaded(a: &Candidate, b: &Candidate) -> bool {
    let after = |candidate: &Candidate| candidate.load() as u64 + 1;
    after(a).saturating_mul(b.weight().into()) < after(b).saturating_mul(a.weight().into())
}
