//! Watches of keys.

use std::collections::BTreeMap;

use futures_util::{FutureExt, StreamExt, future::join_all};

use super::{
    context::{Client, Context, key},
    feed::Feed,
};
use crate::kv::{Entry, Key, KvChange, KvUpdate, Range, Txn};

pub(super) async fn starts_with_what_exists(cx: &Context) {
    let client = cx.client().await;
    for text in ["a/b", "a/b/1", "a/b/2/3", "a/c"] {
        client.commit(Txn::new().put(&key(text), text)).await;
    }
    for (range, expected) in [
        (Range::Key(key("a/b")), &["a/b"][..]),
        (Range::Children(key("a/b")), &["a/b/1"]),
        (Range::Subtree(key("a/b")), &["a/b/1", "a/b/2/3"]),
    ] {
        let feed = cx.kv_feed(&client, &range).await;
        let known: Vec<_> = feed.known().keys().map(Key::as_str).collect();
        assert_eq!(known, expected);
        for entry in feed.known().values() {
            assert_eq!(Some(entry), client.get(&entry.key).await.as_ref(), "as a get shows it");
        }
    }
}

pub(super) async fn ranges_have_their_depth(cx: &Context) {
    let client = cx.client().await;
    let mut children = cx.kv_feed(&client, &Range::Children(key("a/b"))).await;
    let mut subtree = cx.kv_feed(&client, &Range::Subtree(key("a/b"))).await;
    let mut all = cx.kv_feed(&client, &Range::Subtree(Key::root())).await;
    for text in ["a", "a/b", "a/b/1", "a/b/1/2", "a/b/c/d", "a/bc", "ab/c"] {
        client.commit(Txn::new().put(&key(text), "1")).await;
    }
    let seen = children.fence(&client, "a/b/fence").await;
    assert_eq!(told(&seen), ["+a/b/1"]);
    let seen = subtree.fence(&client, "a/b/fence/2").await;
    assert_eq!(told(&seen), ["+a/b/1", "+a/b/1/2", "+a/b/c/d", "+a/b/fence"]);
    let seen = all.fence(&client, "fence").await;
    let expected =
        ["+a", "+a/b", "+a/b/1", "+a/b/1/2", "+a/b/c/d", "+a/b/fence", "+a/b/fence/2", "+a/bc", "+ab/c"];
    assert_eq!(told(&seen), expected);
}

pub(super) async fn tells_of_puts_and_deletions(cx: &Context) {
    let client = cx.client().await;
    let mut feed = cx.kv_feed(&client, &Range::Children(key("a/b"))).await;
    let one = key("a/b/1");
    let mut seen = Vec::new();
    for round in 1..=3 {
        let text = round.to_string();
        let modified = client.commit(Txn::new().put(&one, text.clone())).await;
        seen.extend(feed.until("the put", |known| known.get(&one).is_some_and(|e| e.value == text)).await);
        assert_eq!(feed.known()[&one].modified, modified);
        client.commit(Txn::new().delete(&one)).await;
        seen.extend(feed.until("the deletion", |known| !known.contains_key(&one)).await);
    }
    assert_eq!(seen.len(), 6, "{seen:?}");
}

pub(super) async fn an_update_is_no_deletion(cx: &Context) {
    let client = cx.client().await;
    let one = key("a/b/1");
    client.commit(Txn::new().put(&one, "0")).await;
    let mut feed = cx.kv_feed(&client, &Range::Children(key("a/b"))).await;
    for n in 1..=20 {
        client.commit(Txn::new().put(&one, n.to_string())).await;
    }
    let seen = feed.fence(&client, "a/b/fence").await;
    assert!(seen.iter().all(|change| matches!(change, KvChange::Put(_))), "{seen:?}");
    assert_eq!(feed.known()[&one].value, "20");
}

pub(super) async fn transactions_are_told_whole(cx: &Context) {
    let (writer, reader) = (cx.client().await, cx.client().await);
    let mut feed = cx.kv_feed(&reader, &Range::Subtree(key("a"))).await;
    let all: Vec<_> = (0..20).map(|n| key(&format!("a/{n}"))).collect();
    let txn = all.iter().fold(Txn::new(), |txn, key| txn.put(key, "1"));
    let revision = writer.commit(txn).await;
    feed.until("all of it", |known| known.len() == all.len()).await;
    assert!(feed.known().values().all(|entry| entry.modified == revision && entry.created == revision));
    let txn = all.iter().fold(Txn::new(), Txn::delete);
    writer.commit(txn).await;
    feed.until("none of it", BTreeMap::is_empty).await;
}

pub(super) async fn what_it_tells_adds_up_to_a_scan(cx: &Context) {
    let clients = join_all((0..4).map(|_| cx.client())).await;
    let everything = Range::Subtree(Key::root());
    let mut feed = cx.kv_feed(&clients[0], &everything).await;
    join_all((0..).zip(&clients).map(async |(seed, client)| {
        let mut random = fastrand::Rng::with_seed(seed);
        for n in 0..60 {
            let key = key(["a", "a/b", "a/b/c", "a/x", "y/z"][random.usize(..5)]);
            let txn = if random.u8(..3) == 0 {
                Txn::new().delete(&key)
            } else {
                Txn::new().put(&key, format!("{seed} {n}"))
            };
            client.commit(txn).await;
        }
    }))
    .await;
    feed.fence(&clients[0], "fence").await;
    let scan = clients[0].kv().scan(&everything).await.expect("everything can be read");
    assert_eq!(feed.known().values().cloned().collect::<Vec<_>>(), scan.entries);
}

pub(super) async fn what_was_missed_is_told(cx: &Context) {
    let client = cx.client().await;
    let range = Range::Children(key("a"));
    let mut feed = cx.kv_feed(&client, &range).await;
    client.commit(Txn::new().put(&key("a/1"), "1").put(&key("a/2"), "1")).await;
    feed.until("both", |known| known.len() == 2).await;
    client.commit(Txn::new().put(&key("a/1"), "2")).await;
    client.commit(Txn::new().delete(&key("a/2"))).await;
    client.commit(Txn::new().put(&key("a/2"), "3")).await;
    let mut resumed = cx.kv_feed_after(&client, &range, Some(feed.revision())).knowing(&feed);
    let mut seen = Vec::new();
    while resumed.known().get(&key("a/2")).is_none_or(|entry| entry.value != "3") {
        let (update, changes) = resumed.step().await;
        assert!(!matches!(update, KvUpdate::Reset(_)), "the history is there: no need to start over");
        seen.extend(changes);
    }
    let said: Vec<_> = seen.iter().map(say).collect();
    assert_eq!(said, ["+a/1", "-a/2", "+a/2"]);
}

pub(super) async fn a_recreated_key_is_another_one(cx: &Context) {
    let client = cx.client().await;
    let (range, one) = (Range::Children(key("a")), key("a/1"));
    client.commit(Txn::new().put(&one, "same")).await;
    let mut feed = cx.kv_feed(&client, &range).await;
    let before = feed.known()[&one].clone();
    client.commit(Txn::new().delete(&one)).await;
    let created = client.commit(Txn::new().put(&one, "same")).await;
    feed.until("the new life", |known| known.get(&one).is_some_and(|entry| entry.created == created)).await;
    assert_ne!(feed.known()[&one], before);
    let mut resumed = cx.kv_feed_after(&client, &range, Some(before.modified));
    resumed
        .until("the new life", |known| known.get(&one).is_some_and(|entry| entry.created == created))
        .await;
}

pub(super) async fn one_key_is_followed_alone(cx: &Context) {
    let (writer, reader) = (cx.client().await, cx.client().await);
    let one = key("a/b");
    // Before it exists, and what is above it too.
    let mut feed = cx.kv_feed(&reader, &Range::Key(one.clone())).await;
    for round in ["1", "2"] {
        let created = writer.commit(Txn::new().put(&one, round)).await;
        until_alone(cx, &mut feed, &one, |entry| entry.is_some_and(|e| e.created == created)).await;
        writer.commit(Txn::new().delete(&one)).await;
        until_alone(cx, &mut feed, &one, |entry| entry.is_none()).await;
    }
    // What is faster than the watch: neither is an update a deletion, nor a new life an update.
    for n in 1..=20 {
        writer.commit(Txn::new().put(&one, n.to_string())).await;
    }
    let seen = until_alone(cx, &mut feed, &one, |entry| entry.is_some_and(|e| e.value == "20")).await;
    assert!(seen.iter().all(|change| matches!(change, KvChange::Put(_))), "{seen:?}");
    writer.commit(Txn::new().delete(&one)).await;
    let created = writer.commit(Txn::new().put(&one, "20")).await;
    until_alone(cx, &mut feed, &one, |entry| entry.is_some_and(|e| e.created == created)).await;
    // Among others.
    change_neighbours(&writer, "1").await;
    let modified = writer.commit(Txn::new().put(&one, "21")).await;
    let seen = until_alone(cx, &mut feed, &one, |entry| entry.is_some_and(|e| e.modified == modified)).await;
    assert!(matches!(&seen[..], [KvChange::Put(entry)] if entry.created == created), "{seen:?}");
    writer.commit(Txn::new().delete(&one)).await;
    until_alone(cx, &mut feed, &one, |entry| entry.is_none()).await;
    change_neighbours(&writer, "2").await;
    let modified = writer.commit(Txn::new().put(&one, "22")).await;
    let seen = until_alone(cx, &mut feed, &one, |entry| entry.is_some()).await;
    assert!(matches!(&seen[..], [KvChange::Put(entry)] if entry.modified == modified), "{seen:?}");
}

pub(super) async fn who_is_not_read_holds_up_nobody(cx: &Context) {
    let client = cx.client().await;
    let (one, range) = (key("a/b"), Range::Children(key("a")));
    for round in ["1", "2", "3"] {
        // Each has begun, and goes no further.
        let (mut watch, mut scan) = (client.kv().watch(&range, None), client.kv().scan(&range));
        let _ = (watch.next().now_or_never(), scan.as_mut().now_or_never());
        let others = async {
            client.commit(Txn::new().put(&one, round)).await;
            assert_eq!(client.get(&one).await.map(|entry| entry.value), Some(round.into()));
            let mut feed = cx.kv_feed(&client, &Range::Key(one.clone())).await;
            feed.until("the put", |known| known.get(&one).is_some_and(|entry| entry.value == round)).await;
        };
        cx.within("the others", others).await;
        drop((watch, scan));
    }
}

pub(super) async fn one_key_is_taken_up_again_alone(cx: &Context) {
    let client = cx.client().await;
    let (range, one) = (Range::Key(key("a/b")), key("a/b"));
    let mut feed = cx.kv_feed(&client, &range).await;
    client.commit(Txn::new().put(&one, "same")).await;
    until_alone(cx, &mut feed, &one, |entry| entry.is_some()).await;
    client.commit(Txn::new().delete(&one)).await;
    let created = client.commit(Txn::new().put(&one, "same")).await;
    let mut feed = cx.kv_feed_after(&client, &range, Some(feed.revision())).knowing(&feed);
    until_alone(cx, &mut feed, &one, |entry| entry.is_some_and(|e| e.created == created)).await;
    change_neighbours(&client, "1").await;
    let mut feed = cx.kv_feed_after(&client, &range, Some(feed.revision())).knowing(&feed);
    let (update, changes) = feed.step().await;
    assert!(changes.is_empty(), "nothing happened to it: {update:?}");
    client.commit(Txn::new().delete(&one)).await;
    let mut feed = cx.kv_feed_after(&client, &range, Some(feed.revision())).knowing(&feed);
    until_alone(cx, &mut feed, &one, |entry| entry.is_none()).await;
}

pub(super) async fn one_key_ends_with_its_lease(cx: &Context) {
    let (holder, observer) = (cx.client().await, cx.client().await);
    let one = key("a/b");
    let mut feed = cx.kv_feed(&observer, &Range::Key(one.clone())).await;
    for is_revoked in [true, false] {
        let lease = holder.grant(cx.ttl()).await;
        holder.commit(Txn::new().absent(&one).put_leased(&one, "1", lease.id)).await;
        until_alone(cx, &mut feed, &one, |entry| entry.is_some()).await;
        if is_revoked {
            holder.leases().revoke(lease.id).await.expect("it is revoked");
        }
        until_alone(cx, &mut feed, &one, |entry| entry.is_none()).await;
    }
}

/// Reads a watch of one key until that is as it should be; returns what changed on the way. Nothing else may be told.
async fn until_alone(
    cx: &Context,
    feed: &mut Feed<KvUpdate>,
    one: &Key,
    condition: impl Fn(Option<&Entry>) -> bool,
) -> Vec<KvChange> {
    let read = async {
        let mut seen = Vec::new();
        while !condition(feed.known().get(one)) {
            let (update, changes) = feed.step().await;
            let is_alone = match &update {
                KvUpdate::Reset(scan) => scan.entries.iter().all(|entry| entry.key == *one),
                KvUpdate::Delta { changes, .. } => changes.iter().all(|change| change.key() == one),
                KvUpdate::Progress(_) => true,
            };
            assert!(is_alone, "a watch of {one} tells of another: {update:?}");
            seen.extend(changes);
        }
        seen
    };
    cx.within(format!("news of {one}"), read).await
}

/// Writes a hundred keys above, below and beside `a/b`, and takes half of them back.
async fn change_neighbours(writer: &Client, value: &str) {
    let all = ["a", "a/b/c", "a/b-c", "a/bc"].into_iter().map(str::to_owned);
    let all = all.chain((0..96).map(|n| format!("a/{}/{n}", ["b", "b/c", "x", "b-c"][n % 4])));
    let all: Vec<_> = all.map(|text| key(&text)).collect();
    let puts =
        all.chunks(25).map(|some| some.iter().fold(Txn::new(), |txn, key| txn.put(key, value.to_owned())));
    join_all(puts.map(|txn| writer.commit(txn))).await;
    let deletions = all.iter().step_by(2).fold(Txn::new(), Txn::delete);
    writer.commit(deletions).await;
}

/// What was told, each key once, sorted.
fn told(seen: &[KvChange]) -> Vec<String> {
    let mut said: Vec<_> = seen.iter().map(say).collect();
    said.sort();
    said.dedup();
    said
}

fn say(change: &KvChange) -> String {
    match change {
        KvChange::Put(entry) => format!("+{}", entry.key.as_str()),
        KvChange::Delete(key) => format!("-{}", key.as_str()),
    }
}
