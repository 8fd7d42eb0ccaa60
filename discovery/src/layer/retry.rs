//! Trying again, where that is safe.

use std::sync::Arc;

use futures_util::stream::BoxStream;
use tokio::time;

use super::{
    Layer,
    around::{Around, Layered, Request},
};
use crate::{Backend, Backoff, Outcome, Result};

/// Repeats calls that failed for a passing reason.
///
/// Repeated is what a second try can mend ([`Error::is_transient`](crate::Error::is_transient)) and cannot harm: a
/// call that certainly had no effect, or one that may have any number of times the effect of once. All calls are of
/// the second kind except [`Leases::grant`](crate::Leases::grant) and [`Kv::commit`](crate::kv::Kv::commit); of those,
/// one whose reply was lost is reported and not repeated. If the reply to any try was lost, the final error says
/// [`Outcome::Unknown`].
///
/// Watches are not repeated: [`Discovery::watch`](crate::Discovery::watch) outlives outages by itself. Neither need
/// registrations be, so this is for `lookup`, `remove` and raw keys. To bound a call with all its tries, add a
/// [`Timeout`](super::Timeout) before; to bound each try, behind.
///
/// # Example: ride out a hiccup
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> discovery::Result<()> {
/// use discovery::{Discovery, Error, ErrorKind, layer::{Fault, Retry}, mem::Mem};
///
/// let fault = Fault::new();
/// let discovery = Discovery::new(Mem::new()).layer(Retry::new(3)).layer(fault.clone());
///
/// fault.fail_next(2, &Error::new(ErrorKind::Unavailable, "busy"));
/// assert!(discovery.lookup(&"cart".parse()?).await.is_ok());
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct Retry {
    tries: usize,
    backoff: Backoff,
}

impl Retry {
    /// At most `tries` tries a call, the first one included, at the default pace.
    pub fn new(tries: usize) -> Self {
        Self { tries, backoff: Backoff::default() }
    }

    /// Sets the pace.
    #[must_use]
    pub fn backoff(self, backoff: Backoff) -> Self {
        Self { backoff, ..self }
    }
}

impl Layer for Retry {
    fn wrap(&self, inner: Arc<dyn Backend>) -> Arc<dyn Backend> {
        Layered::wrap(inner, self.clone())
    }
}

impl Around for Retry {
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
        let mut pace = self.backoff.start();
        let mut tries = 0;
        let mut lost_a_reply = false;
        loop {
            let error = match attempt().await {
                Ok(reply) => return Ok(reply),
                Err(error) => error,
            };
            tries += 1;
            lost_a_reply |= error.outcome() == Outcome::Unknown;
            let harmless = request.is_idempotent() || !lost_a_reply;
            if tries >= self.tries || !harmless || !error.is_transient() {
                return Err(if lost_a_reply { error.maybe_applied() } else { error });
            }
            let delay = pace.next_delay();
            tracing::debug!(backend = %backend.info(), %request, %error, ?delay, "trying again");
            time::sleep(delay).await;
        }
    }

    fn stream<T: Send + 'static>(
        &self,
        _: &dyn Backend,
        _: Request<'_>,
        open: impl FnOnce() -> BoxStream<'static, Result<T>>,
    ) -> BoxStream<'static, Result<T>> {
        open()
    }
}
