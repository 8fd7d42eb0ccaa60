//! How fast it goes: how many units were counted in the last seconds, by the clock of the store.
//!
//! A count over a time is a whole number, and jumps although nothing else does: that is why the original shows 4-4-4-0.
//! So a unit does not count as one from the moment at which the window has it to the moment at which it has it no more,
//! but grows and fades, and is one on the average. What comes evenly is seen at its steady speed then, and what comes in
//! bursts at that of its bursts; and however units come, none is seen as more or less than one.

use std::{collections::VecDeque, f64::consts::TAU};

use serde::Serialize;

use crate::dockercoins::{
    call::Took,
    site::Part,
    store::{Counted, Reading},
};

/// How far back it looks, in milliseconds. Long enough for a worker that waits in a long line to be seen twice.
const WINDOW: u64 = 5_000;

/// As short as the window is when little is known of the past.
const SHORTEST: u64 = 2_000;

/// The latest units, as far back as the window reaches.
#[derive(Debug, Default)]
pub(super) struct Meter {
    now: u64,
    /// From when on all units are known; `None` before anything is.
    since: Option<u64>,
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
        let Reading { now, hashes, ref latest, .. } = *reading;
        let hashes = hashes.unwrap_or_default();
        // Another store, one that has forgotten all, one that we did not ask for long, or one whose clock was set back.
        let is_anew = hashes < self.seen || hashes - self.seen > latest.len() as u64 || now < self.now;
        if is_anew {
            self.units.clear();
        }
        if is_anew || self.since.is_none() {
            let known = latest.iter().map(|unit| unit.at).filter(|at| *at <= now);
            self.since = Some(if now < self.now { now } else { known.min().unwrap_or(now) });
        }
        (self.seen, self.now) = (hashes, now);
        self.units.extend(latest.iter().cloned());
        // Whatever is to come was counted before the clock was set back.
        let span = now.saturating_sub(WINDOW)..=now;
        self.units.retain(|unit| span.contains(&unit.at));
    }

    /// How many a second, of all.
    pub(super) fn rate(&self) -> f64 {
        self.per_second(|_| true)
    }

    /// How many a second one instance has its part in.
    pub(super) fn rate_of(&self, part: Part, id: &str) -> f64 {
        let is_its = |unit: &Counted| match part {
            Part::Worker => unit.worker == id,
            part => took(part, unit).is_some_and(|took| took.by == id),
        };
        self.per_second(is_its)
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

    /// How many units a second, of some.
    #[expect(clippy::cast_precision_loss, reason = "no window has so many milliseconds")]
    fn per_second(&self, is_counted: impl Fn(&Counted) -> bool) -> f64 {
        // Of the time before anything was known, nothing is said.
        let known = self.now.saturating_sub(self.since.unwrap_or_default());
        let window = known.clamp(SHORTEST, WINDOW) as f64;
        let units = self.units.iter().filter(|unit| is_counted(unit));
        let ages = units.map(|unit| (self.now - unit.at) as f64 / window);
        // From 0 at either end to 2 in the middle; 1 on the average.
        let weights = ages.filter(|age| *age <= 1.0).map(|age| 1.0 - (TAU * age).cos());
        weights.fold(0.0, |sum, weight| sum + weight) * 1000.0 / window
    }
}

fn took(part: Part, unit: &Counted) -> Option<&Took> {
    match part {
        Part::Rng => Some(&unit.rng),
        Part::Hasher => Some(&unit.hasher),
        Part::Worker | Part::Store | Part::Webui => None,
    }
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

    fn assert_near(rate: f64, truth: f64, now: u64) {
        assert!((rate - truth).abs() <= truth * 0.02, "{rate} for {truth} at {now}");
    }

    #[test]
    fn one_worker_is_seen_at_its_steady_speed_where_the_original_shows_4_4_4_0() {
        // A unit takes 300 ms.
        let units: Vec<_> = (1..200).map(|n| unit(n * 300, "w", "r", 100.0)).collect();
        watched(&units, 30_000, 250, |meter| {
            assert!(meter.rate() < 3.4, "{} at {}", meter.rate(), meter.now);
            if meter.now >= 2500 {
                assert_near(meter.rate(), 1000.0 / 300.0, meter.now);
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
        assert_near(meter.rate(), 10.0, 10_000);
        assert_near(meter.rate_of(Part::Worker, "a"), 1.0, 10_000);
        assert_near(meter.rate_of(Part::Rng, "r1"), 5.0, 10_000);
        assert_near(meter.rate_of(Part::Hasher, "h"), 10.0, 10_000);
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
    fn units_that_come_together_are_as_many_as_they_are() {
        // Ten workers, each with an rng: all have done a unit within a millisecond, every 300; with a pause of 7 s.
        let bursts = (1..=40).map(|n| n * 300).chain((1..=40).map(|n| 19_000 + n * 300));
        let units: Vec<_> = bursts
            .flat_map(|at| (0..10).map(move |n| unit(at + n / 9, "w", if n == 0 { "r" } else { "s" }, 100.0)))
            .collect();
        watched(&units, 31_000, 250, |meter| {
            let (now, truth) = (meter.now, 10_000.0 / 300.0);
            assert!(meter.rate() < truth * 1.02, "{} at {now}", meter.rate());
            if (2500..=12_000).contains(&now) || now >= 24_300 {
                assert_near(meter.rate(), truth, now);
                assert_near(meter.rate_of(Part::Rng, "r"), truth / 10.0, now);
            }
            if (17_250..=19_250).contains(&now) {
                assert!(meter.rate().abs() < f64::EPSILON, "{} at {now}", meter.rate());
            }
        });
    }

    #[test]
    fn what_is_rare_is_not_seen_as_more_than_it_is() {
        // A unit every 7 s: seen, and not seen, but as one on the average.
        let units: Vec<_> = (1..=10).map(|n| unit(n * 7_000, "w", "r", 100.0)).collect();
        let mut rates = Vec::new();
        watched(&units, 77_000, 100, |meter| {
            if meter.now >= 7_000 {
                rates.push(meter.rate());
            }
        });
        assert!(rates.iter().all(|rate| *rate <= 0.4), "{rates:?}");
        let mean = rates.iter().sum::<f64>() / f64::from(u32::try_from(rates.len()).unwrap());
        assert_near(mean, 1.0 / 7.0, 77_000);
    }

    #[test]
    fn a_page_that_comes_late_knows_only_the_latest_units() {
        // 500 a second; the store remembers the last thousand.
        let latest: Vec<_> = (0..1000).map(|n| unit(98_002 + n * 2, "w", "r", 1.0)).collect();
        let mut meter = Meter::default();
        meter.take_in(&Reading { now: 100_000, hashes: Some(50_000), latest, ..Reading::default() });
        assert_near(meter.rate(), 500.0, 100_000);
    }

    #[test]
    fn a_clock_that_was_set_back_is_measured_anew_and_nothing_piles_up() {
        let mut meter = Meter::default();
        for n in 1..=400_u64 {
            // Set back by an hour, after 50 s.
            let back = if n > 200 { 3_600_000 } else { 0 };
            let now = 10_000_000 + n * 250 - back;
            let at = if n == 201 { now + 3_600_000 } else { now };
            let latest = vec![unit(at, "w", "r", 1.0)];
            meter.take_in(&Reading { now, hashes: Some(n), latest, ..Reading::default() });
            assert!(meter.rate() < 4.1 && meter.units.len() <= 21, "{} {}", meter.rate(), meter.units.len());
            if (10..=200).contains(&n) || n > 210 {
                assert_near(meter.rate(), 4.0, now);
            }
        }
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
