//! The connection to one member of the cluster at a time.
//!
//! The client library would spread calls over all members, those that are down included, and reconnect behind our back.
//! Here a connection is to one member and is never made twice: when it is lost, everything sent on it afterwards fails
//! at once and for certain was never sent, and the next caller has another one opened, to the next member.
//!
//! All calls demand a leader. None reads from the member alone, so a member without a leader could only keep us
//! waiting; and the streams of watches end when a member has lost its leader, instead of falling silent.

mod history;
mod open;
mod stream;

use std::{
    fmt,
    future::Future,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use discovery::{Error, ErrorKind, Result};
use etcd_client::{Client, KvClient, LeaseClient, WatchClient};
use futures_util::{
    FutureExt,
    future::{BoxFuture, Shared},
};
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    task::JoinHandle,
    time::{Instant, timeout_at},
};

pub(crate) use self::history::History;
use crate::{config::EtcdConfig, error::Trouble, path::Layout};

/// How many operations may be under way at once. etcd is fastest with some hundred requests in flight; more only wait
/// in the server.
const IN_FLIGHT: usize = 256;

/// The most bytes of an answer: what a server sends at most.
const ANSWER_MAX: usize = i32::MAX as usize;

/// A connection to one member.
pub(crate) struct Connection {
    address: String,
    /// The history of the cluster that its answers belong to.
    era: u64,
    kv: KvClient,
    lease: LeaseClient,
    watch: WatchClient,
    /// Set when the member is out of reach, or of no use. Only makes the next caller open another connection, so
    /// relaxed ordering will do; what is under way goes on.
    is_over: AtomicBool,
}

impl Connection {
    fn new(address: &str, era: u64, client: &Client) -> Self {
        Self {
            address: address.to_owned(),
            era,
            kv: client.kv_client().max_decoding_message_size(ANSWER_MAX),
            lease: client.lease_client(),
            watch: client.watch_client().max_decoding_message_size(ANSWER_MAX),
            is_over: AtomicBool::new(false),
        }
    }

    /// The history of the cluster that its answers belong to.
    pub(crate) fn era(&self) -> u64 {
        self.era
    }

    /// `host:port` of the member.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    pub(crate) fn kv(&self) -> KvClient {
        self.kv.clone()
    }

    pub(crate) fn lease(&self) -> LeaseClient {
        self.lease.clone()
    }

    pub(crate) fn watch(&self) -> WatchClient {
        self.watch.clone()
    }

    /// The answer to a request. Whoever gets none has the next caller open another connection.
    pub(crate) async fn call<T>(
        &self,
        deadline: Instant,
        answer: impl Future<Output = Result<T, etcd_client::Error>>,
    ) -> Result<T, Trouble> {
        let answer = match timeout_at(deadline, answer).await {
            Ok(answer) => answer.map_err(Trouble::from),
            Err(_) => Err(Trouble::Late),
        };
        if answer.as_ref().is_err_and(Trouble::is_of_connection) {
            self.give_up();
        }
        answer
    }

    /// Has the next caller open another one.
    pub(crate) fn give_up(&self) {
        if !self.is_over.swap(true, Ordering::Relaxed) {
            tracing::debug!(server = %self.address, "connection given up");
        }
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Connection({})", self.address)
    }
}

/// The cluster as one handle sees it; shared by a store and the watches that it started.
pub(crate) struct Cluster {
    config: Arc<EtcdConfig>,
    layout: Layout,
    history: Arc<History>,
    /// The attempt to open the present connection, which is over or under way; all callers share it. Held for single
    /// looks, never across an `await`.
    opening: Mutex<Option<Opening>>,
    /// Which server to try first; counts on with each attempt.
    next: AtomicUsize,
    in_flight: Semaphore,
}

type Opening = Shared<BoxFuture<'static, Result<Arc<Connection>>>>;

impl Cluster {
    pub(crate) fn new(config: EtcdConfig) -> Self {
        Self {
            layout: config.layout(),
            history: Arc::default(),
            opening: Mutex::new(None),
            // Many clients with the same configuration shall not all use the same member.
            next: AtomicUsize::new(fastrand::usize(..config.servers().len())),
            in_flight: Semaphore::new(IN_FLIGHT),
            config: Arc::new(config),
        }
    }

    pub(crate) fn config(&self) -> &EtcdConfig {
        &self.config
    }

    pub(crate) fn layout(&self) -> &Layout {
        &self.layout
    }

    pub(crate) fn history(&self) -> &Arc<History> {
        &self.history
    }

    /// The end of an operation that begins now.
    pub(crate) fn deadline(&self) -> Instant {
        Instant::now() + self.config.call_timeout()
    }

    /// The present connection, or a new one.
    ///
    /// # Errors
    ///
    /// Why none could be opened; the next call tries again.
    pub(crate) async fn connection(&self, deadline: Instant) -> Result<Arc<Connection>> {
        let opening = {
            let mut slot = self.slot();
            match slot.as_ref().map(|opening| (opening, opening.peek())) {
                Some((_, Some(Ok(connection)))) if !connection.is_over.load(Ordering::Relaxed) => {
                    return Ok(connection.clone());
                }
                Some((opening, None)) => opening.clone(),
                _ => slot.insert(self.open()).clone(),
            }
        };
        timeout_at(deadline, opening).await.unwrap_or_else(|_| {
            let message = "there was no connection within the call timeout";
            Err(Error::new(ErrorKind::Timeout, message).not_applied())
        })
    }

    /// The answer to a request, and the connection it came on. What was certainly not sent, because the connection was
    /// over without anybody having noticed, is sent once more on another one.
    pub(crate) async fn call<T, F>(
        &self,
        deadline: Instant,
        send: impl Fn(&Connection) -> F,
    ) -> Result<(Arc<Connection>, Result<T, Trouble>)>
    where
        F: Future<Output = Result<T, etcd_client::Error>>,
    {
        let connection = self.connection(deadline).await?;
        let answer = connection.call(deadline, send(&connection)).await;
        if !answer.as_ref().is_err_and(Trouble::is_unsent) {
            return Ok((connection, answer));
        }
        let connection = self.connection(deadline).await?;
        let answer = connection.call(deadline, send(&connection)).await;
        Ok((connection, answer))
    }

    /// Waits for a place among the operations under way.
    pub(crate) async fn admit(&self, deadline: Instant) -> Result<SemaphorePermit<'_>> {
        match timeout_at(deadline, self.in_flight.acquire()).await {
            Ok(Ok(place)) => Ok(place),
            // Nobody closes it.
            Ok(Err(closed)) => Err(Error::new(ErrorKind::Closed, "the store is closed").with_source(closed)),
            Err(_) => {
                let message = "too many operations are under way, and none ended within the call timeout";
                Err(Error::new(ErrorKind::Timeout, message).not_applied())
            }
        }
    }

    /// A task, so that a caller who gives up does not leave the others with half a connection.
    fn open(&self) -> Opening {
        let first = self.next.fetch_add(1, Ordering::Relaxed);
        let (config, history) = (self.config.clone(), self.history.clone());
        let mut task = Task(tokio::spawn(async move { open::open(&config, &history, first).await }));
        let opened = async move {
            (&mut task.0).await.unwrap_or_else(|error| {
                let stopped = Error::new(ErrorKind::Unavailable, "the attempt to connect was stopped");
                Err(stopped.not_applied().with_source(error))
            })
        };
        opened.boxed().shared()
    }

    fn slot(&self) -> MutexGuard<'_, Option<Opening>> {
        self.opening.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Cluster({})", self.config)
    }
}

/// A task that ends with its handle.
struct Task<T>(JoinHandle<T>);

impl<T> Drop for Task<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}
