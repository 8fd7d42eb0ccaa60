//! The session for everything that is not bound to a lease.

use std::sync::{Arc, Mutex, PoisonError};

use discovery::{Error, ErrorKind, Result};
use futures_util::{
    FutureExt,
    future::{BoxFuture, Shared},
};
use tokio::time::{Instant, timeout_at};

use super::{Session, Task};
use crate::config::ZkConfig;

/// Opens the main session when it is first needed, and another one when it is over.
pub(crate) struct Main {
    config: Arc<ZkConfig>,
    /// The attempt to open the present session, which is over or under way; all callers share it. Held for single
    /// looks, never across an `await`.
    opening: Mutex<Option<Opening>>,
}

type Opening = Shared<BoxFuture<'static, Result<Arc<Session>>>>;

impl Main {
    pub(crate) fn new(config: Arc<ZkConfig>) -> Self {
        Self { config, opening: Mutex::new(None) }
    }

    /// The session, connected or not.
    ///
    /// # Errors
    ///
    /// Why none could be opened; the next call tries again.
    pub(crate) async fn session(&self, deadline: Instant) -> Result<Arc<Session>> {
        let opening = {
            let mut slot = self.opening.lock().unwrap_or_else(PoisonError::into_inner);
            match slot.as_ref().map(|opening| (opening, opening.peek())) {
                Some((_, Some(Ok(session)))) if !session.is_over() => return Ok(session.clone()),
                Some((opening, None)) => opening.clone(),
                _ => slot.insert(self.open()).clone(),
            }
        };
        timeout_at(deadline, opening).await.unwrap_or_else(|_| {
            let message = "there was no connection within the call timeout";
            Err(Error::new(ErrorKind::Timeout, message).not_applied())
        })
    }

    /// The session if there is one now.
    pub(crate) fn present(&self) -> Option<Arc<Session>> {
        let slot = self.opening.lock().unwrap_or_else(PoisonError::into_inner);
        slot.as_ref()?.peek()?.as_ref().ok().filter(|session| !session.is_over()).cloned()
    }

    /// A task, so that a caller who gives up does not leave the others with half a connection.
    fn open(&self) -> Opening {
        let config = self.config.clone();
        let task = Task(tokio::spawn(async move {
            Session::open(&config, config.session_timeout(), false).await.map(Arc::new)
        }));
        let opened = async {
            task.await.unwrap_or_else(|error| {
                Err(Error::new(ErrorKind::Other, "the attempt to connect was stopped").with_source(error))
            })
        };
        opened.boxed().shared()
    }
}
