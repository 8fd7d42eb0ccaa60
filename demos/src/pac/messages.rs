//! What a page is told, and how it follows from what is known.

use std::time::SystemTime;

use discovery::{Change, Coordinate, Instance, ServiceName, Snapshot, Status, View};
use serde::Serialize;
use tokio::time::Instant;

use crate::{listen::HTTP, web::epoch_millis};

/// One text frame.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "action", rename_all = "lowercase")]
pub(super) enum Message {
    /// The first one: which registry this is about, and the command for one more ghost there, if there can be one.
    Hello {
        registry: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        command: Option<String>,
    },
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

/// Turns what is known of a scope, from one look to the next, into messages for one page.
#[derive(Debug)]
pub(super) struct Fold {
    /// Not a ghost: the server itself.
    hidden: ServiceName,
    told: Snapshot,
    ready: bool,
    outage: Option<Instant>,
}

/// The registry is out of reach, since when and why.
#[derive(Clone, Debug)]
pub(super) struct Outage {
    pub(super) since: Instant,
    pub(super) reason: String,
}

impl Fold {
    pub(super) fn new(hidden: ServiceName) -> Self {
        Self { hidden, told: Snapshot::default(), ready: false, outage: None }
    }

    /// What to tell of the view as it is now.
    pub(super) fn look(&mut self, view: &View) -> Vec<Message> {
        view.read(|snapshot, freshness| {
            let answered = freshness.revision().is_some();
            let reason = match freshness.cause() {
                _ if freshness.is_live() => None,
                Some(error) => Some(error.to_string()),
                // Not out of reach, as far as we know, but still to be heard of for the first time.
                None => answered.then(|| "no reason is known".into()),
            };
            let outage = reason.map(|reason| Outage { since: freshness.since(), reason });
            self.take(answered.then_some(snapshot), outage)
        })
    }

    /// The messages that lead to `latest`; `None` stands for a registry that has never answered.
    fn take(&mut self, latest: Option<&Snapshot>, outage: Option<Outage>) -> Vec<Message> {
        let mut messages = Vec::new();
        if let Some(latest) = latest {
            for change in self.told.diff(latest) {
                self.tell(&change, &mut messages);
            }
            self.told = latest.clone();
            if !self.ready {
                self.ready = true;
                messages.push(Message::Ready);
            }
        }
        let since = outage.as_ref().map(|outage| outage.since);
        if self.outage != since {
            self.outage = since;
            messages.push(outage.map_or(Message::Live, |Outage { since, reason }| Message::Stale {
                since: epoch_millis(SystemTime::now() - since.elapsed()),
                reason,
            }));
        }
        messages
    }

    fn tell(&self, change: &Change, messages: &mut Vec<Message>) {
        match (self.told.get(change.key()), change) {
            (None, Change::Put(new)) => messages.extend(self.created(new)),
            // Left and came back while nobody looked.
            (Some(old), Change::Put(new)) if old.incarnation() != new.incarnation() => {
                messages.extend(self.removed(old).into_iter().chain(self.created(new)));
            }
            (Some(_), Change::Put(new)) => messages.extend(self.ghost(new).map(Message::Changed)),
            (Some(old), Change::Remove(_)) => messages.extend(self.removed(old)),
            (None, Change::Remove(_)) => {}
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use discovery::{InstanceBuilder, Revision};

    use super::*;

    fn ghost(name: &str, id: &str, change: impl Fn(InstanceBuilder) -> InstanceBuilder) -> Arc<Instance> {
        let service = format!("local/test/{name}").parse().unwrap();
        let builder = Instance::builder(service).id(id.parse().unwrap()).incarnation(1);
        Arc::new(change(builder.endpoint(HTTP, "127.0.0.1", 80)).build().unwrap())
    }

    fn plain(name: &str, id: &str) -> Arc<Instance> {
        ghost(name, id, |builder| builder)
    }

    /// One look at the registry.
    #[derive(Clone, Default)]
    struct Look(Option<Snapshot>, Option<Outage>);

    fn at(instances: impl IntoIterator<Item = Arc<Instance>>) -> Look {
        Look(Some(Snapshot::new(Revision(1), instances)), None)
    }

    impl Look {
        fn during(self, outage: &Outage) -> Self {
            Self(self.0, Some(outage.clone()))
        }
    }

    fn outage() -> Outage {
        Outage { since: Instant::now(), reason: "gone".into() }
    }

    /// The messages that the looks lead to, in short: `+`, `~` or `-` and the coordinate without its place.
    fn told(looks: impl IntoIterator<Item = Look>) -> Vec<String> {
        let mut fold = Fold::new("local/test/pacman".parse().unwrap());
        let short = |sign: &str, coordinate: &Coordinate| {
            format!("{sign}{}", coordinate.to_string().replace(".test.local", ""))
        };
        let messages =
            looks.into_iter().flat_map(|Look(snapshot, outage)| fold.take(snapshot.as_ref(), outage));
        messages
            .map(|message| match message {
                Message::Created(ghost) => short("+", &ghost.coordinate),
                Message::Changed(ghost) => short("~", &ghost.coordinate),
                Message::Removed { coordinate } => short("-", &coordinate),
                Message::Ready => "ready".into(),
                Message::Stale { .. } => "stale".into(),
                Message::Live => "live".into(),
                Message::Hello { .. } | Message::Heartbeat { .. } => unreachable!("no look leads to it"),
            })
            .collect()
    }

    #[test]
    fn the_first_state_ends_with_ready_and_leaves_the_server_out() {
        assert_eq!(told([at([])]), ["ready"]);
        let all = [plain("pacman", "1"), plain("inky", "2"), plain("blinky", "3")];
        assert_eq!(told([at(all)]), ["+3.blinky", "+2.inky", "ready"]);
    }

    #[test]
    fn each_step_is_told_once() {
        let draining = ghost("inky", "1", |builder| builder.status(Status::Draining));
        let looks =
            [at([]), at([plain("inky", "1")]), at([plain("inky", "1")]), at([draining]), at([]), at([])];
        assert_eq!(told(looks), ["ready", "+1.inky", "~1.inky", "-1.inky"]);
    }

    #[test]
    fn an_outage_is_told_once_and_behind_it_only_the_difference() {
        let before = at([plain("inky", "1"), plain("inky", "2")]);
        let after = at([plain("inky", "2"), plain("inky", "3")]);
        let outage = outage();
        let looks = [
            before.clone(),
            before.clone().during(&outage),
            before.during(&outage),
            after.clone().during(&outage),
            after,
        ];
        assert_eq!(told(looks), ["+1.inky", "+2.inky", "ready", "stale", "-1.inky", "+3.inky", "live"]);
    }

    #[test]
    fn an_unknown_maze_is_not_an_empty_one() {
        let outage = outage();
        let looks = [Look::default(), Look::default().during(&outage), at([plain("inky", "1")])];
        assert_eq!(told(looks), ["stale", "+1.inky", "ready", "live"]);
    }

    #[test]
    fn a_page_opened_in_an_outage_gets_what_is_known_and_since_when() {
        let outage = outage();
        assert_eq!(told([at([plain("inky", "1")]).during(&outage)]), ["+1.inky", "ready", "stale"]);
        let second = Outage { since: outage.since + std::time::Duration::from_secs(1), ..outage.clone() };
        let looks = [at([]).during(&outage), at([]).during(&second)];
        assert_eq!(told(looks), ["ready", "stale", "stale"], "the end of the first was missed");
    }

    #[test]
    fn who_came_back_unseen_left_and_came() {
        let reborn = ghost("inky", "1", |builder| builder.incarnation(2));
        assert_eq!(
            told([at([plain("inky", "1")]), at([reborn])]),
            ["+1.inky", "ready", "-1.inky", "+1.inky"]
        );
    }

    #[test]
    fn what_has_no_coordinate_is_no_ghost() {
        let deep = Arc::new(Instance::builder("local/test/a/b".parse().unwrap()).build().unwrap());
        let flat = Arc::new(Instance::builder("local/test".parse().unwrap()).build().unwrap());
        assert_eq!(told([at([deep, flat]), at([])]), ["ready"]);
    }

    #[test]
    fn the_frames_are_those_of_the_sample() {
        let json = |message: &Message| serde_json::to_string(message).unwrap();
        let hello = |command| Message::Hello { registry: "memory".into(), command };
        assert_eq!(json(&hello(None)), r#"{"action":"hello","registry":"memory"}"#);
        assert_eq!(
            json(&hello(Some("ghost".into()))),
            r#"{"action":"hello","registry":"memory","command":"ghost"}"#
        );
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
