//! One completion, and the one that moves the machine, in runs of 10, 100 and 1,000 tasks.
//!
//! The floor is what the store takes for one write on condition that two others are unchanged: less than that no
//! completion can be.

use std::time::{Duration, Instant};

use discovery::recipe::{Completed, Run, Runs, Table};
use discovery_benches::turns::{OURS, Turns, is_wanted};
use etcd_client as etcd;
use tokio::runtime::Runtime;
use zookeeper_client as zk;

use crate::{
    original::{Original, machine},
    raw::Raw,
    registry::{Kind, Registry, name, permanent, raw_etcd, raw_zk},
};

pub(crate) const STATES: [&str; 2] = ["init", "running"];

/// How often the floor is measured beside one move.
const FLOOR_ROUNDS: usize = 20;

pub(crate) fn bench(kind: Kind) {
    for size in [10, 100, 1000] {
        let family = format!("{}_run_{size}_", kind.label());
        if !is_wanted(&family) {
            continue;
        }
        let runtime = Runtime::new().expect("a runtime");
        runtime.block_on(async {
            if let Some(registry) = Registry::start(kind).await {
                run(&registry, &family, size).await;
            }
        });
    }
}

async fn run(registry: &Registry, family: &str, size: usize) {
    let time = Duration::from_secs(if size < 1000 { 6 } else { 12 });
    let mut completions = Turns::new(format!("{family}complete"), time);
    let mut moves = Turns::new(format!("{family}move"), time);

    let process = registry.process().await;
    let run = create(&process.runs(&name()).expect("a store with keys"), "run", size).await;
    let original = match registry {
        Registry::Zk(server) => {
            let original = Original::new(raw_zk(server).await, "n-0000000001", "run");
            original.create(size, STATES[0]).await;
            Some(original)
        }
        _ => None,
    };
    let mut floor = Floor::prepare(registry).await;

    for round in 0.. {
        if !moves.go_on() {
            break;
        }
        let (from, to) = (STATES[round % 2], STATES[(round + 1) % 2]);
        for n in 0..size {
            let (machine, is_last) = (machine(n), n + 1 == size);
            let turns = if is_last { &mut moves } else { &mut completions };
            if let Some(original) = &original {
                let began = Instant::now();
                let is_moved = original.complete(&machine, from, to).await.expect("the server is up");
                turns.add("original", began.elapsed());
                assert_eq!(is_moved, is_last);
            }
            if n < FLOOR_ROUNDS {
                let began = Instant::now();
                if floor.write().await {
                    turns.add("floor", began.elapsed());
                }
            }
            let began = Instant::now();
            let outcome = run.complete(&machine, from, to).await.expect("the server is up");
            turns.add(OURS, began.elapsed());
            assert_eq!(outcome, if is_last { Completed::Moved } else { Completed::Counted });
        }
        for _ in 0..FLOOR_ROUNDS {
            let began = Instant::now();
            if floor.write().await {
                moves.add("floor", began.elapsed());
            }
        }
    }
    completions.finish(OURS);
    moves.finish(OURS);
}

/// A run that goes round in circles.
pub(crate) async fn create(runs: &Runs, id: &str, size: usize) -> Run {
    let [init, running] = STATES;
    let table = Table::new(init).step(init, running).step(running, init);
    runs.create(id, &table, (0..size).map(machine)).await.expect("a new run")
}

/// One write on condition that two others are unchanged, by the raw client.
enum Floor {
    None,
    Zk(zk::Client),
    Etcd(Box<etcd::Client>),
    /// Here on condition that there is nothing; and then taken back.
    Dns(Box<Raw>),
}

impl Floor {
    async fn prepare(registry: &Registry) -> Self {
        match registry {
            Registry::Mem(_) => Self::None,
            Registry::Zk(server) => {
                let client = raw_zk(server).await;
                for node in ["/a", "/b", "/c"] {
                    client.create(node, b"", &permanent()).await.expect("the server is up");
                }
                Self::Zk(client)
            }
            Registry::Etcd(server) => {
                let client = raw_etcd(server).await;
                for key in ["/a", "/b", "/c"] {
                    client.kv_client().put(key, "0", None).await.expect("the server is up");
                }
                Self::Etcd(Box::new(client))
            }
            Registry::Dns(server) => Self::Dns(Box::new(Raw::connect(server).await)),
        }
    }

    /// Whether there is such a thing.
    async fn write(&mut self) -> bool {
        // About as much as a list of tasks.
        let value = [b'x'; 600];
        match self {
            Self::None => return false,
            Self::Zk(client) => {
                let mut writer = client.new_multi_writer();
                writer.add_check_version("/a", 0).expect("a path");
                writer.add_check_version("/b", 0).expect("a path");
                writer.add_set_data("/c", &value, None).expect("a path");
                writer.commit().await.expect("the server is up");
            }
            Self::Etcd(client) => {
                let unchanged = |key| etcd::Compare::version(key, etcd::CompareOp::Equal, 1);
                let put = etcd::TxnOp::put("/c", value, None);
                let txn = etcd::Txn::new().when([unchanged("/a"), unchanged("/b")]).and_then([put]);
                assert!(client.kv_client().txn(txn).await.expect("the server is up").succeeded());
            }
            Self::Dns(client) => {
                client.create(0).await;
                client.remove(0).await;
            }
        }
        true
    }
}
