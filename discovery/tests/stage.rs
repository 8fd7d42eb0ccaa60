//! The stage of fault tests, on the memory backend: what goes well passes, and what is wrong does not.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should panic")]

#[path = "conformance_catches/broken.rs"]
#[allow(dead_code, reason = "made for other tests")]
mod broken;

use std::{panic::AssertUnwindSafe, sync::Arc, time::Duration};

use discovery::{
    Backoff, Discovery, Scope,
    conformance::stage::{Client, STEADY, Stage, StageBuilder, eventually, instance, soon, version},
    kv::{Key, Range},
    layer::{Fault, Layer},
    mem::Mem,
};
use futures_util::FutureExt;
use tokio::time;

use self::broken::{Broken, Defect};

/// A registry, and the owner's line to it.
#[derive(Default)]
struct Registry {
    mem: Mem,
    line: Fault,
}

impl Registry {
    fn discovery(&self) -> Discovery {
        Discovery::new(self.mem.clone()).backoff(pace())
    }

    fn stage(&self) -> StageBuilder {
        let owner = self.discovery().layer(self.line.clone());
        Stage::builder().owner(owner, STEADY).witness(self.discovery(), STEADY)
    }

    /// A stage on which only the owner has registered anything, and so only the owner can lose a lease.
    async fn stage_of_the_owner(&self) -> Stage {
        let mut stage = self.stage().empty();
        stage.owner_mut().populate(0..3).await;
        stage.recovered([0, 0]).await;
        stage
    }

    async fn cleared(&self, stage: Stage) {
        let left = async || {
            let watches = self.mem.open_watches();
            let instances = self.discovery().fetch(Scope::everything()).await.unwrap().len();
            (watches + instances > 0).then(|| format!("{watches} watches and {instances} instances"))
        };
        stage.cleared(left).await;
    }
}

fn pace() -> Backoff {
    Backoff::new(Duration::from_millis(20), Duration::from_millis(100))
}

/// Waits until a client is told of an outage, which may be over sooner than anybody looks.
async fn stale(client: &Client) {
    eventually("the outage is noticed", async || (!client.is_stale()).then(|| "live".into())).await;
}

async fn sees(client: &Client, wanted: usize) {
    eventually("the view shows it", async || {
        let seen = client.view().snapshot().len();
        (seen != wanted).then(|| format!("{seen} instances, not {wanted}"))
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_partition_is_one_outage_and_nobody_leaves() {
    let registry = Registry::default();
    let mut stage = registry.stage().set().await;
    assert_eq!(stage.wanted().len(), 6);
    registry.line.partition();
    time::sleep(STEADY / 2).await;
    registry.line.heal();
    let took = stage.recovered([1, 0]).await;
    assert!(took < Duration::from_secs(1), "{took:?}");
    stage.assert_nobody_left();
    registry.cleared(stage).await;
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_expired_in_a_partition_is_replaced() {
    // Whether the watch of the owner could be told step by step or not.
    for resumes in [true, false] {
        let registry = Registry::default();
        let mut stage = registry.stage_of_the_owner().await;
        registry.line.partition();
        registry.mem.expire_all();
        sees(stage.witness(), 0).await;
        if !resumes {
            registry.mem.compact();
        }
        registry.line.heal();
        stage.recovered([1, 0]).await;
        stage.assert_owner_left_once();
        let seen = stage.clients().map(|client| client.history().departures().len());
        assert_eq!(seen, [0, 3]);
        registry.cleared(stage).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_expired_before_everybodys_eyes_is_replaced() {
    let registry = Registry::default();
    let mut stage = registry.stage().set().await;
    registry.mem.expire_all();
    sees(stage.owner(), 0).await;
    stage.recovered([0, 0]).await;
    for client in stage.clients() {
        assert_eq!(client.history().departures().len(), 6);
    }
    registry.cleared(stage).await;
}

#[tokio::test(start_paused = true)]
async fn what_is_released_leaves_and_what_is_held_is_wanted() {
    let registry = Registry::default();
    let mut stage = registry.stage().set().await;
    let arriving = stage.owner().register(10).await.unwrap();
    stage.owner_mut().hold(arriving);
    let leaving = stage.owner_mut().release(0);
    let left = leaving.key().clone();
    soon("to be deregistered", leaving.deregister()).await.unwrap();
    stage.recovered([0, 0]).await;
    for client in stage.clients() {
        assert!(client.sees(instance(10).key()));
        client.history().assert_only_left([&left]);
        assert_eq!(client.history().departures(), std::slice::from_ref(&left));
    }
    registry.cleared(stage).await;
}

#[tokio::test(start_paused = true)]
async fn a_hundred_cuts_amid_two_thousand_changes() {
    let registry = Registry::default();
    let mut stage = registry.stage().set().await;
    for cut in 0..100 {
        for n in 0..20 {
            if n == cut % 20 {
                registry.line.cut();
            }
            stage.witness_mut().change(20 * cut + n).await;
        }
        // Every other cut comes while the one before is still being recovered from.
        if cut % 2 == 1 {
            let truth = stage.wanted();
            eventually("the owner knows", async || stage.owner().lags_behind(&truth)).await;
        }
    }
    let outages = stage.owner().history().outages();
    assert!((50..=100).contains(&outages), "{outages}");
    stage.recovered([outages, 0]).await;
    let seen = stage.witness().history().departures();
    assert!(
        (400..900).contains(&seen.len()),
        "comings, updates and goings in equal parts, but {}",
        seen.len()
    );
    registry.cleared(stage).await;
}

#[tokio::test(start_paused = true)]
#[should_panic(expected = "left, or left twice, although nobody expected it: eu1/prod/cart/")]
async fn a_departure_that_nobody_expected_is_no_good() {
    let registry = Registry::default();
    let mut stage = registry.stage().set().await;
    assert!(registry.discovery().remove(instance(0).key()).await.unwrap());
    sees(stage.witness(), 5).await;
    stage.owner().update_all().await;
    stage.recovered([0, 0]).await;
    stage.assert_nobody_left();
}

#[tokio::test(start_paused = true)]
#[should_panic(expected = "left, or left twice")]
async fn a_departure_of_the_witness_is_none_of_the_owner() {
    let registry = Registry::default();
    let mut stage = registry.stage().set().await;
    registry.line.partition();
    registry.mem.expire_all();
    sees(stage.witness(), 0).await;
    registry.line.heal();
    stage.recovered([1, 0]).await;
    stage.assert_owner_left_once();
}

#[tokio::test(start_paused = true)]
#[should_panic(expected = "outages of owner and witness, told and expected")]
async fn an_outage_that_nobody_expected_is_no_good() {
    let registry = Registry::default();
    let mut stage = registry.stage().set().await;
    registry.line.cut();
    stale(stage.owner()).await;
    stage.recovered([0, 0]).await;
}

#[tokio::test(start_paused = true)]
#[should_panic(expected = "all is well: owner: 0 of 1 outages are over")]
async fn an_outage_that_does_not_come_is_no_good() {
    let registry = Registry::default();
    let mut stage = registry.stage().set().await;
    stage.recovered([1, 0]).await;
}

#[tokio::test(start_paused = true)]
#[should_panic(expected = "all is well: owner: fetched")]
async fn what_nobody_wants_is_no_good() {
    let registry = Registry::default();
    let mut stage = registry.stage().set().await;
    let _phantom = registry.discovery().register(instance(10)).await.unwrap();
    stage.recovered([0, 0]).await;
}

#[tokio::test(start_paused = true)]
#[should_panic(expected = "went back from version 3 to 2")]
async fn old_data_that_come_back_are_no_good() {
    let registry = Registry::default();
    let mut stage = registry.stage_of_the_owner().await;
    let kv = registry.discovery().kv().unwrap();
    let old = kv.scan(&Range::Subtree(Key::root())).await.unwrap().entries.remove(0);
    let showing = async |wanted: u64| {
        let witness = stage.witness();
        eventually("the version is seen", async || {
            let known = witness.history().snapshot();
            let shown = known.iter().find(|one| one.key() == instance(0).key()).map(|one| version(one));
            (shown != Some(wanted)).then(|| format!("{shown:?}"))
        })
        .await;
    };
    stage.owner().update_all().await;
    showing(3).await;
    registry.mem.plant(&old.key, old.value);
    showing(2).await;
    stage.owner().update_all().await;
    stage.recovered([0, 0]).await;
}

#[tokio::test(start_paused = true)]
#[should_panic(expected = "nothing is left: three sessions")]
async fn what_is_left_on_the_server_is_no_good() {
    let stage = Registry::default().stage().set().await;
    stage.cleared(async || Some("three sessions".into())).await;
}

#[tokio::test(start_paused = true)]
#[should_panic(expected = "nothing is left: 1 tasks, 0 before")]
async fn a_task_that_is_left_is_no_good() {
    let registry = Registry::default();
    let stage = registry.stage().set().await;
    tokio::spawn(std::future::pending::<()>());
    registry.cleared(stage).await;
}

async fn stage_on(registry: &Registry, defect: Defect) -> Stage {
    let client = |inner| Discovery::new(Broken::new(inner, defect)).backoff(pace());
    let stage = Stage::builder();
    stage
        .owner(client(registry.line.wrap(Arc::new(registry.mem.clone()))), STEADY)
        .witness(client(Arc::new(registry.mem.clone())), STEADY)
        .set()
        .await
}

/// All looks well when a watch dies in silence, until something changes.
#[tokio::test(start_paused = true)]
#[should_panic(expected = "a last change is seen: owner: view shows")]
async fn a_watch_that_dies_in_silence_is_no_good() {
    let registry = Registry::default();
    let mut stage = stage_on(&registry, Defect::HangsOnError).await;
    registry.line.cut();
    stage.recovered([0, 0]).await;
    registry.cleared(stage).await;
}

/// A cut, as a fault test of a backend with this defect would have it.
async fn cut_behind(defect: Defect) {
    let registry = Registry::default();
    let mut stage = stage_on(&registry, defect).await;
    registry.line.cut();
    stage.recovered([1, 0]).await;
    stage.assert_nobody_left();
    registry.cleared(stage).await;
}

#[tokio::test(start_paused = true)]
async fn a_backend_with_a_defect_does_not_pass() {
    cut_behind(Defect::OnlyStutters).await;
    for (defect, expected) in [
        (Defect::HangsOnError, "owner: 0 of 1 outages are over"),
        (Defect::HoldsBackTheLast, "view shows"),
        (Defect::LosesDeltas, "view shows"),
        (Defect::CountsBackwards, "not sound: revision"),
        (Defect::ForgetsIncarnations, "fetched"),
        (Defect::DropsMetadata, "fetched"),
        (Defect::DeletesThenCreates, "left, or left twice"),
        (Defect::KeepsDroppedWatches, "nothing is left: "),
    ] {
        let outcome = AssertUnwindSafe(cut_behind(defect)).catch_unwind().await;
        let panic = outcome.expect_err(&format!("{defect:?} passes"));
        let message = panic.downcast_ref::<String>().unwrap();
        assert!(message.contains(expected), "{defect:?}: {message}");
    }
}
