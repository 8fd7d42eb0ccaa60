//! Behaviour around any backend: retries, deadlines, traces, faults.
//!
//! The layer that is [added](crate::Discovery::layer) first is outermost: it sees a call first and its outcome last. In
//! the order in which they mostly make sense:
//!
//! | layer | does |
//! |---|---|
//! | [`Trace`] | tells of every call: what the program asked for and what it got |
//! | [`LastKnownGood`] | answers a lookup from memory when everything below has given up |
//! | [`Retry`] | repeats what failed for a passing reason, where that is safe |
//! | [`Timeout`] | gives each try a deadline; before `Retry`, the call as a whole |
//! | [`Limit`] | bounds the calls under way |
//! | [`Prefix`] | moves everything below a name, so that programs can share a store |
//! | [`Fault`] | breaks things, for tests |
//!
//! Facets are what they were: a backend that only reads does so under every layer.

mod around;
mod fault;
mod last_known_good;
mod limit;
mod prefix;
mod retry;
mod timeout;
mod trace;

use std::{fmt, sync::Arc};

pub use self::{
    fault::{Fault, Odds},
    last_known_good::LastKnownGood,
    limit::Limit,
    prefix::Prefix,
    retry::Retry,
    timeout::Timeout,
    trace::Trace,
};
use crate::Backend;

/// Wraps a backend in another one.
///
/// A layer is a pure value: wrapping twice gives two independent stacks, unless the layer shares state on purpose.
pub trait Layer: fmt::Debug + Send + Sync + 'static {
    /// `inner` with this layer around it.
    fn wrap(&self, inner: Arc<dyn Backend>) -> Arc<dyn Backend>;
}
