//! One lease for what recipes hold: renewed for as long as it can be, and given up for good when it cannot.
//!
//! The opposite of a keeper, which puts back whatever was lost: who holds a lock must not get it back behind his back.

use std::{
    fmt,
    sync::{Arc, Weak},
    time::Duration,
};

use futures_util::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use tokio::{
    sync::{Mutex, mpsc, oneshot, watch},
    time::{self, Instant},
};

use super::keeper::{no_facet, pending_or, unpanicked};
use crate::{
    Backend, Error, ErrorKind, Grant, LeaseId, Leases, Result,
    backoff::{Attempts, Backoff},
    kv::{Key, Kv, Txn},
};

/// The sessions of one backend.
pub(crate) struct Sessions {
    backend: Arc<dyn Backend>,
    backoff: Backoff,
    /// Those in use; who holds one keeps it alive. Locked while a lease is granted: whoever comes meanwhile shares it.
    open: Mutex<Vec<Weak<Session>>>,
}

impl Sessions {
    pub(crate) fn new(backend: Arc<dyn Backend>, backoff: Backoff) -> Self {
        Self { backend, backoff, open: Mutex::default() }
    }

    pub(crate) fn backend(&self) -> &Arc<dyn Backend> {
        &self.backend
    }

    /// The keys that sessions are for.
    pub(crate) fn kv(&self) -> Result<&dyn Kv> {
        self.backend.kv().ok_or_else(no_facet)
    }

    pub(crate) fn backoff(&self) -> Backoff {
        self.backoff
    }

    /// A session that others with the same `ttl` may share, unless there are as many of them as should be on one lease.
    ///
    /// That is found in a task: whoever waits may be a future that is not polled for a while, and would else keep all others
    /// waiting behind it.
    pub(crate) async fn get(self: &Arc<Self>, ttl: Duration) -> Result<Arc<Session>> {
        let sessions = self.clone();
        let found = tokio::spawn(async move { sessions.find(ttl).await }).await;
        found.unwrap_or_else(|error| {
            Err(Error::new(ErrorKind::Closed, "the runtime is being shut down").with_source(error))
        })
    }

    async fn find(&self, ttl: Duration) -> Result<Arc<Session>> {
        let room = self.backend.info().capabilities().max_per_lease;
        let mut open = self.open.lock().await;
        open.retain(|session| session.strong_count() > 0);
        let fits = |session: &Arc<Session>| {
            session.asked == ttl && session.is_open() && Arc::strong_count(session) <= room
        };
        if let Some(session) = open.iter().rev().filter_map(Weak::upgrade).find(fits) {
            return Ok(session);
        }
        let session = Arc::new(Session::open(self.backend.clone(), self.backoff, ttl).await?);
        open.push(Arc::downgrade(&session));
        Ok(session)
    }
}

impl fmt::Debug for Sessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sessions({:?})", self.backend)
    }
}

/// A lease that is renewed by a task for as long as somebody holds this.
#[derive(Debug)]
pub(crate) struct Session {
    lease: LeaseId,
    /// The ttl that was asked for; the one that was granted may differ.
    asked: Duration,
    standing: watch::Receiver<Standing>,
    /// The task ends when the last sender is gone, and the lease with it.
    orders: mpsc::UnboundedSender<Order>,
}

/// How a session stands, and what hangs on it.
#[derive(Clone, Debug)]
pub(crate) enum Standing {
    /// Cannot have ended before this moment, by this clock.
    Until(Instant),
    /// Is over, or can no longer be proven not to be.
    Ended(Error),
}

impl Standing {
    /// Until when it is certain; `None` if it is over.
    pub(crate) fn until(&self) -> Option<Instant> {
        match self {
            Self::Until(deadline) if Instant::now() < *deadline => Some(*deadline),
            Self::Until(_) | Self::Ended(_) => None,
        }
    }
}

/// Answers whoever gave an order.
type Ack = oneshot::Sender<Result<()>>;

enum Order {
    /// Find out whether the lease lives, behind all writes that were sent before.
    Prove(Ack),
    /// Take back an entry that is there.
    Retire { key: Key, ack: Option<Ack> },
    /// Take back an entry of which nobody knows whether it is there, or is still to come.
    Undo(Key),
}

impl Session {
    async fn open(backend: Arc<dyn Backend>, backoff: Backoff, ttl: Duration) -> Result<Self> {
        let sent = Instant::now();
        let Grant { id, ttl: granted } = unpanicked(leases(&*backend)?.grant(ttl)).await?;
        let (publish, standing) = watch::channel(Standing::Until(sent + granted));
        let (orders, inbox) = mpsc::unbounded_channel();
        let task = Task {
            backend,
            backoff,
            attempts: backoff.start(),
            lease: id,
            ttl: granted,
            deadline: sent + granted,
            due: sent + granted / 3,
            publish,
            renewal: None,
            asking: Vec::new(),
            waiting: Vec::new(),
            removals: FuturesUnordered::new(),
        };
        tokio::spawn(task.run(inbox));
        Ok(Self { lease: id, asked: ttl, standing, orders })
    }

    pub(crate) fn lease(&self) -> LeaseId {
        self.lease
    }

    pub(crate) fn is_open(&self) -> bool {
        !self.orders.is_closed() && self.standing.borrow().until().is_some()
    }

    /// How it stands, now and in future.
    pub(crate) fn standing(&self) -> watch::Receiver<Standing> {
        self.standing.clone()
    }

    /// Waits until the fate of all writes under this lease is settled: each is in effect or never will be.
    pub(crate) async fn prove(&self) -> Result<()> {
        self.ask(Order::Prove).await
    }

    /// Takes back an entry that was written under this lease, and waits until it is gone.
    pub(crate) async fn retire(&self, key: Key) -> Result<()> {
        self.ask(|ack| Order::Retire { key, ack: Some(ack) }).await
    }

    /// The same in the background.
    pub(crate) fn retire_later(&self, key: Key) {
        self.tell(Order::Retire { key, ack: None });
    }

    /// Sees to it in the background that nothing comes of a write whose outcome is not known.
    pub(crate) fn undo_later(&self, key: Key) {
        self.tell(Order::Undo(key));
    }

    fn tell(&self, order: Order) {
        // A task that is gone ended with its lease, or with the runtime.
        let _ = self.orders.send(order);
    }

    async fn ask(&self, order: impl FnOnce(oneshot::Sender<Result<()>>) -> Order) -> Result<()> {
        let (ack, done) = oneshot::channel();
        self.tell(order(ack));
        super::answer(&self.orders, done).await.unwrap_or_else(|| Err(self.why_ended()))
    }

    /// Why there is no session any more.
    pub(crate) fn why_ended(&self) -> Error {
        match &*self.standing.borrow() {
            Standing::Ended(error) => error.clone(),
            Standing::Until(_) => unproven(),
        }
    }
}

/// What runs behind a session.
struct Task {
    backend: Arc<dyn Backend>,
    backoff: Backoff,
    attempts: Attempts,
    lease: LeaseId,
    ttl: Duration,
    /// Counts from *sending* the last good renewal: the server cannot have ended the lease before.
    deadline: Instant,
    /// When to renew next.
    due: Instant,
    publish: watch::Sender<Standing>,
    /// The renewal under way, and when it was sent.
    renewal: Option<BoxFuture<'static, (Instant, Result<Duration>)>>,
    /// Who wants to know how it ends.
    asking: Vec<Ack>,
    /// Who came later, and wants one that is sent from now on.
    waiting: Vec<Ack>,
    /// Entries that are being taken back.
    removals: FuturesUnordered<BoxFuture<'static, ()>>,
}

impl Task {
    /// Serves until the last holder is gone or the lease can no longer be proven to live, and then ends it.
    async fn run(mut self, mut inbox: mpsc::UnboundedReceiver<Order>) {
        let ended = loop {
            self.renew_if_due();
            let due = (self.renewal.is_none()).then_some(self.due);
            let wake = due.map_or(self.deadline, |due| due.min(self.deadline));
            tokio::select! {
                order = inbox.recv() => match order {
                    Some(order) => self.obey(order),
                    // Nobody holds anything any more; what is left to be taken back ends with the lease.
                    None => return self.end().await,
                },
                Some(()) = self.removals.next() => {}
                (sent, outcome) = pending_or(&mut self.renewal) => {
                    self.renewal = None;
                    if let Err(lost) = self.renewed(sent, outcome) {
                        break lost;
                    }
                }
                () = time::sleep_until(wake) => if Instant::now() >= self.deadline {
                    break unproven();
                },
            }
        };
        tracing::warn!(backend = %self.backend.info(), error = %ended, "lease lost, with all that was held under it");
        self.publish.send_replace(Standing::Ended(ended));
        drop(inbox);
        self.end().await;
    }

    fn renew_if_due(&mut self) {
        let sent = Instant::now();
        if self.renewal.is_some() || self.due > sent {
            return;
        }
        self.asking.append(&mut self.waiting);
        let (backend, lease, limit) = (self.backend.clone(), self.lease, self.ttl / 3);
        let renewal = async move {
            let outcome = match leases(&*backend) {
                Ok(leases) => time::timeout(limit, unpanicked(leases.renew(lease))).await,
                Err(error) => Ok(Err(error)),
            };
            // Not the end: there is time to ask again.
            let late = |_| Err(Error::new(ErrorKind::Timeout, format!("no answer within {limit:?}")));
            (sent, outcome.unwrap_or_else(late))
        };
        self.renewal = Some(renewal.boxed());
    }

    /// Takes in how a renewal went; `Err` if the lease is over.
    fn renewed(&mut self, sent: Instant, outcome: Result<Duration>) -> Result<()> {
        match outcome {
            // Too late, even if the lease lives: whoever looked at the clock has given up by now.
            Ok(_) if Instant::now() >= self.deadline => Err(unproven()),
            Ok(ttl) => {
                (self.ttl, self.deadline) = (ttl, sent + ttl);
                self.due = if self.waiting.is_empty() { sent + ttl / 3 } else { Instant::now() };
                self.publish.send_replace(Standing::Until(self.deadline));
                for ack in self.asking.drain(..) {
                    let _ = ack.send(Ok(()));
                }
                Ok(())
            }
            Err(error) if error.kind() == ErrorKind::LeaseLost => Err(error),
            Err(error) => {
                tracing::debug!(backend = %self.backend.info(), %error, "could not renew a lease; trying again");
                self.due = Instant::now() + self.pause();
                Ok(())
            }
        }
    }

    fn obey(&mut self, order: Order) {
        match order {
            Order::Prove(ack) => self.prove(ack),
            Order::Retire { key, ack } => {
                let removal = self.removal(key);
                self.removals.push(match ack {
                    Some(ack) => removal.once().map(|outcome| drop(ack.send(outcome))).boxed(),
                    None => removal.at_last().boxed(),
                });
            }
            Order::Undo(key) => {
                let (ack, proof) = oneshot::channel();
                self.prove(ack);
                let removal = self.removal(key);
                let undo = async {
                    if let Ok(Ok(())) = proof.await {
                        removal.at_last().await;
                    }
                };
                self.removals.push(undo.boxed());
            }
        }
    }

    fn removal(&self, key: Key) -> Removal {
        let attempts = self.backoff.up_to(self.ttl / 10).start();
        Removal { backend: self.backend.clone(), key, attempts }
    }

    fn prove(&mut self, ack: Ack) {
        self.waiting.push(ack);
        self.due = self.due.min(Instant::now());
    }

    /// Before what failed is tried again. Pauses that grow must not outgrow the lease.
    fn pause(&mut self) -> Duration {
        self.attempts.next_delay().min(self.ttl / 10)
    }

    /// Ends the lease as soon as that is possible; else it ends by itself.
    async fn end(mut self) {
        // Whoever still waits for an answer hears now that there will be none.
        self.asking.clear();
        self.waiting.clear();
        self.removals.clear();
        self.renewal = None;
        let limit = self.ttl;
        let revoked = async {
            while let Err(error) = revoke(&*self.backend, self.lease).await
                && error.is_transient()
            {
                time::sleep(self.pause()).await;
            }
        };
        let _ = time::timeout(limit, revoked).await;
    }
}

/// Deletes a key that nobody else writes.
struct Removal {
    backend: Arc<dyn Backend>,
    key: Key,
    attempts: Attempts,
}

impl Removal {
    /// Unless the backend refuses.
    async fn once(mut self) -> Result<()> {
        loop {
            match self.attempt().await {
                Err(error) if error.is_transient() => time::sleep(self.attempts.next_delay()).await,
                outcome => return outcome,
            }
        }
    }

    /// Whatever the backend says: others wait for that. The end of the lease, which would do it, may be far off, for more
    /// may be held under it.
    async fn at_last(mut self) {
        let mut is_told = false;
        while let Err(error) = self.attempt().await {
            if !error.is_transient() && !is_told {
                tracing::warn!(%error, "what is not held any more cannot be taken back; trying again and again");
                is_told = true;
            }
            time::sleep(self.attempts.next_delay()).await;
        }
    }

    async fn attempt(&self) -> Result<()> {
        let kv = self.backend.kv().ok_or_else(no_facet)?;
        unpanicked(kv.commit(Txn::new().delete(&self.key))).await.map(drop)
    }
}

async fn revoke(backend: &dyn Backend, lease: LeaseId) -> Result<()> {
    unpanicked(leases(backend)?.revoke(lease)).await
}

fn leases(backend: &dyn Backend) -> Result<&dyn Leases> {
    backend.leases().ok_or_else(no_facet)
}

fn unproven() -> Error {
    Error::new(ErrorKind::LeaseLost, "the lease was not renewed in time, and may have ended")
}
