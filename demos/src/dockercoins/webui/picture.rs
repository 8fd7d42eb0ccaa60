//! What the page shows.

use discovery::{Instance, Snapshot, Status};
use serde::Serialize;

use super::meter::{Latency, Meter};
use crate::dockercoins::{
    rng::{DELAY_MS, PARALLEL},
    site::Part,
    store::Reading,
};

/// Everything, at one moment.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Picture {
    pub(super) project: String,
    pub(super) registry: String,
    /// Since when the registry does not tell of changes, in milliseconds since the epoch; `None` while it does.
    pub(super) stale: Option<u64>,
    /// Why the store cannot be read.
    pub(super) trouble: Option<String>,
    /// By the clock of the store, in milliseconds since the epoch.
    pub(super) now: u64,
    pub(super) hashes: Option<u64>,
    pub(super) coins: u64,
    /// Units that somebody works on, or that await somebody.
    pub(super) open: u64,
    /// Units a second.
    pub(super) rate: f64,
    /// What the rngs can do a second; `None` without a limit.
    pub(super) ceiling: Option<f64>,
    pub(super) parts: Vec<Roster>,
    /// Whether the page can have more of a part, or fewer.
    pub(super) scalable: bool,
    /// What else starts one more, for each part; `None` where nothing can.
    pub(super) command: Option<String>,
}

/// A part and its instances.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Roster {
    pub(super) part: Part,
    pub(super) latency: Option<Latency>,
    pub(super) instances: Vec<InstanceState>,
}

/// An instance as the registry has it, and what it does as the store has it.
#[derive(Clone, Debug, Serialize)]
pub(super) struct InstanceState {
    pub(super) id: String,
    pub(super) address: Option<String>,
    pub(super) host: Option<String>,
    pub(super) pid: Option<String>,
    pub(super) status: Status,
    pub(super) rate: f64,
    pub(super) latency: Option<Latency>,
}

/// A second of the past.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Moment {
    pub(super) at: u64,
    pub(super) rate: f64,
    pub(super) ceiling: Option<f64>,
}

impl Picture {
    /// Takes in what the store says.
    pub(super) fn read(&mut self, reading: &Reading, meter: &Meter) {
        let Reading { now, open, hashes, coins, .. } = *reading;
        self.trouble = None;
        (self.now, self.open, self.hashes, self.coins) = (now, open, hashes, coins);
        self.rate = meter.rate();
    }

    /// Takes in who is there.
    pub(super) fn meet(&mut self, snapshot: &Snapshot, meter: &Meter) {
        self.ceiling = ceiling(snapshot);
        self.parts = Part::ALL.iter().map(|part| roster(*part, snapshot, meter)).collect();
    }
}

fn roster(part: Part, snapshot: &Snapshot, meter: &Meter) -> Roster {
    let instances = of(part, snapshot).map(|instance| {
        let id = instance.id().to_string();
        InstanceState {
            address: instance.endpoints().first().map(ToString::to_string),
            host: instance.metadata("host").map(str::to_owned),
            pid: instance.metadata("pid").map(str::to_owned),
            status: instance.status(),
            rate: meter.rate_of(part, &id),
            latency: meter.latency(part, Some(&id)),
            id,
        }
    });
    Roster { part, latency: meter.latency(part, None), instances: instances.collect() }
}

/// Each rng has its own; one that does not say counts for nothing.
fn ceiling(snapshot: &Snapshot) -> Option<f64> {
    let number = |rng: &Instance, key| rng.metadata(key).and_then(|text| text.parse::<f64>().ok());
    let ceilings = of(Part::Rng, snapshot).filter(|rng| rng.status() == Status::Up).map(|rng| {
        match (number(rng, DELAY_MS), number(rng, PARALLEL)) {
            (Some(delay), Some(parallel)) if delay > 0.0 => Some(parallel * 1000.0 / delay),
            (Some(_), Some(_)) => None,
            _ => Some(0.0),
        }
    });
    ceilings.sum()
}

fn of(part: Part, snapshot: &Snapshot) -> impl Iterator<Item = &Instance> {
    snapshot
        .iter()
        .map(AsRef::as_ref)
        .filter(move |instance: &&Instance| instance.service().labels().next_back() == Some(part.label()))
}
