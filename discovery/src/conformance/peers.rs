//! The defects of other libraries: what befell their users must not befall ours.
//!
//! Most of them are shadows of a general rule that has a check of its own elsewhere. They are asked again here the way
//! their users met them, so that nobody has to be clever to see that they are covered. The numbers in the table:
//!
//! 1. go-kit, ZooKeeper: waits for ever behind a list that failed, is blind to data, deregisters the wrong node.
//! 2. go-kit, etcd: ends at compaction, closes the watcher when it registers, swallows the end of a lease; its cache
//!    holds a lock while it sends to subscribers that do not read.
//! 3. etcd's naming for gRPC: frozen by any error, silent about an empty service, drops metadata.
//! 4. Curator's cache: compares data versions, which start over with a node that is deleted and created anew.
//! 5. kube-rs' shared reflector: tells subscribers of no deletion, and stalls on what is gone already.
//! 6. tonic: a discovery stream that is over stays pending. tower: so does a balancer without endpoints.
//! 7. ginepro: swallows errors, and empties itself on an answer that happens to be empty.
//! 8. volo: loses changes when it lags, and ignores weight and tags; kitex ignores tags.
//! 9. Cloudname, ZooKeeper: watchers die with the session and everybody is removed. Consul: one session that closes
//!    stops the renewal of all. Both: no end of the first snapshot.
//! 10. `CoreDNS`, etcd: one record that cannot be read fails the whole answer.
//! 11. Docker's resolver: a wrong type in SRV answers. Wire format, and so none of this layer's business.
//! 12. The ZooKeeper client for Rust: persistent watches lose events around reconnects.

use std::time::Duration;

use futures_util::{StreamExt, future::join_all};

use super::context::{Context, instance, reborn, removals, service, shows, subtree};
use crate::{Change, ErrorKind, Event, Phase, RegistrationStatus, Scope, ServiceName, Status};

/// Longer than any check takes.
const LONG: Duration = Duration::from_secs(60);

pub(super) async fn go_kit_zk_freezes_when_a_relist_fails(cx: &Context) {
    let (writer, fragile) = (cx.client().await, cx.fragile().await);
    let mut watch = cx.following(&fragile.discovery(), service("a/b")).await;
    for n in 1..=3 {
        cx.cut().await;
        watch.until_item("Stale", |event| matches!(event, Event::Stale(_))).await;
        // Time for some attempts to fail as well: the next ones must be made all the same.
        cx.feed_after(&fragile, service("a/b"), None).end().await;
        cx.heal().await;
        let one = instance("a/b", "1", n);
        writer.put(&one).await;
        watch.until_shows(&one).await;
    }
}

pub(super) async fn go_kit_zk_is_blind_to_data(cx: &Context) {
    let client = cx.client().await;
    client.put(&instance("a/b", "1", 1)).await;
    let mut watch = cx.following(&client.discovery(), service("a/b")).await;
    for n in 2..=5 {
        client.put(&instance("a/b", "1", n)).await;
        watch.until_shows(&instance("a/b", "1", n)).await;
    }
}

pub(super) async fn go_kit_zk_deregisters_the_wrong_node(cx: &Context) {
    let client = cx.client().await;
    let discovery = client.discovery();
    let mut registrations = join_all((1..=3).map(|n| {
        let register = discovery.register(instance("a/b", &n.to_string(), n)).ttl(LONG);
        async { register.await.expect("it is free") }
    }))
    .await;
    let gone = registrations.remove(1);
    let key = gone.key().clone();
    gone.deregister().await.expect("it can be removed");
    let found = client.fetch(service("a/b")).await;
    assert!(found.len() == 2 && found.get(&key).is_none(), "{found:?}");
    drop(registrations);
}

pub(super) async fn go_kit_etcd_ends_at_compaction(cx: &Context) {
    let client = cx.client().await;
    let mut view = client.discovery().view(service("a/b")).await.expect("there is a first snapshot");
    for n in 1..=5 {
        client.put(&instance("x/y", "1", n)).await;
        cx.compact().await;
    }
    let one = instance("a/b", "1", 1);
    client.put(&one).await;
    cx.within("the view to show it", view.wait_for(|known, _| shows(known, &one))).await.expect("it lives");
}

pub(super) async fn go_kit_etcd_registering_ends_a_watch(cx: &Context) {
    let client = cx.client().await;
    let discovery = client.discovery();
    let mut watch = cx.following(&discovery, service("a/b")).await;
    for n in 1..=3 {
        let registration =
            discovery.register(instance("a/b", &n.to_string(), n)).ttl(LONG).await.expect("it is free");
        watch.until_shows(&registration.instance()).await;
        registration.deregister().await.expect("it can be removed");
        watch.until_len(0).await;
    }
}

pub(super) async fn go_kit_etcd_swallows_the_end_of_a_lease(cx: &Context) {
    let owner = cx.fragile().await.discovery();
    let mut registration = owner.register(instance("a/b", "1", 1)).ttl(cx.ttl()).await.expect("it is free");
    cx.within("the status to be active", registration.wait_for(RegistrationStatus::is_active)).await;
    let before = registration.status().since;
    cx.expire().await;
    let again = registration.wait_for(|status| status.is_active() && status.since > before);
    cx.within("the status to have told of the loss and the recovery", again).await;
}

pub(super) async fn go_kit_deadlocks_on_an_idle_subscriber(cx: &Context) {
    let client = cx.client().await;
    let discovery = client.discovery();
    let idle = discovery.watch(service("a/b"));
    let mut brisk = cx.following(&discovery, service("a/b")).await;
    for n in 1..=600 {
        client.put(&instance("a/b", &(n % 3).to_string(), n)).await;
    }
    brisk.until_shows(&instance("a/b", "0", 600)).await;
    drop(idle);
}

pub(super) async fn etcd_naming_ends_with_an_error(cx: &Context) {
    let (writer, fragile) = (cx.client().await, cx.fragile().await);
    let discovery = fragile.discovery();
    let mut view = discovery.view(service("a/b")).await.expect("there is a first snapshot");
    cx.cut().await;
    cx.within("the error to be told", view.wait_for(|_, freshness| !freshness.is_live()))
        .await
        .expect("it lives");
    cx.heal().await;
    let one = instance("a/b", "1", 1);
    writer.put(&one).await;
    cx.within("the view to go on", view.wait_for(|known, _| shows(known, &one))).await.expect("it lives");
}

pub(super) async fn etcd_naming_says_nothing_of_an_empty_service(cx: &Context) {
    let client = cx.client().await;
    let first = cx.following(&client.discovery(), service("nobody/here")).await;
    assert!(first.known().is_empty());
}

pub(super) async fn etcd_naming_drops_metadata(cx: &Context) {
    let client = cx.client().await;
    let discovery = client.discovery();
    let mut watch = cx.following(&discovery, service("a/b")).await;
    let rich = instance("a/b", "1", 1).to_builder().metadata("version", "1.4.2").zone("eu1-a").weight(7);
    let registration =
        discovery.register(rich.build().expect("an instance")).ttl(LONG).await.expect("it is free");
    watch.until_shows(&registration.instance()).await;
    let found = watch.known().iter().next().cloned().expect("one");
    assert_eq!((found.metadata("version"), found.zone(), found.weight()), (Some("1.4.2"), Some("eu1-a"), 7));
}

pub(super) async fn curator_compares_versions_only(cx: &Context) {
    let (writer, fragile) = (cx.client().await, cx.fragile().await);
    let one = instance("a/b", "1", 1);
    writer.put(&one).await;
    let mut watch = cx.following(&fragile.discovery(), service("a/b")).await;
    watch.until_shows(&one).await;
    cx.cut().await;
    watch.until_item("Stale", |event| matches!(event, Event::Stale(_))).await;
    // As many writes as the first life had, of nearly the same data.
    writer.remove(&one).await;
    writer.put(&reborn(&one)).await;
    cx.heal().await;
    let seen = watch.until_shows(&reborn(&one)).await;
    assert_eq!(seen.last(), Some(&Change::Put(reborn(&one).into())));
}

pub(super) async fn kube_rs_tells_no_subscriber_of_deletions(cx: &Context) {
    let client = cx.client().await;
    let discovery = client.discovery();
    let mut watches = join_all((0..5).map(|_| cx.following(&discovery, service("a/b")))).await;
    let one = instance("a/b", "1", 1);
    client.put(&one).await;
    join_all(watches.iter_mut().map(|watch| watch.until_shows(&one))).await;
    client.remove(&one).await;
    for seen in join_all(watches.iter_mut().map(|watch| watch.until_gone(&one))).await {
        assert_eq!(seen.last(), Some(&Change::Remove(one.key().clone())));
    }
}

pub(super) async fn kube_rs_stalls_on_what_is_gone_already(cx: &Context) {
    let client = cx.client().await;
    let discovery = client.discovery();
    let mut watch = cx.following(&discovery, service("a/b")).await;
    for n in 1..=20 {
        let passing = instance("a/b", &n.to_string(), n);
        client.put(&passing).await;
        client.remove(&passing).await;
    }
    // By now everything that was told is gone; reading about it goes on to the end.
    let last = instance("a/b", "last", 1);
    client.put(&last).await;
    watch.until_shows(&last).await;
    watch.until_len(1).await;
}

pub(super) async fn tonic_stays_pending_for_ever(cx: &Context) {
    let client = cx.client().await;
    let discovery = client.discovery();
    let mut watch = discovery.watch(Scope::Service(ServiceName::root()));
    let end = cx.within("the reason", watch.next()).await.expect("a reason");
    assert_eq!(end.expect_err("the root has no instances").kind(), ErrorKind::Invalid);
    assert!(cx.within("the end", watch.next()).await.is_none());
    let view = discovery.view(Scope::Service(ServiceName::root()));
    let refused = cx.within("an answer", view.into_future()).await;
    assert_eq!(refused.expect_err("the root has no instances").kind(), ErrorKind::Invalid);
}

pub(super) async fn tower_waits_for_ever_on_nothing(cx: &Context) {
    let client = cx.client().await;
    let discovery = client.discovery();
    let view = cx.within("an empty view", discovery.view(service("nobody/here")).into_future()).await;
    view.expect("empty is an answer").read(|known, freshness| {
        assert!(known.is_empty() && freshness.is_live(), "known to be empty, as opposed to not known");
    });
}

pub(super) async fn ginepro_empties_on_trouble(cx: &Context) {
    let (writer, fragile) = (cx.client().await, cx.fragile().await);
    let one = instance("a/b", "1", 1);
    writer.put(&one).await;
    let discovery = fragile.discovery();
    let mut view = discovery.view(service("a/b")).await.expect("there is a first snapshot");
    cx.within("a complete view", view.wait_for(|known, _| shows(known, &one))).await.expect("it lives");
    cx.cut().await;
    let told = view.wait_for(|known, freshness| {
        assert!(shows(known, &one), "trouble is no departure");
        freshness.cause().is_some()
    });
    cx.within("the trouble to be told", told).await.expect("it lives");
    // While a service that is confirmed to be empty is empty at once.
    cx.heal().await;
    writer.remove(&one).await;
    cx.within("the departure", view.wait_for(|known, _| known.is_empty())).await.expect("it lives");
}

pub(super) async fn volo_loses_changes_when_it_lags(cx: &Context) {
    let client = cx.client().await;
    let discovery = client.discovery();
    let mut lagging = cx.following(&discovery, service("a/b")).await;
    let mut brisk = cx.following(&discovery, service("a/b")).await;
    let doomed = instance("a/b", "doomed", 1);
    client.put(&doomed).await;
    lagging.until_shows(&doomed).await;
    client.remove(&doomed).await;
    for n in 1..=500 {
        client.put(&instance("a/b", &(n % 10).to_string(), n)).await;
        brisk.until_shows(&instance("a/b", &(n % 10).to_string(), n)).await;
    }
    lagging.until_shows(&instance("a/b", "0", 500)).await;
    assert_eq!(lagging.known().diff(brisk.known()), [], "the removal among what it missed included");
}

pub(super) async fn volo_and_kitex_ignore_weight_and_tags(cx: &Context) {
    let client = cx.client().await;
    let one = instance("a/b", "1", 1);
    client.put(&one).await;
    let mut watch = cx.following(&client.discovery(), service("a/b")).await;
    watch.until_shows(&one).await;
    for change in [
        one.to_builder().weight(9),
        one.to_builder().metadata("tag", "blue"),
        one.to_builder().zone("eu1-b"),
        one.to_builder().status(Status::Down),
        one.to_builder().endpoint("grpc", "127.0.0.1", 2),
    ] {
        let changed = change.build().expect("an instance");
        client.put(&changed).await;
        assert_eq!(watch.until_shows(&changed).await.last(), Some(&Change::Put(changed.into())));
    }
}

pub(super) async fn cloudname_zk_watches_die_with_the_session(cx: &Context) {
    let (fragile, other) = (cx.fragile().await, cx.client().await);
    let discovery = fragile.discovery();
    let stays = instance("a/b", "stays", 1);
    other.put(&stays).await;
    let mut inside = cx.following(&discovery, service("a/b")).await;
    let mut outside = cx.feed(&other, service("a/b")).await;
    let mut registration =
        discovery.register(instance("a/b", "mine", 2)).ttl(cx.ttl()).await.expect("it is free");
    inside.until_len(2).await;
    outside.until_len(2).await;
    let before = registration.status().since;
    cx.expire().await;
    let again = registration.wait_for(|status| status.is_active() && status.since > before);
    cx.within("the loss to be noticed and made up for", again).await;
    let late = instance("a/b", "late", 3);
    other.put(&late).await;
    let mut seen = inside.until_shows(&late).await;
    seen.extend(outside.until_shows(&late).await);
    assert!(removals(&seen).iter().all(|key| *key == registration.key()), "others went too: {seen:?}");
    inside.until_len(3).await;
    outside.until_len(3).await;
}

pub(super) async fn cloudname_consul_stops_renewing_all(cx: &Context) {
    let (owner, observer) = (cx.client().await, cx.client().await);
    let discovery = owner.discovery();
    let mut feed = cx.feed(&observer, service("a/b")).await;
    let stays = discovery.register(instance("a/b", "1", 1)).ttl(cx.ttl()).await.expect("it is free");
    // Whether under the same lease or under one of its own, the end of another one is none of its business.
    for ttl in [cx.ttl(), 2 * cx.ttl()] {
        let goes = discovery.register(instance("a/b", "2", 2)).ttl(ttl).await.expect("it is free");
        goes.deregister().await.expect("it can be removed");
    }
    tokio::time::sleep(2 * cx.ttl()).await;
    let seen = feed.fence(&observer, "a/b").await;
    assert!(seen.iter().all(|change| *change != Change::Remove(stays.key().clone())), "{seen:?}");
    assert!(shows(feed.known(), &stays.instance()));
}

pub(super) async fn cloudname_has_no_end_of_snapshot(cx: &Context) {
    let client = cx.client().await;
    let all: Vec<_> = (1..=20).map(|n| instance("a/b", &n.to_string(), n)).collect();
    join_all(all.iter().map(|one| client.put(one))).await;
    let first = cx.following(&client.discovery(), service("a/b")).await;
    assert_eq!(first.known().len(), 20, "the first event is all there is, at once");
}

pub(super) async fn coredns_fails_whole_on_one_bad_record(cx: &Context) {
    let client = cx.client().await;
    let all: Vec<_> = (1..=5).map(|n| instance("a/b", &n.to_string(), n)).collect();
    join_all(all.iter().map(|one| client.put(one))).await;
    cx.plant("a/b/0", "}{").await;
    cx.plant("a/b/zzz", vec![0xff; 100]).await;
    let discovery = client.discovery();
    assert_eq!(discovery.lookup(&service("a/b")).await.expect("it can be fetched").len(), 5);
    let mut watch = cx.following(&discovery, service("a/b")).await;
    watch.until_len(5).await;
}

pub(super) async fn zk_client_loses_events_around_reconnects(cx: &Context) {
    let (writer, fragile) = (cx.client().await, cx.fragile().await);
    let mut watch = cx.follow(&fragile.discovery(), subtree("a"));
    let write = async {
        for n in 1..=300 {
            let one = instance(["a", "a/b", "a/b/c"][usize::from(n % 3)], &(n % 11).to_string(), n);
            writer.put(&one).await;
            if n % 5 == 0 {
                writer.remove(&one).await;
            }
        }
    };
    let shake = async {
        for _ in 0..10 {
            cx.cut().await;
            cx.heal().await;
            tokio::task::yield_now().await;
        }
    };
    tokio::join!(write, shake);
    let truth = writer.fetch(subtree("a")).await;
    watch.until("what is true", |known| known.diff(&truth).is_empty()).await;
}

pub(super) async fn an_owner_that_lives_is_never_invisible(cx: &Context) {
    let (fragile, observer) = (cx.fragile().await, cx.client().await);
    let discovery = fragile.discovery();
    let mut feed = cx.feed(&observer, service("a/b")).await;
    let mut registration =
        discovery.register(instance("a/b", "1", 1)).ttl(cx.ttl()).await.expect("it is free");
    for n in 2..=4 {
        cx.cut().await;
        cx.expire().await;
        cx.heal().await;
        registration.update(instance("a/b", "1", n)).await.expect("it is ours");
        feed.until_shows(&registration.instance()).await;
        let active = registration.wait_for(|status| status.phase == Phase::Active);
        cx.within("the status to be true", active).await;
    }
}
