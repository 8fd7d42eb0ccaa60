//! Candidates in a row.

use std::sync::Arc;

use imbl::{HashMap, Vector};

use super::Candidate;
use crate::InstanceKey;

/// Candidates numbered from 0 without gaps, in no order that means anything. Persistent.
#[derive(Clone, Default)]
pub(super) struct Seats {
    row: Vector<Arc<Candidate>>,
    /// Where in the row an instance is.
    places: HashMap<InstanceKey, usize>,
}

impl Seats {
    /// As for [`Table::change`](super::Table::change). Whoever leaves gives the seat to the last in the row.
    pub(super) fn change(&mut self, old: Option<&Arc<Candidate>>, new: Option<&Arc<Candidate>>) {
        let place = old.and_then(|old| self.places.get(old.instance().key()).copied());
        match (place, new) {
            (Some(place), Some(new)) => {
                self.row.set(place, new.clone());
            }
            (None, Some(new)) => {
                self.places.insert(new.instance().key().clone(), self.row.len());
                self.row.push_back(new.clone());
            }
            (Some(place), None) => {
                let Some(last) = self.row.pop_back() else { return };
                if place < self.row.len() {
                    self.places.insert(last.instance().key().clone(), place);
                    self.row.set(place, last);
                }
                if let Some(old) = old {
                    self.places.remove(old.instance().key());
                }
            }
            (None, None) => {}
        }
    }

    pub(super) fn len(&self) -> usize {
        self.row.len()
    }

    pub(super) fn get(&self, place: usize) -> Option<&Arc<Candidate>> {
        self.row.get(place)
    }
}
