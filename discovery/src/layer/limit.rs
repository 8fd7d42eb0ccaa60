//! Not too much at once.

use std::{fmt, sync::Arc};

use futures_util::stream::BoxStream;
use tokio::sync::Semaphore;

use super::{
    Layer,
    around::{Around, Layered, Request},
};
use crate::{Backend, Error, ErrorKind, Result};

/// Lets only so many calls be under way at a time; the others wait in line, first come, first served.
///
/// Two kinds of request pass by: watches, which are under way for as long as the program runs, and renewals of leases.
/// A renewal that had to queue behind a thousand registrations could come too late for the lease they are under.
///
/// # Example: spare the server
///
/// ```
/// use discovery::{Discovery, layer::Limit, mem::Mem};
///
/// let discovery = Discovery::new(Mem::new()).layer(Limit::new(64));
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Limit(usize);

impl Limit {
    /// At most `calls` calls at a time, in each stack of layers of its own.
    ///
    /// # Panics
    ///
    /// If `calls` is 0: nothing would ever be done.
    pub fn new(calls: usize) -> Self {
        assert!(calls > 0, "a limit of 0 calls lets nothing through");
        Self(calls.min(Semaphore::MAX_PERMITS))
    }
}

impl Layer for Limit {
    fn wrap(&self, inner: Arc<dyn Backend>) -> Arc<dyn Backend> {
        Layered::wrap(inner, Gate { limit: *self, permits: Semaphore::new(self.0) })
    }
}

/// The limit of one stack.
struct Gate {
    limit: Limit,
    /// Fair: tokio's semaphore hands permits out in the order in which they were asked for.
    permits: Semaphore,
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.limit.fmt(f)
    }
}

impl Around for Gate {
    async fn call<T, F>(
        &self,
        _: &dyn Backend,
        request: Request<'_>,
        attempt: impl Fn() -> F + Send + Sync,
    ) -> Result<T>
    where
        T: Send,
        F: Future<Output = Result<T>> + Send,
    {
        if let Request::Renew(_) = request {
            return attempt().await;
        }
        let closed = |_| Error::new(ErrorKind::Closed, "the limit was closed");
        let _permit = self.permits.acquire().await.map_err(closed)?;
        attempt().await
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
