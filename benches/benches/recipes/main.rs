//! Recipes on real servers: runs beside the algorithm that they replace, written by hand on the raw `zookeeper-client`;
//! locks beside those that the raw clients bring along; groups of ten beside groups of a thousand.
//!
//! Sides take turns, see [`discovery_benches::turns`]. What is a process in real life has a handle, and so a connection
//! and a lease, of its own. All are connected, and have their leases, before the clock starts.
#![allow(missing_docs, reason = "a benchmark has no users")]

mod calls;
mod groups;
mod locks;
mod original;
mod race;
#[path = "../dns/raw.rs"]
#[allow(dead_code, reason = "shared with the benchmark of registrations")]
mod raw;
mod registry;
mod runs;
#[path = "../dns/server.rs"]
#[allow(dead_code, reason = "shared with the benchmark of registrations")]
mod server;

use registry::Kind;

fn main() {
    for kind in Kind::ALL {
        runs::bench(kind);
        race::bench(kind);
        locks::bench(kind);
        groups::bench(kind);
    }
}
