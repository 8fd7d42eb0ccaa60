//! Beside the raw `etcd-client`, on a real server: each workload as an expert would write it by hand for this one
//! purpose, and as a user of this crate writes it, in the same process against the same server.
//!
//! Registering and publishing are writes under leases. The raw side simply puts; ours also makes sure that it overwrites
//! nobody's entry, which takes transactions, and so publishing is also measured raw with that care (`guarded`). A write
//! costs the server the more the more keys its lease has, so the raw side has several leases too. Both sides are
//! connected before the clock starts, ours by one registration that stays. Who registers 1,000 gets the leases for them
//! while the clock runs; who publishes one has a lease with room.
#![allow(missing_docs, reason = "criterion's macros make public items")]

use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use discovery::Discovery;
use discovery_benches::{
    service,
    workloads::{self, Comparison, IN_FLIGHT, RECORD, register_all, register_resident},
};
use discovery_testbed::Etcd;
use etcd_client as raw;
use futures_util::{
    FutureExt, StreamExt,
    future::{BoxFuture, join_all},
    stream,
};
use tokio::runtime::Runtime;

/// How many keys an expert puts under one lease at most.
const PER_LEASE: u64 = 200;

/// So long that nobody has to keep a lease of the raw side alive.
const TTL: i64 = 3600;

struct Bench {
    runtime: Runtime,
    etcd: Etcd,
}

impl Bench {
    fn start() -> Option<Self> {
        let runtime = Runtime::new().expect("a runtime");
        let etcd = runtime.block_on(Etcd::start_or_skip())?;
        Some(Self { runtime, etcd })
    }

    /// A client with a connection of its own.
    async fn raw(&self) -> raw::Client {
        let client = raw::Client::connect([self.etcd.connect_string()], None).await;
        let mut client = client.expect("a valid address");
        // It connects with the first request only.
        client.status().await.expect("the server is up");
        client
    }

    /// A client of ours on a root of its own.
    async fn ours(&self, root: &str) -> Discovery {
        let locator = format!("etcd://{}/{root}", self.etcd.connect_string());
        workloads::connect(discovery_etcd::connector(), &locator).await
    }
}

async fn grant(client: &raw::Client) -> i64 {
    client.lease_client().grant(TTL, None).await.expect("the server is up").id()
}

async fn put(client: &raw::Client, path: String, lease: i64) {
    let options = raw::PutOptions::new().with_lease(lease);
    client.kv_client().put(path, RECORD, Some(options)).await.expect("the server is up");
}

/// Writes what is not there yet, as ZooKeeper's `create` does.
async fn create(client: &raw::Client, path: String, lease: i64) {
    let is_new = raw::Compare::create_revision(path.clone(), raw::CompareOp::Equal, 0);
    let put = raw::TxnOp::put(path, RECORD, Some(raw::PutOptions::new().with_lease(lease)));
    let created = client.kv_client().txn(raw::Txn::new().when([is_new]).and_then([put])).await;
    assert!(created.expect("the server is up").succeeded());
}

/// Writes `count` records, and returns the leases that they are under.
async fn put_all(client: &raw::Client, dir: &str, count: u64) -> Vec<i64> {
    let leases = join_all((0..count.div_ceil(PER_LEASE)).map(|_| grant(client))).await;
    let turns = (0..count).zip(leases.iter().cycle());
    let puts = turns.map(|(n, lease)| put(client, format!("{dir}/{n}"), *lease));
    stream::iter(puts).buffer_unordered(IN_FLIGHT).for_each(async |()| {}).await;
    leases
}

/// Revokes leases, and with them all that is under them.
async fn revoke_all(client: &raw::Client, leases: &[i64]) {
    for lease in leases {
        client.lease_client().revoke(*lease).await.expect("the server is up");
    }
}

/// 1,000 instances of one process, as fast as they go.
fn registration(criterion: &mut Criterion) {
    const COUNT: u64 = 1000;
    let Some(bench) = Bench::start() else { return };
    let time = Duration::from_secs(8);
    let mut comparison = Comparison::new(criterion, "etcd_register_1000", time, &bench.runtime);

    let client = bench.runtime.block_on(bench.raw());
    comparison.raw(async |rounds| {
        let mut took = Duration::ZERO;
        for _ in 0..rounds {
            let began = Instant::now();
            let leases = put_all(&client, "/raw", COUNT).await;
            took += began.elapsed();
            revoke_all(&client, &leases).await;
        }
        took
    });

    let ours = bench.runtime.block_on(bench.ours("ours"));
    let _stays = bench.runtime.block_on(register_resident(&ours));
    comparison.ours(async |rounds| workloads::registration(&ours, COUNT, rounds).await);
    comparison.finish();
}

/// From the call that registers to the moment another client has the new instance in hand.
fn publication(criterion: &mut Criterion) {
    let Some(bench) = Bench::start() else { return };
    for others in [10, 1000] {
        let name = format!("etcd_publish_to_visible_{others}");
        let mut comparison = Comparison::new(criterion, &name, Duration::from_secs(4), &bench.runtime);

        let dir = format!("/raw{others}");
        let (writer, reader, lease) = bench.runtime.block_on(async {
            let (writer, reader) = (bench.raw().await, bench.raw().await);
            put_all(&writer, &dir, others).await;
            let lease = grant(&writer).await;
            (writer, reader, lease)
        });
        let path = format!("{dir}/new");
        let publish = async |rounds, write: &dyn Fn() -> BoxFuture<'static, ()>| {
            let mut watch = watch(&reader, &dir).await;
            let mut took = Duration::ZERO;
            for _ in 0..rounds {
                let began = Instant::now();
                tokio::join!(write(), arrival(&mut watch));
                took += began.elapsed();
                writer.kv_client().delete(path.clone(), None).await.expect("just written");
            }
            took
        };
        let (client, key) = (writer.clone(), path.clone());
        let simply = move || {
            let (client, key) = (client.clone(), key.clone());
            async move { put(&client, key, lease).await }.boxed()
        };
        let (client, key) = (writer.clone(), path.clone());
        let with_care = move || {
            let (client, key) = (client.clone(), key.clone());
            async move { create(&client, key, lease).await }.boxed()
        };
        comparison.raw(async |rounds| publish(rounds, &simply).await);
        comparison.rival("guarded", async |rounds| publish(rounds, &with_care).await);

        let root = format!("ours{others}");
        let (ours, mut view, _stay) = bench.runtime.block_on(async {
            let (ours, reader) = (bench.ours(&root).await, bench.ours(&root).await);
            let stay = (register_all(&ours, 0..others).await, register_resident(&ours).await);
            let view = reader.view(service()).await.expect("the server is up");
            (ours, view, stay)
        });
        comparison.ours(async |rounds| workloads::publication(&ours, &mut view, rounds).await);
        comparison.finish();
    }
}

/// Watches all keys in `dir`; returns once the server does.
async fn watch(client: &raw::Client, dir: &str) -> raw::WatchStream {
    let options = raw::WatchOptions::new().with_prefix();
    let watch = client.watch_client().watch(format!("{dir}/"), Some(options)).await;
    let mut watch = watch.expect("the server is up");
    let created = watch.message().await.expect("the server is up").expect("an answer");
    assert!(created.created());
    watch
}

/// Waits for the next record that is written.
async fn arrival(watch: &mut raw::WatchStream) {
    loop {
        let message = watch.message().await.expect("the server is up").expect("a message");
        // Before it there is the removal of the last one.
        let written = message.events().iter().find(|event| event.event_type() == raw::EventType::Put);
        if let Some(found) = written.and_then(raw::Event::kv) {
            let record: serde_json::Value = serde_json::from_slice(found.value()).expect("our own record");
            return assert!(record["endpoints"].is_array());
        }
    }
}

/// All of a large service, read and decoded.
fn first_snapshot(criterion: &mut Criterion) {
    const COUNT: u64 = 10_000;
    let Some(bench) = Bench::start() else { return };
    let time = Duration::from_secs(8);
    let mut comparison = Comparison::new(criterion, "etcd_first_snapshot_10000", time, &bench.runtime);

    let (client, ours, _all) = bench.runtime.block_on(async {
        let ours = bench.ours("ours").await;
        let all = register_all(&ours, 0..COUNT).await;
        (bench.raw().await, ours, all)
    });
    // An answer of this size is over what the client takes unless told.
    let mut client = client.kv_client().max_decoding_message_size(usize::MAX);
    comparison.raw(async |rounds| {
        let began = Instant::now();
        for _ in 0..rounds {
            let options = raw::GetOptions::new().with_prefix();
            let answer = client.get("/ours/eu1/prod/cart/", Some(options)).await.expect("the server is up");
            let records = answer.kvs().iter().map(|found| serde_json::from_slice(found.value()));
            let records: Vec<serde_json::Value> = records.collect::<Result<_, _>>().expect("our own records");
            assert_eq!(records.len() as u64, COUNT);
        }
        began.elapsed()
    });
    comparison.ours(async |rounds| workloads::first_snapshot(&ours, COUNT, rounds).await);
    comparison.finish();
}

criterion_group!(benches, registration, publication, first_snapshot);
criterion_main!(benches);
