//! By weight, in constant time.

use std::sync::Arc;

use super::{Candidate, Draw, Policy, Table, seats::Seats};

/// Anyone, each with a chance in proportion to its weight.
///
/// Candidates are sorted into classes: class c has the weights from 2^c up to 2^(c+1). A pick draws a class by its
/// total, anyone from the class evenly, and accepts by weight: at least every second draw, since weights in a class
/// differ by less than a factor of two. So a pick costs O(1) expected and a change O(log n), whatever the weights,
/// and memory does not depend on them. After Y. Matias, J. S. Vitter and W.-C. Ni, "Dynamic generation of discrete
/// random variates", SODA 1993.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Weighted;

impl Weighted {
    /// By weight.
    pub fn new() -> Self {
        Self
    }
}

impl Policy for Weighted {
    fn table(&self) -> Box<dyn Table> {
        Box::new(Classes::default())
    }
}

#[derive(Clone, Default)]
struct Classes {
    /// Those that are not empty, at most 32; the heaviest first, where most draws end.
    classes: Vec<Class>,
    total: u64,
}

/// The candidates whose weights have the same highest bit.
#[derive(Clone)]
struct Class {
    bit: u32,
    total: u64,
    seats: Seats,
}

impl Table for Classes {
    fn change(&mut self, old: Option<&Arc<Candidate>>, new: Option<&Arc<Candidate>>) {
        match (old, new) {
            (Some(left), Some(come)) if bit(left) != bit(come) => {
                self.change_class(bit(left), old, None);
                self.change_class(bit(come), None, new);
            }
            (Some(one), _) | (None, Some(one)) => self.change_class(bit(one), old, new),
            (None, None) => {}
        }
    }

    fn size(&self) -> usize {
        self.classes.iter().map(|class| class.seats.len()).sum()
    }

    fn pick(&self, draw: &mut Draw) -> Option<&Arc<Candidate>> {
        if self.total == 0 {
            return None;
        }
        let mut at = draw.below(self.total);
        let class = self.classes.iter().find(|class| {
            let found = at < class.total;
            at = at.saturating_sub(class.total);
            found
        })?;
        class.pick(draw)
    }

    fn publish(&self) -> Box<dyn Table> {
        Box::new(self.clone())
    }
}

impl Classes {
    /// A change within one class.
    fn change_class(&mut self, bit: u32, old: Option<&Arc<Candidate>>, new: Option<&Arc<Candidate>>) {
        let found = self.classes.binary_search_by(|class| bit.cmp(&class.bit));
        let at = found.unwrap_or_else(|at| {
            self.classes.insert(at, Class { bit, total: 0, seats: Seats::default() });
            at
        });
        let weight = |candidate: Option<&Arc<Candidate>>| candidate.map_or(0, |one| u64::from(one.weight()));
        let class = &mut self.classes[at];
        class.seats.change(old, new);
        class.total = class.total + weight(new) - weight(old);
        self.total = self.total + weight(new) - weight(old);
        if class.seats.len() == 0 {
            self.classes.remove(at);
        }
    }
}

impl Class {
    fn pick(&self, draw: &mut Draw) -> Option<&Arc<Candidate>> {
        // The highest weight that the class could have: if that is 1, nothing is ever refused.
        let highest = (2 << self.bit) - 1;
        loop {
            let candidate = self.seats.get(draw.index(self.seats.len())?)?;
            if draw.below(highest) < candidate.weight().into() {
                return Some(candidate);
            }
        }
    }
}

/// The class of a candidate.
fn bit(candidate: &Candidate) -> u32 {
    candidate.weight().ilog2()
}
