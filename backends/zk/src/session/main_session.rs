//! The session for everything that is not bound to a lease.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use discovery::{Error, ErrorKind, Result};
use futures_util::{
    FutureExt,
    future::{BoxFuture, Shared},
};
use tokio::time::{Instant, timeout_at};

use super::{Room, Session, Task};
use crate::config::ZkConfig;

/// How soon a client that has lost its connection has found another one, if its first attempt succeeds.
const BACK_WITHIN: Duration = Duration::from_millis(100);

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

    /// The session; connected a moment ago.
    ///
    /// The client waits twice as long before each attempt to come back, so what an outage took it may take once more.
    /// A session that is not back soon is therefore replaced. Nothing is bound to it: its watches have ended with the
    /// connection.
    ///
    /// # Errors
    ///
    /// Why none could be opened; the next call tries again.
    pub(crate) async fn session(&self, deadline: Instant) -> Result<Arc<Session>> {
        let session = self.present_or_new(deadline).await?;
        if session.ready(deadline.min(Instant::now() + BACK_WITHIN)).await.is_ok() {
            return Ok(session);
        }
        self.forget(&session);
        self.present_or_new(deadline).await
    }

    async fn present_or_new(&self, deadline: Instant) -> Result<Arc<Session>> {
        let opening = {
            let mut slot = self.slot();
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

    /// Has the next call open another session, unless somebody has done so already.
    fn forget(&self, session: &Arc<Session>) {
        let is_it = |opening: &mut Opening| {
            opening
                .peek()
                .is_some_and(|opened| opened.as_ref().is_ok_and(|opened| Arc::ptr_eq(opened, session)))
        };
        self.slot().take_if(is_it);
    }

    /// The session if there is one now.
    pub(crate) fn present(&self) -> Option<Arc<Session>> {
        self.slot().as_ref()?.peek()?.as_ref().ok().filter(|session| !session.is_over()).cloned()
    }

    fn slot(&self) -> MutexGuard<'_, Option<Opening>> {
        self.opening.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A task, so that a caller who gives up does not leave the others with half a connection.
    fn open(&self) -> Opening {
        let config = self.config.clone();
        let task = Task(tokio::spawn(async move {
            Session::open(&config, config.session_timeout(), false).await.map(Arc::new)
        }));
        let opened = async {
            task.await.unwrap_or_else(|error| {
                let stopped = Error::new(ErrorKind::Unavailable, "the attempt to connect was stopped");
                Err(stopped.not_applied().with_source(error))
            })
        };
        opened.boxed().shared()
    }
}

/// The main session and, for watches that find no room on it, others like it.
pub(crate) struct WatchSessions {
    main: Arc<Main>,
    /// Each ends with its last watch; its place is then for another one. Held for single looks, never across an `await`.
    others: Mutex<Vec<Weak<Main>>>,
}

impl WatchSessions {
    pub(crate) fn new(main: Arc<Main>) -> Self {
        Self { main, others: Mutex::default() }
    }

    /// The first session that has room for a watch of a node; connected.
    pub(crate) async fn room(&self, node: &str, deadline: Instant) -> Result<(Arc<Session>, Room)> {
        let mut main = self.main.clone();
        let mut session = main.session(deadline).await?;
        let mut place = 0;
        loop {
            if let Some(room) = session.room_for_watch(node, &main) {
                session.ready(deadline).await?;
                return Ok((session, room));
            }
            main = self.other(place);
            session = main.session(deadline).await.map_err(no_other)?;
            place += 1;
        }
    }

    /// The one at a place, or a new one for there.
    fn other(&self, place: usize) -> Arc<Main> {
        // Each place is as good as any other, so a panic elsewhere under the lock does no harm.
        let mut others = self.others.lock().unwrap_or_else(PoisonError::into_inner);
        if place == others.len() {
            others.push(Weak::new());
        }
        others[place].upgrade().unwrap_or_else(|| {
            let main = Arc::new(Main::new(self.main.config.clone()));
            others[place] = Arc::downgrade(&main);
            main
        })
    }
}

/// Why there is no further session.
fn no_other(error: Error) -> Error {
    let message =
        "no further session for more watches; if the server is up, does its maxClientCnxns allow one more?";
    Error::new(error.kind(), message).not_applied().with_source(error)
}
