//! What the library makes of the backend: registrations, watches and views.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use futures_util::{StreamExt, future::join_all};

use super::context::{Client, Context, instance, port, refused, removals, service, shows, subtree};
use crate::{
    Backend, ErrorKind, Event, Info, Leases, Owner, Phase, Registrar, RegistrationStatus, Result, Revision,
    Scope, Snapshot, Status, Updates, kv::Kv,
};

/// Longer than any check takes.
const LONG: Duration = Duration::from_secs(60);

pub(super) async fn a_registration_lasts_as_long_as_its_handle(cx: &Context) {
    let (owner, observer) = (cx.client().await.discovery(), cx.client().await);
    let mut feed = cx.feed(&observer, service("a/b")).await;
    let registration = owner.register(instance("a/b", "1", 1)).ttl(LONG).await.expect("it is free");
    assert!(registration.status().revision.is_some());
    feed.until_shows(&registration.instance()).await;
    let gone = registration.instance();
    drop(registration);
    feed.until_gone(&gone).await;
}

pub(super) async fn deregistered_means_gone(cx: &Context) {
    let client = cx.client().await;
    let owner = client.discovery();
    for permanent in [false, true] {
        let register = owner.register(instance("a/b", "1", 1));
        let register = if permanent { register.permanent() } else { register.ttl(LONG) };
        let registration = register.await.expect("it is free");
        assert_eq!(client.fetch(service("a/b")).await.len(), 1);
        registration.deregister().await.expect("it can be removed");
        assert!(client.fetch(service("a/b")).await.is_empty());
    }
}

pub(super) async fn a_permanent_one_outlives_its_handle(cx: &Context) {
    let client = cx.client().await;
    let owner = client.discovery();
    let registration = owner.register(instance("a/b", "1", 1)).permanent().await.expect("it is free");
    let one = registration.instance();
    drop(registration);
    drop(owner);
    let admin = cx.client().await.discovery();
    let mut feed = cx.feed(&client, service("a/b")).await;
    assert_eq!(feed.fence(&client, "a/b").await, []);
    assert!(shows(feed.known(), &one));
    cx.eventually("the administrator to see and remove it", async || {
        admin.remove(one.key()).await.expect("anything may be removed")
    })
    .await;
    feed.until_gone(&one).await;
    assert!(!admin.remove(one.key()).await.expect("nothing to do is no error"));
}

pub(super) async fn a_detached_one_ends_with_its_lease(cx: &Context) {
    let (owner, observer) = (cx.client().await.discovery(), cx.client().await);
    let mut feed = cx.feed(&observer, service("a/b")).await;
    let registration = owner.register(instance("a/b", "1", 1)).ttl(cx.ttl()).await.expect("it is free");
    let one = registration.instance();
    feed.until_shows(&one).await;
    registration.detach();
    feed.until_gone(&one).await;
}

pub(super) async fn a_registration_is_kept_past_its_ttl(cx: &Context) {
    let (owner, observer) = (cx.client().await.discovery(), cx.client().await);
    let mut feed = cx.feed(&observer, service("a/b")).await;
    let mut registration = owner.register(instance("a/b", "1", 1)).ttl(cx.ttl()).await.expect("it is free");
    feed.until_shows(&registration.instance()).await;
    tokio::time::sleep(2 * cx.ttl()).await;
    assert_eq!(feed.fence(&observer, "a/b").await, []);
    cx.within("the status to be active", registration.wait_for(RegistrationStatus::is_active)).await;
}

pub(super) async fn an_update_is_the_same_life(cx: &Context) {
    let (owner, observer) = (cx.client().await.discovery(), cx.client().await);
    let mut feed = cx.feed(&observer, service("a/b")).await;
    let unborn = instance("a/b", "1", 1).to_builder().incarnation(0).build().expect("an instance");
    let registration = owner.register(unborn).ttl(LONG).await.expect("it is free");
    let life = registration.instance().incarnation();
    assert_ne!(life, 0, "a registration draws a number");
    let mut seen = feed.until_shows(&registration.instance()).await;
    for n in 2..=10 {
        registration.update(instance("a/b", "1", n)).await.expect("it is ours");
        assert_eq!(registration.instance().incarnation(), life);
    }
    seen.extend(feed.until_shows(&registration.instance()).await);
    assert!(removals(&seen).is_empty(), "{seen:?}");
    assert!(feed.known().iter().all(|found| found.incarnation() == life && port(found) == 10));
}

pub(super) async fn a_refused_update_is_undone(cx: &Context) {
    let client = cx.client().await;
    let limit = client.0.info().capabilities().max_record;
    let registration =
        client.discovery().register(instance("a/b", "1", 1)).ttl(LONG).await.expect("it is free");
    let before = registration.instance();
    let large = before.to_builder().metadata("padding", "x".repeat(limit)).build().expect("an instance");
    refused(registration.update(large).await, ErrorKind::Invalid);
    assert_eq!(registration.instance(), before, "what was asked for is what there is");
    assert!(shows(&client.fetch(service("a/b")).await, &before));
    registration.update(instance("a/b", "1", 2)).await.expect("all is well");
    refused(registration.update(instance("a/b", "2", 2)).await, ErrorKind::Invalid);
}

pub(super) async fn draining_is_seen_before_the_end(cx: &Context) {
    let (owner, observer) = (cx.client().await.discovery(), cx.client().await);
    let mut feed = cx.feed(&observer, service("a/b")).await;
    let registration = owner.register(instance("a/b", "1", 1)).ttl(LONG).await.expect("it is free");
    let one = registration.instance();
    feed.until_shows(&one).await;
    let drain = registration.drain(Duration::from_millis(200));
    let see = async {
        let draining = one.to_builder().status(Status::Draining).build().expect("an instance");
        feed.until_shows(&draining).await;
        feed.until_gone(&one).await;
    };
    let (drained, ()) = tokio::join!(drain, see);
    drained.expect("it is over");
}

pub(super) async fn a_conflict_is_reported(cx: &Context) {
    let (first, second) = (cx.client().await, cx.client().await);
    let ours = first.discovery().register(instance("a/b", "1", 1)).ttl(LONG).await.expect("it is free");
    let theirs = second.discovery().register(instance("a/b", "1", 2)).ttl(LONG).await;
    assert_eq!(theirs.expect_err("it is taken").kind(), ErrorKind::Conflict);
    // Without anybody waiting it is tried again and again, and the status says why in vain.
    let mut theirs =
        second.discovery().register(instance("a/b", "1", 2)).ttl(LONG).start().expect("it can be tried");
    let status = cx.within("a refusal", theirs.wait_for(|status| status.phase == Phase::Refused)).await;
    assert_eq!(status.cause.map(|error| error.kind()), Some(ErrorKind::Conflict));
    assert!(shows(&first.fetch(service("a/b")).await, &ours.instance()), "nothing was overwritten");
    // Its turn comes when we are gone.
    ours.deregister().await.expect("it can be removed");
    // Waited for by a task of its own, as programs do.
    let turn = tokio::spawn(async move { theirs.wait_for(RegistrationStatus::is_active).await });
    cx.within("the other's turn", turn).await.expect("no panic");
}

pub(super) async fn a_take_over_replaces_without_a_flap(cx: &Context) {
    let (first, second) = (cx.client().await, cx.client().await);
    let mut feed = cx.feed(&first, service("a/b")).await;
    let ours = first.discovery().register(instance("a/b", "1", 1)).ttl(LONG).await.expect("it is free");
    feed.until_shows(&ours.instance()).await;
    let register = second.discovery();
    let register = register.register(instance("a/b", "1", 2)).ttl(LONG).take_over();
    let theirs = register.await.expect("it is taken over");
    let seen = feed.until_shows(&theirs.instance()).await;
    assert!(removals(&seen).is_empty(), "{seen:?}");
    refused(ours.update(instance("a/b", "1", 3)).await, ErrorKind::Conflict);
    // Our leaving does not take theirs away.
    ours.deregister().await.expect("ours is gone already");
    assert_eq!(feed.fence(&first, "a/b").await, []);
    assert!(shows(feed.known(), &theirs.instance()));
}

pub(super) async fn a_restarted_owner_finds_its_entry(cx: &Context) {
    let (before, after) = (cx.client().await, cx.client().await);
    let mut feed = cx.feed(&after, service("a/b")).await;
    let owner = Owner::named("host-7");
    let register = before.discovery();
    let register = register.register(instance("a/b", "1", 1)).ttl(LONG).owner(owner.clone());
    // It dies without a word: what it left is still there.
    register.await.expect("it is free").detach();
    feed.until_len(1).await;
    let next = instance("a/b", "1", 2).to_builder().incarnation(2).build().expect("an instance");
    let again = after.discovery().register(next.clone()).ttl(LONG).owner(owner).await.expect("it is its own");
    let seen = feed.until_shows(&next).await;
    assert!(removals(&seen).is_empty(), "{seen:?}");
    drop(again);
}

pub(super) async fn an_expired_registration_is_put_back(cx: &Context) {
    let (owner, observer) = (cx.fragile().await.discovery(), cx.client().await);
    let mut feed = cx.feed(&observer, service("a/b")).await;
    let mut registration = owner.register(instance("a/b", "1", 1)).ttl(cx.ttl()).await.expect("it is free");
    registration.update(instance("a/b", "1", 2)).await.expect("it is ours");
    let latest = registration.instance();
    for _ in 0..3 {
        let before = registration.status().since;
        cx.expire().await;
        let again = registration.wait_for(|status| status.is_active() && status.since > before);
        cx.within("the loss to be noticed and made up for", again).await;
        // It may have been back before anybody saw it gone. The latest data, and the same life: both are compared.
        feed.fence(&observer, "a/b").await;
        assert!(shows(feed.known(), &latest), "{:?}", feed.known());
    }
}

pub(super) async fn a_hundred_registrations_come_and_go(cx: &Context) {
    let (owner, observer) = (cx.client().await.discovery(), cx.client().await);
    let mut feed = cx.feed(&observer, subtree("a")).await;
    let register = (1..=100).map(|n| {
        let one = instance(&format!("a/s{}", n % 7), &n.to_string(), n);
        let owner = &owner;
        async move { owner.register(one).ttl(LONG).await.expect("it is free") }
    });
    let mut registrations = join_all(register).await;
    feed.until_len(100).await;
    for rest in [63, 1] {
        registrations.truncate(rest);
        feed.until_len(rest).await;
    }
    registrations[0].update(instance("a/s1", "1", 9)).await.expect("the last one is kept as before");
    drop(registrations);
    feed.until_len(0).await;
}

pub(super) async fn a_watch_starts_with_what_is_known(cx: &Context) {
    let client = cx.client().await;
    let discovery = client.discovery();
    let one = instance("a/b", "1", 1);
    let mut early = cx.following(&discovery, service("a/b")).await;
    assert!(early.known().is_empty(), "an unknown service is empty, and says so");
    client.put(&one).await;
    early.until_shows(&one).await;
    let late = cx.following(&discovery, service("a/b")).await;
    assert!(shows(late.known(), &one), "whoever comes later starts there");
}

pub(super) async fn watchers_of_a_scope_share_a_watch(cx: &Context) {
    let client = cx.client().await;
    let (probe, counts) = Probe::around(&client);
    let discovery = probe.discovery();
    let mut watches = join_all((0..100).map(|_| cx.following(&discovery, service("a/b")))).await;
    let view = discovery.view(service("a/b")).await.expect("there is a first snapshot");
    assert_eq!((counts.opened(), counts.open()), (1, 1));
    let one = instance("a/b", "1", 1);
    client.put(&one).await;
    join_all(watches.iter_mut().map(|watch| watch.until_shows(&one))).await;
    watches.truncate(1);
    drop(view);
    client.remove(&one).await;
    watches[0].until_gone(&one).await;
    assert_eq!((counts.opened(), counts.open()), (1, 1));
    drop(watches);
    cx.eventually("the shared watch to be closed with its last user", async || counts.open() == 0).await;
    let again = cx.following(&discovery, service("a/b")).await;
    assert_eq!((counts.opened(), counts.open()), (2, 1));
    drop(again);
}

pub(super) async fn a_slow_watcher_starts_over_with_the_latest(cx: &Context) {
    let client = cx.client().await;
    let discovery = client.discovery();
    let mut slow = cx.following(&discovery, service("a/b")).await;
    let mut brisk = cx.following(&discovery, service("a/b")).await;
    // One write at a time, each seen by the brisk one: that is how far behind the slow one falls.
    for n in 1..=300 {
        let one = instance("a/b", "1", n);
        client.put(&one).await;
        brisk.until_shows(&one).await;
    }
    let (event, _) = slow.step().await;
    assert!(matches!(event, Event::Reset(_)), "{event:?}");
    assert!(shows(slow.known(), &instance("a/b", "1", 300)), "the latest, not what was missed first");
    client.put(&instance("a/b", "1", 301)).await;
    slow.until_shows(&instance("a/b", "1", 301)).await;
}

pub(super) async fn nothing_is_heard_after_unsubscribing(cx: &Context) {
    let client = cx.client().await;
    let (probe, counts) = Probe::around(&client);
    let discovery = probe.discovery();
    let view = discovery.view(service("a/b")).await.expect("there is a first snapshot");
    drop(view);
    cx.eventually("the watch to be closed", async || counts.open() == 0).await;
    let heard = counts.heard();
    let mut feed = cx.feed(&client, service("a/b")).await;
    client.put(&instance("a/b", "1", 1)).await;
    feed.until_len(1).await;
    client.remove(&instance("a/b", "1", 1)).await;
    feed.until_len(0).await;
    assert_eq!(counts.heard(), heard);
}

pub(super) async fn a_view_is_what_a_fetch_shows(cx: &Context) {
    let client = cx.client().await;
    let discovery = client.discovery();
    let mut view = discovery.view(Scope::everything()).await.expect("there is a first snapshot");
    assert!(view.snapshot().is_empty() && view.freshness().is_live());
    for n in 1..=50 {
        let one = instance(["a", "a/b", "c"][usize::from(n % 3)], &(n % 10).to_string(), n);
        client.put(&one).await;
        if n % 4 == 0 {
            client.remove(&one).await;
        }
        // The view takes part as it goes.
        if n % 10 == 0 {
            let caught_up = view.wait_for(|known, _| shows(known, &one) || n % 4 == 0);
            cx.within("the view to keep up", caught_up).await.expect("the view lives");
        }
    }
    let fetched = client.fetch(Scope::everything()).await;
    let same = view.wait_for(|known, freshness| freshness.is_live() && known.diff(&fetched).is_empty());
    cx.within("the view to equal the fetch", same).await.expect("the view lives");
    assert_eq!(discovery.lookup(&service("a/b")).await.expect("it can be fetched").len(), {
        view.read(|known, _| known.of(&service("a/b")).count())
    });
}

/// Counts what the library asks of a backend.
#[derive(Debug)]
struct Probe {
    inner: Arc<dyn Backend>,
    counts: Counts,
}

/// Plain statistics, so relaxed ordering will do.
#[derive(Clone, Debug, Default)]
struct Counts {
    opened: Arc<AtomicUsize>,
    open: Arc<AtomicUsize>,
    heard: Arc<AtomicUsize>,
}

impl Probe {
    fn around(client: &Client) -> (Client, Counts) {
        let counts = Counts::default();
        (Client(Arc::new(Self { inner: client.0.clone(), counts: counts.clone() })), counts)
    }
}

impl Counts {
    fn opened(&self) -> usize {
        self.opened.load(Ordering::Relaxed)
    }

    fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    fn heard(&self) -> usize {
        self.heard.load(Ordering::Relaxed)
    }
}

#[async_trait]
impl Backend for Probe {
    fn info(&self) -> &Info {
        self.inner.info()
    }

    async fn fetch(&self, scope: &Scope) -> Result<Snapshot> {
        self.inner.fetch(scope).await
    }

    fn watch(&self, scope: &Scope, after: Option<Revision>) -> Updates {
        let open = Open::new(&self.counts.open);
        self.counts.opened.fetch_add(1, Ordering::Relaxed);
        let heard = self.counts.heard.clone();
        let count = move |_: &Result<_>| {
            let _open = &open;
            heard.fetch_add(1, Ordering::Relaxed);
        };
        self.inner.watch(scope, after).inspect(count).boxed()
    }

    fn registrar(&self) -> Option<&dyn Registrar> {
        self.inner.registrar()
    }

    fn leases(&self) -> Option<&dyn Leases> {
        self.inner.leases()
    }

    fn kv(&self) -> Option<&dyn Kv> {
        self.inner.kv()
    }
}

/// One more, while it lives.
struct Open(Arc<AtomicUsize>);

impl Open {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count.clone())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
