//! Balancers on the memory backend, under paused time.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should panic")]

use std::{
    collections::{BTreeMap, BTreeSet},
    error::Error as _,
    sync::Arc,
    time::Duration,
};

use discovery::{
    Backoff, Discovery, ErrorKind, Instance, InstanceId, Registration, ServiceName, Status,
    balance::{Balancer, ConsistentHash, Ejection, LeastLoaded, Pick, Policy, Random, RoundRobin, Weighted},
    layer::Fault,
    mem::Mem,
};
use tokio::{task, time};

const SECOND: Duration = Duration::from_secs(1);

fn service() -> ServiceName {
    "cart".parse().unwrap()
}

fn instance(id: u64) -> Instance {
    Instance::builder(service()).id(InstanceId::from_bits(id)).build().unwrap()
}

async fn register(discovery: &Discovery, instance: Instance) -> Registration {
    discovery.register(instance).ttl(60 * SECOND).await.unwrap()
}

async fn registered(discovery: &Discovery, ids: std::ops::Range<u64>) -> Vec<Registration> {
    let mut all = Vec::new();
    for id in ids {
        all.push(register(discovery, instance(id)).await);
    }
    all
}

/// Gives view and balancer the time to take in what happened.
async fn settle() {
    for _ in 0..20 {
        task::yield_now().await;
    }
}

fn id(pick: &Pick) -> u64 {
    u64::from_str_radix(pick.id().as_str(), 16).unwrap()
}

fn picked(balancer: &Balancer, picks: usize) -> BTreeSet<u64> {
    (0..picks).map(|_| id(&balancer.pick().unwrap())).collect()
}

fn fail(balancer: &Balancer, whom: u64, times: usize) {
    let mut failed = 0;
    while failed < times {
        let pick = balancer.pick().unwrap();
        if id(&pick) == whom {
            pick.failed();
            failed += 1;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_empty_view_fails_fast_and_says_how_much_that_means() {
    let fault = Fault::new();
    let discovery = Discovery::new(Mem::new()).layer(fault.clone());
    let mut view = discovery.view(service()).stale_bound(30 * SECOND).await.unwrap();
    let balancer = view.balance(Random::new());
    let error = balancer.pick().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert_eq!(error.to_string(), "pick: nobody of cart to pick: the view is live and knows 0");

    fault.partition();
    view.wait_for(|_, freshness| !freshness.is_live()).await.unwrap();
    settle().await;
    let error = balancer.pick().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("stale") && error.source().is_some(), "{error:?}");
    time::sleep(31 * SECOND).await;
    assert!(balancer.pick().unwrap_err().to_string().contains("expired"));

    fault.heal();
    let _registration = register(&discovery, instance(1)).await;
    time::timeout(60 * SECOND, balancer.ready()).await.unwrap().unwrap();
    assert_eq!(id(&balancer.pick().unwrap()), 1);
    balancer.read(|snapshot, freshness| assert!(snapshot.len() == 1 && freshness.is_live()));
}

#[tokio::test(start_paused = true)]
async fn what_is_known_is_picked_while_the_backend_is_away() {
    let fault = Fault::new();
    let discovery = Discovery::new(Mem::new()).layer(fault.clone());
    let _all = registered(&discovery, 0..3).await;
    let balancer = discovery.view(service()).await.unwrap().balance(RoundRobin::new());
    fault.partition();
    time::sleep(10 * SECOND).await;
    balancer.read(|_, freshness| assert!(!freshness.is_live()));
    assert_eq!(picked(&balancer, 3).len(), 3);
}

#[tokio::test(start_paused = true)]
async fn who_is_up_goes_first_and_who_is_down_never() {
    let discovery = Discovery::new(Mem::new());
    let status = |id, status| instance(id).to_builder().status(status).build().unwrap();
    let _others = [
        register(&discovery, status(1, Status::Draining)).await,
        register(&discovery, status(2, Status::Starting)).await,
        register(&discovery, status(3, Status::Down)).await,
        register(&discovery, instance(4).to_builder().weight(0).build().unwrap()).await,
    ];
    let up = register(&discovery, instance(5)).await;
    let view = discovery.view(service()).await.unwrap();
    let balancer = view.balance(Random::new());
    let strict = Balancer::builder(Random::new()).up_only().build(&view);
    assert_eq!(picked(&balancer, 100), [5].into());
    assert_eq!(picked(&strict, 100), [5].into());

    up.deregister().await.unwrap();
    settle().await;
    assert_eq!(picked(&balancer, 100), [1, 2, 4].into());
    assert_eq!(strict.pick().unwrap_err().kind(), ErrorKind::NotFound);
}

#[tokio::test(start_paused = true)]
async fn a_filter_keeps_others_out() {
    let discovery = Discovery::new(Mem::new());
    let _one = register(&discovery, instance(1)).await;
    let _two = register(&discovery, instance(2).to_builder().metadata("version", "2").build().unwrap()).await;
    let view = discovery.view(service()).await.unwrap();
    let second = Balancer::builder(Random::new()).filter(|i| i.metadata("version") == Some("2")).build(&view);
    assert_eq!(picked(&second, 50), [2].into());
}

#[tokio::test(start_paused = true)]
async fn load_evens_out_and_outlives_changes() {
    let discovery = Discovery::new(Mem::new());
    let all = registered(&discovery, 0..20).await;
    let balancer =
        Balancer::builder(LeastLoaded::new()).seed(1).build(&discovery.view(service()).await.unwrap());
    let busy: Vec<_> = (0..400).map(|_| balancer.pick().unwrap()).collect();
    let mut loads = BTreeMap::new();
    for pick in &busy {
        *loads.entry(id(pick)).or_insert(0) += 1;
    }
    assert!(loads.len() == 20 && loads.values().all(|load| (17..=23).contains(load)), "{loads:?}");

    // The same instances with other data, and a new one: it has all to catch up.
    for registration in &all {
        let changed = registration.instance().to_builder().metadata("version", "2").build().unwrap();
        registration.update(changed).await.unwrap();
    }
    let _late = register(&discovery, instance(99)).await;
    settle().await;
    let more: Vec<_> = (0..60).map(|_| balancer.pick().unwrap()).collect();
    let idle = more.iter().filter(|pick| id(pick) == 99).count();
    // Whenever it is one of the two that are drawn it wins: in 2 of 21 draws.
    let drawn_evenly = 60 / 21;
    assert!(idle > drawn_evenly, "{idle}");

    // When all is over, all are alike again.
    drop((busy, more));
    let after: Vec<_> = (0..420).map(|_| balancer.pick().unwrap()).collect();
    let newcomer = after.iter().filter(|pick| id(pick) == 99).count();
    assert!((15..=25).contains(&newcomer), "{newcomer}");
}

#[tokio::test(start_paused = true)]
async fn failures_in_a_row_eject_for_a_while() {
    let discovery = Discovery::new(Mem::new());
    let _all = registered(&discovery, 0..4).await;
    let backoff = Backoff::new(SECOND, 8 * SECOND).with_seed(1);
    let balancer = Balancer::builder(RoundRobin::new())
        .ejection(Ejection::new().after(3).backoff(backoff))
        .build(&discovery.view(service()).await.unwrap());

    fail(&balancer, 1, 2);
    picked(&balancer, 8);
    fail(&balancer, 1, 2);
    settle().await;
    assert_eq!(balancer.ejected(), 0, "a success in between starts the count anew");

    fail(&balancer, 1, 1);
    settle().await;
    assert_eq!((balancer.ejected(), picked(&balancer, 100)), (1, [0, 2, 3].into()));
    time::sleep(2 * SECOND).await;
    assert_eq!((balancer.ejected(), picked(&balancer, 100)), (0, [0, 1, 2, 3].into()));

    // Again, and it is for longer.
    fail(&balancer, 1, 3);
    settle().await;
    time::sleep(Duration::from_millis(1999)).await;
    assert_eq!(balancer.ejected(), 1);
    time::sleep(4 * SECOND).await;
    assert_eq!(balancer.ejected(), 0);
}

#[tokio::test(start_paused = true)]
async fn never_too_many_are_ejected_and_never_the_last() {
    let discovery = Discovery::new(Mem::new());
    let mut all = registered(&discovery, 0..5).await;
    let view = discovery.view(service()).await.unwrap();
    let balancer =
        Balancer::builder(Random::new()).ejection(Ejection::new().after(1).at_most(40)).build(&view);
    for _ in 0..1000 {
        balancer.pick().unwrap().failed();
        task::yield_now().await;
    }
    assert_eq!(balancer.ejected(), 2, "40 % of 5");
    assert_eq!(picked(&balancer, 200).len(), 3);

    all.truncate(1);
    settle().await;
    time::sleep(120 * SECOND).await;
    fail(&balancer, 0, 5);
    settle().await;
    assert_eq!((balancer.ejected(), picked(&balancer, 9)), (0, [0].into()));
}

#[tokio::test(start_paused = true)]
async fn another_life_is_not_ejected_for_what_the_last_one_did() {
    let discovery = Discovery::new(Mem::new());
    let mut all = registered(&discovery, 0..3).await;
    let view = discovery.view(service()).await.unwrap();
    let balancer = Balancer::builder(Random::new()).ejection(Ejection::new().after(1)).build(&view);
    fail(&balancer, 2, 1);
    settle().await;
    assert_eq!(picked(&balancer, 100), [0, 1].into());

    // New data changes nothing; a restart does.
    let changed = all[2].instance().to_builder().weight(5).build().unwrap();
    all[2].update(changed).await.unwrap();
    settle().await;
    assert_eq!(picked(&balancer, 100), [0, 1].into());
    all.pop().unwrap().deregister().await.unwrap();
    all.push(register(&discovery, instance(2)).await);
    settle().await;
    assert_eq!(picked(&balancer, 100), [0, 1, 2].into());
}

/// The call began in the last life, and its failure is told in the next.
#[tokio::test(start_paused = true)]
async fn another_life_is_not_ejected_for_a_call_to_the_last_one() {
    let discovery = Discovery::new(Mem::new());
    let mut registrations = registered(&discovery, 1..4).await;
    let view = discovery.view(service()).await.unwrap();
    let balancer = Balancer::builder(RoundRobin::new()).ejection(Ejection::new().after(1)).build(&view);
    balancer.ready().await.unwrap();
    let pick = balancer.pick().unwrap();
    let whom = id(&pick);
    let at = usize::try_from(whom).unwrap() - 1;
    registrations.remove(at).deregister().await.unwrap();
    let _next = register(&discovery, instance(whom)).await;
    settle().await;
    pick.failed();
    settle().await;
    assert_eq!(balancer.ejected(), 0);
}

#[tokio::test(start_paused = true)]
async fn keys_stay_where_they_are() {
    let discovery = Discovery::new(Mem::new());
    let mut all = registered(&discovery, 0..8).await;
    let view = discovery.view(service()).await.unwrap();
    let (one, other) = (view.balance(ConsistentHash::new()), view.balance(ConsistentHash::new()));
    let owners = |balancer: &Balancer| -> Vec<u64> {
        (0..500).map(|n| id(&balancer.pick_for(format!("session-{n}")).unwrap())).collect()
    };
    let before = owners(&one);
    assert_eq!(before, owners(&other), "all clients agree");
    all.swap_remove(3).deregister().await.unwrap();
    settle().await;
    for (before, after) in before.iter().zip(owners(&one)) {
        assert!(*before == 3 && after != 3 || *before == after);
    }
}

#[tokio::test(start_paused = true)]
async fn nobody_starves_while_others_come_and_go() {
    let policies: [Box<dyn Policy>; 4] = [
        Box::new(RoundRobin::new()),
        Box::new(Random::new()),
        Box::new(Weighted::new()),
        Box::new(LeastLoaded::new()),
    ];
    for policy in policies {
        let name = format!("{policy:?}");
        let discovery = Discovery::new(Mem::new());
        let _steady = registered(&discovery, 0..5).await;
        let view = discovery.view(service()).await.unwrap();
        let balancer = Balancer::builder(policy).seed(3).build(&view);
        let mut seen: BTreeMap<u64, usize> = BTreeMap::new();
        for n in 0..500 {
            let _guest = register(&discovery, instance(100 + n)).await;
            settle().await;
            let pick = balancer.pick().unwrap();
            *seen.entry(id(&pick)).or_default() += 1;
        }
        // A guest has left before the next one is there, so each of six gets a sixth; of the guests, all together.
        for steady in 0..5 {
            assert!(seen.get(&steady).is_some_and(|picks| *picks > 50), "{name}: {seen:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_same_seed_makes_the_same_picks() {
    let discovery = Discovery::new(Mem::new());
    let _all = registered(&discovery, 0..50).await;
    let view = discovery.view(service()).await.unwrap();
    let run = || -> Vec<u64> {
        let balancer = Balancer::builder(Random::new()).seed(11).build(&view);
        (0..100).map(|_| id(&balancer.pick().unwrap())).collect()
    };
    assert_eq!(run(), run());
}

#[tokio::test(start_paused = true)]
async fn the_last_clone_takes_the_task_along() {
    let discovery = Discovery::new(Mem::new());
    let view = discovery.view(service()).await.unwrap();
    let held = Arc::new(());
    let holder = held.clone();
    let keep = move |_: &Instance| Arc::strong_count(&holder) > 0;
    let balancer = Balancer::builder(Random::new()).filter(keep).build(&view);
    let clone = balancer.clone();
    drop(balancer);
    settle().await;
    assert_eq!(Arc::strong_count(&held), 2);
    drop(clone);
    settle().await;
    assert_eq!(Arc::strong_count(&held), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn threads_pick_while_everything_changes() {
    let discovery = Discovery::new(Mem::new());
    let steady = registered(&discovery, 0..4).await;
    let balancer = discovery.view(service()).await.unwrap().balance(LeastLoaded::new());
    let pickers: Vec<_> = (0..3)
        .map(|_| {
            let balancer = balancer.clone();
            task::spawn_blocking(move || {
                for n in 0..20_000 {
                    let pick = balancer.pick().unwrap();
                    assert_eq!(*pick.service(), service());
                    if n % 100 == 0 {
                        pick.failed();
                    }
                }
            })
        })
        .collect();
    for n in 0..200 {
        drop(register(&discovery, instance(100 + n)).await);
        let weight = u32::try_from(n).unwrap() + 1;
        let changed = steady[0].instance().to_builder().weight(weight).build().unwrap();
        steady[0].update(changed).await.unwrap();
    }
    for picker in pickers {
        picker.await.unwrap();
    }
}
