//! What is known of one watched scope, and who wants to hear of it.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{sync::broadcast, task::AbortHandle, time::Instant};

use super::Event;
use crate::{Error, ErrorKind, Result, Revision, Scope, Snapshot, Update};

/// How many items a watcher may lag behind before it has to start over.
const LAG: usize = 256;

/// What goes to the watchers; an error is the last item.
pub(super) type Item = Result<Event>;

/// One watched scope. Alive for as long as somebody watches.
pub(super) struct Topic {
    scope: Scope,
    /// Written by the upstream task only. Items are sent under the lock, so that whoever subscribes under it sees
    /// each item either in the state or in the inbox.
    state: Mutex<State>,
    watchers: broadcast::Sender<Item>,
    pulse: Arc<Pulse>,
    /// The upstream task. It holds the topic only weakly; dropping the topic stops it.
    upstream: OnceLock<AbortHandle>,
}

#[derive(Default)]
struct State {
    /// `None` until the backend first answered.
    snapshot: Option<Snapshot>,
    /// Why the backend is out of reach, while it is.
    trouble: Option<Error>,
    /// Why there is no going on.
    end: Option<Error>,
}

impl Topic {
    pub(super) fn new(scope: Scope) -> Self {
        Self {
            scope,
            state: Mutex::default(),
            watchers: broadcast::Sender::new(LAG),
            pulse: Arc::new(Pulse::new()),
            upstream: OnceLock::new(),
        }
    }

    /// Takes charge of the task that feeds it.
    pub(super) fn own(&self, upstream: AbortHandle) {
        self.upstream.get_or_init(|| upstream);
    }

    pub(super) fn scope(&self) -> &Scope {
        &self.scope
    }

    pub(super) fn pulse(&self) -> &Arc<Pulse> {
        &self.pulse
    }

    /// What a new watcher has to hear first, and where it hears the rest.
    pub(super) fn subscribe(&self) -> (VecDeque<Item>, broadcast::Receiver<Item>) {
        let state = self.state();
        let known = state.snapshot.iter().map(|snapshot| Ok(Event::Reset(snapshot.clone())));
        let trouble = state.trouble.iter().map(|error| Ok(Event::Stale(error.clone())));
        let end = state.end.iter().map(|error| Err(error.clone()));
        (known.chain(trouble).chain(end).collect(), self.watchers.subscribe())
    }

    /// What is known now, which may be newer than what a watcher has heard.
    pub(super) fn latest(&self) -> Snapshot {
        self.state().snapshot.clone().unwrap_or_default()
    }

    /// The revision up to which everything is known.
    pub(super) fn revision(&self) -> Option<Revision> {
        self.state().snapshot.as_ref().map(Snapshot::revision)
    }

    /// Takes in what the backend says.
    pub(super) fn take(&self, update: Update) {
        self.pulse.beat();
        let mut state = self.state();
        match update {
            Update::Reset(newer) => match &mut state.snapshot {
                None => {
                    state.snapshot = Some(newer.clone());
                    self.send(Event::Reset(newer));
                }
                // Watchers may hold the old snapshot: move on by the difference, so that both share the rest.
                Some(snapshot) => {
                    if !snapshot.advance(&newer).is_empty() {
                        let latest = snapshot.clone();
                        self.send(Event::Reset(latest));
                    }
                }
            },
            Update::Delta { revision, changes } => {
                state.snapshot.get_or_insert_default().apply(revision, &changes);
                if !changes.is_empty() {
                    self.send(Event::Delta { revision, changes: changes.into() });
                }
            }
            Update::Progress(revision) => {
                if let Some(snapshot) = &mut state.snapshot {
                    snapshot.apply(revision, &[]);
                }
            }
        }
        if state.trouble.take().is_some() {
            self.send(Event::Live);
        }
    }

    /// Takes in that the backend's watch ended; says whether there is a point in opening another one.
    pub(super) fn fail(&self, error: Error) -> bool {
        let mut state = self.state();
        let hopeless = match error.kind() {
            ErrorKind::Closed => true,
            // What worked before may work again: a token that expired, a permission being changed, a stranger that
            // answered in place of the server.
            ErrorKind::Denied | ErrorKind::Invalid | ErrorKind::Unsupported => state.snapshot.is_none(),
            _ => false,
        };
        if hopeless {
            state.end = Some(error.clone());
            let _ = self.watchers.send(Err(error));
        } else {
            if state.trouble.is_none() {
                tracing::warn!(scope = %self.scope, %error, "watch interrupted; what is known is getting old");
                self.send(Event::Stale(error.clone()));
            }
            state.trouble = Some(error);
        }
        !hopeless
    }

    /// Takes in that there is nobody left to feed it.
    pub(super) fn end(&self, error: Error) {
        let mut state = self.state();
        if state.end.is_none() {
            state.end = Some(error.clone());
            let _ = self.watchers.send(Err(error));
        }
    }

    /// Whether there is more to come: no end was told, and the task that feeds it did not go with its runtime.
    pub(super) fn is_open(&self) -> bool {
        self.state().end.is_none() && self.upstream.get().is_none_or(|task| !task.is_finished())
    }

    fn send(&self, event: Event) {
        // Nobody listening is fine: the next one starts from the state.
        let _ = self.watchers.send(Ok(event));
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Topic {
    fn drop(&mut self) {
        if let Some(task) = self.upstream.get() {
            task.abort();
        }
    }
}

/// When a backend was last heard of.
#[derive(Debug)]
pub(crate) struct Pulse {
    born: Instant,
    /// Milliseconds since `born`. Written by the upstream task, read by views; a lone value, so relaxed will do.
    beat: AtomicU64,
}

impl Pulse {
    pub(crate) fn new() -> Self {
        Self { born: Instant::now(), beat: AtomicU64::new(0) }
    }

    fn beat(&self) {
        let millis = self.born.elapsed().as_millis();
        self.beat.store(u64::try_from(millis).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    pub(crate) fn last(&self) -> Instant {
        self.born + Duration::from_millis(self.beat.load(Ordering::Relaxed))
    }
}
