//! Telling what is done.

use std::sync::Arc;

use futures_util::{StreamExt, stream::BoxStream};
use tokio::time::Instant;
use tracing::Instrument;

use super::{
    Layer,
    around::{Around, Layered, Request},
};
use crate::{Backend, Result};

/// Tells of every call with [`tracing`]: a span `discovery` with the backend, the operation and what it is about, and
/// in it an event with the outcome and the time it took.
///
/// Spans and successes are at debug level and failures at info level: only the caller can judge what a failure means,
/// and a conflict, say, is often part of the plan. Of a watch, the span lasts as long as the watch, and the events are
/// its first item and its errors. Names and keys are told; values, metadata and secrets are not.
///
/// # Example: outermost, so that time and outcome are what the program sees
///
/// ```
/// use discovery::{Discovery, layer::{Retry, Trace}, mem::Mem};
///
/// let discovery = Discovery::new(Mem::new()).layer(Trace::new()).layer(Retry::new(3));
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct Trace(());

impl Trace {
    /// Tells of everything.
    pub fn new() -> Self {
        Self(())
    }
}

impl Layer for Trace {
    fn wrap(&self, inner: Arc<dyn Backend>) -> Arc<dyn Backend> {
        Layered::wrap(inner, *self)
    }
}

impl Around for Trace {
    async fn call<T, F>(
        &self,
        backend: &dyn Backend,
        request: Request<'_>,
        attempt: impl Fn() -> F + Send + Sync,
    ) -> Result<T>
    where
        T: Send,
        F: Future<Output = Result<T>> + Send,
    {
        let call = Told::start(backend, request);
        let reply = attempt().instrument(call.span.clone()).await;
        call.tell(&reply);
        reply
    }

    fn stream<T: Send + 'static>(
        &self,
        backend: &dyn Backend,
        request: Request<'_>,
        open: impl FnOnce() -> BoxStream<'static, Result<T>>,
    ) -> BoxStream<'static, Result<T>> {
        let call = Told::start(backend, request);
        let items = call.span.in_scope(open);
        let mut first = true;
        items
            .inspect(move |item| {
                if std::mem::take(&mut first) || item.is_err() {
                    call.tell(item);
                }
            })
            .boxed()
    }
}

/// A call under way.
struct Told {
    span: tracing::Span,
    started: Instant,
}

impl Told {
    fn start(backend: &dyn Backend, request: Request<'_>) -> Self {
        let (backend, operation) = (backend.info(), request.operation());
        let span = tracing::debug_span!("discovery", %backend, operation, about = %request);
        Self { span, started: Instant::now() }
    }

    fn tell<T>(&self, reply: &Result<T>) {
        let elapsed = self.started.elapsed();
        match reply {
            Ok(_) => tracing::debug!(parent: &self.span, ?elapsed, "done"),
            Err(error) => {
                let (kind, outcome) = (error.kind(), error.outcome());
                tracing::info!(parent: &self.span, ?elapsed, ?kind, ?outcome, %error, "failed");
            }
        }
    }
}
