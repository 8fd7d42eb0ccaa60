//! How fast it goes. Measured between the moments at which units were counted, by the clock of the store: the number of
//! units between two looks, which is what the original shows, is a whole one, and jumps although nothing else does.

use std::collections::VecDeque;

use serde::Serialize;

use crate::dockercoins::{
    call::Took,
    site::Part,
    store::{Counted, Reading},
};

/// How far back it looks, in milliseconds. Long enough for a worker that waits in a long line to be seen twice.
const WINDOW: u64 = 5_000;

/// The latest units, as far back as the window reaches.
#[derive(Debug, Default)]
pub(super) struct Meter {
    now: u64,
    /// How many were counted when it last looked.
    seen: u64,
    units: VecDeque<Counted>,
}

/// How long calls took, in milliseconds: half of them at most so long, and so on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(super) struct Latency {
    pub(super) p50: f64,
    pub(super) p95: f64,
    pub(super) p99: f64,
}

impl Meter {
    /// How many were counted when it last looked: what to ask the store for lies behind.
    pub(super) fn seen(&self) -> u64 {
        self.seen
    }

    pub(super) fn take_in(&mut self, reading: &Reading) {
        let hashes = reading.hashes.unwrap_or_default();
        if hashes < self.seen {
            // Another store, or one that has forgotten all.
            self.units.clear();
        }
        self.seen = hashes;
        self.now = reading.now;
        self.units.extend(reading.latest.iter().cloned());
        let horizon = self.now.saturating_sub(WINDOW);
        while self.units.front().is_some_and(|unit| unit.at < horizon) {
            self.units.pop_front();
        }
    }

    /// How many a second, of all.
    pub(super) fn rate(&self) -> f64 {
        rate(self.now, self.units.iter().map(|unit| unit.at))
    }

    /// How many a second one instance has its part in.
    pub(super) fn rate_of(&self, part: Part, id: &str) -> f64 {
        let is_its = |unit: &&Counted| match part {
            Part::Worker => unit.worker == id,
            part => took(part, unit).is_some_and(|took| took.by == id),
        };
        rate(self.now, self.units.iter().filter(is_its).map(|unit| unit.at))
    }

    /// How long calls of a part took, or of one of its instances; `None` if there were none.
    pub(super) fn latency(&self, part: Part, id: Option<&str>) -> Option<Latency> {
        let calls = self.units.iter().filter_map(|unit| took(part, unit));
        let mut times: Vec<_> =
            calls.filter(|took| id.is_none_or(|id| took.by == id)).map(|took| took.ms).collect();
        times.sort_by(f64::total_cmp);
        // The smallest one that so many in a hundred do not exceed.
        let percentile = |percent: usize| {
            let rank = (times.len() * percent).div_ceil(100);
            times.get(rank.saturating_sub(1)).copied()
        };
        Some(Latency { p50: percentile(50)?, p95: percentile(95)?, p99: percentile(99)? })
    }
}

fn took(part: Part, unit: &Counted) -> Option<&Took> {
    match part {
        Part::Rng => Some(&unit.rng),
        Part::Hasher => Some(&unit.hasher),
        Part::Worker | Part::Store | Part::Webui => None,
    }
}

/// Events a second. The time from the first to the last one has one event fewer in it than there are; and as long as the
/// next one is not late, nothing is known of the time behind the last one.
#[expect(clippy::cast_precision_loss, reason = "no window has so many milliseconds or events")]
fn rate(now: u64, mut events: impl Iterator<Item = u64>) -> f64 {
    let Some(first) = events.next() else { return 0.0 };
    let (mut last, mut gaps) = (first, 0_u64);
    for event in events {
        (last, gaps) = (event, gaps + 1);
    }
    if gaps == 0 {
        return 1000.0 / WINDOW as f64;
    }
    let span = last.saturating_sub(first).max(1) as f64;
    let gap = span / gaps as f64;
    let late = (now.saturating_sub(last) as f64 - 2.0 * gap).max(0.0);
    gaps as f64 * 1000.0 / (span + late)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unit(at: u64, worker: &str, rng: &str, ms: f64) -> Counted {
        let took = |by: &str, ms| Took { by: by.into(), ms };
        Counted { at, unit: at, worker: worker.into(), rng: took(rng, ms), hasher: took("h", 100.0) }
    }

    /// A meter that looks every `step` at what was counted by then.
    fn watched(units: &[Counted], until: u64, step: u64, mut seen: impl FnMut(&Meter)) -> Meter {
        let mut meter = Meter::default();
        for now in (step..=until).step_by(usize::try_from(step).unwrap()) {
            let behind = usize::try_from(meter.seen()).unwrap();
            let counted = units.iter().take_while(|unit| unit.at <= now).count();
            let reading = Reading {
                now,
                hashes: Some(counted as u64),
                latest: units[behind..counted].to_vec(),
                ..Reading::default()
            };
            meter.take_in(&reading);
            seen(&meter);
        }
        meter
    }

    #[test]
    fn one_worker_is_seen_at_its_steady_speed_where_the_original_shows_4_4_4_0() {
        // A unit takes 300 ms.
        let units: Vec<_> = (1..200).map(|n| unit(n * 300, "w", "r", 100.0)).collect();
        watched(&units, 30_000, 1000, |meter| {
            if meter.now >= 2000 {
                assert!((meter.rate() - 3.333).abs() < 0.01, "{} at {}", meter.rate(), meter.now);
            }
        });
    }

    #[test]
    fn each_has_its_share_and_who_is_gone_fades() {
        // Ten workers in turn, and two rngs.
        let workers = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"].iter().cycle();
        let rngs = ["r1", "r2"].iter().cycle();
        let units: Vec<_> = (1..=100)
            .zip(workers.zip(rngs))
            .map(|(n, (worker, rng))| unit(n * 100, worker, rng, 50.0))
            .collect();
        let meter = watched(&units, 10_000, 250, |_| {});
        assert!((meter.rate() - 10.0).abs() < 0.01);
        assert!((meter.rate_of(Part::Worker, "a") - 1.0).abs() < 0.01);
        assert!((meter.rate_of(Part::Rng, "r1") - 5.0).abs() < 0.01);
        assert!((meter.rate_of(Part::Hasher, "h") - 10.0).abs() < 0.01);
        assert!(meter.rate_of(Part::Worker, "x").abs() < f64::EPSILON);

        let mut last = f64::MAX;
        let end = watched(&units, 20_000, 250, |meter| {
            if meter.now > 10_200 {
                assert!(meter.rate() <= last, "{} behind {last}", meter.rate());
                last = meter.rate();
            }
        });
        assert!(end.rate().abs() < f64::EPSILON);
        assert_eq!(end.latency(Part::Rng, None), None);
    }

    #[test]
    fn percentiles_are_calls_that_there_were() {
        let units: Vec<_> = (1..=100_u32)
            .map(|n| unit(u64::from(n) * 10, "w", if n > 50 { "slow" } else { "fast" }, n.into()))
            .collect();
        let meter = watched(&units, 1000, 1000, |_| {});
        assert_eq!(meter.latency(Part::Rng, None), Some(Latency { p50: 50.0, p95: 95.0, p99: 99.0 }));
        assert_eq!(meter.latency(Part::Rng, Some("fast")), Some(Latency { p50: 25.0, p95: 48.0, p99: 50.0 }));
        assert_eq!(meter.latency(Part::Rng, Some("none")), None);
        assert_eq!(meter.latency(Part::Worker, None), None);
    }

    #[test]
    fn a_store_that_begins_anew_is_measured_anew() {
        let mut meter = Meter::default();
        meter.take_in(&Reading {
            now: 1000,
            hashes: Some(50),
            latest: vec![unit(1000, "w", "r", 1.0); 50],
            ..Reading::default()
        });
        meter.take_in(&Reading {
            now: 1100,
            hashes: Some(1),
            latest: vec![unit(1100, "w", "r", 1.0)],
            ..Reading::default()
        });
        assert_eq!((meter.seen(), meter.units.len()), (1, 1));
    }
}
