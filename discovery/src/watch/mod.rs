//! Following a scope, through every kind of trouble.
//!
//! A backend's watch may fail and end; what a user sees does not. `resume` opens the backend's watch again and again,
//! `topic` knows what it said last and tells all local watchers of the scope, `hub` has the topics. `keys` does the same for keys, without sharing.

mod hub;
mod keys;
mod resume;
mod topic;
mod unpanicked;

use std::{
    collections::VecDeque,
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use futures_util::Stream;
use tokio_stream::wrappers::BroadcastStream;

pub use self::keys::KeyView;
use self::topic::{Item, Topic};
pub(crate) use self::{hub::Hub, topic::Pulse};
use crate::{Change, Error, Result, Revision, Scope, Snapshot};

/// What a [`Watch`] yields.
#[derive(Clone, Debug)]
pub enum Event {
    /// The whole scope as of now. The first event, and after that whenever steps were not seen one by one: behind an
    /// outage, or for a watcher that was too slow. [`Snapshot::take`] turns it into the difference.
    Reset(Snapshot),
    /// What happened since the last event, each step seen by the backend.
    Delta {
        /// The revision after the changes.
        revision: Revision,
        /// In commit order for each instance.
        changes: Arc<[Change]>,
    },
    /// The backend is out of reach: what is known is getting old. Once in an outage.
    Stale(Error),
    /// The backend is back, and what was missed has been told.
    Live,
}

impl Snapshot {
    /// Takes an event in and returns what it changed: nothing for [`Event::Stale`] and [`Event::Live`].
    pub fn take(&mut self, event: &Event) -> Vec<Change> {
        match event {
            Event::Reset(newer) => self.advance(newer),
            Event::Delta { revision, changes } => {
                self.apply(*revision, changes);
                changes.to_vec()
            }
            Event::Stale(_) | Event::Live => Vec::new(),
        }
    }
}

/// Follows a scope: a stream of [`Event`]s that outlives outages.
///
/// It ends only with an error: when the backend refuses before it ever answered, or can no longer work at all. A
/// watcher that does not keep up is not waited for; it misses steps and gets [`Event::Reset`] with the latest state.
///
/// # Example: print arrivals and departures
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> discovery::Result<()> {
/// use discovery::{Change, Discovery, Instance, ServiceName, Snapshot, mem::Mem};
/// use futures_util::StreamExt;
///
/// let discovery = Discovery::new(Mem::new());
/// let cart: ServiceName = "cart".parse()?;
/// let mut watch = discovery.watch(&cart);
/// let registration = discovery.register(Instance::builder(cart).build()?).await?;
///
/// let mut known = Snapshot::default();
/// while known.is_empty() {
///     let event = watch.next().await.expect("a watch goes on")?;
///     for change in known.take(&event) {
///         match change {
///             Change::Put(instance) => println!("{} is here", instance.key()),
///             Change::Remove(key) => println!("{key} left"),
///         }
///     }
/// }
/// # Ok(()) }
/// ```
#[must_use = "a watch does nothing until it is polled"]
pub struct Watch {
    topic: Arc<Topic>,
    /// What every watcher of the topic hears.
    inbox: BroadcastStream<Item>,
    /// What only this one has to hear before.
    backlog: VecDeque<Item>,
    /// Whether the last word on the backend was that it is out of reach.
    stale: bool,
    ended: bool,
}

impl Watch {
    fn new(topic: Arc<Topic>) -> Self {
        let (backlog, inbox) = topic.subscribe();
        Self { topic, inbox: BroadcastStream::new(inbox), backlog, stale: false, ended: false }
    }

    /// Hears the latest state instead of what was missed; the words about the backend still come in pairs.
    fn start_over(&mut self) {
        let (mut backlog, inbox) = self.topic.subscribe();
        let is_stale = |item: &Item| matches!(item, Ok(Event::Stale(_)));
        match (self.stale, backlog.iter().any(is_stale)) {
            (true, true) => backlog.retain(|item| !is_stale(item)),
            // Behind the reset, if there is one.
            (true, false) => backlog.insert(backlog.len().min(1), Ok(Event::Live)),
            (false, _) => {}
        }
        self.backlog = backlog;
        self.inbox = BroadcastStream::new(inbox);
    }

    /// The scope it follows.
    pub fn scope(&self) -> &Scope {
        self.topic.scope()
    }

    /// What is known of the scope now; it may be ahead of the events that are still to come.
    pub(crate) fn latest(&self) -> Snapshot {
        self.topic.latest()
    }

    /// When the backend was last heard of.
    pub(crate) fn pulse(&self) -> &Arc<Pulse> {
        self.topic.pulse()
    }
}

impl Stream for Watch {
    type Item = Result<Event>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if self.ended {
                return Poll::Ready(None);
            }
            let item = match self.backlog.pop_front() {
                Some(item) => item,
                None => match ready!(Pin::new(&mut self.inbox).poll_next(context)) {
                    Some(Ok(item)) => item,
                    // Too slow, and some items are gone: start over from the latest state.
                    Some(Err(_)) => {
                        self.start_over();
                        continue;
                    }
                    // The topic holds the other end, and we hold the topic.
                    None => return Poll::Ready(None),
                },
            };
            match &item {
                Ok(Event::Stale(_)) => self.stale = true,
                Ok(Event::Live) => self.stale = false,
                Ok(Event::Reset(_) | Event::Delta { .. }) => {}
                Err(_) => self.ended = true,
            }
            return Poll::Ready(Some(item));
        }
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Watch({})", self.scope())
    }
}
