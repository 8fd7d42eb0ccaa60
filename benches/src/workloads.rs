//! The workloads that are measured beside raw clients, as a user of this crate writes them, on any backend.
//!
//! Each takes a number of rounds and returns how long they took, without what comes before and after each round.

use std::{
    ops::Range,
    time::{Duration, Instant},
};

use criterion::{BenchmarkGroup, Criterion, SamplingMode, measurement::WallTime};
use discovery::{Connector, Connectors, Discovery, InstanceKey, Registration, View};
use futures_util::future::join_all;
use tokio::runtime::Runtime;

use crate::{instance, print_ratio, service};

/// A record as this crate writes it for [`instance`], for the raw client to write.
pub const RECORD: &[u8] = br#"{"endpoints":[{"name":"http","host":"10.11.12.13","port":8080}],"metadata":{"build":"7c1f2d9","version":"1.4.2"},"owner":"0123456789abcdef","incarnation":1234567890123456789}"#;

/// How many requests an expert keeps under way: the knee of the servers' curves.
pub const IN_FLIGHT: usize = 256;

/// An instance that is there when others come and go: what it needs, sessions, leases and directories, is there for
/// them too.
const RESIDENT: u64 = u64::MAX >> 4;
/// The one that comes and goes.
const NEWCOMER: u64 = RESIDENT - 1;

/// One workload with the raw client and with this crate: a criterion group that ends with the ratio.
pub struct Comparison<'a> {
    name: &'a str,
    group: BenchmarkGroup<'a, WallTime>,
    runtime: &'a Runtime,
    rivals: Vec<&'static str>,
}

impl<'a> Comparison<'a> {
    /// A group of this name, which measures each side for about as long as said.
    pub fn new(criterion: &'a mut Criterion, name: &'a str, time: Duration, runtime: &'a Runtime) -> Self {
        let mut group = criterion.benchmark_group(name);
        group.sample_size(10).sampling_mode(SamplingMode::Flat).measurement_time(time);
        Self { name, group, runtime, rivals: Vec::new() }
    }

    /// Measures the raw client: how long that many rounds take.
    pub fn raw(&mut self, rounds: impl AsyncFnMut(u64) -> Duration) {
        self.rival("raw", rounds);
    }

    /// Measures the raw client, used in another way.
    pub fn rival(&mut self, side: &'static str, rounds: impl AsyncFnMut(u64) -> Duration) {
        self.rivals.push(side);
        self.measure(side, rounds);
    }

    /// Measures this crate: how long that many rounds take.
    pub fn ours(&mut self, rounds: impl AsyncFnMut(u64) -> Duration) {
        self.measure("discovery", rounds);
    }

    /// Prints the ratios.
    pub fn finish(self) {
        self.group.finish();
        for rival in self.rivals {
            print_ratio(self.name, rival, "discovery");
        }
    }

    fn measure(&mut self, side: &str, mut rounds: impl AsyncFnMut(u64) -> Duration) {
        let runtime = self.runtime;
        self.group.bench_function(side, |bencher| {
            bencher.iter_custom(|count| runtime.block_on(rounds(count)));
        });
    }
}

impl std::fmt::Debug for Comparison<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Comparison({})", self.name)
    }
}

/// A handle of its own on what is at `locator`.
///
/// # Panics
///
/// When the locator is not one of the connector's.
pub async fn connect(connector: impl Connector, locator: &str) -> Discovery {
    Discovery::connect(locator, &Connectors::new().with(connector)).await.expect("a valid locator")
}

/// Registers one instance that stays.
///
/// # Panics
///
/// When the server refuses.
pub async fn register_resident(discovery: &Discovery) -> Registration {
    register(discovery, RESIDENT).await
}

/// Registers the instances of a range, all at once.
///
/// # Panics
///
/// When the server refuses.
pub async fn register_all(discovery: &Discovery, range: Range<u64>) -> Vec<Registration> {
    join_all(range.map(|n| register(discovery, n))).await
}

/// Registers `count` instances of one process, as fast as they go.
///
/// # Panics
///
/// When the server refuses.
pub async fn registration(discovery: &Discovery, count: u64, rounds: u64) -> Duration {
    let mut took = Duration::ZERO;
    for _ in 0..rounds {
        let began = Instant::now();
        let all = register_all(discovery, 0..count).await;
        took += began.elapsed();
        for gone in join_all(all.into_iter().map(Registration::deregister)).await {
            gone.expect("the server is up");
        }
    }
    took
}

/// From the call that registers to the moment another client has the new instance in its view.
///
/// # Panics
///
/// When the server refuses.
pub async fn publication(writer: &Discovery, reader: &mut View, rounds: u64) -> Duration {
    let key = instance(NEWCOMER).key().clone();
    let mut took = Duration::ZERO;
    for _ in 0..rounds {
        let began = Instant::now();
        let (registration, ()) = tokio::join!(register(writer, NEWCOMER), seen(reader, &key, true));
        took += began.elapsed();
        registration.deregister().await.expect("the server is up");
        seen(reader, &key, false).await;
    }
    took
}

/// All of a service of `count` instances, read and decoded.
///
/// # Panics
///
/// When the server refuses, or has another number of them.
pub async fn first_snapshot(discovery: &Discovery, count: u64, rounds: u64) -> Duration {
    let began = Instant::now();
    for _ in 0..rounds {
        let snapshot = discovery.lookup(&service()).await.expect("the server is up");
        assert_eq!(snapshot.len() as u64, count);
    }
    began.elapsed()
}

async fn register(discovery: &Discovery, n: u64) -> Registration {
    discovery.register(instance(n)).await.expect("the server is up")
}

/// Waits until an instance is in a view, or is not.
async fn seen(view: &mut View, key: &InstanceKey, present: bool) {
    let seen = view.wait_for(|snapshot, _| snapshot.get(key).is_some() == present);
    seen.await.expect("the server is up");
}
