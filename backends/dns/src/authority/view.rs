//! The content of a zone that shows a [`Discovery`]: the records of its instances.

use std::{collections::HashMap, sync::Arc, time::Duration};

use discovery::{Change, Discovery, Event, Instance, Result, Scope, Snapshot};
use futures_util::StreamExt;
use tokio::time::{Instant, sleep, timeout_at};
use tracing::warn;

use super::{lease::Key, table::Edit, wire::Rr, zone::Zone};
use crate::{names::Origin, records};

/// How many events become one step, if they are there at once.
const EVENTS_MAX: usize = 256;
/// How long after the watch was refused it is tried again; later ever longer.
const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// How a zone shows what is registered.
#[derive(Clone, Debug)]
pub(crate) struct Show {
    pub(crate) discovery: Discovery,
    pub(crate) scope: Scope,
    pub(crate) origin: Origin,
    /// The TTL of what is known to be so.
    pub(crate) ttl: u32,
    /// The TTL of what was so when the backend was last in reach.
    pub(crate) stale_ttl: u32,
    /// How long that is told.
    pub(crate) stale_for: Option<Duration>,
}

/// Keeps a zone showing it, for as long as it is polled.
pub(crate) async fn follow(show: Show, zone: Arc<Zone>) {
    let mut shown = Shown::new(show.origin.clone(), show.ttl);
    let mut pause = PAUSE_MIN;
    loop {
        let Err(error) = follow_watch(&show, &zone, &mut shown).await;
        warn!(%error, zone = %show.origin, "the zone cannot be filled; trying again in {pause:?}");
        zone.set_ttl_max(0);
        sleep(pause).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

async fn follow_watch(show: &Show, zone: &Zone, shown: &mut Shown) -> Result<std::convert::Infallible> {
    let mut events = show.discovery.watch(show.scope.clone()).ready_chunks(EVENTS_MAX);
    let (mut is_stale, mut expires) = (false, None::<Instant>);
    loop {
        let next = match expires {
            Some(at) => timeout_at(at, events.next()).await,
            None => Ok(events.next().await),
        };
        let Ok(events) = next else {
            // Told for long enough what may not be so any more.
            zone.set_ttl_max(0);
            expires = None;
            continue;
        };
        let events = events.unwrap_or_default();
        if events.is_empty() {
            return Err(discovery::Error::new(discovery::ErrorKind::Closed, "the watch has ended"));
        }
        let events: Vec<Event> = events.into_iter().collect::<Result<_>>()?;
        zone.change(|edit| events.iter().for_each(|event| shown.take(event, edit)));
        for event in &events {
            match event {
                Event::Reset(_) if !is_stale => zone.set_ttl_max(show.ttl.max(1)),
                Event::Live => {
                    (is_stale, expires) = (false, None);
                    if shown.is_known {
                        zone.set_ttl_max(show.ttl.max(1));
                    }
                }
                Event::Stale(_) => {
                    is_stale = true;
                    if shown.is_known {
                        expires = show.stale_for.map(|bound| Instant::now() + bound);
                        zone.set_ttl_max(show.stale_ttl.max(1));
                    }
                }
                Event::Reset(_) | Event::Delta { .. } => {}
            }
        }
    }
}

/// What of a zone is there because of whom. Several instances may have a record in common.
struct Shown {
    origin: Origin,
    ttl: u32,
    instances: Snapshot,
    counts: HashMap<Key, usize>,
    is_known: bool,
}

impl Shown {
    fn new(origin: Origin, ttl: u32) -> Self {
        Self { origin, ttl, instances: Snapshot::default(), counts: HashMap::new(), is_known: false }
    }

    fn take(&mut self, event: &Event, edit: &mut Edit) {
        match event {
            Event::Reset(newer) => {
                self.is_known = true;
                for change in self.instances.diff(newer) {
                    self.change(&change, edit);
                }
                self.instances = newer.clone();
            }
            Event::Delta { revision, changes } => {
                for change in changes.iter() {
                    self.change(change, edit);
                    self.instances.apply(*revision, std::slice::from_ref(change));
                }
            }
            Event::Stale(_) | Event::Live => {}
        }
    }

    /// First what is new, then what is not any more: what both have stays.
    fn change(&mut self, change: &Change, edit: &mut Edit) {
        let older = self.instances.get(change.key()).cloned();
        if let Change::Put(newer) = change {
            for rr in self.records(newer) {
                let count = self.counts.entry(key_of(&rr)).or_default();
                *count += 1;
                if *count == 1 {
                    edit.add(&rr.name, rr.kind, rr.ttl, rr.data);
                }
            }
        }
        let gone = older.map(|older| self.records(&older));
        for rr in gone.into_iter().flatten() {
            let key = key_of(&rr);
            let Some(count) = self.counts.get_mut(&key) else { continue };
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&key);
                edit.remove(&key.name, key.kind, &key.data);
            }
        }
    }

    fn records(&self, instance: &Instance) -> Vec<Rr> {
        let records = records::of_instance(&self.origin, instance, self.ttl);
        records.iter().filter_map(Rr::from_library).collect()
    }
}

fn key_of(rr: &Rr) -> Key {
    Key { name: rr.name.clone(), kind: rr.kind, data: rr.data.clone() }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use discovery::{InstanceId, Revision, Status};
    use proptest::prelude::*;

    use super::super::testing::{content, zone};
    use super::*;

    #[derive(Clone, Debug)]
    struct Step {
        service: u8,
        id: u8,
        /// `None` to take it away.
        put: Option<(u8, u8, bool)>,
        is_reset: bool,
    }

    fn step() -> impl Strategy<Value = Step> {
        let put = prop::option::weighted(0.7, (0_u8..3, 0_u8..3, any::<bool>()));
        (0_u8..2, 0_u8..4, put, prop::bool::weighted(0.2)).prop_map(|(service, id, put, is_reset)| Step {
            service,
            id,
            put,
            is_reset,
        })
    }

    fn change(step: &Step) -> Change {
        let builder = Instance::builder(format!("eu1/s{}", step.service).parse().unwrap())
            .id(InstanceId::from_bits(step.id.into()));
        let (host, port, is_up) = step.put.unwrap_or_default();
        let instance = builder
            .endpoint("http", &format!("10.0.0.{host}"), 80 + u16::from(port))
            .endpoint("admin", "admin.example", 90)
            .status(if is_up { Status::Up } else { Status::Draining })
            .build()
            .unwrap();
        match step.put {
            Some(_) => Change::Put(Arc::new(instance)),
            None => Change::Remove(instance.key().clone()),
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn what_is_shown_is_what_is_there(steps in prop::collection::vec(step(), 1..40)) {
            let zone = zone(&[]);
            let origin = Origin::parse("z").unwrap();
            let mut shown = Shown::new(origin.clone(), 5);
            let mut truth = Snapshot::default();
            for (n, step) in steps.iter().enumerate() {
                let revision = Revision(u64::try_from(n).unwrap() + 1);
                let change = change(step);
                truth.apply(revision, std::slice::from_ref(&change));
                let event = if step.is_reset {
                    Event::Reset(truth.clone())
                } else {
                    Event::Delta { revision, changes: [change].into() }
                };
                zone.change(|edit| shown.take(&event, edit));
                let fresh: BTreeSet<Rr> = truth
                    .iter()
                    .flat_map(|instance| records::of_instance(&origin, instance, 5))
                    .filter_map(|record| Rr::from_library(&record))
                    .collect();
                prop_assert_eq!(content(&zone.table()), fresh.into_iter().collect::<Vec<_>>());
            }
            let last: usize = shown.counts.values().sum();
            let all: usize = truth.iter().map(|instance| records::of_instance(&origin, instance, 5).len()).sum();
            prop_assert_eq!(last, all);
        }
    }
}
