//! Watches of keys.

use std::collections::BTreeMap;

use futures_util::future::join_all;

use super::context::{Context, key};
use crate::kv::{Key, KvChange, KvUpdate, Range, Txn};

pub(super) async fn starts_with_what_exists(cx: &Context) {
    let client = cx.client().await;
    for text in ["a/b", "a/b/1", "a/b/2/3", "a/c"] {
        client.commit(Txn::new().put(&key(text), text)).await;
    }
    for (range, expected) in
        [(Range::Children(key("a/b")), &["a/b/1"][..]), (Range::Subtree(key("a/b")), &["a/b/1", "a/b/2/3"])]
    {
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
