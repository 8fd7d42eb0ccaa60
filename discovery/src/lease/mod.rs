//! Keeping leases alive and registrations in place.
//!
//! A keeper is a task that holds one lease and puts every registration back under it, again and again if it must.
//! Registrations with the same ttl share keepers, as many on each as the backend likes on one lease; permanent
//! registrations share keepers without a lease. All writes of a registration go through its keeper, one at a time:
//! that is why the latest data wins and why nothing comes back after it was withdrawn.
//!
//! A session is the opposite, for recipes: one lease that is never replaced. What was held under it is lost with it, and
//! whoever held it is told.

mod keeper;
mod session;
mod slot;
mod status;

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::future::join_all;
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{self, Instant},
};

pub(crate) use self::session::{Session, Sessions, Standing};
pub use self::status::{Phase, RegistrationStatus};
use crate::{Backend, Instance, OnConflict, Owner, Result, Revision, backoff::Backoff};

/// The keepers of one backend.
pub(crate) struct Keepers {
    backend: Arc<dyn Backend>,
    backoff: Backoff,
    /// By ttl. Registrations keep their keeper alive; here we only know where it is.
    by_ttl: Mutex<HashMap<Option<Duration>, Vec<Weak<Keeper>>>>,
    /// Rung when the backend answers again behind an outage, by whoever learns of it first.
    contact: watch::Sender<()>,
}

impl Keepers {
    pub(crate) fn new(backend: Arc<dyn Backend>, backoff: Backoff) -> Self {
        Self { backend, backoff, by_ttl: Mutex::default(), contact: watch::Sender::new(()) }
    }

    /// Tells those who wait for the backend that it answers again: they need not sit out their pauses. Whoever tried
    /// because of that does not ring in turn.
    pub(crate) fn contact(&self) -> &watch::Sender<()> {
        &self.contact
    }

    pub(crate) fn backend(&self) -> &Arc<dyn Backend> {
        &self.backend
    }

    /// Hands a registration to a keeper that has room, and returns its number there.
    pub(crate) fn attach(&self, ttl: Option<Duration>, order: Order) -> (Arc<Keeper>, u64) {
        let mut by_ttl = self.by_ttl.lock().unwrap_or_else(PoisonError::into_inner);
        let keepers = by_ttl.entry(ttl).or_default();
        keepers.retain(|keeper| keeper.strong_count() > 0);
        let room = self.backend.info().capabilities().max_per_lease;
        // Newest first: older ones are mostly full.
        let keeper = keepers.iter().rev().filter_map(Weak::upgrade).find(|keeper| keeper.has_room(room));
        let keeper = keeper.unwrap_or_else(|| {
            let (commands, inbox) = mpsc::unbounded_channel();
            let keeper = Arc::new(Keeper { commands, load: Arc::default() });
            let contact = self.contact.clone();
            let load = keeper.load.clone();
            tokio::spawn(keeper::run(self.backend.clone(), self.backoff, ttl, inbox, load, contact));
            keepers.push(Arc::downgrade(&keeper));
            keeper
        });
        keeper.load.fetch_add(1, Ordering::Relaxed);
        let id = fastrand::u64(..);
        keeper.send(Command::Attach { id, order });
        (keeper, id)
    }

    /// Has all registrations looked after now, and waits until each is known to be in place, or refused. Returns since
    /// when, if there are any; `None` also if that takes longer than `patience`.
    pub(crate) async fn in_place_since(&self, patience: Duration) -> Option<Instant> {
        let assured: Vec<_> = {
            let by_ttl = self.by_ttl.lock().unwrap_or_else(PoisonError::into_inner);
            let keepers = by_ttl.values().flatten().filter_map(Weak::upgrade);
            keepers.map(|keeper| keeper.assure()).collect()
        };
        let assured = time::timeout(patience, join_all(assured)).await.ok()?;
        // A keeper that has ended meanwhile has nothing left to look after.
        assured.into_iter().filter_map(Result::ok).max()
    }
}

impl fmt::Debug for Keepers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keepers({:?})", self.backend)
    }
}

/// A handle on a keeper's task. When the last one is dropped, the task takes back what is left and ends.
#[derive(Debug)]
pub(crate) struct Keeper {
    commands: mpsc::UnboundedSender<Command>,
    /// How many registrations it has. Added to under the lock of [`Keepers`], taken from by the task; only a hint
    /// for whom to give the next one, so relaxed ordering will do.
    load: Arc<AtomicUsize>,
}

impl Keeper {
    pub(crate) fn send(&self, command: Command) {
        // A task that is gone went with its runtime, as whoever waits for an answer will see.
        let _ = self.commands.send(command);
    }

    /// What it answers to a command that it was sent; `None` if it is gone.
    pub(crate) async fn answer<T>(&self, answer: oneshot::Receiver<T>) -> Option<T> {
        self::answer(&self.commands, answer).await
    }

    fn assure(&self) -> oneshot::Receiver<Instant> {
        let (ack, assured) = oneshot::channel();
        self.send(Command::Assure { ack });
        assured
    }

    /// Whether it takes one more; a task that went with its runtime takes none.
    fn has_room(&self, room: usize) -> bool {
        !self.commands.is_closed() && self.load.load(Ordering::Relaxed) < room
    }
}

/// What a task answers to an order that it was sent; `None` if it is gone.
///
/// What is sent just as the task ends may lie in the channel for as long as somebody can send, and whoever waits for the
/// answer can: so the end of the task is waited for as well.
async fn answer<O, T>(orders: &mpsc::UnboundedSender<O>, mut answer: oneshot::Receiver<T>) -> Option<T> {
    tokio::select! {
        answer = &mut answer => answer.ok(),
        // Its last answer counts.
        () = orders.closed() => answer.try_recv().ok(),
    }
}

/// Answers once a wish is fulfilled or refused.
pub(crate) type Ack = oneshot::Sender<Result<Revision>>;

/// What a registration asks of its keeper.
#[derive(Debug)]
pub(crate) enum Command {
    /// Keep this registered from now on.
    Attach { id: u64, order: Order },
    /// Keep it with other data.
    Put { id: u64, instance: Arc<Instance>, ack: Ack },
    /// Take it back.
    Withdraw { id: u64, ack: Option<Ack> },
    /// Leave it as it is, and alone.
    Forget { id: u64 },
    /// Find out at once whether everything is in place, put back what is not, and then say when that last happened.
    Assure { ack: oneshot::Sender<Instant> },
}

/// A registration to be kept.
#[derive(Debug)]
pub(crate) struct Order {
    pub(crate) instance: Arc<Instance>,
    pub(crate) owner: Owner,
    pub(crate) on_conflict: OnConflict,
    pub(crate) status: watch::Sender<RegistrationStatus>,
    /// Whoever waits for the first write; a refusal then ends the registration instead of being retried.
    pub(crate) ack: Option<Ack>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_asks_a_task_that_ends_is_not_left_waiting() {
        let (orders, mut inbox) = mpsc::unbounded_channel();
        let (ack, done) = oneshot::channel::<()>();
        orders.send(ack).unwrap();
        // As an order that comes while the task drops its inbox: there, but never to be read.
        inbox.close();
        let told = time::timeout(Duration::from_secs(1), answer(&orders, done)).await;
        assert_eq!(told, Ok(None));
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_answer_of_a_task_counts() {
        let (orders, inbox) = mpsc::unbounded_channel::<()>();
        let (ack, done) = oneshot::channel();
        ack.send(7).unwrap();
        drop(inbox);
        assert_eq!(answer(&orders, done).await, Some(7));
    }
}
