//! The demos as people run them: the binary, its sockets and its pages, on memory and on real servers.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on may say so on the spot")]

mod browser;
mod compose;
mod demo;
mod dockercoins;
mod http;
mod nodes;
mod pac;
mod registry;
mod run_state;
mod simple;

use std::time::Duration;

use tokio::time::{Instant, sleep};

/// Much longer than anything takes on an idle machine.
const DEADLINE: Duration = Duration::from_secs(30);

/// Waits until `condition` holds; panics with `what` when that takes too long.
async fn eventually(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !condition().await {
        assert!(Instant::now() < deadline, "not within {DEADLINE:?}: {what}");
        sleep(Duration::from_millis(10)).await;
    }
}
