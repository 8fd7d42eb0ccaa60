//! Beside the raw `zookeeper-client`, on a real server: each workload as an expert would write it by hand for this one
//! purpose, and as a user of this crate writes it, in the same process against the same server.
//!
//! Registering and publishing are creations of ephemeral nodes, one for one. The raw side has its sessions open and its
//! parent nodes made before the clock starts; so has ours, by one registration that stays.
#![allow(missing_docs, reason = "criterion's macros make public items")]

use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use discovery::Discovery;
use discovery_benches::{
    service,
    workloads::{self, Comparison, IN_FLIGHT, RECORD, register_all, register_resident},
};
use discovery_testbed::ZooKeeper;
use futures_util::{StreamExt, future::join_all, stream};
use tokio::runtime::Runtime;
use zookeeper_client as raw;

struct Bench {
    runtime: Runtime,
    zk: ZooKeeper,
}

impl Bench {
    fn start() -> Option<Self> {
        let runtime = Runtime::new().expect("a runtime");
        let zk = runtime.block_on(ZooKeeper::builder().start_or_skip())?;
        Some(Self { runtime, zk })
    }

    async fn raw(&self) -> raw::Client {
        raw::Client::connect(&self.zk.connect_string()).await.expect("the server is up")
    }

    /// A client of ours on a root of its own.
    async fn ours(&self, root: &str) -> Discovery {
        let locator = format!("zk://{}/{root}", self.zk.connect_string());
        workloads::connect(discovery_zk::connector(), &locator).await
    }
}

fn permanent() -> raw::CreateOptions<'static> {
    raw::CreateMode::Persistent.with_acls(raw::Acls::anyone_all())
}

fn ephemeral() -> raw::CreateOptions<'static> {
    raw::CreateMode::Ephemeral.with_acls(raw::Acls::anyone_all())
}

async fn create_all(client: &raw::Client, dir: &str, count: u64) {
    let paths: Vec<_> = (0..count).map(|n| format!("{dir}/{n}")).collect();
    let options = ephemeral();
    let created = stream::iter(&paths).map(|path| client.create(path, RECORD, &options));
    created
        .buffer_unordered(IN_FLIGHT)
        .for_each(|created| async {
            let _ = created.expect("the server is up");
        })
        .await;
}

async fn delete_all(client: &raw::Client, dir: &str, count: u64) {
    let paths: Vec<_> = (0..count).map(|n| format!("{dir}/{n}")).collect();
    for deleted in join_all(paths.iter().map(|path| client.delete(path, None))).await {
        deleted.expect("the server is up");
    }
}

/// 1,000 instances of one process, as fast as they go.
fn registration(criterion: &mut Criterion) {
    const COUNT: u64 = 1000;
    let Some(bench) = Bench::start() else { return };
    let time = Duration::from_secs(8);
    let mut comparison = Comparison::new(criterion, "zk_register_1000", time, &bench.runtime);

    let client = bench.runtime.block_on(bench.raw());
    bench.runtime.block_on(client.create("/raw", b"", &permanent())).expect("the server is up");
    comparison.raw(async |rounds| {
        let mut took = Duration::ZERO;
        for _ in 0..rounds {
            let began = Instant::now();
            create_all(&client, "/raw", COUNT).await;
            took += began.elapsed();
            delete_all(&client, "/raw", COUNT).await;
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
        let name = format!("zk_publish_to_visible_{others}");
        let mut comparison = Comparison::new(criterion, &name, Duration::from_secs(4), &bench.runtime);

        let dir = format!("/raw{others}");
        let (writer, reader) = bench.runtime.block_on(async {
            let (writer, reader) = (bench.raw().await, bench.raw().await);
            writer.create(&dir, b"", &permanent()).await.expect("the server is up");
            create_all(&writer, &dir, others).await;
            (writer, reader)
        });
        let path = format!("{dir}/new");
        comparison.raw(async |rounds| {
            let watch = reader.watch(&dir, raw::AddWatchMode::PersistentRecursive).await;
            let mut watch = watch.expect("the server is up");
            let mut took = Duration::ZERO;
            for _ in 0..rounds {
                let began = Instant::now();
                let options = ephemeral();
                let (created, ()) = tokio::join!(writer.create(&path, RECORD, &options), async {
                    while watch.changed().await.event_type != raw::EventType::NodeCreated {}
                    let (data, _) = reader.get_data(&path).await.expect("just created");
                    let record: serde_json::Value = serde_json::from_slice(&data).expect("our own record");
                    assert!(record["endpoints"].is_array());
                });
                created.expect("the server is up");
                took += began.elapsed();
                writer.delete(&path, None).await.expect("just created");
            }
            took
        });

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

/// All of a large service, read and decoded.
fn first_snapshot(criterion: &mut Criterion) {
    const COUNT: u64 = 10_000;
    let Some(bench) = Bench::start() else { return };
    let time = Duration::from_secs(8);
    let mut comparison = Comparison::new(criterion, "zk_first_snapshot_10000", time, &bench.runtime);

    let (client, ours, _all) = bench.runtime.block_on(async {
        let ours = bench.ours("ours").await;
        let all = register_all(&ours, 0..COUNT).await;
        (bench.raw().await, ours, all)
    });
    comparison.raw(async |rounds| {
        let began = Instant::now();
        for _ in 0..rounds {
            let dir = "/ours/eu1/prod/cart";
            let names = client.list_children(dir).await.expect("just made");
            let paths: Vec<_> = names.iter().map(|name| format!("{dir}/{name}")).collect();
            let mut records = Vec::with_capacity(paths.len());
            for batch in paths.chunks(IN_FLIGHT) {
                for read in join_all(batch.iter().map(|path| client.get_data(path))).await {
                    let (data, _) = read.expect("just made");
                    let record: serde_json::Value = serde_json::from_slice(&data).expect("our own record");
                    records.push(record);
                }
            }
            assert_eq!(records.len() as u64, COUNT);
        }
        began.elapsed()
    });
    comparison.ours(async |rounds| workloads::first_snapshot(&ours, COUNT, rounds).await);
    comparison.finish();
}

criterion_group!(benches, registration, publication, first_snapshot);
criterion_main!(benches);
