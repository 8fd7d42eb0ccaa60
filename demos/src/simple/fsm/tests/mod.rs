//! What the original promises, and what it gets wrong.

mod acceptance;
mod cluster;
mod defects;
mod definition;

use std::time::Duration;

use super::{Instance, Machine, Machines, State};

/// As in the original, numbers will do.
type Numbers = Machine<u32, u32, ()>;

fn state(id: u32) -> State<u32, u32, ()> {
    State::new(id)
}

/// One instance in state 0, and what it is part of.
fn one(machine: Numbers) -> (Machines<u32, u32, ()>, Instance<u32, u32, ()>) {
    let machines = Machines::new(machine);
    let instance = machines.add(0).unwrap();
    (machines, instance)
}

/// Longer than anything takes that is not stuck; time is paused.
async fn soon<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), work).await.expect("it is not stuck")
}
