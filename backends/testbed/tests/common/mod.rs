//! What the tests of the testbed share.
#![allow(dead_code, reason = "every test binary uses a part")]

use std::{path::Path, time::Duration};

use tokio::time::{Instant, sleep};

const DEADLINE: Duration = Duration::from_secs(30);

/// Waits until `condition` holds; panics with `what` when that takes too long.
pub(crate) async fn eventually(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !condition().await {
        assert!(Instant::now() < deadline, "not within {DEADLINE:?}: {what}");
        sleep(Duration::from_millis(5)).await;
    }
}

/// Whether a process with this id exists, if only as a zombie.
pub(crate) fn is_alive(id: u32) -> bool {
    Path::new(&format!("/proc/{id}")).exists()
}
