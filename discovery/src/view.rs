//! The live state of a scope, readable at any time without waiting.

use std::{collections::BTreeSet, fmt, future::IntoFuture, pin::Pin, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use futures_util::StreamExt;
use tokio::{
    sync::watch,
    task::AbortHandle,
    time::{self, Instant},
};

use crate::{
    Change, Error, ErrorKind, Event, Instance, InstanceKey, Result, Revision, Scope, Snapshot,
    backoff::sleep_until,
    watch::{Hub, Pulse, Watch},
};

/// How long [`ViewBuilder`] waits for the first snapshot unless told otherwise.
const FIRST_WAIT: Duration = Duration::from_secs(10);

/// The instances of a scope, kept up to date in the background.
///
/// Reading takes no lock, waits for nothing and allocates nothing. What was last known keeps being served while the
/// backend is out of reach; [`Freshness`] says so. Clones share one state; dropping the last one ends the watch.
///
/// # Example: read a view
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> discovery::Result<()> {
/// use discovery::{Discovery, ServiceName, mem::Mem};
///
/// let discovery = Discovery::new(Mem::new());
/// let cart: ServiceName = "cart".parse()?;
/// let view = discovery.view(&cart).await?;
/// view.read(|snapshot, freshness| {
///     assert!(snapshot.is_empty());
///     assert!(freshness.is_live());
/// });
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct View {
    shared: Arc<Shared>,
    /// This clone's own mark of what it has seen.
    changes: watch::Receiver<()>,
}

struct Shared {
    scope: Scope,
    /// Snapshot and freshness in one value, so that no reader sees one without the other. Written by the task only.
    state: Arc<ArcSwap<State>>,
    /// The task that follows the watch; ends with the last view.
    task: AbortHandle,
}

struct State {
    snapshot: Snapshot,
    freshness: Freshness,
}

impl View {
    /// Calls `reader` with what is known and how fresh it is, both of the same moment.
    pub fn read<T>(&self, reader: impl FnOnce(&Snapshot, &Freshness) -> T) -> T {
        let state = self.shared.state.load();
        reader(&state.snapshot, &state.freshness)
    }

    /// What is known; a cheap clone.
    pub fn snapshot(&self) -> Snapshot {
        self.read(|snapshot, _| snapshot.clone())
    }

    /// How fresh it is.
    pub fn freshness(&self) -> Freshness {
        self.read(|_, freshness| freshness.clone())
    }

    /// One instance.
    pub fn get(&self, key: &InstanceKey) -> Option<Arc<Instance>> {
        self.read(|snapshot, _| snapshot.get(key).cloned())
    }

    /// The scope it shows.
    pub fn scope(&self) -> &Scope {
        &self.shared.scope
    }

    /// Waits until something changed since the last call on this clone: an instance or the freshness.
    ///
    /// # Errors
    ///
    /// The reason, when the view can never change again.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: a change that nobody waited for is reported by the next call.
    pub async fn changed(&mut self) -> Result<()> {
        if self.changes.changed().await.is_ok() {
            return Ok(());
        }
        let ended = || Error::new(ErrorKind::Closed, "the view has ended");
        Err(self.freshness().cause.unwrap_or_else(ended))
    }

    /// Waits until `condition` holds, and returns the snapshot for which it did.
    ///
    /// # Errors
    ///
    /// As for [`changed`](View::changed).
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn wait_for(
        &mut self,
        mut condition: impl FnMut(&Snapshot, &Freshness) -> bool,
    ) -> Result<Snapshot> {
        loop {
            self.changes.mark_unchanged();
            let met =
                self.read(|snapshot, freshness| condition(snapshot, freshness).then(|| snapshot.clone()));
            if let Some(snapshot) = met {
                return Ok(snapshot);
            }
            self.changed().await?;
        }
    }
}

impl fmt::Debug for View {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (instances, state) = self.read(|snapshot, freshness| (snapshot.len(), freshness.state()));
        write!(f, "View({}: {instances} instances, {state:?})", self.shared.scope)
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// How far a view can be trusted.
#[derive(Clone, Debug)]
pub struct Freshness {
    live: bool,
    since: Instant,
    revision: Option<Revision>,
    cause: Option<Error>,
    held: usize,
    stale_bound: Duration,
    pulse: Arc<Pulse>,
}

/// The verdict of [`Freshness`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FreshnessState {
    /// The backend tells of every change.
    Live,
    /// The backend is out of reach, or has not answered yet; this was true when it was last heard of.
    Stale,
    /// Stale for longer than the bound that the user of the view has set.
    Expired,
}

impl Freshness {
    /// The verdict, as of now.
    pub fn state(&self) -> FreshnessState {
        if self.live {
            FreshnessState::Live
        } else if self.since.elapsed() <= self.stale_bound {
            FreshnessState::Stale
        } else {
            FreshnessState::Expired
        }
    }

    /// Whether the backend tells of every change.
    pub fn is_live(&self) -> bool {
        self.live
    }

    /// Since when it is live or not.
    pub fn since(&self) -> Instant {
        self.since
    }

    /// The revision of the snapshot; `None` before the first one.
    pub fn revision(&self) -> Option<Revision> {
        self.revision
    }

    /// When the backend last gave proof of life.
    pub fn last_contact(&self) -> Instant {
        self.pulse.last()
    }

    /// Why it is not live.
    pub fn cause(&self) -> Option<&Error> {
        self.cause.as_ref()
    }

    /// How many instances are shown only because the [removal guard](ViewBuilder::removal_guard) holds them.
    pub fn held(&self) -> usize {
        self.held
    }
}

/// Opens a [`View`]; await it.
#[derive(Debug)]
#[must_use = "a view is not open until the builder is awaited or `open` is called"]
pub struct ViewBuilder<'a> {
    hub: &'a Hub,
    scope: Scope,
    first_wait: Duration,
    policy: Policy,
}

/// The knobs of a view.
#[derive(Clone, Copy, Debug)]
struct Policy {
    stale_bound: Duration,
    guard: Option<Guard>,
    trust_empty: bool,
}

#[derive(Clone, Copy, Debug)]
struct Guard {
    percent: usize,
    hold: Duration,
}

impl<'a> ViewBuilder<'a> {
    pub(crate) fn new(hub: &'a Hub, scope: Scope) -> Self {
        let policy = Policy { stale_bound: Duration::MAX, guard: None, trust_empty: true };
        Self { hub, scope, first_wait: FIRST_WAIT, policy }
    }

    /// How long to wait for the first snapshot; 10 s unless told.
    pub fn first_wait(mut self, limit: Duration) -> Self {
        self.first_wait = limit;
        self
    }

    /// How long a stale view stays usable before it reports [`FreshnessState::Expired`]; without a bound unless told.
    /// The data is served all the same.
    pub fn stale_bound(mut self, bound: Duration) -> Self {
        self.policy.stale_bound = bound;
        self
    }

    /// Distrusts a resync in which more than `percent` of the instances vanished unseen: they are shown, and counted
    /// by [`Freshness::held`], until they come back, their removal is seen, or `hold` is over. Off unless told.
    pub fn removal_guard(mut self, percent: usize, hold: Duration) -> Self {
        self.policy.guard = Some(Guard { percent, hold });
        self
    }

    /// Makes the removal guard hold back even an empty set. Unless told, an empty set passes at once, for a backend
    /// says "empty" only when it knows.
    pub fn distrust_empty(mut self) -> Self {
        self.policy.trust_empty = false;
        self
    }

    /// Opens the view without waiting for the first snapshot; until then it is empty and stale.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    pub fn open(self) -> View {
        let watch = self.hub.watch(self.scope.clone());
        let freshness = Freshness {
            live: false,
            since: Instant::now(),
            revision: None,
            cause: None,
            held: 0,
            stale_bound: self.policy.stale_bound,
            pulse: watch.pulse().clone(),
        };
        let state = Arc::new(ArcSwap::from_pointee(State { snapshot: Snapshot::default(), freshness }));
        let (bell, changes) = watch::channel(());
        let follower = Follower {
            policy: self.policy,
            state: state.clone(),
            bell,
            held: BTreeSet::new(),
            release: None,
            is_over: false,
        };
        let task = tokio::spawn(follower.run(watch)).abort_handle();
        View { shared: Arc::new(Shared { scope: self.scope, state, task }), changes }
    }
}

impl<'a> IntoFuture for ViewBuilder<'a> {
    type Output = Result<View>;
    type IntoFuture = Pin<Box<dyn Future<Output = Result<View>> + Send + 'a>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let limit = self.first_wait;
            let mut view = self.open();
            let first = view.wait_for(|_, freshness| freshness.revision.is_some());
            if let Ok(outcome) = time::timeout(limit, first).await {
                return outcome.map(|_| view);
            }
            let message = format!("no first snapshot of {} within {limit:?}", view.scope());
            let error = Error::new(ErrorKind::Timeout, message).during("view");
            Err(match view.freshness().cause {
                Some(cause) => error.with_source(cause),
                None => error,
            })
        })
    }
}

/// The task behind a view: takes in events and publishes the state.
struct Follower {
    policy: Policy,
    state: Arc<ArcSwap<State>>,
    bell: watch::Sender<()>,
    /// What the removal guard keeps in the snapshot although the backend no longer lists it.
    held: BTreeSet<InstanceKey>,
    /// When the guard gives up what it holds.
    release: Option<Instant>,
    /// Whether the reason is told for which nothing will ever change any more.
    is_over: bool,
}

impl Follower {
    async fn run(mut self, mut watch: Watch) {
        loop {
            let (release, expiry) = (self.release, self.expiry());
            tokio::select! {
                // Nothing has changed but the verdict, which whoever waits for it has to be told.
                () = sleep_until(expiry) => self.publish(|_, _| {}),
                event = watch.next() => match event {
                    Some(Ok(event)) => self.take(&event, &watch),
                    Some(Err(error)) => {
                        self.is_over = true;
                        return self.publish(|_, freshness| freshness.turn(false, Some(error)));
                    }
                    None => return,
                },
                () = sleep_until(release) => self.release_held(),
            }
        }
    }

    /// When the verdict becomes [`Expired`](FreshnessState::Expired), if that is still to come.
    fn expiry(&self) -> Option<Instant> {
        let state = self.state.load();
        let Freshness { since, stale_bound, .. } = &state.freshness;
        let is_stale = state.freshness.state() == FreshnessState::Stale;
        // A timer counts in milliseconds, and the bound itself is not yet beyond it.
        let beyond = stale_bound.checked_add(Duration::from_millis(1))?;
        is_stale.then(|| since.checked_add(beyond))?
    }

    fn take(&mut self, event: &Event, watch: &Watch) {
        match event {
            // Nothing to distrust: show what all watchers of the scope share, instead of a copy of our own.
            Event::Reset(_) | Event::Delta { .. } if self.policy.guard.is_none() => {
                self.show(|snapshot| *snapshot = watch.latest());
            }
            Event::Reset(newer) => {
                let changes = self.guard(newer);
                self.apply(newer.revision(), &changes);
            }
            Event::Delta { revision, changes } => {
                for change in changes.iter() {
                    self.held.remove(change.key());
                }
                self.apply(*revision, changes);
            }
            Event::Stale(error) => self.publish(|_, freshness| freshness.turn(false, Some(error.clone()))),
            Event::Live => self.publish(|_, freshness| freshness.turn(true, None)),
        }
    }

    fn apply(&mut self, revision: Revision, changes: &[Change]) {
        if self.held.is_empty() {
            self.release = None;
        }
        self.show(|snapshot| snapshot.apply(revision, changes));
    }

    fn show(&self, change: impl FnOnce(&mut Snapshot)) {
        self.publish(|snapshot, freshness| {
            change(snapshot);
            freshness.revision = Some(snapshot.revision());
            freshness.held = self.held.len();
            // Behind an outage the snapshot comes first and `Live` after it.
            if !freshness.live && freshness.cause.is_none() {
                freshness.turn(true, None);
            }
        });
    }

    /// The changes that lead to `newer`, without the removals that are too many to be believed.
    fn guard(&mut self, newer: &Snapshot) -> Vec<Change> {
        let known = &self.state.load().snapshot;
        let mut changes = known.diff(newer);
        let vanished = changes.iter().filter(|change| matches!(change, Change::Remove(_))).count();
        let believed = self.policy.trust_empty && newer.is_empty();
        match self.policy.guard {
            Some(guard) if !believed && vanished * 100 > guard.percent * known.len() => {
                tracing::warn!(
                    vanished,
                    known = known.len(),
                    "a resync lost more instances than the guard allows"
                );
                self.release.get_or_insert_with(|| Instant::now() + guard.hold);
                self.held.retain(|key| newer.get(key).is_none());
                changes.retain(|change| match change {
                    Change::Put(_) => true,
                    Change::Remove(key) => {
                        self.held.insert(key.clone());
                        false
                    }
                });
            }
            _ => self.held.clear(),
        }
        changes
    }

    fn release_held(&mut self) {
        let changes: Vec<_> = std::mem::take(&mut self.held).into_iter().map(Change::Remove).collect();
        let revision = self.state.load().snapshot.revision();
        self.apply(revision, &changes);
    }

    fn publish(&self, change: impl FnOnce(&mut Snapshot, &mut Freshness)) {
        let state = self.state.load();
        let (mut snapshot, mut freshness) = (state.snapshot.clone(), state.freshness.clone());
        change(&mut snapshot, &mut freshness);
        self.state.store(Arc::new(State { snapshot, freshness }));
        self.bell.send_replace(());
    }
}

/// Goes with the last view; or with its runtime, and then whoever still has a view must not take it for live.
impl Drop for Follower {
    fn drop(&mut self) {
        if !self.is_over {
            let gone = Error::new(ErrorKind::Closed, "the view is gone with its runtime");
            self.publish(|_, freshness| freshness.turn(false, Some(gone)));
        }
    }
}

impl Freshness {
    fn turn(&mut self, live: bool, cause: Option<Error>) {
        if self.live != live {
            self.live = live;
            self.since = Instant::now();
        }
        self.cause = cause;
    }
}
