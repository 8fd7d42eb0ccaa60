//! Leases with hundreds of entries, and what others see of them.

use std::time::Duration;

use discovery::{ErrorKind, Instance, LeaseId, ServiceName, kv::Txn};
use discovery_dns::DnsZone;
use discovery_testbed::NameServer;
use futures_util::future::join_all;
use tokio::time::{Instant, sleep};

use crate::common::{Follower, bind, discovery, emptied, everything, key, knot, kv, leases, on};

/// How many entries are bound to a lease: more than go away with one message.
const CROWD: usize = 350;

/// Binds a crowd of entries to a lease.
async fn crowd(zone: &DnsZone, lease: LeaseId) {
    let writes = (0..CROWD).map(|n| {
        let entry = key(&format!("a/{n}"));
        async move { kv(zone).commit(Txn::new().put_leased(&entry, "1", lease)).await }
    });
    for written in join_all(writes).await {
        written.unwrap();
    }
}

async fn a_revoked_lease_takes_all_along(server: NameServer) {
    let (zone, witness) = (on(&server), on(&server));
    let lease = leases(&zone).grant(Duration::from_secs(60)).await.unwrap().id;
    crowd(&zone, lease).await;
    let mut follower = Follower::start(&witness, &everything()).await.unwrap();
    assert_eq!(follower.entries.len(), CROWD);
    leases(&zone).revoke(lease).await.unwrap();
    // With the answer everything is gone, for whoever reads the zone.
    assert_eq!(kv(&witness).scan(&everything()).await.unwrap().entries, []);
    follower.until("all are gone", |it| it.entries.is_empty()).await;
    assert_eq!(leases(&zone).renew(lease).await.unwrap_err().kind(), ErrorKind::LeaseLost);
    let late = kv(&zone).commit(Txn::new().put_leased(&key("b"), "1", lease)).await.unwrap_err();
    assert_eq!(late.kind(), ErrorKind::LeaseLost);
    emptied(&server).await;
}

#[tokio::test]
async fn a_revoked_lease_takes_all_along_on_bind() {
    let Some(server) = bind().await else { return };
    a_revoked_lease_takes_all_along(server).await;
}

#[tokio::test]
async fn a_revoked_lease_takes_all_along_on_knot() {
    let Some(server) = knot().await else { return };
    a_revoked_lease_takes_all_along(server).await;
}

/// Renewed it lives, and then it ends, neither too early nor much too late, with all that is bound to it.
#[tokio::test]
async fn a_lease_that_lapses_takes_all_along() {
    const TTL: Duration = Duration::from_secs(4);
    let Some(server) = bind().await else { return };
    let (zone, witness) = (on(&server), on(&server));
    let mut follower = Follower::start(&witness, &everything()).await.unwrap();
    let lease = leases(&zone).grant(TTL).await.unwrap().id;
    crowd(&zone, lease).await;
    let end = Instant::now() + 2 * TTL;
    let mut renewed = Instant::now();
    while Instant::now() < end {
        renewed = Instant::now();
        assert_eq!(leases(&zone).renew(lease).await.unwrap(), TTL);
        sleep(TTL / 4).await;
    }
    follower.until("all are there", |it| it.entries.len() == CROWD).await;
    assert_eq!(follower.changes.len(), CROWD, "nothing else was told");
    follower.until("all are gone", |it| it.entries.is_empty()).await;
    let lived = renewed.elapsed();
    assert!(lived >= TTL && lived < TTL + Duration::from_secs(5), "{lived:?}");
    let error = leases(&zone).renew(lease).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::LeaseLost);
    emptied(&server).await;
}

/// Instances with many records each: what is swept away at once has to fit into a message.
#[tokio::test]
async fn instances_with_many_records_are_swept_away_too() {
    const TTL: Duration = Duration::from_secs(5);
    let Some(server) = bind().await else { return };
    let owner = discovery(on(&server));
    let service: ServiceName =
        "europe-west1/production/shopping-cart-of-the-second-generation".parse().unwrap();
    let registering = (0..150).map(|n| {
        let instance = Instance::builder(service.clone());
        let instance = (0..6).fold(instance, |instance, port| {
            let host = format!("10.0.{port}.{}", n % 100);
            instance.endpoint(&format!("endpoint-number-{port}"), &host, 8000 + port)
        });
        let instance = instance.metadata("description", "x".repeat(200));
        owner.register(instance.build().unwrap()).ttl(TTL).into_future()
    });
    let registered = join_all(registering).await;
    // Whatever becomes of the process, nobody says good-bye.
    for registration in registered {
        registration.unwrap().detach();
    }
    drop(owner);
    let witness = on(&server);
    let mut follower = Follower::start(&witness, &everything()).await.unwrap();
    assert_eq!(follower.entries.len(), 150);
    follower.until("all are gone", |it| it.entries.is_empty()).await;
    emptied(&server).await;
}

/// Whoever watches sweeps; two that do it at once are as good as one.
#[tokio::test]
async fn of_many_sweepers_nobody_is_told_twice() {
    let Some(server) = bind().await else { return };
    let away = on(&server);
    let lease = leases(&away).grant(Duration::from_secs(3)).await.unwrap().id;
    crowd(&away, lease).await;
    let sweepers: Vec<_> = (0..6).map(|_| on(&server)).collect();
    let followers = sweepers.iter().map(|zone| async { Follower::start(zone, &everything()).await.unwrap() });
    let followers = join_all(followers).await;
    drop(away);
    let server = &server;
    join_all(followers.into_iter().map(|mut follower| async move {
        follower.until("all are gone", |it| it.entries.is_empty()).await;
        assert_eq!((follower.changes.len(), follower.resets), (CROWD, 1), "each once");
        // Somebody has to watch for what is not seen any more to be swept away.
        emptied(server).await;
    }))
    .await;
}

#[tokio::test]
async fn a_transaction_may_bind_to_several_leases() {
    let Some(server) = bind().await else { return };
    let zone = on(&server);
    let [one, two] = [30, 60].map(Duration::from_secs);
    let one = leases(&zone).grant(one).await.unwrap().id;
    let two = leases(&zone).grant(two).await.unwrap().id;
    let both = Txn::new().put_leased(&key("a"), "1", one).put_leased(&key("b"), "2", two);
    kv(&zone).commit(both).await.unwrap();
    leases(&zone).revoke(one).await.unwrap();
    assert!(kv(&zone).get(&key("a")).await.unwrap().is_none());
    assert_eq!(kv(&zone).get(&key("b")).await.unwrap().unwrap().lease, Some(two));
    leases(&zone).revoke(two).await.unwrap();
}

/// Nobody watches, nobody holds a lease: what has lapsed meanwhile is swept away by the next one who comes.
#[tokio::test]
async fn what_lapsed_while_nobody_was_there_is_swept_away() {
    let Some(server) = bind().await else { return };
    let away = on(&server);
    let lease = leases(&away).grant(Duration::from_millis(500)).await.unwrap().id;
    kv(&away).commit(Txn::new().put_leased(&key("a"), "1", lease)).await.unwrap();
    drop(away);
    // Nobody is there who could tell when it has lapsed.
    sleep(Duration::from_secs(1)).await;
    let zone = on(&server);
    assert!(kv(&zone).get(&key("a")).await.unwrap().is_some(), "it may have been renewed a moment ago");
    let mut follower = Follower::start(&zone, &everything()).await.unwrap();
    follower.until("it is gone", |it| it.entries.is_empty()).await;
    emptied(&server).await;
}
