//! Beside the raw `hickory-net`, on BIND and on the embedded authority: each workload as an expert would write it by
//! hand for this one purpose, and as a user of this crate writes it, in the same process against the same kind of server.
//!
//! An instance of ours is not one record but about eight, so that any resolver finds it. So registering is measured raw
//! both ways: the entries alone, and with all that is shown (`shown`). Ours also knows when a writer is gone, and makes
//! sure that it overwrites nobody's entry; with the raw client that is free here, as a prerequisite.
//!
//! Publishing ends when a reader that was told by NOTIFY has the record. The raw side asks for it, which it can only
//! because it knows its name; whoever does not know what comes has to ask what is new (`ixfr`), as ours does.
//!
//! All sides are connected before the clock starts. BIND writes its journal to disk, as it does by default.
#![allow(missing_docs, reason = "criterion's macros make public items")]

mod raw;
mod server;

use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use discovery_benches::{
    Rounds, service,
    workloads::{self, Comparison, register_all, register_resident},
};
use discovery_testbed::Port;
use tokio::{runtime::Runtime, time::sleep};

use crate::{
    raw::{Listener, Raw},
    server::{Kind, Server},
};

/// Between two rounds of publishing: BIND sends NOTIFY at once only if it has sent none for 10 ms, and a registry
/// changes seldom.
const PAUSE: Duration = Duration::from_millis(15);

/// The one that comes and goes on the raw side.
const NEWCOMER: u64 = u64::MAX;

/// 1,000 instances of one process, as fast as they go.
fn registration(criterion: &mut Criterion) {
    const COUNT: u64 = 1000;
    for kind in Kind::ALL {
        let runtime = Runtime::new().expect("a runtime");
        let Some(server) = runtime.block_on(Server::start(kind, None)) else { continue };
        let name = format!("dns_{}_register_1000", kind.label());
        let mut comparison = Comparison::new(criterion, &name, Duration::from_secs(8), &runtime);

        let client = runtime.block_on(Raw::connect(&server));
        comparison.raw(async |rounds| {
            let mut took = Duration::ZERO;
            for _ in 0..rounds {
                let began = Instant::now();
                client.put_entries(COUNT).await;
                took += began.elapsed();
                client.remove_all(COUNT).await;
            }
            took
        });
        comparison.rival("shown", async |rounds| {
            let mut took = Duration::ZERO;
            for _ in 0..rounds {
                let began = Instant::now();
                client.put_shown(COUNT).await;
                took += began.elapsed();
                client.remove_all(COUNT).await;
            }
            took
        });

        let ours = server.client(None);
        let _stays = runtime.block_on(register_resident(&ours));
        comparison.ours(async |rounds| workloads::registration(&ours, COUNT, rounds).await);
        comparison.finish();
    }
}

/// From the call that registers to the moment another client has the new instance in hand.
fn publication(criterion: &mut Criterion) {
    for kind in Kind::ALL {
        for others in [10, 1000] {
            let runtime = Runtime::new().expect("a runtime");
            let name = format!("dns_{}_publish_to_visible_{others}", kind.label());
            let listener = runtime.block_on(Listener::open());
            let Some(server) = runtime.block_on(Server::start(kind, Some(listener.address()))) else {
                continue;
            };
            let mut comparison = Comparison::new(criterion, &name, Duration::from_secs(16), &runtime);
            let (mut by_query, mut by_transfer, mut by_ours) =
                (Rounds::default(), Rounds::default(), Rounds::default());

            let (writer, reader) = runtime.block_on(async {
                let (writer, reader) = (Raw::connect(&server).await, Raw::connect(&server).await);
                writer.put_entries(others).await;
                (writer, reader)
            });
            comparison.raw(async |rounds| {
                reader.follow(&listener).await;
                let arrival = async |present| {
                    while reader.has(NEWCOMER).await != present {
                        listener.notified().await;
                    }
                };
                by_query
                    .run(rounds, async || {
                        let told = async {
                            listener.notified().await;
                            arrival(true).await;
                        };
                        sleep(PAUSE).await;
                        let began = Instant::now();
                        tokio::join!(writer.create(NEWCOMER), told);
                        let took = began.elapsed();
                        writer.remove(NEWCOMER).await;
                        listener.notified().await;
                        arrival(false).await;
                        took
                    })
                    .await
            });
            comparison.rival("ixfr", async |rounds| {
                let mut serial = reader.follow(&listener).await;
                by_transfer
                    .run(rounds, async || {
                        sleep(PAUSE).await;
                        let began = Instant::now();
                        tokio::join!(writer.create(NEWCOMER), async {
                            loop {
                                listener.notified().await;
                                if reader.news(reader.changes(serial), &mut serial, NEWCOMER).await {
                                    break;
                                }
                            }
                        });
                        let took = began.elapsed();
                        let gone = serial;
                        writer.remove(NEWCOMER).await;
                        while serial == gone {
                            listener.notified().await;
                            reader.news(reader.changes(serial), &mut serial, NEWCOMER).await;
                        }
                        took
                    })
                    .await
            });
            drop((writer, reader, server));

            // On a server of its own: what listens for the raw side does so no more.
            let port = Port::reserve().expect("a free port");
            let server = runtime.block_on(Server::start(kind, Some(port.address()))).expect("as before");
            let (ours, mut view, _stay) = runtime.block_on(async {
                let (ours, reader) = (server.client(None), server.client(Some(port.address())));
                let stay = (register_all(&ours, 0..others).await, register_resident(&ours).await);
                let view = reader.view(service()).await.expect("the server is up");
                (ours, view, stay)
            });
            comparison.ours(async |rounds| {
                by_ours
                    .run(rounds, async || {
                        sleep(PAUSE).await;
                        workloads::publication(&ours, &mut view, 1).await
                    })
                    .await
            });
            comparison.finish();
            by_query.print(&name, "raw");
            by_transfer.print(&name, "ixfr");
            by_ours.print(&name, "discovery");
        }
    }
}

/// All of a large service, read and decoded by a client that knows nothing yet.
fn first_snapshot(criterion: &mut Criterion) {
    const COUNT: u64 = 10_000;
    for kind in Kind::ALL {
        let runtime = Runtime::new().expect("a runtime");
        let Some(server) = runtime.block_on(Server::start(kind, None)) else { continue };
        let name = format!("dns_{}_first_snapshot_10000", kind.label());
        let mut comparison = Comparison::new(criterion, &name, Duration::from_secs(8), &runtime);

        let (client, _all) = runtime.block_on(async {
            let all = register_all(&server.client(None), 0..COUNT).await;
            (Raw::connect(&server).await, all)
        });
        comparison.raw(async |rounds| {
            let began = Instant::now();
            for _ in 0..rounds {
                assert_eq!(client.transfer().await as u64, COUNT);
            }
            began.elapsed()
        });
        comparison.ours(async |rounds| {
            let mut took = Duration::ZERO;
            for _ in 0..rounds {
                took += workloads::first_snapshot(&server.client(None), COUNT, 1).await;
            }
            took
        });
        comparison.finish();
    }
}

criterion_group!(benches, registration, publication, first_snapshot);
criterion_main!(benches);
