//! What a watch of the backend tells.

use futures_util::{FutureExt, StreamExt, future::join_all};
use tokio::task;

use super::context::{Client, Context, instance, keys, me, ports, reborn, removals, service, shows, subtree};
use crate::{Change, Claim, ErrorKind, Instance, OnConflict, Outcome, Owner, Scope, ServiceName, Update};

pub(super) async fn starts_with_what_exists(cx: &Context) {
    let (writer, reader) = (cx.client().await, cx.client().await);
    let (one, two) = (instance("a/b", "1", 1), instance("a/b", "2", 2));
    writer.put(&one).await;
    writer.put(&two).await;
    // Another server of the same store may lag a little; a watch of the writer itself may not.
    let feed = cx.feed(&writer, service("a/b")).await;
    assert!(shows(feed.known(), &one) && shows(feed.known(), &two), "{:?}", keys(feed.known()));
    cx.feed(&reader, service("a/b")).await.until_len(2).await;
}

pub(super) async fn unknown_scopes_are_empty_and_followed(cx: &Context) {
    let client = cx.client().await;
    let one = instance("not/there/yet", "1", 1);
    for scope in [Scope::Service(one.service().clone()), subtree("not/there"), Scope::everything()] {
        let mut feed = cx.feed(&client, scope).await;
        assert!(feed.known().is_empty());
        client.put(&one).await;
        feed.until_shows(&one).await;
        client.remove(&one).await;
        feed.until_gone(&one).await;
    }
}

pub(super) async fn the_root_is_no_service(cx: &Context) {
    let client = cx.client().await;
    let feed = cx.feed_after(&client, ServiceName::root(), None);
    assert_eq!(feed.end().await.kind(), ErrorKind::Invalid);
}

pub(super) async fn tells_of_arrival_change_and_departure(cx: &Context) {
    let (writer, reader) = (cx.client().await, cx.client().await);
    let mut feed = cx.feed(&reader, service("a/b")).await;
    let (one, changed) = (instance("a/b", "1", 1), instance("a/b", "1", 2));
    let mut seen = Vec::new();
    writer.put(&one).await;
    seen.extend(feed.until_shows(&one).await);
    writer.put(&changed).await;
    seen.extend(feed.until_shows(&changed).await);
    writer.remove(&one).await;
    seen.extend(feed.until_gone(&one).await);
    assert_eq!(seen, [put(&one), put(&changed), Change::Remove(one.key().clone())]);
}

pub(super) async fn an_update_is_no_removal(cx: &Context) {
    let (writer, reader) = (cx.client().await, cx.client().await);
    let mut feed = cx.feed(&reader, service("a/b")).await;
    for n in 1..=30 {
        writer.put(&instance("a/b", "1", n)).await;
    }
    let seen = feed.fence(&writer, "a/b").await;
    assert!(removals(&seen).is_empty(), "{seen:?}");
}

pub(super) async fn a_take_over_is_no_removal(cx: &Context) {
    let (writer, reader) = (cx.client().await, cx.client().await);
    let (ours, theirs) = (instance("a/b", "1", 1), instance("a/b", "1", 2));
    writer.put(&ours).await;
    let mut feed = cx.feed(&reader, service("a/b")).await;
    feed.until_shows(&ours).await;
    let claim = Claim::new(Owner::named("them")).on_conflict(OnConflict::TakeOver);
    cx.client().await.put_as(&theirs, &claim).await;
    let seen = feed.until_shows(&theirs).await;
    assert!(removals(&seen).is_empty(), "{seen:?}");
}

pub(super) async fn fast_writes_end_with_the_last(cx: &Context) {
    let (writer, reader) = (cx.client().await, cx.client().await);
    let mut feed = cx.feed(&reader, service("a/b")).await;
    for n in 1..=100 {
        writer.put(&instance("a/b", "1", n)).await;
    }
    let seen = feed.until_shows(&instance("a/b", "1", 100)).await;
    let ports = ports(&seen, instance("a/b", "1", 1).key());
    assert!(ports.is_sorted(), "out of order: {ports:?}");
}

pub(super) async fn every_write_is_told(cx: &Context) {
    let (writer, reader) = (cx.client().await, cx.client().await);
    let mut feed = cx.feed(&reader, service("a/b")).await;
    let write = async {
        for n in 1..=100 {
            writer.put(&instance("a/b", "1", n)).await;
            // Some are read at once, some several together.
            if n % 3 == 0 {
                task::yield_now().await;
            }
        }
    };
    let last = instance("a/b", "1", 100);
    let ((), seen) = tokio::join!(write, feed.until_shows(&last));
    let ports = ports(&seen, instance("a/b", "1", 1).key());
    assert_eq!(ports, (1..=100).collect::<Vec<_>>());
}

pub(super) async fn revisions_never_decrease(cx: &Context) {
    let writers = join_all((0..4).map(|_| cx.client())).await;
    let mut feed = cx.feed(&writers[0], Scope::everything()).await;
    let write = join_all(writers.iter().enumerate().map(async |(who, writer)| {
        for n in 1..=25 {
            writer.put(&instance(&format!("s{who}"), &format!("{}", n % 5), n)).await;
            task::yield_now().await;
        }
    }));
    // The feed itself holds every item to it.
    let read = feed.until("the last write of each client", |known| {
        (0..4).all(|who| shows(known, &instance(&format!("s{who}"), "0", 25)))
    });
    tokio::join!(write, read);
}

pub(super) async fn what_it_tells_adds_up_to_a_fetch(cx: &Context) {
    let writers = join_all((0..4).map(|_| cx.client())).await;
    let scopes = [Scope::everything(), subtree("s0"), Scope::Service(service("s0/x"))];
    let mut feeds = join_all(scopes.iter().map(|scope| cx.feed(&writers[0], scope.clone()))).await;
    join_all((0..).zip(&writers).map(|(seed, writer)| scribble(writer, seed, 60))).await;
    for (feed, scope) in feeds.iter_mut().zip(scopes) {
        // The sentinel is the last write of all, and its own client has seen what was before it.
        feed.fence(&writers[0], "s0/x").await;
        let fetched = writers[0].fetch(scope.clone()).await;
        assert_eq!(feed.known().diff(&fetched), [], "{scope}");
    }
}

pub(super) async fn opened_amid_writes_it_misses_nothing(cx: &Context) {
    let (writer, reader) = (cx.client().await, cx.client().await);
    let all: Vec<_> = (1..=200).map(|n| instance("a/b", &n.to_string(), n)).collect();
    let write = async {
        for one in &all {
            writer.put(one).await;
        }
    };
    let read = async {
        for _ in 0..20 {
            let mut feed = cx.feed(&reader, service("a/b")).await;
            let known = feed.known().len();
            feed.until("some more", |now| now.len() > known || now.len() == all.len()).await;
        }
        cx.feed(&reader, service("a/b")).await.until_len(all.len()).await;
    };
    let mut early = cx.feed(&reader, service("a/b")).await;
    tokio::join!(write, read);
    early.until_len(all.len()).await;
    assert!(all.iter().all(|one| shows(early.known(), one)));
}

pub(super) async fn a_service_is_itself_alone(cx: &Context) {
    let client = cx.client().await;
    let mut feed = cx.feed(&client, service("a/b")).await;
    // The instance `b` of service `a` is at the very path that is watched, and not in the scope.
    for (name, id) in [("a", "b"), ("a", "1"), ("a/b/c", "1"), ("a/bc", "1"), ("a/b-c", "1"), ("x", "1")] {
        client.put(&instance(name, id, 1)).await;
        client.put(&instance(name, id, 2)).await;
        client.remove(&instance(name, id, 2)).await;
    }
    assert_eq!(feed.fence(&client, "a/b").await, []);
}

pub(super) async fn a_subtree_is_its_top_and_all_below(cx: &Context) {
    let client = cx.client().await;
    let mut feed = cx.feed(&client, subtree("a/b")).await;
    for (name, id) in [("a", "b"), ("a", "1"), ("a/bc", "1"), ("ab", "1"), ("x/a/b", "1")] {
        client.put(&instance(name, id, 1)).await;
        client.remove(&instance(name, id, 1)).await;
    }
    assert_eq!(feed.fence(&client, "a/b").await, []);
    for name in ["a/b", "a/b/c", "a/b/c/d/e/f"] {
        let one = instance(name, "1", 1);
        client.put(&one).await;
        feed.until_shows(&one).await;
        client.remove(&one).await;
        feed.until_gone(&one).await;
    }
}

pub(super) async fn names_of_one_label_work(cx: &Context) {
    let client = cx.client().await;
    let one = instance("solo", "1", 1);
    for scope in [Scope::Service(service("solo")), subtree("solo"), Scope::everything()] {
        let mut feed = cx.feed(&client, scope).await;
        client.put(&one).await;
        feed.until_shows(&one).await;
        client.remove(&one).await;
        feed.until_gone(&one).await;
    }
}

pub(super) async fn the_last_departure_is_told(cx: &Context) {
    let client = cx.client().await;
    let mut feed = cx.feed(&client, service("a/b")).await;
    let (one, two) = (instance("a/b", "1", 1), instance("a/b", "2", 1));
    for _ in 0..3 {
        client.put(&one).await;
        client.put(&two).await;
        feed.until_len(2).await;
        client.remove(&one).await;
        client.remove(&two).await;
        feed.until_len(0).await;
    }
}

pub(super) async fn deleted_and_recreated_is_replaced(cx: &Context) {
    let client = cx.client().await;
    let one = instance("a/b", "1", 1);
    client.put(&one).await;
    let mut feed = cx.feed(&client, service("a/b")).await;
    feed.until_shows(&one).await;
    client.remove(&one).await;
    client.put(&reborn(&one)).await;
    let seen = feed.until_shows(&reborn(&one)).await;
    assert_eq!(seen.last(), Some(&put(&reborn(&one))));
}

pub(super) async fn one_change_of_a_thousand_is_one_change(cx: &Context) {
    let client = cx.client().await;
    let all: Vec<_> = (1..=1000).map(|n| instance("big", &n.to_string(), n)).collect();
    for some in all.chunks(100) {
        join_all(some.iter().map(|one| client.put(one))).await;
    }
    let mut feed = cx.feed(&client, service("big")).await;
    feed.until_len(1000).await;
    feed.fence(&client, "big").await;
    let changed = instance("big", "500", 1);
    client.put(&changed).await;
    let said = feed.until_item("the change", |update| !matches!(update, Update::Progress(_))).await;
    match said.last() {
        // The same one twice is still one change.
        Some(Update::Delta { changes, .. }) => {
            assert!(
                !changes.is_empty() && changes.iter().all(|change| *change == put(&changed)),
                "{changes:?}"
            );
        }
        other => panic!("a Reset costs a read of everything: {other:?}"),
    }
}

pub(super) async fn a_slow_reader_gets_the_latest(cx: &Context) {
    let (writer, reader) = (cx.client().await, cx.client().await);
    let mut feed = cx.feed(&reader, service("a/b")).await;
    for n in 1..=500 {
        writer.put(&instance("a/b", &format!("{}", n % 10), n)).await;
    }
    // Nobody has read so far.
    let last: Vec<_> = (491..=500).map(|n| instance("a/b", &format!("{}", n % 10), n)).collect();
    feed.until("the last of everything", |known| last.iter().all(|one| shows(known, one))).await;
    assert_eq!(feed.known().len(), 10);
}

pub(super) async fn watches_do_not_disturb_each_other(cx: &Context) {
    let client = cx.client().await;
    let one = instance("a/b", "1", 1);
    let mut kept = cx.feed(&client, service("a/b")).await;
    let mut above = cx.feed(&client, subtree("a")).await;
    // Read, half-read and never read: however a watch of the same scope ends, its siblings go on.
    drop(cx.feed(&client, service("a/b")).await);
    drop(cx.feed_after(&client, service("a/b"), None));
    drop(cx.feed(&client, subtree("a")).await);
    let mut half_read = client.0.watch(&service("a/b").into(), None);
    let _ = half_read.next().now_or_never();
    drop(half_read);
    client.put(&one).await;
    kept.until_shows(&one).await;
    above.until_shows(&one).await;
    drop(above);
    client.remove(&one).await;
    kept.until_gone(&one).await;
}

pub(super) async fn a_hundred_watches_all_hear_it(cx: &Context) {
    let (writer, reader) = (cx.client().await, cx.client().await);
    let mut feeds = join_all((0..100).map(|_| cx.feed(&reader, service("a/b")))).await;
    let one = instance("a/b", "1", 1);
    writer.put(&one).await;
    join_all(feeds.iter_mut().map(|feed| feed.until_shows(&one))).await;
}

pub(super) async fn dropped_watches_are_released(cx: &Context) {
    let client = cx.client().await;
    let before = cx.open_watches().await;
    let feeds = join_all((0..10).map(|n| cx.feed(&client, service(&format!("a/b{n}"))))).await;
    assert!(cx.open_watches().await > before, "the harness counts watches that are open");
    drop(feeds);
    cx.eventually("the server to forget the watches", async || cx.open_watches().await == before).await;
    // Others' changes find nobody; the client is none the worse.
    client.put(&instance("a/b0", "1", 1)).await;
    assert_eq!(cx.open_watches().await, before);
}

/// Writes, rewrites and removes a few instances, as a seed says.
async fn scribble(writer: &Client, seed: u64, steps: usize) {
    let mut random = fastrand::Rng::with_seed(seed);
    let claim = Claim::new(me());
    for n in 1..=steps {
        let name = ["s0", "s0/x", "s1/y/z"][random.usize(..3)];
        let port = u16::try_from(n).expect("few steps");
        // A store that answers at once leaves nobody else a turn.
        task::yield_now().await;
        let one = instance(name, &random.u8(0..4).to_string(), port);
        if random.u8(..3) == 0 {
            let _ = writer.registrar().remove(one.key(), None).await.expect("anybody may remove");
        } else {
            let next = if random.bool() { one } else { reborn(&one) };
            // Others write the same keys: to be overtaken for good is their right.
            match writer.registrar().put(&next, &claim).await {
                Ok(_) => {}
                Err(error) => {
                    let overtaken = error.is_transient() && error.outcome() == Outcome::NotApplied;
                    assert!(error.kind() == ErrorKind::Conflict || overtaken, "{error}");
                }
            }
        }
    }
}

fn put(instance: &Instance) -> Change {
    Change::Put(instance.clone().into())
}
