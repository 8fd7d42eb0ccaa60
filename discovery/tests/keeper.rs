//! The keeper under paused time: what is registered stays registered, and what was taken back stays away.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should panic")]

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use discovery::{
    Backend, Backoff, Claim, Discovery, Error, ErrorKind, Event, Info, Instance, InstanceId, InstanceKey,
    Leases, Owner, Phase, Registrar, Registration, RegistrationStatus, Result, Revision, Scope, ServiceName,
    Snapshot, Status, Updates,
    kv::Kv,
    layer::{Fault, Layer},
    mem::Mem,
};
use futures_util::{FutureExt, StreamExt};
use tokio::time;

const TTL: Duration = Duration::from_secs(9);

fn service() -> ServiceName {
    "eu1/prod/cart".parse().unwrap()
}

fn instance(id: u64) -> Instance {
    Instance::builder(service())
        .id(InstanceId::from_bits(id))
        .endpoint("http", "127.0.0.1", 8080)
        .build()
        .unwrap()
}

async fn register(discovery: &Discovery, id: u64) -> Registration {
    discovery.register(instance(id)).ttl(TTL).await.unwrap()
}

async fn ids(discovery: &Discovery) -> Vec<String> {
    discovery.lookup(&service()).await.unwrap().iter().map(|instance| instance.id().to_string()).collect()
}

#[tokio::test(start_paused = true)]
async fn a_registration_outlives_its_ttl_for_as_long_as_the_handle_lives() {
    let discovery = Discovery::new(Mem::new());
    let registration = register(&discovery, 1).await;
    time::sleep(10 * TTL).await;
    assert!(registration.status().is_active());
    assert_eq!(ids(&discovery).await, ["1"]);
}

#[tokio::test(start_paused = true)]
async fn a_lost_lease_is_replaced_and_the_latest_data_put_back_under_the_same_incarnation() {
    let mem = Mem::new();
    let discovery = Discovery::new(mem.clone());
    let mut registration = register(&discovery, 1).await;
    let incarnation = registration.instance().incarnation();
    let heavier = instance(1).to_builder().weight(7).build().unwrap();
    registration.update(heavier).await.unwrap();

    mem.expire_all();
    assert_eq!(ids(&discovery).await, [""; 0]);
    let lost = registration.wait_for(|status| status.phase == Phase::Lost).await;
    assert_eq!(lost.cause.unwrap().kind(), ErrorKind::LeaseLost);
    registration.wait_for(|status| status.phase == Phase::Active).await;

    let back = discovery.lookup(&service()).await.unwrap();
    let back = back.iter().next().unwrap();
    assert_eq!((back.weight(), back.incarnation()), (7, incarnation));
}

#[tokio::test(start_paused = true)]
async fn what_was_deregistered_does_not_come_back_with_the_lease() {
    let mem = Mem::new();
    let discovery = Discovery::new(mem.clone());
    let stays = register(&discovery, 1).await;
    register(&discovery, 2).await.deregister().await.unwrap();
    mem.expire_all();
    time::sleep(2 * TTL).await;
    assert!(stays.status().is_active());
    assert_eq!(ids(&discovery).await, ["1"]);
}

#[tokio::test(start_paused = true)]
async fn a_dropped_handle_deregisters_long_before_the_lease_ends() {
    let discovery = Discovery::new(Mem::new());
    let mut view = discovery.view(service()).await.unwrap();
    let registration = register(&discovery, 1).await;
    view.wait_for(|snapshot, _| snapshot.len() == 1).await.unwrap();
    drop(registration);
    let empty = view.wait_for(|snapshot, _| snapshot.is_empty());
    time::timeout(TTL / 9, empty).await.expect("no need to wait for the lease").unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_permanent_entry_survives_its_handle_and_goes_when_told() {
    let discovery = Discovery::new(Mem::new());
    let registration = discovery.register(instance(1)).permanent().await.unwrap();
    let key = registration.key().clone();
    drop(registration);
    time::sleep(10 * TTL).await;
    assert_eq!(ids(&discovery).await, ["1"]);
    assert!(discovery.remove(&key).await.unwrap());
    assert!(!discovery.remove(&key).await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn a_detached_entry_ends_with_its_lease_and_not_before() {
    let discovery = Discovery::new(Mem::new());
    register(&discovery, 1).await.detach();
    time::sleep(TTL / 2).await;
    assert_eq!(ids(&discovery).await, ["1"]);
    time::sleep(TTL).await;
    assert_eq!(ids(&discovery).await, [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn another_owners_entry_is_respected_unless_taken_over() {
    let discovery = Discovery::new(Mem::new());
    let first = register(&discovery, 1).await;
    let refused = discovery.register(instance(1)).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Conflict);
    assert!(refused.to_string().contains("/eu1/prod/cart/1"), "{refused}");

    let second = discovery.register(instance(1)).take_over().await.unwrap();
    assert_ne!(first.instance().incarnation(), second.instance().incarnation());
    let late = first.update(instance(1)).await.unwrap_err();
    assert_eq!(late.kind(), ErrorKind::Conflict);
    first.deregister().await.unwrap();
    assert_eq!(ids(&discovery).await, ["1"], "the first owner does not remove what the second has");
}

#[tokio::test(start_paused = true)]
async fn an_owner_that_comes_back_finds_its_entry_its_own() {
    let mem = Mem::new();
    let owner = || Owner::named("cart-on-host-7");
    let before = Discovery::new(mem.clone());
    before.register(instance(1)).owner(owner()).await.unwrap().detach();
    let after = Discovery::new(mem);
    let registration = after.register(instance(1)).owner(owner()).await.unwrap();
    time::sleep(10 * TTL).await;
    assert!(registration.status().is_active());
    assert_eq!(ids(&after).await, ["1"]);
}

#[tokio::test(start_paused = true)]
async fn a_refused_update_leaves_the_earlier_data_in_place() {
    let mem = Mem::new();
    let discovery = Discovery::new(mem.clone());
    let mut registration = register(&discovery, 1).await;
    let huge = instance(1).to_builder().metadata("blob", "x".repeat(100_000)).build().unwrap();
    assert_eq!(registration.update(huge).await.unwrap_err().kind(), ErrorKind::Invalid);
    assert_eq!(registration.instance().metadata("blob"), None);

    let other = instance(2);
    assert_eq!(registration.update(other).await.unwrap_err().kind(), ErrorKind::Invalid);

    // The refused data must not come back with the next lease either.
    mem.expire_all();
    registration.wait_for(|status| status.phase == Phase::Lost).await;
    registration.wait_for(|status| status.phase == Phase::Active).await;
    let back = discovery.lookup(&service()).await.unwrap();
    assert_eq!(back.iter().next().unwrap().metadata("blob"), None);
}

#[tokio::test(start_paused = true)]
async fn of_many_updates_the_last_one_wins() {
    let discovery = Discovery::new(Mem::new());
    let registration = register(&discovery, 1).await;
    let weigh = |weight| instance(1).to_builder().weight(weight).build().unwrap();
    let updates: Vec<_> = (2..50).map(|weight| registration.update(weigh(weight))).collect();
    let revisions = futures_util::future::join_all(updates).await;
    assert!(revisions.iter().all(Result::is_ok));
    let now = discovery.lookup(&service()).await.unwrap();
    assert_eq!(now.iter().next().unwrap().weight(), 49);
}

#[tokio::test(start_paused = true)]
async fn draining_is_seen_before_the_departure() {
    let discovery = Discovery::new(Mem::new());
    let mut view = discovery.view(service()).await.unwrap();
    let registration = register(&discovery, 1).await;
    let drain = tokio::spawn(registration.drain(Duration::from_secs(3)));
    let is_draining = |instance: &std::sync::Arc<Instance>| instance.status() == Status::Draining;
    view.wait_for(|snapshot, _| snapshot.iter().any(is_draining)).await.unwrap();
    view.wait_for(|snapshot, _| snapshot.is_empty()).await.unwrap();
    drain.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn draining_does_not_wait_for_a_backend_that_is_away() {
    let fault = Fault::new();
    let discovery = Discovery::new(Mem::new()).layer(fault.clone());
    let registration = register(&discovery, 1).await;
    fault.partition();
    let left = registration.drain(Duration::from_secs(1));
    time::timeout(2 * TTL, left).await.expect("it ends with the lease at the latest").unwrap();
    fault.heal();
    assert_eq!(ids(&discovery).await, [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn re_registration_is_no_departure_for_watchers_that_were_away() {
    let mem = Mem::new();
    let discovery = Discovery::new(mem.clone());
    let _registration = register(&discovery, 1).await;
    let known = discovery.lookup(&service()).await.unwrap();
    mem.expire_all();
    time::sleep(TTL).await;
    assert_eq!(known.diff(&discovery.lookup(&service()).await.unwrap()), []);
}

#[tokio::test(start_paused = true)]
async fn a_thousand_registrations_share_one_lease() {
    let mem = Mem::new();
    let discovery = Discovery::new(mem.clone());
    let all = futures_util::future::join_all((0..1000).map(|id| register(&discovery, id))).await;
    assert_eq!(discovery.lookup(&service()).await.unwrap().len(), 1000);

    // Ended in one step: one revision, so one delta.
    let mut watch = discovery.watch(Scope::everything());
    let Some(Ok(Event::Reset(all_there))) = watch.next().await else { panic!("a watch starts with a reset") };
    assert_eq!(all_there.len(), 1000);
    mem.expire_all();
    let Some(Ok(Event::Delta { revision, changes })) = watch.next().await else { panic!("then come deltas") };
    assert_eq!((revision, changes.len()), (Revision(all_there.revision().0 + 1), 1000));
    drop(all);
}

#[tokio::test(start_paused = true)]
async fn starting_returns_at_once_and_the_status_tells() {
    let discovery = Discovery::new(Mem::new());
    let mut registration = discovery.register(instance(1)).start().unwrap();
    assert_eq!(registration.status().phase, Phase::Pending);
    registration.wait_for(RegistrationStatus::is_active).await;
    assert_eq!(ids(&discovery).await, ["1"]);
}

/// A process that sees others is seen by them: whoever gets an answer first, watch or registration, tells the other.
#[tokio::test(start_paused = true)]
async fn who_hears_first_ends_the_pauses_of_all() {
    let long = Duration::from_secs(60);
    for seed in 0..50 {
        let (mem, fault) = (Mem::new(), Fault::new());
        fault.partition();
        let discovery =
            Discovery::new(mem).layer(fault.clone()).backoff(Backoff::new(long, long).with_seed(seed));
        let mut view = discovery.view(service()).open();
        let mut leased = discovery.register(instance(1)).ttl(TTL).start().unwrap();
        let mut permanent = discovery.register(instance(2)).permanent().start().unwrap();
        // All have failed once, and pause.
        time::sleep(Duration::from_secs(1)).await;
        fault.heal();
        let (live, active, there) = tokio::join!(
            async { view.wait_for(|_, freshness| freshness.is_live()).await.map(|_| time::Instant::now()) },
            async {
                leased.wait_for(RegistrationStatus::is_active).await;
                time::Instant::now()
            },
            async {
                permanent.wait_for(RegistrationStatus::is_active).await;
                time::Instant::now()
            },
        );
        let times = [live.unwrap(), active, there];
        let apart = *times.iter().max().unwrap() - *times.iter().min().unwrap();
        assert!(apart < Duration::from_secs(1), "seed {seed}: {apart:?} apart");
    }
}

/// A watch that goes on behind an outage hears of the scope as of some moment. Our own lease has ended meanwhile, and if
/// that moment came before we are back, this process would see itself leave.
#[tokio::test(start_paused = true)]
async fn who_was_away_does_not_see_itself_leave() {
    // A watch that could be told step by step what happened is told the result as well.
    for (seed, resumes) in (0..50).flat_map(|seed| [(seed, true), (seed, false)]) {
        let (mem, fault) = (Mem::new(), Fault::new());
        let backoff = Backoff::default().with_seed(seed);
        let discovery = Discovery::new(mem.clone()).layer(fault.clone()).backoff(backoff);
        let registration = register(&discovery, seed).await;
        let mut watch = discovery.watch(service());
        assert!(matches!(watch.next().await, Some(Ok(Event::Reset(_)))));

        fault.partition();
        assert!(matches!(watch.next().await, Some(Ok(Event::Stale(_)))));
        mem.expire_all();
        if !resumes {
            mem.compact();
        }
        time::sleep(Duration::from_secs(seed)).await;
        fault.heal();
        let next = watch.next().await;
        assert!(matches!(next, Some(Ok(Event::Live))), "after {seed} s: {next:?}");
        assert!(registration.status().is_active());
    }
}

#[tokio::test(start_paused = true)]
async fn an_outage_shorter_than_the_lease_does_not_cost_it() {
    for seed in 0..50 {
        let (mem, fault) = (Mem::new(), Fault::new());
        let backoff = Backoff::default().with_seed(seed);
        let discovery = Discovery::new(mem.clone()).layer(fault.clone()).backoff(backoff);
        let _registration = register(&discovery, 1).await;
        let mut witness = Discovery::new(mem).watch(service());
        assert!(matches!(witness.next().await, Some(Ok(Event::Reset(_)))));

        fault.partition();
        time::sleep(TTL * 3 / 4).await;
        fault.heal();
        let seen = time::timeout(2 * TTL, witness.next()).await;
        assert!(seen.is_err(), "seed {seed}: {seen:?}");
    }
}

/// What cannot be put back must not hide everybody else.
#[tokio::test(start_paused = true)]
async fn a_registration_that_is_refused_does_not_hold_up_the_view() {
    let (mem, fault) = (Mem::new(), Fault::new());
    let discovery = Discovery::new(mem.clone()).layer(fault.clone());
    let mut registration = register(&discovery, 1).await;
    let mut view = discovery.view(service()).await.unwrap();
    fault.partition();
    view.wait_for(|_, freshness| !freshness.is_live()).await.unwrap();
    mem.expire_all();
    let rival = register(&Discovery::new(mem), 1).await;
    fault.heal();
    registration.wait_for(|status| status.phase == Phase::Refused).await;
    let live =
        time::timeout(Duration::from_secs(10), view.wait_for(|_, freshness| freshness.is_live())).await;
    let snapshot = live.expect("the rest is worth showing").unwrap();
    assert_eq!(snapshot.get(rival.key()).unwrap().incarnation(), rival.instance().incarnation());
}

/// Refuses what has a weight of 13.
#[derive(Clone, Debug)]
struct Superstitious(Option<Arc<dyn Backend>>);

impl Superstitious {
    fn inner(&self) -> &dyn Backend {
        self.0.as_deref().unwrap()
    }

    fn registrar(&self) -> &dyn Registrar {
        self.inner().registrar().unwrap()
    }
}

impl Layer for Superstitious {
    fn wrap(&self, inner: Arc<dyn Backend>) -> Arc<dyn Backend> {
        Arc::new(Self(Some(inner)))
    }
}

#[async_trait]
impl Backend for Superstitious {
    fn info(&self) -> &Info {
        self.inner().info()
    }

    async fn fetch(&self, scope: &Scope) -> Result<Snapshot> {
        self.inner().fetch(scope).await
    }

    fn watch(&self, scope: &Scope, after: Option<Revision>) -> Updates {
        self.inner().watch(scope, after)
    }

    fn registrar(&self) -> Option<&dyn Registrar> {
        Some(self)
    }

    fn leases(&self) -> Option<&dyn Leases> {
        self.inner().leases()
    }

    fn kv(&self) -> Option<&dyn Kv> {
        self.inner().kv()
    }
}

#[async_trait]
impl Registrar for Superstitious {
    async fn put(&self, instance: &Instance, claim: &Claim) -> Result<Revision> {
        if instance.weight() == 13 {
            return Err(Error::invalid("13 is no weight"));
        }
        self.registrar().put(instance, claim).await
    }

    async fn remove(&self, key: &InstanceKey, owner: Option<&Owner>) -> Result<bool> {
        self.registrar().remove(key, owner).await
    }
}

fn weighing(weight: u32) -> Instance {
    instance(1).to_builder().weight(weight).build().unwrap()
}

#[tokio::test(start_paused = true)]
async fn an_update_that_is_refused_before_the_first_write_leaves_what_was_to_be_written() {
    let fault = Fault::new();
    let discovery = Discovery::new(Mem::new()).layer(Superstitious(None)).layer(fault.clone());
    fault.partition();
    let mut registration = discovery.register(weighing(7)).ttl(TTL).start().unwrap();
    let (refused, ()) = tokio::join!(registration.update(weighing(13)), async {
        time::sleep(TTL / 9).await;
        fault.heal();
    });
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::Invalid);
    assert_eq!(registration.instance().weight(), 7);
    let active = registration.wait_for(RegistrationStatus::is_active);
    time::timeout(10 * TTL, active).await.expect("it is registered all the same");
    assert_eq!(discovery.lookup(&service()).await.unwrap().iter().next().unwrap().weight(), 7);
}

#[tokio::test(start_paused = true)]
async fn an_update_hears_that_no_lease_is_granted_any_more() {
    let (fault, mem) = (Fault::new(), Mem::new());
    let discovery = Discovery::new(mem.clone()).layer(fault.clone());
    let registration = register(&discovery, 1).await;
    fault.fail_next(1, &Error::new(ErrorKind::LeaseLost, "gone"));
    fault.fail_next(1_000_000, &Error::new(ErrorKind::Denied, "no more leases"));
    mem.expire_all();
    time::sleep(TTL).await;
    let told = time::timeout(10 * TTL, registration.update(weighing(7))).await;
    assert_eq!(told.expect("it is told").unwrap_err().kind(), ErrorKind::Denied);
    assert_eq!(registration.instance().weight(), instance(1).weight(), "the earlier data stands");
}

#[tokio::test(start_paused = true)]
async fn what_is_permanent_is_written_though_its_handle_is_gone() {
    let fault = Fault::new();
    let discovery = Discovery::new(Mem::new()).layer(fault.clone());
    fault.delay(TTL / 9);
    drop(discovery.register(instance(1)).permanent().start().unwrap());
    time::sleep(TTL).await;
    let registration = discovery.register(instance(2)).permanent().await.unwrap();
    let newer = instance(2).to_builder().weight(7).build().unwrap();
    assert!(registration.update(newer).now_or_never().is_none());
    drop(registration);
    time::sleep(TTL).await;
    let weights = discovery.lookup(&service()).await.unwrap();
    let weights: Vec<_> = weights.iter().map(|instance| instance.weight()).collect();
    assert_eq!(weights, [instance(1).weight(), 7]);
}

/// Else it would be in the way of the next attempt, under an owner that nobody is.
#[tokio::test(start_paused = true)]
async fn what_is_permanent_is_given_up_by_whoever_stops_waiting_for_it() {
    let fault = Fault::new();
    let discovery = Discovery::new(Mem::new()).layer(fault.clone());
    let other = discovery.register(instance(2)).permanent().await.unwrap();
    fault.partition();
    for _ in 0..5 {
        let attempt = time::timeout(TTL, discovery.register(instance(1)).permanent()).await;
        assert!(attempt.is_err(), "{attempt:?}");
    }
    fault.heal();
    time::sleep(10 * TTL).await;
    assert_eq!(ids(&discovery).await, ["2"]);
    let registered = time::timeout(TTL, discovery.register(instance(1)).permanent()).await;
    registered.expect("nobody is in the way").unwrap().detach();
    other.detach();
}

#[tokio::test(start_paused = true)]
async fn a_backend_that_hangs_holds_a_departure_up_for_no_longer_than_the_lease() {
    let fault = Fault::new();
    let discovery = Discovery::new(Mem::new()).layer(fault.clone());
    let registration = register(&discovery, 1).await;
    fault.delay(1000 * TTL);
    time::timeout(3 * TTL, registration.deregister()).await.expect("its lease must have ended").unwrap();
}
