//! What the benchmarks share: sample services, the ratio between two measured functions, and [the
//! workloads](workloads) that are measured beside raw clients.

pub mod turns;
pub mod workloads;

use std::{fs, path::PathBuf, sync::Arc, time::Duration};

use discovery::{Instance, InstanceId, Revision, ServiceName, Snapshot};

/// The service that all benchmarks use.
///
/// # Panics
///
/// Never: the name is a constant.
pub fn service() -> ServiceName {
    "eu1/prod/cart".parse().expect("a valid name")
}

/// Instance `n` of [`service`]: one endpoint, two metadata values, a record of about 130 bytes.
///
/// # Panics
///
/// Never: the parts are constants.
pub fn instance(n: u64) -> Instance {
    Instance::builder(service())
        .id(InstanceId::from_bits(0x1000_0000_0000_0000 + n))
        .endpoint("http", "10.11.12.13", 8080)
        .metadata("version", "1.4.2")
        .metadata("build", "7c1f2d9")
        .build()
        .expect("a valid instance")
}

/// A snapshot of the first `n` instances.
pub fn snapshot(n: u64) -> Snapshot {
    Snapshot::new(Revision(1), (0..n).map(instance).map(Arc::new))
}

/// Prints how `ours` compares with `raw` in a criterion group that has just been measured, from criterion's own
/// estimates of the median.
pub fn print_ratio(group: &str, raw: &str, ours: &str) {
    match (median(group, raw), median(group, ours)) {
        (Some(floor), Some(own)) => print_ratio_of(group, (raw, floor), (ours, own)),
        _ => println!("ratio {group}: not measured in this run\n"),
    }
}

/// The same of medians at hand, in nanoseconds.
fn print_ratio_of(group: &str, (raw, floor): (&str, f64), (ours, own): (&str, f64)) {
    let ratio = own / floor;
    let digits = if ratio < 0.1 { 4 } else { 2 };
    println!("ratio {group:<40} {raw}: {:>12}  {ours}: {:>12}  {ratio:.digits$}x\n", time(floor), time(own));
}

/// How long single rounds took, for what a median does not tell.
#[derive(Debug, Default)]
pub struct Rounds(Vec<Duration>);

impl Rounds {
    /// Does `count` rounds, each of which says how long it took; returns how long that was in all.
    pub async fn run(&mut self, count: u64, mut round: impl AsyncFnMut() -> Duration) -> Duration {
        let before = self.0.len();
        for _ in 0..count {
            self.0.push(round().await);
        }
        self.0[before..].iter().sum()
    }

    /// Adds a round that took so long.
    pub fn push(&mut self, took: Duration) {
        self.0.push(took);
    }

    /// How many there were.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// The median, in nanoseconds; `None` if there were none.
    #[allow(clippy::cast_precision_loss, reason = "no round takes weeks")]
    pub fn median(&mut self) -> Option<f64> {
        self.at(50).map(|round| round.as_nanos() as f64)
    }

    /// Prints the median and the slowest hundredth of one side of a group.
    pub fn print(mut self, group: &str, side: &str) {
        let p50 = self.at(50).map(ms);
        if let (Some(p50), Some(p99)) = (p50, self.at(99).map(ms)) {
            println!("rounds {group:<39} {side}: p50 {p50:>9}  p99 {p99:>9}  of {}", self.0.len());
        }
    }

    fn at(&mut self, hundredths: usize) -> Option<Duration> {
        self.0.sort_unstable();
        self.0.get(self.0.len() * hundredths / 100).copied()
    }
}

fn ms(round: Duration) -> String {
    format!("{:.2} ms", round.as_secs_f64() * 1e3)
}

/// The median that criterion last wrote down, in nanoseconds.
fn median(group: &str, function: &str) -> Option<f64> {
    // Benches run in the folder of their package; criterion writes into the workspace's target folder.
    let target =
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| PathBuf::from("../target"), PathBuf::from);
    let path =
        target.join("criterion").join(group.replace('/', "_")).join(function).join("new/estimates.json");
    let estimates: serde_json::Value = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
    estimates["median"]["point_estimate"].as_f64()
}

fn time(nanos: f64) -> String {
    match nanos {
        n if n < 1e3 => format!("{n:.1} ns"),
        n if n < 1e6 => format!("{:.2} us", n / 1e3),
        n if n < 1e9 => format!("{:.2} ms", n / 1e6),
        n => format!("{:.2} s", n / 1e9),
    }
}
