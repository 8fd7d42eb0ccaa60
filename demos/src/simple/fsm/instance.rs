//! One instance of a machine.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
    panic::AssertUnwindSafe,
    sync::Arc,
};

use futures_util::{FutureExt, future::BoxFuture};
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use super::{Data, Fault, Label, Result, flap::Trips, machines::Shared};

/// A handle on an instance. It does not keep the instance: that lives until it is [removed](Self::remove), or all are ended.
pub(crate) struct Instance<S: Label, G: Label, D: Data> {
    shared: Arc<Shared<S, G, D>>,
    id: u64,
}

impl<S: Label, G: Label, D: Data> Instance<S, G, D> {
    pub(super) fn new(shared: Arc<Shared<S, G, D>>, id: u64) -> Self {
        Self { shared, id }
    }

    /// Its number, which no other one has or had.
    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    /// Signals it, behind what it was signalled before. What the state does not take by then is dropped.
    ///
    /// # Errors
    ///
    /// If no state takes it, or there is no such instance any more.
    pub(crate) fn signal(&self, signal: G) -> Result<()> {
        self.shared.signal(self.id, signal, None)
    }

    /// The same, with data that it keeps if the signal is taken.
    pub(crate) fn signal_with(&self, signal: G, data: D) -> Result<()> {
        self.shared.signal(self.id, signal, Some(data))
    }

    /// In which state it is. While an action runs that is the state before it.
    pub(crate) fn state(&self) -> Result<S> {
        self.shared.with(self.id, |life| life.state)
    }

    /// In which state it is when it has nothing left to do. Not for its own actions, which would wait for themselves.
    pub(crate) async fn settled(&self) -> Result<S> {
        self.until(|standing| !standing.is_acting).await
    }

    /// Waits for a state.
    pub(crate) async fn wait_for(&self, state: S) -> Result<()> {
        self.until(|standing| standing.state == state).await.map(drop)
    }

    /// How it stands, now and whenever that changes.
    pub(crate) fn follow(&self) -> Result<watch::Receiver<Standing<S>>> {
        self.shared.with(self.id, |life| life.told.subscribe())
    }

    /// Whether an action of it runs.
    pub(crate) fn is_acting(&self) -> bool {
        self.shared.with(self.id, |life| life.acting.is_some()).unwrap_or_default()
    }

    /// After how many ticks its time in the present state is over, if that is ever.
    pub(crate) fn due(&self) -> Option<u64> {
        self.shared.due(self.id)
    }

    /// Whether the present state takes a signal.
    pub(crate) fn can_receive(&self, signal: G) -> bool {
        self.state().is_ok_and(|state| self.shared.machine.next(state, signal).is_ok())
    }

    /// The latest data it was given.
    pub(crate) fn data(&self) -> Option<D> {
        self.shared.with(self.id, |life| life.data.clone()).ok().flatten()
    }

    /// Which action failed last, and why.
    pub(crate) fn last_error(&self) -> Option<Arc<str>> {
        self.shared.with(self.id, |life| life.error.clone()).ok().flatten()
    }

    /// How often it went from one state to the other and straight back, of late.
    pub(crate) fn trips(&self, a: S, b: S) -> u32 {
        self.shared.with(self.id, |life| life.trips.between(a, b)).unwrap_or_default()
    }

    /// Begins all counts anew: visits, and going to and fro.
    pub(crate) fn forget(&self) {
        // One that is gone has none.
        let _ = self.shared.with(self.id, |life| {
            life.visits.clear();
            life.trips = Trips::none();
        });
    }

    /// Ends it, with what it does.
    pub(crate) fn remove(&self) {
        self.shared.remove(self.id);
    }

    async fn until(&self, mut condition: impl FnMut(&Standing<S>) -> bool) -> Result<S> {
        let mut told = self.follow()?;
        match told.wait_for(|standing| condition(standing)).await {
            Ok(standing) => Ok(standing.state),
            // The one that told is gone, and with it the instance.
            Err(_) => Err(self.state().err().unwrap_or(Fault::UnknownInstance(self.id))),
        }
    }
}

impl<S: Label, G: Label, D: Data> Clone for Instance<S, G, D> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone(), id: self.id }
    }
}

impl<S: Label, G: Label, D: Data> fmt::Debug for Instance<S, G, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Instance").field("id", &self.id).field("state", &self.state()).finish_non_exhaustive()
    }
}

/// How an instance stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Standing<S> {
    pub(crate) state: S,
    pub(crate) is_acting: bool,
}

/// A signal on its way.
pub(super) struct Mail<G, D> {
    pub(super) signal: G,
    pub(super) data: Option<D>,
    /// By a limit: no limit looks at it.
    pub(super) is_raised: bool,
}

/// What is known of an instance.
pub(super) struct Life<S: Label, G: Label, D: Data> {
    pub(super) state: S,
    pub(super) inbox: VecDeque<Mail<G, D>>,
    pub(super) data: Option<D>,
    /// Ends with the instance.
    pub(super) acting: Option<AbortOnDropHandle<()>>,
    pub(super) error: Option<Arc<str>>,
    pub(super) trips: Trips<S>,
    visits: BTreeMap<S, u32>,
    told: watch::Sender<Standing<S>>,
}

impl<S: Label, G: Label, D: Data> Life<S, G, D> {
    pub(super) fn new(state: S, data: Option<D>) -> Self {
        Self {
            state,
            inbox: VecDeque::new(),
            data,
            acting: None,
            error: None,
            trips: Trips::none(),
            visits: BTreeMap::new(),
            told: watch::Sender::new(Standing { state, is_acting: false }),
        }
    }

    /// Counts a visit of the present state.
    pub(super) fn visit(&mut self) -> u32 {
        let visits = self.visits.entry(self.state).or_default();
        *visits += 1;
        *visits
    }

    /// How often it was visited; what was forgotten does not count.
    pub(super) fn visits(&self) -> u32 {
        self.visits.get(&self.state).copied().unwrap_or_default()
    }

    /// Runs an action in a task of its own.
    pub(super) fn act(
        &mut self,
        action: impl FnOnce() -> BoxFuture<'static, anyhow::Result<()>> + Send + 'static,
        done: impl FnOnce(anyhow::Result<()>) + Send + 'static,
    ) {
        let task = tokio::spawn(async move {
            let outcome = AssertUnwindSafe(async { action().await }).catch_unwind().await;
            done(outcome.unwrap_or_else(|_| Err(anyhow::anyhow!("it panicked"))));
        });
        self.acting = Some(AbortOnDropHandle::new(task));
    }

    pub(super) fn tell(&self) {
        let standing = Standing { state: self.state, is_acting: self.acting.is_some() };
        self.told.send_if_modified(|told| std::mem::replace(told, standing) != standing);
    }
}
