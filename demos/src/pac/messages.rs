//! What a page is told, and how it follows from what the registry says.

use std::{
    fmt, slice,
    time::{Duration, SystemTime},
};

use discovery::{Change, Coordinate, Event, Instance, ServiceName, Snapshot, Status};
use serde::Serialize;

use crate::listen::HTTP;

/// One text frame.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "action", rename_all = "lowercase")]
pub(super) enum Message {
    /// An instance is there.
    Created(Ghost),
    /// It says something else of itself than before.
    Changed(Ghost),
    /// It is gone.
    Removed { coordinate: Coordinate },
    /// All that is there has been told.
    Ready,
    /// We are still here; milliseconds since the epoch.
    Heartbeat { time: u64 },
    /// The registry is out of reach: what was told is getting old.
    Stale { since: u64, reason: String },
    /// The registry is back.
    Live,
}

/// An instance as a page sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Ghost {
    coordinate: Coordinate,
    #[serde(skip_serializing_if = "Option::is_none")]
    host: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    port: Option<u16>,
    status: Status,
}

impl Ghost {
    /// `None` for what has no coordinate: an instance that is not exactly three labels deep.
    pub(super) fn of(instance: &Instance) -> Option<Self> {
        let endpoint = instance.endpoint(HTTP);
        Some(Self {
            coordinate: coordinate(instance)?,
            host: endpoint.map(|endpoint| endpoint.host().to_owned()),
            port: endpoint.map(discovery::Endpoint::port),
            status: instance.status(),
        })
    }
}

impl fmt::Display for Ghost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.coordinate.fmt(f)?;
        if let (Some(host), Some(port)) = (&self.host, self.port) {
            write!(f, " at {host}:{port}")?;
        }
        match self.status {
            Status::Up => Ok(()),
            status => write!(f, ", {status}"),
        }
    }
}

/// Turns the events of a scope into messages for one page.
#[derive(Debug)]
pub(super) struct Fold {
    /// Not a ghost: the server itself.
    hidden: ServiceName,
    known: Snapshot,
    ready: bool,
}

impl Fold {
    pub(super) fn new(hidden: ServiceName) -> Self {
        Self { hidden, known: Snapshot::default(), ready: false }
    }

    /// The messages that follow from `event`; `outage` is for how long there has been one, should it tell of one.
    pub(super) fn take(&mut self, event: &Event, outage: Duration) -> Vec<Message> {
        let mut messages = Vec::new();
        match event {
            Event::Reset(newer) => {
                for change in self.known.diff(newer) {
                    self.apply(&change, &mut messages);
                }
                if !self.ready {
                    self.ready = true;
                    messages.push(Message::Ready);
                }
            }
            Event::Delta { changes, .. } => {
                for change in changes.iter() {
                    self.apply(change, &mut messages);
                }
            }
            Event::Stale(error) => {
                let since = epoch_millis(SystemTime::now() - outage);
                messages.push(Message::Stale { since, reason: error.to_string() });
            }
            Event::Live => messages.push(Message::Live),
        }
        messages
    }

    /// One step at a time: an event may hold several of one instance.
    fn apply(&mut self, change: &Change, messages: &mut Vec<Message>) {
        let old = self.known.get(change.key()).cloned();
        self.known.apply(self.known.revision(), slice::from_ref(change));
        match (old, change) {
            (None, Change::Put(new)) => messages.extend(self.created(new)),
            // Left and came back while nobody looked.
            (Some(old), Change::Put(new)) if old.incarnation() != new.incarnation() => {
                messages.extend(self.removed(&old).into_iter().chain(self.created(new)));
            }
            (Some(old), Change::Put(new)) if old != *new => {
                messages.extend(self.ghost(new).map(Message::Changed));
            }
            (Some(old), Change::Remove(_)) => messages.extend(self.removed(&old)),
            // Steps may be told twice.
            (Some(_), Change::Put(_)) | (None, Change::Remove(_)) => {}
        }
    }

    fn created(&self, instance: &Instance) -> Option<Message> {
        self.ghost(instance).map(Message::Created)
    }

    fn removed(&self, instance: &Instance) -> Option<Message> {
        self.ghost(instance).map(|ghost| Message::Removed { coordinate: ghost.coordinate })
    }

    fn ghost(&self, instance: &Instance) -> Option<Ghost> {
        if *instance.service() == self.hidden { None } else { Ghost::of(instance) }
    }
}

/// `None` for an instance that is not exactly three labels deep.
pub(super) fn coordinate(instance: &Instance) -> Option<Coordinate> {
    Coordinate::new(instance.service().clone(), Some(instance.id().clone())).ok()
}

pub(super) fn epoch_millis(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
