//! Sessions with the server: one for reads, permanent entries and watches, more if those are many, and one for each
//! lease.
//!
//! The client library reconnects a session by itself but never replaces one that expired; [`Main`] does. It queues
//! what is called while there is no connection, without bound or deadline; so [`Session::ready`] is awaited first, and
//! a request that was never sent is known to be that. It sends a request when the method is *called* and does not take
//! it back when the future is dropped; so whatever was called is either answered or of unknown outcome.
//!
//! A session lives as long as a clone of its client. None is made here: a [`Session`] owns the only one, and requests
//! borrow it.

mod horizon;
mod lease;
mod main_session;
mod pulse;

use std::{
    fmt,
    future::Future,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use discovery::{Error, ErrorKind, LeaseId, Result, Revision};
use tokio::{
    sync::watch,
    task::{JoinError, JoinHandle},
    time::{Instant, timeout_at},
};
use zookeeper_client as zk;

use self::pulse::Pulse;
pub(crate) use self::{
    horizon::{AsOf, Horizon},
    lease::LeaseSessions,
    main_session::{Main, WatchSessions},
};
use crate::{
    config::ZkConfig,
    error::{Cause, Trouble},
};

/// The most bytes that the paths of a session's watches may have together. Beyond 128 KiB the client splits the list
/// that it sends when it reconnects, mistakes the second answer for a protocol error, and reconnects for ever. Watches
/// that find no room are set on another session.
const WATCHED_MAX: usize = 100 * 1024;

/// How long an answer may take before the server is nudged. Servers from 3.6.0 to 3.8.0 may overlook a request until
/// another one comes (ZOOKEEPER-4537); on a quiet server that would be the next ping, seconds later.
const PATIENCE: Duration = Duration::from_millis(200);

/// A session and what is known about its server.
pub(crate) struct Session {
    client: zk::Client,
    lease: Option<LeaseId>,
    /// The highest zxid that the server of this session is known to have applied.
    seen: Horizon,
    pulse: Pulse,
    /// Set when the client has lost its way: its task was stopped with the runtime it was on, or it did not understand
    /// an answer. Only makes the next caller open another session, so relaxed ordering will do.
    broken: AtomicBool,
    /// Turns true when nobody may use the session any more: requests under way then let go of the client, whose end
    /// ends the session.
    ended: watch::Sender<bool>,
    /// The bytes of the paths that are being watched.
    watched: Arc<AtomicUsize>,
}

impl Session {
    /// Opens a session. `ttl` is what is asked for; the server decides.
    async fn open(config: &ZkConfig, ttl: Duration, is_lease: bool) -> Result<Self> {
        let deadline = Instant::now() + config.connect_timeout();
        let client = timeout_at(deadline, config.connect(ttl)).await;
        let client = client.unwrap_or(Err(zk::Error::Timeout)).map_err(|error| unreachable(config, error))?;
        let lease = is_lease.then(|| lease_id(client.session_id().0));
        tracing::debug!(session = %client.session_id(), timeout = ?client.session_timeout(), "session opened");
        Ok(Self {
            client,
            lease,
            seen: Horizon::default(),
            pulse: Pulse::default(),
            broken: AtomicBool::new(false),
            ended: watch::Sender::new(false),
            watched: Arc::default(),
        })
    }

    /// The client: requests borrow it, nobody clones it.
    pub(crate) fn client(&self) -> &zk::Client {
        &self.client
    }

    /// The owner of the ephemeral nodes that this session creates.
    pub(crate) fn id(&self) -> i64 {
        self.client.session_id().0
    }

    /// Whether nothing can be done with it any more.
    pub(crate) fn is_over(&self) -> bool {
        self.client.state().is_terminated() || self.broken.load(Ordering::Relaxed)
    }

    fn is_connected(&self) -> bool {
        self.client.state() == zk::SessionState::SyncConnected
    }

    /// Waits until there is a connection.
    ///
    /// # Errors
    ///
    /// As for a request, except that nothing was sent.
    pub(crate) async fn ready(&self, deadline: Instant) -> Result<()> {
        if self.is_connected() {
            return Ok(());
        }
        let mut states = self.client.state_watcher();
        let connected = async {
            let mut state = states.state();
            while state == zk::SessionState::Disconnected {
                state = states.changed().await;
            }
            match state {
                zk::SessionState::Expired => Err(zk::Error::SessionExpired),
                zk::SessionState::Closed => Err(zk::Error::ClientClosed),
                zk::SessionState::AuthFailed => Err(zk::Error::AuthFailed),
                _ => Ok(()),
            }
        };
        match self.call(deadline, connected).await {
            Ok(()) => Ok(()),
            Err(Trouble::Late) => {
                let message = "the connection is lost, and did not come back within the call timeout";
                Err(Error::new(ErrorKind::Unavailable, message).not_applied())
            }
            Err(trouble) => Err(self.failed(trouble).not_applied()),
        }
    }

    /// The answer to a request that has been sent.
    pub(crate) async fn call<T, E: Into<Trouble>>(
        &self,
        deadline: Instant,
        answer: impl Future<Output = Result<T, E>>,
    ) -> Result<T, Trouble> {
        let mut answer = pin!(answer);
        let mut ended = self.ended.subscribe();
        let mut wait = async |until| {
            tokio::select! {
                biased;
                answer = timeout_at(until, &mut answer) => answer.ok().map(|answer| answer.map_err(Into::into)),
                // The sender is our own: it is there as long as we are.
                _ = ended.wait_for(|ended| *ended) => Some(Err(Trouble::Ended)),
            }
        };
        let patience = deadline.min(Instant::now() + PATIENCE);
        let mut answer = wait(patience).await;
        // Not to be taken for an answer that says `Late` itself, which must not be asked for again.
        if answer.is_none() && patience < deadline {
            if self.is_connected() {
                // Sent by being called; nobody waits for what comes of it.
                drop(self.client.check_stat("/"));
            }
            answer = wait(deadline).await;
        }
        let answer = answer.unwrap_or(Err(Trouble::Late));
        if let Err(Trouble::Client(zk::Error::UnexpectedError(_))) = answer {
            self.broken.store(true, Ordering::Relaxed);
        }
        answer
    }

    /// The failure of a request of this session, for the caller.
    pub(crate) fn failed(&self, trouble: Trouble) -> Error {
        match self.lease {
            Some(lease) if trouble.is_end_of_session() => lease_lost(lease),
            _ => trouble.into(),
        }
    }

    /// Reserves the room that a watch takes, if there is enough.
    fn room_for_watch(&self, path: &str, main: &Arc<Main>) -> Option<Room> {
        let room = Room { _main: main.clone(), watched: self.watched.clone(), bytes: path.len() };
        // A count and nothing else: relaxed ordering will do. The room returns what it took also if it is refused.
        let watched = self.watched.fetch_add(room.bytes, Ordering::Relaxed) + room.bytes;
        (watched <= WATCHED_MAX).then_some(room)
    }

    /// Lets go of the client as soon as the requests under way have noticed.
    fn end(&self) {
        self.ended.send_replace(true);
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Session({} {})", self.client.session_id(), self.client.state())
    }
}

/// What one watch takes of [`WATCHED_MAX`]; returned on drop.
pub(crate) struct Room {
    /// Keeps what was opened for watches alone, as long as there is one.
    _main: Arc<Main>,
    watched: Arc<AtomicUsize>,
    bytes: usize,
}

impl Drop for Room {
    fn drop(&mut self) {
        self.watched.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// A task that ends with its handle.
#[derive(Debug)]
struct Task<T>(JoinHandle<T>);

impl<T> Future for Task<T> {
    type Output = Result<T, JoinError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(cx)
    }
}

impl<T> Drop for Task<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A transaction id as a revision.
pub(crate) fn revision(zxid: i64) -> Revision {
    Revision(zxid.cast_unsigned())
}

/// A session as a lease: the ids are the same.
pub(crate) fn lease_id(session: i64) -> LeaseId {
    LeaseId(session.cast_unsigned())
}

/// Why no session could be opened.
fn unreachable(config: &ZkConfig, error: zk::Error) -> Error {
    use zk::Error as E;
    let (kind, message) = match &error {
        E::NoHosts => {
            (ErrorKind::Unavailable, "could be reached; is it up, and is TLS as configured?".to_owned())
        }
        E::Timeout => (ErrorKind::Timeout, format!("answered within {:?}", config.connect_timeout())),
        E::AuthFailed => (ErrorKind::Denied, "accepts user and secret".to_owned()),
        // What goes wrong on the way is tried with the next server until there is none left; this is about us.
        E::Custom(_) | E::BadArguments(_) => {
            (ErrorKind::Invalid, "can be talked to with the certificates given".to_owned())
        }
        _ => return Error::from(Trouble::from(error)).not_applied(),
    };
    Error::new(kind, format!("no server of {config} {message}")).not_applied().with_source(Cause(error))
}

fn lease_lost(lease: LeaseId) -> Error {
    Error::new(ErrorKind::LeaseLost, format!("lease {lease} is gone; grant a new one"))
}
