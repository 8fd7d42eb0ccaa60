//! Behaviour around any backend: retries, deadlines, traces, faults.

use std::{fmt, sync::Arc};

use crate::Backend;

/// Wraps a backend in another one.
///
/// A layer is a pure value: wrapping twice gives two independent stacks, unless the layer shares state on purpose.
pub trait Layer: fmt::Debug + Send + Sync + 'static {
    /// `inner` with this layer around it.
    fn wrap(&self, inner: Arc<dyn Backend>) -> Arc<dyn Backend>;
}
