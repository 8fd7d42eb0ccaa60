//! Beside the raw `zookeeper-client`, on a real server: each workload as an expert would write it by hand for this one
//! purpose, and as a user of this crate writes it, in the same process against the same server.
//!
//! Registering and publishing are creations of ephemeral nodes, one for one. The raw side has its sessions open and its
//! parent nodes made before the clock starts; so has ours, by one registration that stays.
#![allow(missing_docs, reason = "criterion's macros make public items")]

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use criterion::{Criterion, SamplingMode, criterion_group, criterion_main};
use discovery::{Connectors, Discovery, Registration, View};
use discovery_benches::{instance, print_ratio, service};
use discovery_testbed::ZooKeeper;
use futures_util::{StreamExt, future::join_all, stream};
use tokio::runtime::Runtime;
use zookeeper_client as raw;

const DATA: &[u8] = br#"{"endpoints":[{"name":"http","host":"10.11.12.13","port":8080}],"metadata":{"build":"7c1f2d9","version":"1.4.2"},"owner":"0123456789abcdef","incarnation":1234567890123456789}"#;

/// How many requests an expert keeps under way: the knee of the server's curve.
const IN_FLIGHT: usize = 256;

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
        let connectors = Connectors::new().with(discovery_zk::connector());
        let locator = format!("zk://{}/{root}", self.zk.connect_string());
        Discovery::connect(&locator, &connectors).await.expect("a valid locator")
    }
}

fn permanent() -> raw::CreateOptions<'static> {
    raw::CreateMode::Persistent.with_acls(raw::Acls::anyone_all())
}

fn ephemeral() -> raw::CreateOptions<'static> {
    raw::CreateMode::Ephemeral.with_acls(raw::Acls::anyone_all())
}

async fn register(discovery: &Discovery, n: u64) -> Registration {
    discovery.register(instance(n)).await.expect("the server is up")
}

async fn register_all(discovery: &Discovery, range: std::ops::Range<u64>) -> Vec<Registration> {
    join_all(range.map(|n| register(discovery, n))).await
}

async fn deregister_all(registrations: Vec<Registration>) {
    for gone in join_all(registrations.into_iter().map(Registration::deregister)).await {
        gone.expect("the server is up");
    }
}

async fn create_all(client: &raw::Client, dir: &str, count: usize) {
    let paths: Vec<_> = (0..count).map(|n| format!("{dir}/{n}")).collect();
    let options = ephemeral();
    let created = stream::iter(&paths).map(|path| client.create(path, DATA, &options));
    created
        .buffer_unordered(IN_FLIGHT)
        .for_each(|created| async {
            let _ = created.expect("the server is up");
        })
        .await;
}

async fn delete_all(client: &raw::Client, dir: &str, count: usize) {
    let paths: Vec<_> = (0..count).map(|n| format!("{dir}/{n}")).collect();
    for deleted in join_all(paths.iter().map(|path| client.delete(path, None))).await {
        deleted.expect("the server is up");
    }
}

/// 1,000 instances of one process, as fast as they go.
fn registration(criterion: &mut Criterion) {
    const COUNT: usize = 1000;
    let Some(bench) = Bench::start() else { return };
    let mut group = criterion.benchmark_group("zk_register_1000");
    group.sample_size(10).sampling_mode(SamplingMode::Flat).measurement_time(Duration::from_secs(8));

    let client = bench.runtime.block_on(bench.raw());
    bench.runtime.block_on(client.create("/raw", b"", &permanent())).expect("the server is up");
    group.bench_function("raw", |bencher| {
        bencher.iter_custom(|rounds| {
            bench.runtime.block_on(async {
                let mut took = Duration::ZERO;
                for _ in 0..rounds {
                    let began = Instant::now();
                    create_all(&client, "/raw", COUNT).await;
                    took += began.elapsed();
                    delete_all(&client, "/raw", COUNT).await;
                }
                took
            })
        });
    });

    let ours = bench.runtime.block_on(bench.ours("ours"));
    let _stays = bench.runtime.block_on(register(&ours, u64::MAX >> 4));
    group.bench_function("discovery", |bencher| {
        bencher.iter_custom(|rounds| {
            bench.runtime.block_on(async {
                let mut took = Duration::ZERO;
                for _ in 0..rounds {
                    let began = Instant::now();
                    let all = register_all(&ours, 0..COUNT as u64).await;
                    took += began.elapsed();
                    deregister_all(all).await;
                }
                took
            })
        });
    });
    group.finish();
    print_ratio("zk_register_1000", "raw", "discovery");
}

/// From the call that registers to the moment another client has the new instance in hand.
fn publication(criterion: &mut Criterion) {
    let Some(bench) = Bench::start() else { return };
    for others in [10, 1000] {
        let name = format!("zk_publish_to_visible_{others}");
        let mut group = criterion.benchmark_group(&name);
        group.sample_size(10).sampling_mode(SamplingMode::Flat).measurement_time(Duration::from_secs(4));

        let dir = format!("/raw{others}");
        let (writer, reader) = bench.runtime.block_on(async {
            let (writer, reader) = (bench.raw().await, bench.raw().await);
            writer.create(&dir, b"", &permanent()).await.expect("the server is up");
            create_all(&writer, &dir, others).await;
            (writer, reader)
        });
        let path = format!("{dir}/new");
        group.bench_function("raw", |bencher| {
            bencher.iter_custom(|rounds| {
                bench.runtime.block_on(async {
                    let watch = reader.watch(&dir, raw::AddWatchMode::PersistentRecursive).await;
                    let mut watch = watch.expect("the server is up");
                    let mut took = Duration::ZERO;
                    for _ in 0..rounds {
                        let began = Instant::now();
                        let options = ephemeral();
                        let (created, ()) = tokio::join!(writer.create(&path, DATA, &options), async {
                            while watch.changed().await.event_type != raw::EventType::NodeCreated {}
                            let (data, _) = reader.get_data(&path).await.expect("just created");
                            let record: serde_json::Value =
                                serde_json::from_slice(&data).expect("our own record");
                            assert!(record["endpoints"].is_array());
                        });
                        created.expect("the server is up");
                        took += began.elapsed();
                        writer.delete(&path, None).await.expect("just created");
                    }
                    took
                })
            });
        });

        let (ours, mut view, _others) = bench.runtime.block_on(async {
            let root = format!("ours{others}");
            let (ours, reader) = (bench.ours(&root).await, bench.ours(&root).await);
            let registered = register_all(&ours, 0..others as u64).await;
            let view = reader.view(service()).await.expect("the server is up");
            (ours, view, registered)
        });
        let newcomer = u64::MAX >> 4;
        let key = instance(newcomer).key().clone();
        group.bench_function("discovery", |bencher| {
            bencher.iter_custom(|rounds| {
                bench.runtime.block_on(async {
                    let mut took = Duration::ZERO;
                    for _ in 0..rounds {
                        let began = Instant::now();
                        let (registration, seen) = tokio::join!(
                            register(&ours, newcomer),
                            view.wait_for(|snapshot, _| snapshot.get(&key).is_some())
                        );
                        seen.expect("the server is up");
                        took += began.elapsed();
                        registration.deregister().await.expect("the server is up");
                        gone(&mut view, &key).await;
                    }
                    took
                })
            });
        });
        group.finish();
        print_ratio(&name, "raw", "discovery");
    }
}

async fn gone(view: &mut View, key: &discovery::InstanceKey) {
    view.wait_for(|snapshot, _| snapshot.get(key).is_none()).await.expect("the server is up");
}

/// All of a large service, read and decoded.
fn first_snapshot(criterion: &mut Criterion) {
    const COUNT: u64 = 10_000;
    let Some(bench) = Bench::start() else { return };
    let mut group = criterion.benchmark_group("zk_first_snapshot_10000");
    group.sample_size(10).sampling_mode(SamplingMode::Flat).measurement_time(Duration::from_secs(8));

    let (client, ours, _all) = bench.runtime.block_on(async {
        let ours = bench.ours("ours").await;
        let all = register_all(&ours, 0..COUNT).await;
        (bench.raw().await, ours, all)
    });
    group.bench_function("raw", |bencher| {
        bencher.iter_custom(|rounds| {
            bench.runtime.block_on(async {
                let began = Instant::now();
                for _ in 0..rounds {
                    let dir = "/ours/eu1/prod/cart";
                    let names = client.list_children(dir).await.expect("just made");
                    let paths: Vec<_> = names.iter().map(|name| format!("{dir}/{name}")).collect();
                    let mut records = Vec::with_capacity(paths.len());
                    for batch in paths.chunks(IN_FLIGHT) {
                        for read in join_all(batch.iter().map(|path| client.get_data(path))).await {
                            let (data, _) = read.expect("just made");
                            records.push(
                                serde_json::from_slice::<serde_json::Value>(&data).expect("our own record"),
                            );
                        }
                    }
                    assert_eq!(records.len(), usize::try_from(COUNT).unwrap_or(0));
                }
                began.elapsed()
            })
        });
    });
    let ours = Arc::new(ours);
    group.bench_function("discovery", |bencher| {
        bencher.iter_custom(|rounds| {
            bench.runtime.block_on(async {
                let began = Instant::now();
                for _ in 0..rounds {
                    let snapshot = ours.lookup(&service()).await.expect("the server is up");
                    assert_eq!(snapshot.len() as u64, COUNT);
                }
                began.elapsed()
            })
        });
    });
    group.finish();
    print_ratio("zk_first_snapshot_10000", "raw", "discovery");
}

criterion_group!(benches, registration, publication, first_snapshot);
criterion_main!(benches);
