//! Close by, if there are enough.

use std::sync::Arc;

use super::{Candidate, Draw, Policy, Table};

/// Another policy, kept to the instances in one zone for as long as they can bear it.
///
/// They can if they are at least a given share of all candidates: 10 % unless [told](PreferZone::at_least). When the
/// zone falls below, be it that instances left, are draining or were ejected, picks go to all zones alike, and not
/// to the few that remain.
///
/// # Example: least loaded, in our own zone
///
/// ```
/// use discovery::balance::{LeastLoaded, PreferZone};
///
/// let policy = PreferZone::new("eu1-a", LeastLoaded::new()).at_least(25);
/// ```
#[derive(Clone, Debug)]
pub struct PreferZone<P> {
    zone: Arc<str>,
    percent: usize,
    policy: P,
}

impl<P: Policy> PreferZone<P> {
    /// Prefers the instances of `zone`, and chooses among them by `policy`.
    pub fn new(zone: impl Into<String>, policy: P) -> Self {
        Self { zone: zone.into().into(), percent: 10, policy }
    }

    /// The share of all candidates that the zone must have to be preferred, in percent.
    #[must_use]
    pub fn at_least(self, percent: u8) -> Self {
        Self { percent: percent.into(), ..self }
    }
}

impl<P: Policy> Policy for PreferZone<P> {
    fn table(&self) -> Box<dyn Table> {
        Box::new(Zone {
            name: self.zone.clone(),
            percent: self.percent,
            near: self.policy.table(),
            all: self.policy.table(),
        })
    }
}

struct Zone {
    name: Arc<str>,
    percent: usize,
    near: Box<dyn Table>,
    all: Box<dyn Table>,
}

impl Table for Zone {
    fn change(&mut self, old: Option<&Arc<Candidate>>, new: Option<&Arc<Candidate>>) {
        let is_near = |candidate: &&Arc<Candidate>| candidate.instance().zone() == Some(&*self.name);
        self.near.change(old.filter(is_near), new.filter(is_near));
        self.all.change(old, new);
    }

    fn size(&self) -> usize {
        self.all.size()
    }

    fn pick(&self, draw: &mut Draw) -> Option<&Arc<Candidate>> {
        let near = self.near.size();
        let enough = near > 0 && near * 100 >= self.percent * self.all.size();
        if enough { self.near.pick(draw) } else { self.all.pick(draw) }
    }

    fn publish(&self) -> Box<dyn Table> {
        Box::new(Self {
            name: self.name.clone(),
            percent: self.percent,
            near: self.near.publish(),
            all: self.all.publish(),
        })
    }
}
