//! Choosing one of many: whom to call next.
//!
//! A [`Balancer`] follows a [`View`](crate::View) and keeps a [`Table`] of its [`Policy`] up to date: snapshot,
//! freshness and tables are one value that is swapped as a whole, so a pick sees all of one moment. Picking takes no
//! lock, waits for nothing and allocates nothing. Tables are persistent: a change of one among n instances costs
//! O(log n), and the table that others still pick from is not touched.
//!
//! | policy | picks | heeds weights | heeds load |
//! |---|---|---|---|
//! | [`RoundRobin`] | each in turn | no | no |
//! | [`Random`] | anyone, evenly | no | no |
//! | [`Weighted`] | anyone, by weight | yes | no |
//! | [`LeastLoaded`] | the less loaded of two | yes | yes |
//! | [`ConsistentHash`] | the same for the same key | yes | no |
//! | [`PreferZone`] | by another policy, close by | as that one | as that one |
//!
//! # Whom it picks
//!
//! Instances that are [`Up`](crate::Status::Up), have a weight, pass the [filter](BalancerBuilder::filter) and are not
//! [ejected](Ejection). If there are none, then those that are starting, draining or without weight, all alike:
//! they may be able to answer, and an error surely does not. [`BalancerBuilder::up_only`] rules that out. Instances
//! that are [`Down`](crate::Status::Down) are never picked.

mod balancer;
mod candidate;
mod consistent_hash;
mod digest;
mod ejection;
mod follow;
mod least_loaded;
mod random;
mod round_robin;
mod seats;
mod weighted;
mod zone;

use std::{fmt, sync::Arc};

pub use self::{
    balancer::{Balancer, BalancerBuilder},
    candidate::{Candidate, Pick},
    consistent_hash::ConsistentHash,
    ejection::Ejection,
    least_loaded::LeastLoaded,
    random::Random,
    round_robin::RoundRobin,
    weighted::Weighted,
    zone::PreferZone,
};

/// How to choose. A value that a program may make up at run time: `Box<dyn Policy>` is a policy as well.
///
/// # Example: a policy by name
///
/// ```
/// use discovery::balance::{LeastLoaded, Policy, RoundRobin};
///
/// fn policy(name: &str) -> Box<dyn Policy> {
///     match name {
///         "round-robin" => Box::new(RoundRobin::new()),
///         _ => Box::new(LeastLoaded::new()),
///     }
/// }
/// assert_eq!(format!("{:?}", policy("round-robin")), "RoundRobin");
/// ```
pub trait Policy: fmt::Debug + Send + Sync + 'static {
    /// A table without candidates.
    fn table(&self) -> Box<dyn Table>;
}

impl Policy for Box<dyn Policy> {
    fn table(&self) -> Box<dyn Table> {
        (**self).table()
    }
}

/// The candidates of a [`Policy`], laid out so that picking one is fast.
pub trait Table: Send + Sync {
    /// Takes in that `new` came, that `old` left, or that `new` took the place of `old`, which is the same instance as
    /// it was before. `old` is exactly what was handed in as `new` before.
    ///
    /// Costs O(log n): tables that were [published](Table::publish) before share the rest.
    fn change(&mut self, old: Option<&Arc<Candidate>>, new: Option<&Arc<Candidate>>);

    /// How many candidates there are.
    fn size(&self) -> usize;

    /// One of the candidates; `None` only if there are none. Must not block, nor allocate.
    fn pick(&self, draw: &mut Draw) -> Option<&Arc<Candidate>>;

    /// This table as of now, to be picked from while changes go on here. Costs no more than a change does.
    fn publish(&self) -> Box<dyn Table>;
}

/// What a pick is decided by: chance, and the key of the caller if there is one.
#[derive(Debug)]
pub struct Draw {
    key: Option<u64>,
    random: fastrand::Rng,
}

impl Draw {
    /// A draw without a key, from a generator with this seed; for tests of tables.
    pub fn seeded(seed: u64) -> Self {
        Self { key: None, random: fastrand::Rng::with_seed(seed) }
    }

    /// The same draw for a caller with this key.
    #[must_use]
    pub fn for_key(self, key: impl AsRef<[u8]>) -> Self {
        Self { key: Some(digest::of(key.as_ref())), ..self }
    }

    /// The key of the caller as 64 well-mixed bits, which are the same in every process; without a key, random ones.
    pub fn key(&mut self) -> u64 {
        self.key.unwrap_or_else(|| self.random.u64(..))
    }

    /// A random number below `bound`, which must not be 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.random.u64(..bound)
    }

    /// A random index of something that has `len` elements; `None` if it has none.
    pub fn index(&mut self, len: usize) -> Option<usize> {
        (len > 0).then(|| self.random.usize(..len))
    }
}
