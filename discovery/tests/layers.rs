//! Each layer by itself, on the memory backend and under paused time.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should panic")]

use std::{sync::Arc, time::Duration};

use discovery::{
    Backoff, Discovery, Error, ErrorKind, Event, Instance, Outcome, Phase, RegistrationStatus, ServiceName,
    kv::{Key, Txn},
    layer::{Fault, LastKnownGood, Layer, Limit, Odds, Prefix, Retry, Timeout, Trace},
    mem::Mem,
};
use futures_util::{StreamExt, future::join_all};
use tokio::time::{self, Instant};

mod support;

const SECOND: Duration = Duration::from_secs(1);

fn service() -> ServiceName {
    "eu1/cart".parse().unwrap()
}

fn key(text: &str) -> Key {
    text.parse().unwrap()
}

fn broken(layer: impl Layer) -> (Discovery, Fault) {
    let fault = Fault::seeded(7);
    (Discovery::new(Mem::new()).layer(layer).layer(fault.clone()), fault)
}

fn unavailable() -> Error {
    Error::new(ErrorKind::Unavailable, "for the test")
}

#[tokio::test(start_paused = true)]
async fn the_layer_added_first_is_outermost() {
    let fault = Fault::new();
    let layered = Discovery::new(Mem::new()).layer(Timeout::new(SECOND)).layer(fault.clone());
    assert_eq!(format!("{:?}", layered.backend()), "Timeout(1s) over Fault over Mem");

    fault.delay(10 * SECOND);
    assert_eq!(layered.lookup(&service()).await.unwrap_err().kind(), ErrorKind::Timeout);
    let other_way_round = Discovery::new(Mem::new()).layer(fault).layer(Timeout::new(SECOND));
    assert!(other_way_round.lookup(&service()).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_layered_backend_has_the_facets_of_the_one_underneath() {
    let layers: [Arc<dyn Layer>; 7] = [
        Arc::new(Fault::new()),
        Arc::new(LastKnownGood::new(SECOND)),
        Arc::new(Limit::new(1)),
        Arc::new(Prefix::new(service())),
        Arc::new(Retry::new(1)),
        Arc::new(Timeout::new(SECOND)),
        Arc::new(Trace::new()),
    ];
    for layer in layers {
        let all = layer.wrap(Arc::new(Mem::new()));
        assert!(all.registrar().is_some() && all.leases().is_some() && all.kv().is_some(), "{all:?}");
        let none = layer.wrap(Arc::new(support::Scripted::new().0));
        assert!(none.registrar().is_none() && none.leases().is_none() && none.kv().is_none(), "{none:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_lost_reply_is_a_write_that_took_effect() {
    let (discovery, fault) = broken(Trace::new());
    let kv = discovery.kv().unwrap();
    fault.lose_replies(1);
    let lost = kv.commit(Txn::new().put(&key("a"), "1")).await.unwrap_err();
    assert_eq!((lost.kind(), lost.outcome()), (ErrorKind::Unavailable, Outcome::Unknown));
    assert_eq!(kv.get(&key("a")).await.unwrap().unwrap().value, "1");
    // A write that fails has no reply to lose.
    fault.lose_replies(1);
    let conflict = kv.commit(Txn::new().absent(&key("a")).put(&key("a"), "2")).await.unwrap_err();
    assert_eq!(conflict.kind(), ErrorKind::Conflict);
}

#[tokio::test(start_paused = true)]
async fn a_partition_makes_a_view_stale_once_and_live_once() {
    let (discovery, fault) = broken(Trace::new());

    let mut watch = discovery.watch(service());
    let mut view = discovery.view(service()).await.unwrap();
    assert!(matches!(watch.next().await, Some(Ok(Event::Reset(_)))));

    fault.partition();
    let cause = discovery.lookup(&service()).await.unwrap_err();
    assert_eq!((cause.kind(), cause.outcome()), (ErrorKind::Unavailable, Outcome::NotApplied));
    assert!(matches!(watch.next().await, Some(Ok(Event::Stale(_)))));
    view.wait_for(|_, freshness| !freshness.is_live()).await.unwrap();
    assert!(time::timeout(60 * SECOND, watch.next()).await.is_err(), "stale is said once");

    fault.heal();
    let registration = discovery.register(Instance::builder(service()).build().unwrap()).await.unwrap();
    view.wait_for(|snapshot, freshness| freshness.is_live() && snapshot.len() == 1).await.unwrap();
    assert_eq!(view.snapshot(), discovery.lookup(&service()).await.unwrap());
    let mut after = Vec::new();
    while let Ok(Some(event)) = time::timeout(SECOND, watch.next()).await {
        after.push(event.unwrap());
    }
    assert_eq!(after.iter().filter(|event| matches!(event, Event::Live)).count(), 1, "{after:?}");
    assert!(!after.iter().any(|event| matches!(event, Event::Stale(_))), "{after:?}");
    drop(registration);
}

#[tokio::test(start_paused = true)]
async fn a_cut_ends_the_watches_that_are_open_and_no_others() {
    let (discovery, fault) = broken(Trace::new());
    let scope = service().into();
    let mut old = discovery.backend().watch(&scope, None);
    old.next().await.unwrap().unwrap();
    fault.cut();
    let mut new = discovery.backend().watch(&scope, None);
    assert_eq!(old.next().await.unwrap().unwrap_err().kind(), ErrorKind::Unavailable);
    assert!(old.next().await.is_none());
    assert!(new.next().await.unwrap().is_ok());
    assert!(discovery.lookup(&service()).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn an_expired_lease_takes_its_entries_along_and_registration_recovers() {
    let (discovery, fault) = broken(Trace::new());
    let instance = Instance::builder(service()).build().unwrap();
    let mut registration = discovery.register(instance).ttl(9 * SECOND).await.unwrap();
    let mut watch = discovery.watch(service());
    assert!(matches!(watch.next().await, Some(Ok(Event::Reset(all))) if all.len() == 1));
    fault.expire_next(1);
    assert!(matches!(watch.next().await, Some(Ok(Event::Delta { .. }))), "the entry goes");
    let lost = registration.wait_for(|status| status.phase == Phase::Lost).await;
    assert_eq!(lost.cause.unwrap().kind(), ErrorKind::LeaseLost);
    registration.wait_for(RegistrationStatus::is_active).await;
    assert_eq!(discovery.lookup(&service()).await.unwrap().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn calm_ends_everything() {
    let (discovery, fault) = broken(Trace::new());
    fault.partition();
    fault.delay(SECOND);
    fault.fail_next(9, &unavailable());
    fault.lose_replies(9);
    fault.odds(Odds::new().fail(1.0).lose_reply(1.0).cut(1.0).expire(1.0));
    fault.calm();
    let started = Instant::now();
    discovery.kv().unwrap().commit(Txn::new().put(&key("a"), "1")).await.unwrap();
    assert!(discovery.backend().watch(&service().into(), None).next().await.unwrap().is_ok());
    assert_eq!(started.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn retry_repeats_what_is_safe_and_gives_up_in_the_end() {
    let (discovery, fault) = broken(Retry::new(3));
    fault.fail_next(2, &unavailable());
    assert!(discovery.lookup(&service()).await.is_ok(), "a read may be repeated");
    fault.fail_next(3, &unavailable());
    assert!(discovery.lookup(&service()).await.is_err(), "three tries are three");
    fault.fail_next(1, &Error::new(ErrorKind::Denied, "for the test"));
    assert_eq!(discovery.lookup(&service()).await.unwrap_err().kind(), ErrorKind::Denied, "will not pass");

    let commit = async || discovery.kv().unwrap().commit(Txn::new().put(&key("a"), "1")).await;
    fault.fail_next(2, &unavailable().not_applied());
    assert!(commit().await.is_ok(), "a commit without effect may be repeated");
    fault.fail_next(1, &unavailable());
    assert_eq!(commit().await.unwrap_err().outcome(), Outcome::Unknown, "another may not");
}

#[tokio::test(start_paused = true)]
async fn one_lost_reply_leaves_the_outcome_unknown_whatever_comes_after() {
    let (discovery, fault) = broken(Retry::new(3));
    fault.fail_next(1, &unavailable());
    fault.fail_next(2, &unavailable().not_applied());
    let id = Instance::builder(service()).build().unwrap().key().clone();
    assert_eq!(discovery.remove(&id).await.unwrap_err().outcome(), Outcome::Unknown);
}

#[tokio::test(start_paused = true)]
async fn retry_never_applies_a_commit_twice() {
    let (discovery, fault) = broken(Retry::new(4));
    let kv = discovery.kv().unwrap();
    fault.odds(Odds::new().fail(0.3).lose_reply(0.3));
    let (mut applied, mut unknown) = (0, 0);
    for n in 0..500 {
        match kv.commit(Txn::new().put(&key("a"), n.to_string())).await {
            Ok(_) => applied += 1,
            Err(error) if error.outcome() == Outcome::Unknown => unknown += 1,
            Err(_) => {}
        }
    }
    fault.calm();
    // Each commit is one revision of the store.
    assert_eq!(kv.get(&key("a")).await.unwrap().unwrap().modified.0, applied + unknown);
    assert!(applied > 100 && unknown > 100, "{applied} applied, {unknown} unknown");
}

#[tokio::test(start_paused = true)]
async fn compare_and_set_increments_add_up_under_lost_replies() {
    const WRITERS: usize = 4;
    const INCREMENTS: u32 = 40;
    let (discovery, fault) = broken(Retry::new(3).backoff(Backoff::new(SECOND, SECOND).with_seed(1)));
    let kv = discovery.kv().unwrap();
    let counter = key("counter");
    let encode = |slots: [u32; WRITERS]| slots.map(|n| n.to_string()).join(",");
    let decode = |value: &[u8]| {
        let mut numbers = std::str::from_utf8(value).unwrap().split(',').map(|n| n.parse::<u32>().unwrap());
        std::array::from_fn::<_, WRITERS, _>(|_| numbers.next().unwrap())
    };
    kv.commit(Txn::new().put(&counter, encode([0; WRITERS]))).await.unwrap();
    fault.odds(Odds::new().fail(0.2).lose_reply(0.3));
    fault.delay(Duration::from_millis(10));

    // Each has a slot of its own in the value: that is how it finds out what became of a commit without a reply.
    let increment = async |writer: usize| {
        for target in 1..=INCREMENTS {
            loop {
                let Ok(entry) = kv.get(&counter).await else { continue };
                let entry = entry.unwrap();
                let mut slots = decode(&entry.value);
                if slots[writer] == target {
                    break;
                }
                slots[writer] = target;
                let _ = kv.commit(Txn::new().unmodified(&entry).put(&counter, encode(slots))).await;
            }
        }
    };
    join_all((0..WRITERS).map(increment)).await;
    fault.calm();
    let entry = kv.get(&counter).await.unwrap().unwrap();
    assert_eq!(decode(&entry.value), [INCREMENTS; WRITERS]);
    assert_eq!(entry.modified.0, 1 + u64::from(INCREMENTS) * WRITERS as u64, "each was applied once");
}

#[tokio::test(start_paused = true)]
async fn a_timeout_bounds_calls_and_the_first_item_of_a_watch() {
    let (discovery, fault) = broken(Timeout::new(SECOND));
    let scope = service().into();
    let mut watch = discovery.backend().watch(&scope, None);
    watch.next().await.unwrap().unwrap();
    assert!(time::timeout(60 * SECOND, watch.next()).await.is_err(), "silence later on is no trouble");

    fault.delay(2 * SECOND);
    let late = discovery.lookup(&service()).await.unwrap_err();
    assert_eq!(late.kind(), ErrorKind::Timeout);
    assert_eq!(late.to_string(), "mem: fetch: no answer about eu1/cart within 1s");
    let mut watch = discovery.backend().watch(&scope, None);
    assert_eq!(watch.next().await.unwrap().unwrap_err().kind(), ErrorKind::Timeout);
    assert!(watch.next().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_limit_lets_so_many_through_at_a_time_and_renewals_always() {
    let (discovery, fault) = broken(Limit::new(2));
    let leases = discovery.backend().leases().unwrap();
    let lease = leases.grant(60 * SECOND).await.unwrap();
    fault.delay(SECOND);
    let started = Instant::now();
    let lookups = join_all((0..10).map(|_| discovery.fetch(service())));
    let renewal = async {
        leases.renew(lease.id).await.unwrap();
        started.elapsed()
    };
    let (_, renewed_after) = tokio::join!(lookups, renewal);
    assert_eq!(renewed_after, SECOND);
    assert_eq!(started.elapsed(), 5 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn the_last_known_good_answer_bridges_an_outage_for_a_while() {
    let (discovery, fault) = broken(LastKnownGood::new(60 * SECOND));
    let _registration = discovery.register(Instance::builder(service()).build().unwrap()).await.unwrap();
    assert_eq!(discovery.lookup(&service()).await.unwrap().len(), 1);
    fault.partition();
    time::sleep(59 * SECOND).await;
    assert_eq!(discovery.lookup(&service()).await.unwrap().len(), 1);
    let other: ServiceName = "other".parse().unwrap();
    assert!(discovery.lookup(&other).await.is_err(), "nobody knows");
    time::sleep(2 * SECOND).await;
    assert!(discovery.lookup(&service()).await.is_err(), "too old");

    fault.calm();
    discovery.lookup(&service()).await.unwrap();
    fault.fail_next(1, &Error::new(ErrorKind::Denied, "for the test"));
    assert_eq!(discovery.lookup(&service()).await.unwrap_err().kind(), ErrorKind::Denied);
}
