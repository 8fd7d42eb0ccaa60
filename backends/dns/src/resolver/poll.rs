//! When to look again, and what to make of what is seen.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use discovery::{Change, Instance, InstanceKey, Revision, Snapshot};

use super::DnsConfig;

/// How often to look.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    pub(crate) floor: Duration,
    pub(crate) ceiling: Duration,
    /// The most that is added to a pause, as a share of it.
    pub(crate) jitter: f64,
    /// How many answers in a row an instance is missing from before it is gone.
    pub(crate) misses: u32,
}

impl Pace {
    pub(crate) fn of(config: &DnsConfig) -> Self {
        Self {
            floor: config.floor(),
            ceiling: config.ceiling(),
            jitter: config.jitter(),
            misses: config.misses(),
        }
    }

    /// The pause behind an answer that holds for `ttl`, as far as that is told; `chance` is from 0 to 1.
    pub(crate) fn pause(&self, known: &Known, ttl: Option<Duration>, chance: f64) -> Duration {
        let pause = if known.is_in_doubt() {
            // The sooner it is settled the better.
            self.floor
        } else if known.empty > 0 {
            // A server may hold that there is nothing for an hour; who waits for a service does not want to. At first
            // it is looked for often, then less so.
            self.floor.saturating_mul(1 << (known.empty - 1).min(16)).min(self.ceiling)
        } else {
            ttl.unwrap_or(self.ceiling).clamp(self.floor, self.ceiling)
        };
        pause + pause.mul_f64(self.jitter * chance)
    }
}

/// What is known of a scope.
#[derive(Clone, Debug, Default)]
pub(crate) struct Known {
    instances: BTreeMap<InstanceKey, Seen>,
    revision: Revision,
    /// How many answers in a row were empty.
    empty: u32,
}

#[derive(Clone, Debug)]
struct Seen {
    instance: Arc<Instance>,
    /// How many answers in a row it was missing from.
    missed: u32,
}

impl Known {
    /// Nothing, behind a revision that is known already.
    pub(crate) fn behind(revision: Revision) -> Self {
        Self { revision, ..Self::default() }
    }

    pub(crate) fn revision(&self) -> Revision {
        self.revision
    }

    /// Everything, as a new beginning.
    pub(crate) fn reset(&mut self) -> Snapshot {
        self.revision = Revision(self.revision.0 + 1);
        Snapshot::new(self.revision, self.instances.values().map(|seen| seen.instance.clone()))
    }

    /// Takes an answer in, and returns what it changes. If that is anything, there is a new revision.
    pub(crate) fn take(&mut self, answer: Vec<Instance>, misses: u32) -> Vec<Change> {
        self.empty = if answer.is_empty() { self.empty.saturating_add(1) } else { 0 };
        let mut changes = Vec::new();
        for seen in self.instances.values_mut() {
            seen.missed += 1;
        }
        for instance in answer {
            let instance = Arc::new(instance);
            let seen = Seen { instance: instance.clone(), missed: 0 };
            let before = self.instances.insert(instance.key().clone(), seen);
            if before.is_none_or(|before| before.instance != instance) {
                changes.push(Change::Put(instance));
            }
        }
        self.instances.retain(|key, seen| {
            let stays = seen.missed < misses;
            if !stays {
                changes.push(Change::Remove(key.clone()));
            }
            stays
        });
        if !changes.is_empty() {
            self.revision = Revision(self.revision.0 + 1);
        }
        changes
    }

    /// Whether an instance is known that the last answer did not have.
    fn is_in_doubt(&self) -> bool {
        self.instances.values().any(|seen| seen.missed > 0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PACE: Pace =
        Pace { floor: Duration::from_secs(1), ceiling: Duration::from_secs(30), jitter: 0.1, misses: 2 };

    fn instance(id: u32) -> Instance {
        Instance::builder("a".parse().unwrap()).id(id.to_string().parse().unwrap()).build().unwrap()
    }

    fn answer(ids: &[u32]) -> Vec<Instance> {
        ids.iter().map(|id| instance(*id)).collect()
    }

    /// What an answer changes: ids, those gone with a minus.
    fn take(known: &mut Known, ids: &[u32]) -> String {
        let changes = known.take(answer(ids), 2);
        let text = changes.iter().map(|change| match change {
            Change::Put(instance) => instance.id().to_string(),
            Change::Remove(key) => format!("-{}", key.id()),
        });
        text.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn who_is_missing_once_stays() {
        let mut known = Known::default();
        for (ids, expected) in [
            (&[1, 2][..], "1 2"),
            (&[1, 2], ""),
            (&[1], ""),
            (&[1, 2], ""),
            (&[1], ""),
            (&[1], "-2"),
            (&[], ""),
            (&[3], "3 -1"),
        ] {
            assert_eq!(take(&mut known, ids), expected, "{ids:?}");
        }
    }

    #[test]
    fn a_server_that_lags_makes_nothing_flap() {
        let mut known = Known::default();
        take(&mut known, &[1, 2]);
        assert_eq!(take(&mut known, &[2, 3]), "3");
        for n in 0..10 {
            let ids = if n % 2 == 0 { [1, 2] } else { [2, 3] };
            assert_eq!(take(&mut known, &ids), "");
        }
    }

    #[test]
    fn revisions_count_changes() {
        let mut known = Known::behind(Revision(7));
        take(&mut known, &[1]);
        assert_eq!(known.revision(), Revision(8));
        take(&mut known, &[1]);
        assert_eq!(known.revision(), Revision(8));
        assert_eq!(known.reset().revision(), Revision(9));
    }

    #[test]
    fn a_time_to_live_is_held_to_within_limits() {
        let mut known = Known::default();
        take(&mut known, &[1]);
        for (ttl, pause) in [(0, 1), (5, 5), (600, 30)] {
            let ttl = Some(Duration::from_secs(ttl));
            assert_eq!(PACE.pause(&known, ttl, 0.0), Duration::from_secs(pause));
        }
        assert_eq!(PACE.pause(&known, None, 0.0), PACE.ceiling);
        assert_eq!(PACE.pause(&known, Some(Duration::ZERO), 1.0), Duration::from_millis(1100));
        take(&mut known, &[2]);
        assert_eq!(PACE.pause(&known, None, 0.0), PACE.floor, "1 is missing");
    }

    #[test]
    fn nothing_is_looked_for_often_and_then_less_so() {
        let mut known = Known::default();
        let hour = Some(Duration::from_secs(3600));
        let pauses = [1, 2, 4, 8, 16, 30, 30].map(Duration::from_secs);
        for pause in pauses {
            take(&mut known, &[]);
            assert_eq!(PACE.pause(&known, hour, 0.0), pause);
        }
        for _ in 0..100 {
            take(&mut known, &[]);
        }
        assert_eq!(PACE.pause(&known, hour, 0.0), PACE.ceiling);
    }

    proptest! {
        #[test]
        fn changes_add_up(answers in prop::collection::vec(prop::collection::btree_set(0..6_u32, 0..6), 1..20)) {
            let mut known = Known::default();
            let mut followed = Snapshot::default();
            for ids in answers {
                let ids: Vec<_> = ids.into_iter().collect();
                let changes = known.take(answer(&ids), 2);
                followed.apply(known.revision(), &changes);
                prop_assert_eq!(&followed, &known.clone().reset());
                prop_assert!(ids.iter().all(|id| followed.get(instance(*id).key()).is_some()));
            }
        }

        #[test]
        fn a_pause_is_within_its_limits(ttl in prop::option::of(0..u32::MAX), chance in 0.0..=1.0_f64, empty in 0..99_u32) {
            let known = Known { empty, ..Known::default() };
            let pause = PACE.pause(&known, ttl.map(|ttl| Duration::from_secs(ttl.into())), chance);
            prop_assert!(pause >= PACE.floor && pause <= PACE.ceiling.mul_f64(1.1));
        }
    }
}
