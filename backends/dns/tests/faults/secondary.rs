//! A secondary instead of the primary.

use std::time::Duration;

use discovery::{
    ErrorKind, Outcome,
    conformance::stage::{STEADY, Stage},
    kv::Txn,
};
use discovery_testbed::{NameServer, NameServerBuilder, Port};
use tokio::time::Instant;

use crate::{
    common::{Follower, bind, config, everything, key, kv, leases, listed, on, zone},
    stage::{self, cleared, settled},
};

/// A primary, and a secondary that hears of its changes at once.
async fn pair(option: Option<&str>) -> Option<(NameServer, NameServer)> {
    let port = Port::reserve().unwrap();
    let primary = NameServer::bind().also_notify(port.address()).start_or_skip().await?;
    let secondary = NameServer::bind().secondary_of(&primary).port(port);
    let secondary = option.into_iter().fold(secondary, NameServerBuilder::option);
    Some((primary, secondary.start_or_skip().await?))
}

#[tokio::test]
async fn a_secondary_that_forwards_updates_does() {
    let Some((primary, secondary)) = pair(Some("allow-update-forwarding { any; };")).await else { return };
    let stage = Stage::builder().owner(stage::discovery(config(&secondary)), STEADY);
    let mut stage = stage.witness(stage::discovery(config(&primary)), STEADY).set().await;
    for n in 0..30 {
        stage.owner_mut().change(n).await;
    }
    let outages = settled(&stage).await;
    stage.recovered(outages).await;
    stage.assert_nobody_left();
    cleared(stage, &primary).await;
}

#[tokio::test]
async fn a_secondary_that_does_not_forward_says_so() {
    let Some((primary, secondary)) = pair(None).await else { return };
    let zone = zone(config(&secondary));
    kv(&on(&primary)).commit(Txn::new().put(&key("a"), "1")).await.unwrap();
    let mut follower = Follower::start(&zone, &everything()).await.unwrap();
    follower.until("it is seen", |it| it.value("a").is_some()).await;
    let write = kv(&zone).commit(Txn::new().put(&key("a"), "2")).await.unwrap_err();
    let lease = leases(&zone).grant(Duration::from_secs(10)).await.unwrap_err();
    for error in [write, lease] {
        assert_eq!((error.kind(), error.outcome()), (ErrorKind::Denied, Outcome::NotApplied), "{error}");
        assert!(error.to_string().contains("primary"), "{error}");
    }
    follower.until("the watch goes on", |it| it.value("a").is_some()).await;
}

/// The secondary does not hear of changes, and finds out by itself after a second or two.
#[tokio::test]
async fn a_secondary_that_is_behind_catches_up() {
    let Some(primary) = bind().await else { return };
    let forward = NameServer::bind().secondary_of(&primary).option("allow-update-forwarding { any; };");
    let Some(secondary) = forward.start_or_skip().await else { return };
    let zone = zone(config(&secondary));
    let mut numbers = Vec::new();
    for n in 0..3 {
        let start = Instant::now();
        numbers.push(kv(&zone).commit(Txn::new().put(&key("a"), n.to_string())).await.unwrap());
        // What this handle has written it sees, or is told that it cannot.
        assert_eq!(listed(&zone, &everything()).await, [format!("a={n}")]);
        eprintln!("seen after {:?}", start.elapsed());
    }
    assert!(numbers.is_sorted_by(|a, b| a < b), "{numbers:?}");
}
