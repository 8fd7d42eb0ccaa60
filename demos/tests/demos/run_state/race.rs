//! The proof, while everything around it breaks.

use std::{convert::Infallible, time::Duration};

use discovery_testbed::Proxy;
use tokio::time::sleep;

use crate::{demo::Demo, registry::Registry, run_state::processes::recipes};

/// As long as a race may take, which is much longer than it does.
const PATIENCE: Duration = Duration::from_secs(120);

/// Breaks the connections of all that use the proxy, now and then, until it is dropped.
async fn break_now_and_then(proxy: &Proxy) -> Infallible {
    let mut random = fastrand::Rng::with_seed(7);
    loop {
        sleep(Duration::from_millis(random.u64(100..700))).await;
        match random.u8(..4) {
            0 | 1 => proxy.cut().await,
            2 => {
                proxy.refuse().await;
                sleep(Duration::from_millis(random.u64(20..300))).await;
                proxy.pass().await;
            }
            _ => {
                proxy.lose_replies().await;
                sleep(Duration::from_millis(random.u64(20..150))).await;
                proxy.cut().await;
                proxy.pass().await;
            }
        }
    }
}

pub(crate) async fn no_round_is_moved_twice_while_workers_and_connections_die<R: Registry>() {
    let Some(registry) = R::start_or_skip().await else { return };
    let proxy = Proxy::start(registry.address()).unwrap();
    let locator = R::locator_at(proxy.address());
    let args = ["race", "--rounds", "40", "--kill", "20", "--seed", "1235", "--workers", "5", "--ttl", "1s"];
    let mut race = Demo::spawn([&["run-state"], &args[..], &["--backend", &locator]].concat());
    let ended = tokio::select! {
        ended = race.ended_within(PATIENCE) => ended,
        never = break_now_and_then(&proxy) => match never {},
    };
    let said = race.out();
    assert!(ended.success(), "{said}");
    for line in
        ["moved by exactly one       40", "moved more than once        0", "marks left over             0"]
    {
        assert!(said.contains(line), "{line:?} is not in {said}");
    }
    assert!(!said.contains("workers killed              0"), "{said}");
    let (runs, circle) = recipes(&registry).await;
    assert!(runs.list().await.unwrap().is_empty() && circle.seats().await.unwrap().is_empty());
}
