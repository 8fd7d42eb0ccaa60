//! The proof, while everything around it breaks.

use std::{convert::Infallible, env, time::Duration};

use discovery_testbed::Proxy;
use tokio::time::sleep;

use crate::{demo::Demo, registry::Registry, run_state::processes::recipes};

/// How many rounds are run; `DISCOVERY_TEST_ROUNDS` asks for more.
const ROUNDS: u32 = 40;

/// As long as a round may take on average, which is much longer than it does.
const PATIENCE: Duration = Duration::from_secs(3);

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
    let rounds = env::var("DISCOVERY_TEST_ROUNDS").map_or(ROUNDS, |rounds| rounds.parse().expect("a number"));
    let count = rounds.to_string();
    let args =
        ["race", "--rounds", &count, "--kill", "20", "--seed", "1235", "--workers", "5", "--ttl", "1s"];
    let mut race = Demo::spawn([&["run-state"], &args[..], &["--backend", &locator]].concat());
    let ended = tokio::select! {
        ended = race.ended_within(PATIENCE * rounds) => ended,
        never = break_now_and_then(&proxy) => match never {},
    };
    let said = race.out();
    assert!(ended.success(), "{said}");
    for line in [
        &format!("moved by exactly one   {rounds:>6}"),
        "moved more than once        0",
        "stuck                       0",
        "marks left over             0",
    ] {
        assert!(said.contains(line), "{line:?} is not in {said}");
    }
    assert!(!said.contains("workers killed              0"), "{said}");
    let (runs, circle) = recipes(&registry).await;
    assert!(runs.list().await.unwrap().is_empty() && circle.seats().await.unwrap().is_empty());
}
