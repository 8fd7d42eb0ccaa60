//! Behaviour around any backend: retries, deadlines, traces, faults.

mod around;
mod fault;
mod limit;
mod prefix;
mod retry;
mod timeout;
mod trace;

use std::{fmt, sync::Arc};

pub use self::{
    fault::{Fault, Odds},
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
