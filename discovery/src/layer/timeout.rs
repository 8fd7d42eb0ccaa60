//! An end to waiting.

use std::{sync::Arc, time::Duration};

use futures_util::{
    StreamExt, future,
    stream::{self, BoxStream},
};
use tokio::time;

use super::{
    Layer,
    around::{Around, Layered, Request},
};
use crate::{Backend, Error, ErrorKind, Result};

/// Gives up on a call that takes too long, with [`ErrorKind::Timeout`].
///
/// A write that was given up may still take effect: the error says
/// [`Outcome::Unknown`](crate::Outcome::Unknown). Of a watch, only the first item is waited for this long; how soon
/// its silence is noticed later is the backend's to say
/// ([`detects_silence_within`](crate::Capabilities::detects_silence_within)).
///
/// # Example: a deadline for each call
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> discovery::Result<()> {
/// use std::time::Duration;
/// use discovery::{Discovery, ErrorKind, layer::{Fault, Timeout}, mem::Mem};
///
/// let fault = Fault::new();
/// let deadline = Timeout::new(Duration::from_millis(10));
/// let discovery = Discovery::new(Mem::new()).layer(deadline).layer(fault.clone());
///
/// fault.delay(Duration::from_secs(3600));
/// let late = discovery.lookup(&"cart".parse()?).await;
/// assert_eq!(late.unwrap_err().kind(), ErrorKind::Timeout);
/// # Ok(()) }
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Timeout(Duration);

impl Timeout {
    /// At most `limit` a call.
    pub fn new(limit: Duration) -> Self {
        Self(limit)
    }

    fn error(self, request: Request<'_>) -> Error {
        let Self(limit) = self;
        Error::new(ErrorKind::Timeout, format!("no answer about {request} within {limit:?}"))
            .during(request.operation())
    }
}

impl Layer for Timeout {
    fn wrap(&self, inner: Arc<dyn Backend>) -> Arc<dyn Backend> {
        Layered::wrap(inner, *self)
    }
}

impl Around for Timeout {
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
        time::timeout(self.0, attempt()).await.unwrap_or_else(|_| Err(self.error(request)))
    }

    fn stream<T: Send + 'static>(
        &self,
        _: &dyn Backend,
        request: Request<'_>,
        open: impl FnOnce() -> BoxStream<'static, Result<T>>,
    ) -> BoxStream<'static, Result<T>> {
        let late = self.error(request);
        let limit = self.0;
        let mut items = open();
        stream::once(async move {
            match time::timeout(limit, items.next()).await {
                Ok(first) => stream::iter(first).chain(items).left_stream(),
                // The watch was dropped with the wait: nothing is held on the server for nobody.
                Err(_) => stream::once(future::ready(Err(late))).right_stream(),
            }
        })
        .flatten()
        .boxed()
    }
}
