//! Outages, and what must be true behind them.

use std::time::Duration;

use futures_util::{FutureExt, future::join_all};

use super::context::{Context, instance, key, me, ports, reborn, removals, service, shows, subtree};
use crate::{
    Change, Claim, Error, ErrorKind, Event, FreshnessState, Instance, Phase, RegistrationStatus, Scope,
    kv::{Key, Range},
};

/// Longer than any check takes: a lease of it ends only if something ends it.
const LONG: Duration = Duration::from_secs(60);

pub(super) async fn a_cut_watch_ends_with_one_error(cx: &Context) {
    let client = cx.fragile().await;
    let feed = cx.feed(&client, service("a/b")).await;
    let subtree = cx.feed(&client, subtree("a")).await;
    cx.cut().await;
    for feed in [feed, subtree] {
        let error = feed.end().await;
        assert!(error.is_transient(), "{error:?}");
    }
    // So does one that is opened only now.
    let error = cx.feed_after(&client, service("a/b"), None).end().await;
    assert!(error.is_transient(), "{error:?}");
}

pub(super) async fn a_cut_watch_of_keys_ends_with_one_error(cx: &Context) {
    let client = cx.fragile().await;
    let all = cx.kv_feed(&client, &Range::Subtree(Key::root())).await;
    let one = cx.kv_feed(&client, &Range::Key(key("a/b"))).await;
    cx.cut().await;
    for feed in [all, one] {
        let error = feed.end().await;
        assert!(error.is_transient(), "{error:?}");
    }
}

pub(super) async fn cannot_tell_is_an_error(cx: &Context) {
    let client = cx.fragile().await;
    let one = instance("a/b", "1", 1);
    client.put(&one).await;
    cx.cut().await;
    for scope in [Scope::Service(service("a/b")), Scope::Service(service("unknown")), Scope::everything()] {
        let fetched = cx.within("an answer, of whatever kind", client.0.fetch(&scope)).await;
        let error = fetched.expect_err("nobody can know");
        assert!(error.is_transient(), "{error:?}");
    }
    let claim = Claim::new(me());
    let write = client.registrar().put(&one, &claim);
    let error = cx.within("an answer, of whatever kind", write).await.expect_err("nothing can be written");
    assert!(error.is_transient(), "{error:?}");
    let remove = client.registrar().remove(one.key(), None);
    let error = cx.within("an answer, of whatever kind", remove).await.expect_err("nothing can be removed");
    assert!(error.is_transient(), "{error:?}");
}

pub(super) async fn a_healed_client_is_as_good_as_new(cx: &Context) {
    let client = cx.fragile().await;
    let grant = client.grant(LONG).await;
    client.put_leased(&instance("a/b", "1", 1), grant.id).await;
    cx.cut().await;
    cx.feed_after(&client, service("a/b"), None).end().await;
    cx.heal().await;
    cx.eventually("the client to be back", async || client.0.fetch(&service("a/b").into()).await.is_ok())
        .await;
    client.leases().renew(grant.id).await.expect("the lease was not lost in so short a time");
    client.put_leased(&instance("a/b", "1", 2), grant.id).await;
    let mut feed = cx.feed(&client, service("a/b")).await;
    feed.until_shows(&instance("a/b", "1", 2)).await;
    client.leases().revoke(grant.id).await.expect("it is revoked");
    feed.until_len(0).await;
}

pub(super) async fn an_outage_is_told_once(cx: &Context) {
    let (writer, fragile) = (cx.client().await, cx.fragile().await);
    let one = instance("a/b", "1", 1);
    writer.put(&one).await;
    let mut watch = cx.following(&fragile.discovery(), service("a/b")).await;
    watch.until_shows(&one).await;
    for _ in 0..2 {
        cx.cut().await;
        let events = watch.until_item("Stale", |event| matches!(event, Event::Stale(_))).await;
        assert_eq!(events.len(), 1, "nothing else happened: {events:?}");
        cx.heal().await;
        let events = watch.until_item("Live", |event| matches!(event, Event::Live)).await;
        assert_eq!(events.len(), 1, "nothing else happened: {events:?}");
    }
    writer.remove(&one).await;
    watch.until_gone(&one).await;
}

pub(super) async fn a_view_serves_what_was_last_known(cx: &Context) {
    let (writer, fragile) = (cx.client().await, cx.fragile().await);
    let all = [1, 2, 3].map(|n| instance("a/b", &n.to_string(), n));
    join_all(all.iter().map(|one| writer.put(one))).await;
    let discovery = fragile.discovery();
    let mut view = discovery.view(service("a/b")).await.expect("there is a first snapshot");
    let complete = view.wait_for(|known, freshness| freshness.is_live() && known.len() == 3);
    cx.within("a complete view", complete).await.expect("the view lives");
    cx.cut().await;
    let stale = view.wait_for(|_, freshness| freshness.state() == FreshnessState::Stale);
    let known = cx.within("the view to be stale", stale).await.expect("the view lives");
    assert!(all.iter().all(|one| shows(&known, one)), "stale data are served");
    let freshness = view.freshness();
    assert!(freshness.cause().is_some_and(Error::is_transient), "{freshness:?}");
    assert!(freshness.last_contact() <= freshness.since());
    writer.remove(&all[0]).await;
    cx.heal().await;
    let live = view.wait_for(|_, freshness| freshness.is_live());
    let known = cx.within("the view to be live", live).await.expect("the view lives");
    assert_eq!(known.diff(&fragile.fetch(service("a/b")).await), [], "live means caught up");
}

pub(super) async fn what_was_missed_is_made_up_for(cx: &Context) {
    let (writer, fragile) = (cx.client().await, cx.fragile().await);
    let old = [1, 2, 3, 4].map(|n| instance("a/b", &n.to_string(), n));
    join_all(old.iter().map(|one| writer.put(one))).await;
    let mut watch = cx.following(&fragile.discovery(), service("a/b")).await;
    watch.until_len(4).await;
    cx.cut().await;
    watch.until_item("Stale", |event| matches!(event, Event::Stale(_))).await;
    let (changed, fresh, again) = (instance("a/b", "1", 10), instance("a/b", "5", 5), reborn(&old[2]));
    writer.put(&changed).await;
    writer.remove(&old[1]).await;
    writer.remove(&old[2]).await;
    writer.put(&again).await;
    writer.put(&fresh).await;
    cx.heal().await;
    let before = watch.known().clone();
    watch.until_item("Live", |event| matches!(event, Event::Live)).await;
    let mut difference = before.diff(watch.known());
    difference.sort_by(|a, b| a.key().cmp(b.key()));
    let put = |instance: &Instance| Change::Put(instance.clone().into());
    let expected = [put(&changed), Change::Remove(old[1].key().clone()), put(&again), put(&fresh)];
    assert_eq!(difference, expected, "and nothing about the one that stayed as it was");
}

pub(super) async fn who_lives_is_not_missed(cx: &Context) {
    let (fragile, observer) = (cx.fragile().await, cx.client().await);
    let owner = fragile.discovery();
    let mut registration = owner.register(instance("a/b", "1", 1)).ttl(LONG).await.expect("it is free");
    let mut outside = cx.feed(&observer, service("a/b")).await;
    let mut inside = cx.following(&owner, service("a/b")).await;
    outside.until_shows(&registration.instance()).await;
    inside.until_shows(&registration.instance()).await;
    for _ in 0..3 {
        cx.cut().await;
        inside.until_item("Stale", |event| matches!(event, Event::Stale(_))).await;
        cx.heal().await;
        let events = inside.until_item("Live", |event| matches!(event, Event::Live)).await;
        assert_eq!(events.len(), 1, "{events:?}");
    }
    cx.within("the registration to be as before", registration.wait_for(RegistrationStatus::is_active)).await;
    let seen = outside.fence(&observer, "a/b").await;
    assert!(removals(&seen).is_empty(), "it lived all the time: {seen:?}");
}

pub(super) async fn registered_during_an_outage(cx: &Context) {
    let (fragile, observer) = (cx.fragile().await, cx.client().await);
    let mut feed = cx.feed(&observer, service("a/b")).await;
    let owner = fragile.discovery();
    cx.cut().await;
    let mut leased = owner.register(instance("a/b", "1", 1)).ttl(LONG).start().expect("it can be tried");
    let permanent = owner.register(instance("a/b", "2", 2)).permanent().start().expect("it can be tried");
    let told = leased.wait_for(|status| status.phase == Phase::Pending && status.cause.is_some());
    cx.within("the status to say why it takes so long", told).await;
    cx.heal().await;
    feed.until_shows(&leased.instance()).await;
    feed.until_shows(&permanent.instance()).await;
    cx.within("the status to say so", leased.wait_for(RegistrationStatus::is_active)).await;
}

pub(super) async fn updated_during_an_outage(cx: &Context) {
    let (fragile, observer) = (cx.fragile().await, cx.client().await);
    let owner = fragile.discovery();
    let registration = owner.register(instance("a/b", "1", 1)).ttl(LONG).await.expect("it is free");
    let mut feed = cx.feed(&observer, service("a/b")).await;
    feed.until_shows(&registration.instance()).await;
    cx.cut().await;
    let two = instance("a/b", "1", 2);
    assert!(registration.update(two).now_or_never().is_none(), "it waits for the backend");
    let update = registration.update(instance("a/b", "1", 3));
    let heal = cx.heal();
    let (updated, ()) = tokio::join!(cx.within("the update to be made", update), heal);
    updated.expect("it is ours");
    let mut seen = feed.until_shows(&registration.instance()).await;
    seen.extend(feed.fence(&observer, "a/b").await);
    assert!(removals(&seen).is_empty(), "{seen:?}");
    let ports = ports(&seen, registration.key());
    assert!(ports.is_sorted() && !ports.contains(&1), "old data came back: {ports:?}");
}

pub(super) async fn withdrawn_during_an_outage(cx: &Context) {
    let (fragile, observer) = (cx.fragile().await, cx.client().await);
    let owner = fragile.discovery();
    let mut feed = cx.feed(&observer, service("a/b")).await;
    let leased = owner.register(instance("a/b", "1", 1)).ttl(LONG).await.expect("it is free");
    let permanent = owner.register(instance("a/b", "2", 2)).permanent().await.expect("it is free");
    let kept = owner.register(instance("a/b", "3", 3)).ttl(LONG).await.expect("it is free");
    feed.until_len(3).await;
    cx.cut().await;
    cx.feed_after(&fragile, service("a/b"), None).end().await;
    drop(leased);
    let deregister = tokio::spawn(permanent.deregister());
    cx.heal().await;
    cx.within("the removal to be made", deregister).await.expect("no panic").expect("it can be removed");
    let mut seen = feed.until_len(1).await;
    assert!(shows(feed.known(), &kept.instance()));
    seen.extend(feed.fence(&observer, "a/b").await);
    assert!(seen.iter().all(|change| matches!(change, Change::Remove(_))), "something came back: {seen:?}");
}

pub(super) async fn come_and_gone_during_an_outage(cx: &Context) {
    let (fragile, observer) = (cx.fragile().await, cx.client().await);
    let mut feed = cx.feed(&observer, service("a/b")).await;
    let owner = fragile.discovery();
    cx.cut().await;
    for n in 1..=3 {
        let registration =
            owner.register(instance("a/b", "1", n)).ttl(LONG).start().expect("it can be tried");
        let deregister = cx.within("the end of what never began", registration.deregister());
        deregister.await.expect("nothing is left to be done");
    }
    cx.heal().await;
    let after = owner.register(instance("a/b", "2", 2)).ttl(LONG).await.expect("it is free");
    let mut seen = feed.until_shows(&after.instance()).await;
    seen.extend(feed.fence(&observer, "a/b").await);
    seen.retain(|change| change.key() != after.key());
    assert_eq!(seen, [], "it was gone before it was there");
}

pub(super) async fn expired_during_an_outage(cx: &Context) {
    let (fragile, observer) = (cx.fragile().await, cx.client().await);
    let owner = fragile.discovery();
    let registration = owner.register(instance("a/b", "1", 1)).ttl(cx.ttl()).await.expect("it is free");
    registration.update(instance("a/b", "1", 2)).await.expect("it is ours");
    let latest = registration.instance();
    let mut feed = cx.feed(&observer, service("a/b")).await;
    feed.until_shows(&latest).await;
    cx.cut().await;
    cx.expire().await;
    feed.until_gone(&latest).await;
    cx.heal().await;
    let seen = feed.until_shows(&latest).await;
    assert_eq!(ports(&seen, latest.key()), [2], "back at once as it last was, in the same life");
}

pub(super) async fn taken_by_another_during_an_outage(cx: &Context) {
    let (fragile, other) = (cx.fragile().await, cx.client().await);
    let owner = fragile.discovery();
    let mut ours = owner.register(instance("a/b", "1", 1)).ttl(cx.ttl()).await.expect("it is free");
    let mut feed = cx.feed(&other, service("a/b")).await;
    feed.until_shows(&ours.instance()).await;
    cx.cut().await;
    cx.expire().await;
    feed.until_len(0).await;
    let theirs = other.discovery().register(instance("a/b", "1", 2)).ttl(LONG).await.expect("it is free");
    cx.heal().await;
    let status = cx.within("the refusal", ours.wait_for(|status| status.phase == Phase::Refused)).await;
    assert_eq!(status.cause.map(|error| error.kind()), Some(ErrorKind::Conflict));
    feed.fence(&other, "a/b").await;
    assert!(shows(feed.known(), &theirs.instance()), "what is theirs is left alone");
}

pub(super) async fn opened_during_an_outage(cx: &Context) {
    let (writer, fragile) = (cx.client().await, cx.fragile().await);
    let one = instance("a/b", "1", 1);
    writer.put(&one).await;
    cx.cut().await;
    let discovery = fragile.discovery();
    let refused = discovery.view(service("a/b")).first_wait(Duration::from_millis(100)).await;
    assert_eq!(refused.expect_err("there is no first snapshot").kind(), ErrorKind::Timeout);
    let mut view = discovery.view(service("a/b")).open();
    let told = view.wait_for(|known, freshness| {
        freshness.state() == FreshnessState::Stale && freshness.cause().is_some() && known.is_empty()
    });
    cx.within("the view to say why it is empty", told).await.expect("the view lives");
    cx.heal().await;
    let live = view.wait_for(|known, freshness| freshness.is_live() && shows(known, &one));
    cx.within("the view to be live", live).await.expect("the view lives");
}

pub(super) async fn a_view_survives_a_flapping_line(cx: &Context) {
    let (writer, fragile) = (cx.client().await, cx.fragile().await);
    let discovery = fragile.discovery();
    let mut views = Vec::new();
    for scope in [Scope::Service(service("a/b")), subtree("a"), Scope::everything()] {
        views.push(discovery.view(scope).await.expect("there is a first snapshot"));
    }
    for n in 1..=20 {
        writer.put(&instance("a/b", &(n % 7).to_string(), n)).await;
        cx.cut().await;
        writer.put(&instance("a/b/c", &(n % 5).to_string(), n)).await;
        if n % 3 == 0 {
            writer.remove(&instance("a/b", &(n % 7).to_string(), n)).await;
        }
        cx.heal().await;
    }
    for view in &mut views {
        let fetched = writer.fetch(view.scope().clone()).await;
        let same = view.wait_for(|known, freshness| freshness.is_live() && known.diff(&fetched).is_empty());
        cx.within("every view to be true again", same).await.expect("the view lives");
    }
}

pub(super) async fn compacted_during_an_outage(cx: &Context) {
    let (writer, fragile) = (cx.client().await, cx.fragile().await);
    let old = instance("a/b", "1", 1);
    writer.put(&old).await;
    let mut watch = cx.following(&fragile.discovery(), service("a/b")).await;
    watch.until_shows(&old).await;
    cx.cut().await;
    watch.until_item("Stale", |event| matches!(event, Event::Stale(_))).await;
    writer.remove(&old).await;
    writer.put(&instance("a/b", "2", 2)).await;
    cx.compact().await;
    cx.heal().await;
    watch.until_item("Live", |event| matches!(event, Event::Live)).await;
    assert!(watch.known().len() == 1 && shows(watch.known(), &instance("a/b", "2", 2)));
}
