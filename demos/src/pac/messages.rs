//! What a page is told, and how it follows from what the registry says.

use std::{
    slice,
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

    pub(super) fn coordinate(&self) -> &Coordinate {
        &self.coordinate
    }

    pub(super) fn status(&self) -> Status {
        self.status
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use discovery::{Error, ErrorKind, InstanceBuilder, InstanceKey, Revision};

    use super::*;

    fn ghost(name: &str, id: &str, change: impl Fn(InstanceBuilder) -> InstanceBuilder) -> Arc<Instance> {
        let service = format!("local/test/{name}").parse().unwrap();
        let builder = Instance::builder(service).id(id.parse().unwrap()).incarnation(1);
        Arc::new(change(builder.endpoint(HTTP, "127.0.0.1", 80)).build().unwrap())
    }

    fn plain(name: &str, id: &str) -> Arc<Instance> {
        ghost(name, id, |builder| builder)
    }

    fn reset(instances: impl IntoIterator<Item = Arc<Instance>>) -> Event {
        Event::Reset(Snapshot::new(Revision(1), instances))
    }

    fn delta(changes: impl Into<Arc<[Change]>>) -> Event {
        Event::Delta { revision: Revision(2), changes: changes.into() }
    }

    /// The messages that the events lead to, in short: `+`, `~` or `-` and the coordinate without its place.
    fn told(events: &[Event]) -> Vec<String> {
        let mut fold = Fold::new("local/test/pacman".parse().unwrap());
        let messages = events.iter().flat_map(|event| fold.take(event, Duration::ZERO));
        let short = |sign: &str, coordinate: &Coordinate| {
            format!("{sign}{}", coordinate.to_string().replace(".test.local", ""))
        };
        messages
            .map(|message| match message {
                Message::Created(ghost) => short("+", &ghost.coordinate),
                Message::Changed(ghost) => short("~", &ghost.coordinate),
                Message::Removed { coordinate } => short("-", &coordinate),
                Message::Ready => "ready".into(),
                Message::Stale { .. } => "stale".into(),
                Message::Live => "live".into(),
                Message::Heartbeat { .. } => unreachable!("no event is a heartbeat"),
            })
            .collect()
    }

    #[test]
    fn the_first_state_ends_with_ready_and_leaves_the_server_out() {
        assert_eq!(told(&[reset([])]), ["ready"]);
        let all = [plain("pacman", "1"), plain("inky", "2"), plain("blinky", "3")];
        assert_eq!(told(&[reset(all)]), ["+3.blinky", "+2.inky", "ready"]);
    }

    #[test]
    fn each_step_is_told_and_repetitions_are_not() {
        let draining = ghost("inky", "1", |builder| builder.status(Status::Draining));
        let steps = delta([
            Change::Put(plain("inky", "1")),
            Change::Put(plain("inky", "1")),
            Change::Put(draining.clone()),
            Change::Remove(draining.key().clone()),
            Change::Remove(draining.key().clone()),
        ]);
        assert_eq!(told(&[reset([]), steps]), ["ready", "+1.inky", "~1.inky", "-1.inky"]);
    }

    #[test]
    fn behind_an_outage_only_the_difference_is_told() {
        let outage = Event::Stale(Error::new(ErrorKind::Unavailable, "gone"));
        let before = reset([plain("inky", "1"), plain("inky", "2")]);
        let after = reset([plain("inky", "2"), plain("inky", "3")]);
        assert_eq!(
            told(&[before, outage, after, Event::Live]),
            ["+1.inky", "+2.inky", "ready", "stale", "-1.inky", "+3.inky", "live"]
        );
    }

    #[test]
    fn an_outage_from_the_start_is_told_before_anything_is_known() {
        let outage = Event::Stale(Error::new(ErrorKind::Unavailable, "gone"));
        assert_eq!(
            told(&[outage, reset([plain("inky", "1")]), Event::Live]),
            ["stale", "+1.inky", "ready", "live"]
        );
    }

    #[test]
    fn who_came_back_unseen_left_and_came() {
        let reborn = ghost("inky", "1", |builder| builder.incarnation(2));
        let before = reset([plain("inky", "1")]);
        assert_eq!(told(&[before, reset([reborn])]), ["+1.inky", "ready", "-1.inky", "+1.inky"]);
    }

    #[test]
    fn what_has_no_coordinate_is_no_ghost() {
        let deep = Arc::new(Instance::builder("local/test/a/b".parse().unwrap()).build().unwrap());
        let flat = Arc::new(Instance::builder("local/test".parse().unwrap()).build().unwrap());
        let gone = Change::Remove(InstanceKey::new("local/test/a/b".parse().unwrap(), deep.id().clone()));
        assert_eq!(told(&[reset([deep, flat]), delta([gone])]), ["ready"]);
    }

    #[test]
    fn the_frames_are_those_of_the_sample() {
        let json = |message: &Message| serde_json::to_string(message).unwrap();
        let inky = Ghost::of(&plain("inky", "1f")).unwrap();
        assert_eq!(
            json(&Message::Created(inky.clone())),
            r#"{"action":"created","coordinate":"1f.inky.test.local","host":"127.0.0.1","port":80,"status":"up"}"#
        );
        let homeless = ghost("inky", "1f", |builder| builder.endpoints([]));
        assert_eq!(
            json(&Message::Changed(Ghost::of(&homeless).unwrap())),
            r#"{"action":"changed","coordinate":"1f.inky.test.local","status":"up"}"#
        );
        let coordinate = inky.coordinate;
        assert_eq!(
            json(&Message::Removed { coordinate }),
            r#"{"action":"removed","coordinate":"1f.inky.test.local"}"#
        );
        assert_eq!(json(&Message::Ready), r#"{"action":"ready"}"#);
        assert_eq!(json(&Message::Heartbeat { time: 7 }), r#"{"action":"heartbeat","time":7}"#);
        assert_eq!(
            json(&Message::Stale { since: 7, reason: "\"".into() }),
            r#"{"action":"stale","since":7,"reason":"\""}"#
        );
        assert_eq!(json(&Message::Live), r#"{"action":"live"}"#);
    }
}
