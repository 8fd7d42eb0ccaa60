//! Eight workers complete the last eight tasks of a run at the same moment.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use discovery::recipe::{Completed, Run};
use discovery_benches::turns::{OURS, Turns, is_wanted};
use futures_util::future::join_all;
use tokio::{runtime::Runtime, sync::Barrier};

use crate::{
    original::{Original, machine},
    registry::{Kind, Registry, name, raw_zk},
    runs::{STATES, create},
};

const TASKS: usize = 100;
const WORKERS: usize = 8;
const TIME: Duration = Duration::from_secs(8);

pub(crate) fn bench(kind: Kind) {
    let group = format!("{}_race_{WORKERS}", kind.label());
    if !is_wanted(&group) {
        return;
    }
    let runtime = Runtime::new().expect("a runtime");
    runtime.block_on(async {
        if let Some(registry) = Registry::start(kind).await {
            race(&registry, group).await;
        }
    });
}

async fn race(registry: &Registry, group: String) {
    let first = registry.process().await;
    let run = create(&first.runs(&name()).expect("a store with keys"), "run", TASKS).await;
    let mut workers = vec![run];
    for _ in 1..WORKERS {
        let runs = registry.process().await.runs(&name()).expect("a store with keys");
        let run = runs.run("run").expect("a valid id");
        run.status().await.expect("a run");
        workers.push(run);
    }
    let mut originals = Originals::prepare(registry).await;

    let mut turns = Turns::new(group, TIME);
    for round in 0.. {
        if !turns.go_on() {
            break;
        }
        if let Some(originals) = &mut originals {
            turns.add("original", originals.round().await);
        }
        let (from, to) = (STATES[round % 2], STATES[(round + 1) % 2]);
        for n in WORKERS..TASKS {
            workers[0].complete(&machine(n), from, to).await.expect("the server is up");
        }
        let (took, outcomes) = at_once(&workers, async move |run: Run, n| {
            run.complete(&machine(n), from, to).await.expect("the server is up")
        })
        .await;
        turns.add(OURS, took);
        let moved = outcomes.iter().filter(|outcome| **outcome == Completed::Moved).count();
        let counted = outcomes.iter().filter(|outcome| **outcome == Completed::Counted).count();
        assert_eq!((moved, counted), (1, WORKERS - 1));
    }
    let name = turns.name().to_owned();
    turns.finish(OURS);
    if let Some(Originals { clean, rounds, .. }) = originals {
        println!("clean {name}: {clean} of {rounds} of the original's rounds, all of ours\n");
    }
}

/// How long it takes all of them, who begin at the same moment.
async fn at_once<W, T, F>(workers: &[W], work: impl Fn(W, usize) -> F) -> (Duration, Vec<T>)
where
    W: Clone,
    T: Send + 'static,
    F: Future<Output = T> + Send + 'static,
{
    let start = Arc::new(Barrier::new(workers.len()));
    let tasks = workers.iter().cloned().enumerate().map(|(n, worker)| {
        let (work, start) = (work(worker, n), start.clone());
        tokio::spawn(async move {
            start.wait().await;
            let began = Instant::now();
            (began, work.await, Instant::now())
        })
    });
    let tasks: Vec<_> = tasks.collect();
    let work: Vec<_> =
        join_all(tasks).await.into_iter().map(|work| work.expect("it does not panic")).collect();
    let (began, ended) = (work.iter().map(|work| work.0).min(), work.iter().map(|work| work.2).max());
    let took = began.zip(ended).map(|(began, ended)| ended - began).unwrap_or_default();
    (took, work.into_iter().map(|work| work.1).collect())
}

/// The original, which mostly breaks: each round has a run of its own.
struct Originals {
    clients: Vec<zookeeper_client::Client>,
    rounds: usize,
    clean: usize,
}

impl Originals {
    async fn prepare(registry: &Registry) -> Option<Self> {
        let Registry::Zk(server) = registry else { return None };
        let mut clients = Vec::new();
        for _ in 0..WORKERS {
            clients.push(raw_zk(server).await);
        }
        Some(Self { clients, rounds: 0, clean: 0 })
    }

    async fn round(&mut self) -> Duration {
        self.rounds += 1;
        let [from, to] = STATES;
        let run = format!("run-{}", self.rounds);
        let workers = self.clients.iter().enumerate().map(|(n, client)| {
            // Names that were never used: what a broken round leaves behind would break the next ones.
            Original::new(client.clone(), &format!("n-{:010}", self.rounds * WORKERS + n), &run)
        });
        let workers: Vec<_> = workers.collect();
        workers[0].create(TASKS, from).await;
        for n in WORKERS..TASKS {
            workers[0].complete(&machine(n), from, to).await.expect("no race yet");
        }
        let (took, outcomes) =
            at_once(&workers, async move |worker: Original, n| worker.complete(&machine(n), from, to).await)
                .await;
        let moved = outcomes.iter().filter(|outcome| matches!(outcome, Ok(true))).count();
        self.clean += usize::from(moved == 1 && outcomes.iter().all(Result::is_ok));
        took
    }
}
