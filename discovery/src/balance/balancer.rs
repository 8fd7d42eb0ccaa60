//! The balancer: tables that follow a view.

use std::{
    fmt,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};

use arc_swap::ArcSwap;
use tokio::{sync::watch, task::AbortHandle};

use super::{Draw, Ejection, Pick, Policy, Table, digest, follow::Follower};
use crate::{Error, ErrorKind, Freshness, FreshnessState, Instance, Result, Snapshot, View};

/// Picks instances of a [`View`] by a [`Policy`].
///
/// Fails fast: where there is nobody to pick, it says so and why, and never waits. Clones share one state, counters
/// included; dropping the last one ends the task that follows the view.
///
/// # Example: an instance for the next call
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> discovery::Result<()> {
/// use discovery::{Discovery, Instance, ServiceName, balance::LeastLoaded, mem::Mem};
///
/// let discovery = Discovery::new(Mem::new());
/// let cart: ServiceName = "cart".parse()?;
/// let balancer = discovery.view(&cart).await?.balance(LeastLoaded::new());
/// assert!(balancer.pick().is_err());
///
/// let instance = Instance::builder(cart).endpoint("http", "10.0.0.7", 8080).build()?;
/// let registration = discovery.register(instance).await?;
/// balancer.ready().await?;
/// let pick = balancer.pick()?;
/// assert_eq!(pick.endpoint("http").unwrap().port(), 8080);
/// # drop(registration);
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Balancer {
    shared: Arc<Shared>,
    bell: watch::Receiver<()>,
    /// Ends with the last clone.
    task: Arc<Task>,
}

/// What the task and the picks share.
pub(super) struct Shared {
    /// All that a pick looks at, of one moment. Written by the task only.
    state: ArcSwap<State>,
    /// Why the view has ended, if it has. Written by the task only.
    pub(super) end: OnceLock<Error>,
    /// Seeds draws, if they are to be the same in every run.
    seeds: Option<AtomicU64>,
}

pub(super) struct State {
    pub(super) snapshot: Snapshot,
    pub(super) freshness: Freshness,
    pub(super) first: Box<dyn Table>,
    pub(super) reserve: Box<dyn Table>,
    pub(super) ejected: usize,
}

struct Task {
    view: View,
    handle: AbortHandle,
}

impl View {
    /// Picks among the instances of this view by `policy`. For more choices see [`Balancer::builder`].
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    pub fn balance(&self, policy: impl Policy) -> Balancer {
        Balancer::builder(policy).build(self)
    }
}

impl Balancer {
    /// Starts a balancer with other than the default settings.
    pub fn builder(policy: impl Policy) -> BalancerBuilder {
        BalancerBuilder {
            policy: Box::new(policy),
            filter: Filter { admits: Box::new(|_| true), up_only: false },
            ejection: Ejection::new(),
            seed: None,
        }
    }

    /// Picks an instance.
    ///
    /// # Errors
    ///
    /// If there is nobody to pick: [`NotFound`](ErrorKind::NotFound) while the view is live, for then that is how it
    /// is; [`Unavailable`](ErrorKind::Unavailable) while it is stale or expired, for then nobody knows.
    pub fn pick(&self) -> Result<Pick> {
        self.choose(None)
    }

    /// Picks the instance for a key, if the policy heeds keys, as [`ConsistentHash`](super::ConsistentHash) does.
    ///
    /// # Errors
    ///
    /// As for [`pick`](Balancer::pick).
    pub fn pick_for(&self, key: impl AsRef<[u8]>) -> Result<Pick> {
        self.choose(Some(digest::of(key.as_ref())))
    }

    /// Waits until there is somebody to pick.
    ///
    /// # Errors
    ///
    /// Why the view has ended; [`Closed`](ErrorKind::Closed) if the task is gone with its runtime.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn ready(&self) -> Result<()> {
        let mut bell = self.bell.clone();
        let gone = |_| {
            let gone = || Error::new(ErrorKind::Closed, "the balancer is gone with its runtime");
            self.shared.end.get().cloned().unwrap_or_else(gone)
        };
        bell.wait_for(|()| self.shared.state.load().size() > 0).await.map_err(gone)?;
        Ok(())
    }

    /// Calls `reader` with what picks are made of and how fresh it is, both of the same moment.
    pub fn read<T>(&self, reader: impl FnOnce(&Snapshot, &Freshness) -> T) -> T {
        let state = self.shared.state.load();
        reader(&state.snapshot, &state.freshness)
    }

    /// How many instances are [ejected](Ejection) now.
    pub fn ejected(&self) -> usize {
        self.shared.state.load().ejected
    }

    /// The view it follows.
    pub fn view(&self) -> &View {
        &self.task.view
    }

    fn choose(&self, key: Option<u64>) -> Result<Pick> {
        let state = self.shared.state.load();
        let mut draw = Draw { key, random: self.shared.random() };
        match state.pick(&mut draw) {
            Some(candidate) => Ok(Pick::new(candidate.clone())),
            None => Err(state.refusal(self.view())),
        }
    }
}

impl fmt::Debug for Balancer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Balancer({:?}, {} ejected)", self.view(), self.ejected())
    }
}

impl Shared {
    pub(super) fn publish(&self, state: State) {
        self.state.store(Arc::new(state));
    }

    fn random(&self) -> fastrand::Rng {
        match &self.seeds {
            None => fastrand::Rng::new(),
            // Relaxed: each pick gets another seed, and which one gets which does not matter.
            Some(seeds) => fastrand::Rng::with_seed(seeds.fetch_add(1, Ordering::Relaxed)),
        }
    }
}

impl State {
    fn pick(&self, draw: &mut Draw) -> Option<&Arc<super::Candidate>> {
        self.first.pick(draw).or_else(|| self.reserve.pick(draw))
    }

    fn size(&self) -> usize {
        self.first.size() + self.reserve.size()
    }

    #[cold]
    fn refusal(&self, view: &View) -> Error {
        let (kind, state) = match self.freshness.state() {
            FreshnessState::Live => (ErrorKind::NotFound, "live"),
            FreshnessState::Stale => (ErrorKind::Unavailable, "stale"),
            FreshnessState::Expired => (ErrorKind::Unavailable, "expired"),
        };
        let known = self.snapshot.len();
        let message = format!("nobody of {} to pick: the view is {state} and knows {known}", view.scope());
        let error = Error::new(kind, message).not_applied().during("pick");
        match self.freshness.cause() {
            Some(cause) => error.with_source(cause.clone()),
            None => error,
        }
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.handle.abort();
    }
}

/// Sets up a [`Balancer`].
///
/// # Example: only one version, and nobody who is not up
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> discovery::Result<()> {
/// use discovery::{Discovery, ServiceName, balance::{Balancer, RoundRobin}, mem::Mem};
///
/// let cart: ServiceName = "cart".parse()?;
/// let view = Discovery::new(Mem::new()).view(&cart).await?;
/// let balancer = Balancer::builder(RoundRobin::new())
///     .filter(|instance| instance.metadata("version") == Some("2"))
///     .up_only()
///     .build(&view);
/// # Ok(()) }
/// ```
#[must_use = "a builder does nothing until `build`"]
pub struct BalancerBuilder {
    policy: Box<dyn Policy>,
    filter: Filter,
    ejection: Ejection,
    seed: Option<u64>,
}

/// Who may be a candidate at all.
pub(super) struct Filter {
    admits: Box<dyn Fn(&Instance) -> bool + Send + Sync>,
    pub(super) up_only: bool,
}

impl Filter {
    pub(super) fn admits(&self, instance: &Instance) -> bool {
        (self.admits)(instance)
    }
}

impl BalancerBuilder {
    /// Picks only instances that satisfy `condition`, which must depend on nothing but the instance.
    pub fn filter(mut self, condition: impl Fn(&Instance) -> bool + Send + Sync + 'static) -> Self {
        self.filter.admits = Box::new(condition);
        self
    }

    /// Picks nobody, rather than somebody who is not [`Up`](crate::Status::Up) or has no weight.
    pub fn up_only(mut self) -> Self {
        self.filter.up_only = true;
        self
    }

    /// Sets when instances that fail are left out.
    pub fn ejection(mut self, ejection: Ejection) -> Self {
        self.ejection = ejection;
        self
    }

    /// Makes the same picks in every run, as long as they are made one after another.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// Starts picking from `view`, which the balancer keeps open.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    pub fn build(self, view: &View) -> Balancer {
        let mut follower = Follower::new(view.clone(), &*self.policy, self.filter, self.ejection);
        let shared = Arc::new(Shared {
            state: ArcSwap::from_pointee(follower.catch_up()),
            end: OnceLock::new(),
            seeds: self.seed.map(AtomicU64::new),
        });
        let (ring, bell) = watch::channel(());
        let handle = tokio::spawn(follower.run(shared.clone(), ring)).abort_handle();
        Balancer { shared, bell, task: Arc::new(Task { view: view.clone(), handle }) }
    }
}

impl fmt::Debug for BalancerBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { policy, ejection, seed, .. } = self;
        write!(f, "BalancerBuilder({policy:?}, {ejection:?}, seed {seed:?})")
    }
}
