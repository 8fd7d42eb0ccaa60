//! What needs no server: lookups, changes, fan-out.
#![allow(missing_docs, reason = "criterion's macros make public items")]

use std::{hint::black_box, time::Duration};

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use discovery::{
    Change, Discovery, Event, Revision,
    balance::{ConsistentHash, LeastLoaded, Policy, Random, RoundRobin, Weighted},
    mem::Mem,
};
use discovery_benches::{instance, service, snapshot};
use futures_util::{StreamExt, future::join_all};
use tokio::runtime::Runtime;

fn runtime() -> Runtime {
    Runtime::new().expect("a runtime")
}

/// A registry in memory with `n` instances.
async fn registry(n: u64) -> Discovery {
    let discovery = Discovery::new(Mem::new());
    for registered in
        join_all((0..n).map(|n| discovery.register(instance(n)).permanent().into_future())).await
    {
        registered.expect("memory refuses nothing").detach();
    }
    discovery
}

/// Reading a view: what a program does on its hot path.
fn lookup(criterion: &mut Criterion) {
    let runtime = runtime();
    let mut group = criterion.benchmark_group("lookup");
    for n in [100, 10_000] {
        let view =
            runtime.block_on(async { registry(n).await.view(service()).await.expect("memory answers") });
        group.bench_function(BenchmarkId::new("read", n), |bencher| {
            bencher
                .iter(|| view.read(|snapshot, freshness| black_box((snapshot.len(), freshness.is_live()))));
        });
        let key = instance(n / 2).key().clone();
        group
            .bench_function(BenchmarkId::new("get", n), |bencher| bencher.iter(|| black_box(view.get(&key))));
    }
    group.finish();
}

/// Picking an instance to call.
fn pick(criterion: &mut Criterion) {
    let runtime = runtime();
    let _inside = runtime.enter();
    let mut group = criterion.benchmark_group("pick");
    for n in [100, 10_000] {
        let view =
            runtime.block_on(async { registry(n).await.view(service()).await.expect("memory answers") });
        let policies: Vec<(&str, Box<dyn Policy>)> = vec![
            ("round_robin", Box::new(RoundRobin::new())),
            ("random", Box::new(Random::new())),
            ("weighted", Box::new(Weighted::new())),
            ("least_loaded", Box::new(LeastLoaded::new())),
            ("consistent_hash", Box::new(ConsistentHash::new())),
        ];
        for (name, policy) in policies {
            let balancer = view.balance(policy);
            runtime.block_on(balancer.ready()).expect("there are instances");
            group.bench_function(BenchmarkId::new(name, n), |bencher| {
                bencher.iter(|| black_box(balancer.pick_for(b"customer-4711").map(|pick| pick.weight())));
            });
        }
    }
    group.finish();
}

/// One change in a scope of n: the cost must not grow with n.
fn change(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("change");
    for n in [10, 1_000, 100_000] {
        let old = snapshot(n);
        let heavier = instance(n / 2).to_builder().weight(7).build().expect("a valid instance");
        let changes = [Change::Put(heavier.into())];
        group.bench_function(BenchmarkId::new("apply", n), |bencher| {
            bencher.iter(|| {
                let mut new = old.clone();
                new.apply(Revision(2), &changes);
                new
            });
        });
        let mut new = old.clone();
        new.apply(Revision(2), &changes);
        group.bench_function(BenchmarkId::new("diff", n), |bencher| {
            bencher.iter(|| black_box(old.diff(&new)));
        });
    }
    group.finish();
}

/// From a write until the last of 100 watchers in the process has seen it.
fn fanout(criterion: &mut Criterion) {
    let runtime = runtime();
    let _inside = runtime.enter();
    let discovery = Discovery::new(Mem::new());
    let registration =
        runtime.block_on(discovery.register(instance(0)).into_future()).expect("memory refuses nothing");
    let mut watches: Vec<_> = (0..100).map(|_| discovery.watch(service())).collect();
    let heard = |event: Option<discovery::Result<Event>>| assert!(matches!(event, Some(Ok(_))));
    runtime.block_on(async {
        for watch in &mut watches {
            heard(watch.next().await);
        }
    });
    criterion.bench_function("fanout/100", |bencher| {
        bencher.iter_custom(|rounds| {
            let mut took = Duration::ZERO;
            for round in 0..rounds {
                let weight = u32::try_from(round % 1000).unwrap_or(0) + 2;
                let update = instance(0).to_builder().weight(weight).build().expect("a valid instance");
                let began = std::time::Instant::now();
                runtime.block_on(async {
                    let all = join_all(watches.iter_mut().map(StreamExt::next));
                    let (written, seen) = tokio::join!(registration.update(update), all);
                    written.expect("memory refuses nothing");
                    seen.into_iter().for_each(heard);
                });
                took += began.elapsed();
            }
            took
        });
    });
}

criterion_group!(benches, lookup, pick, change, fanout);
criterion_main!(benches);
