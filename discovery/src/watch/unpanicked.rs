//! A backend that panics is one that fails: else whoever reads its stream would end, or go on in the belief that nothing
//! happens.

use std::panic::{AssertUnwindSafe, catch_unwind};

use futures_util::{FutureExt, StreamExt, stream, stream::BoxStream};

use crate::{Error, ErrorKind, Result};

/// A stream of a backend; one that cannot even be asked for fails.
pub(super) fn open<T: Send + 'static>(
    ask: impl FnOnce() -> BoxStream<'static, Result<T>>,
) -> BoxStream<'static, Result<T>> {
    catch_unwind(AssertUnwindSafe(ask)).unwrap_or_else(|_| stream::once(async { Err(panicked()) }).boxed())
}

/// Its next item. What has panicked is to be dropped, not polled again.
pub(super) async fn next<T>(updates: &mut BoxStream<'static, Result<T>>) -> Option<Result<T>> {
    let item = AssertUnwindSafe(updates.next()).catch_unwind().await;
    item.unwrap_or_else(|_| Some(Err(panicked())))
}

fn panicked() -> Error {
    Error::new(ErrorKind::Other, "the backend panicked; starting over")
}
