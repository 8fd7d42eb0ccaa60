//! Keys, transactions and guards.

use bytes::Bytes;
use futures_util::future::join_all;
use tokio::task;

use super::context::{Client, Context, key, refused};
use crate::{
    Error, ErrorKind, Revision,
    kv::{Entry, Guard, Key, Range, Txn},
};

pub(super) async fn a_value_comes_back_as_it_was(cx: &Context) {
    let client = cx.client().await;
    let bytes: Vec<u8> = (0..=255).collect();
    let one = key("a/b/1");
    assert_eq!(client.get(&one).await, None);
    let revision = client.commit(Txn::new().put(&one, bytes.clone())).await;
    let entry = client.get(&one).await.expect("it was just written");
    assert_eq!((&entry.key, &*entry.value), (&one, &bytes[..]));
    assert_eq!((entry.created, entry.modified, entry.lease), (revision, revision, None));
}

pub(super) async fn an_update_keeps_its_creation(cx: &Context) {
    let client = cx.client().await;
    let one = key("a/b/1");
    let created = client.commit(Txn::new().put(&one, "1")).await;
    let modified = client.commit(Txn::new().put(&one, "2")).await;
    assert!(modified > created);
    let entry = client.get(&one).await.expect("it is there");
    assert_eq!((entry.created, entry.modified, &*entry.value), (created, modified, &b"2"[..]));
    client.commit(Txn::new().delete(&one)).await;
    let again = client.commit(Txn::new().put(&one, "3")).await;
    let entry = client.get(&one).await.expect("it is there");
    assert_eq!((entry.created, entry.modified), (again, again));
    assert!(again > modified);
}

pub(super) async fn reads_see_own_writes(cx: &Context) {
    let client = cx.client().await;
    let one = key("a/b/1");
    for n in 0..50_u32 {
        let text = n.to_string();
        client.commit(Txn::new().put(&one, text.clone())).await;
        assert_eq!(client.get(&one).await.expect("it is there").value, text);
        let scan = client.kv().scan(&Range::Children(key("a/b"))).await.expect("the range can be read");
        assert_eq!(scan.entries[0].value, text);
        client.commit(Txn::new().delete(&one)).await;
        assert_eq!(client.get(&one).await, None);
    }
}

pub(super) async fn ranges_have_their_depth(cx: &Context) {
    let client = cx.client().await;
    let all = ["a", "a/b", "a/b/c", "a/b/c/d", "a/x", "a-b", "a.b/c", "ab", "b"];
    for text in all {
        client.commit(Txn::new().put(&key(text), text)).await;
    }
    assert_eq!(client.keys(&Range::Children(key("a"))).await, ["a/b", "a/x"]);
    assert_eq!(client.keys(&Range::Subtree(key("a"))).await, ["a/b", "a/b/c", "a/b/c/d", "a/x"]);
    assert_eq!(client.keys(&Range::Children(Key::root())).await, ["a", "a-b", "ab", "b"]);
    assert_eq!(client.keys(&Range::Subtree(Key::root())).await.len(), all.len());
    assert_eq!(client.keys(&Range::Subtree(key("nothing"))).await, [""; 0]);
}

pub(super) async fn a_range_of_one_key_is_that_key(cx: &Context) {
    let client = cx.client().await;
    let all = ["a", "a/b", "a/b/c", "a/b-c", "a/b.c", "a/bc", "a/x/y", "b"];
    for text in all {
        client.commit(Txn::new().put(&key(text), text)).await;
    }
    for one in all.map(key) {
        let scan = client.kv().scan(&Range::Key(one.clone())).await.expect("the range can be read");
        assert_eq!(scan.entries, Vec::from_iter(client.get(&one).await), "as a get shows it");
        assert_eq!(client.keys(&Range::Key(one.clone())).await, [one.as_str()]);
    }
    for nothing in [key("a/x"), key("a/b/c/d"), key("nothing/here"), Key::root()] {
        assert_eq!(client.keys(&Range::Key(nothing)).await, [""; 0]);
    }
    client.commit(Txn::new().delete(&key("a/b"))).await;
    assert_eq!(client.keys(&Range::Key(key("a/b"))).await, [""; 0]);
    assert_eq!(client.keys(&Range::Key(key("a/b/c"))).await, ["a/b/c"]);
}

pub(super) async fn scans_are_sorted(cx: &Context) {
    let client = cx.client().await;
    let mut all: Vec<_> = ["~", "a", "!", "B", "10", "9", "a/b", "a!b", "a-b", "a0", "_"]
        .map(|end| format!("top/{end}"))
        .into();
    for text in &all {
        client.commit(Txn::new().put(&key(text), "1")).await;
    }
    all.sort();
    assert_eq!(client.keys(&Range::Subtree(key("top"))).await, all);
}

pub(super) async fn a_path_to_an_entry_is_no_entry(cx: &Context) {
    let client = cx.client().await;
    let deep = key("a/b/c/d/e");
    client.commit(Txn::new().put(&deep, "1")).await;
    assert_eq!(client.get(&key("a/b")).await, None);
    assert_eq!(client.keys(&Range::Children(key("a"))).await, [""; 0]);
    assert_eq!(client.keys(&Range::Subtree(Key::root())).await, ["a/b/c/d/e"]);
    // Nor is it in the way of one.
    client.commit(Txn::new().absent(&key("a/b")).put(&key("a/b"), "2")).await;
    client.commit(Txn::new().delete(&key("a/b"))).await;
    assert_eq!(client.keys(&Range::Subtree(Key::root())).await, ["a/b/c/d/e"]);
    client.commit(Txn::new().delete(&deep)).await;
    client.commit(Txn::new().absent(&key("a")).put(&key("a"), "3")).await;
}

pub(super) async fn every_key_is_carried(cx: &Context) {
    let client = cx.client().await;
    let visible: String = ('!'..='~').filter(|c| *c != '/').collect();
    let longest = ["k".repeat(255), "k".repeat(256)].join("/");
    for text in [visible.as_str(), "...", "a/.b", longest.as_str(), "zookeeper/quota"] {
        let key = key(text);
        client.commit(Txn::new().put(&key, "1")).await;
        assert_eq!(client.get(&key).await.map(|entry| entry.key), Some(key.clone()));
        assert!(client.keys(&Range::Subtree(Key::root())).await.contains(&key.as_str().to_owned()));
    }
}

pub(super) async fn the_limits_hold(cx: &Context) {
    let client = cx.client().await;
    let limit = client.0.info().capabilities().max_record;
    let one = key("a/1");
    client.commit(Txn::new().put(&one, vec![b'x'; limit])).await;
    assert_eq!(client.get(&one).await.map(|entry| entry.value.len()), Some(limit));
    let too_many = (0..101).fold(Txn::new(), |txn, n| txn.put(&key(&format!("a/n{n}")), "1"));
    for bad in [
        Txn::new().put(&one, vec![b'x'; limit + 1]),
        Txn::new().put(&one, Bytes::new()),
        Txn::new(),
        Txn::new().absent(&one),
        Txn::new().put(&one, "1").delete(&one),
        Txn::new().delete(&Key::root()),
        too_many,
    ] {
        refused(client.kv().commit(bad).await, ErrorKind::Invalid);
    }
    assert_eq!(client.keys(&Range::Subtree(Key::root())).await, ["a/1"]);
    let most = (0..50).fold(Txn::new(), |txn, n| {
        let key = key(&format!("a/n{n}"));
        txn.absent(&key).put(&key, "1")
    });
    client.commit(most).await;
    assert_eq!(client.keys(&Range::Children(key("a"))).await.len(), 51);
}

pub(super) async fn guards_say_what_must_hold(cx: &Context) {
    let client = cx.client().await;
    let one = key("a/b/1");
    client.commit(Txn::new().absent(&one).put(&one, "1")).await;
    conflicts(&client, Txn::new().absent(&one).put(&one, "2")).await;
    let first = client.get(&one).await.expect("it is there");
    client.commit(Txn::new().unmodified(&first).alive(&other(&client).await).put(&one, "2")).await;
    conflicts(&client, Txn::new().unmodified(&first).put(&one, "3")).await;
    client.commit(Txn::new().alive(&first).put(&one, "3")).await;
    client.commit(Txn::new().alive(&first).delete(&one)).await;
    conflicts(&client, Txn::new().alive(&first).put(&one, "4")).await;
    let second = Guard::Unmodified(one.clone(), first.modified);
    conflicts(&client, Txn::new().guard(second).put(&key("a/b/2"), "4")).await;
    assert_eq!(client.get(&one).await, None);
}

pub(super) async fn a_guard_may_watch_over_another_key(cx: &Context) {
    let client = cx.client().await;
    let (gate, one) = (key("gate"), key("a/b/1"));
    client.commit(Txn::new().put(&gate, "1")).await;
    let open = client.get(&gate).await.expect("it is there");
    client.commit(Txn::new().unmodified(&open).put(&one, "1")).await;
    assert_eq!(client.get(&gate).await, Some(open.clone()), "a guard changes nothing");
    client.commit(Txn::new().put(&gate, "2")).await;
    conflicts(&client, Txn::new().unmodified(&open).delete(&one)).await;
    client.commit(Txn::new().absent(&key("nothing/here")).delete(&one)).await;
    assert_eq!(client.get(&one).await, None);
}

pub(super) async fn a_guard_does_not_survive_recreation(cx: &Context) {
    let client = cx.client().await;
    let one = key("a/b/1");
    client.commit(Txn::new().put(&one, "same")).await;
    let minted = client.get(&one).await.expect("it is there");
    // The same number of writes of the same value: what counts writes of a key cannot tell the two lives apart.
    client.commit(Txn::new().delete(&one)).await;
    client.commit(Txn::new().put(&one, "same")).await;
    conflicts(&client, Txn::new().unmodified(&minted).put(&one, "late")).await;
    conflicts(&client, Txn::new().alive(&minted).put(&one, "late")).await;
    conflicts(&client, Txn::new().unmodified(&minted).delete(&one)).await;
    conflicts(&client, Txn::new().alive(&minted).put(&key("other"), "late")).await;
    assert_eq!(client.get(&one).await.map(|entry| entry.value), Some("same".into()));
}

pub(super) async fn a_transaction_is_all_or_nothing(cx: &Context) {
    let client = cx.client().await;
    let all = [1, 2, 3].map(|n| key(&format!("a/b/{n}")));
    let revision =
        client.commit(Txn::new().put(&all[0], "1").put(&all[1], "1").put(&key("x/y/z"), "1")).await;
    for key in [&all[0], &all[1], &key("x/y/z")] {
        assert_eq!(client.get(key).await.map(|entry| entry.modified), Some(revision), "one step");
    }
    let txn = Txn::new().absent(&all[0]).put(&all[0], "2").delete(&all[1]).put(&all[2], "2");
    conflicts(&client, txn).await;
    let txn = Txn::new().absent(&all[2]).absent(&all[1]).put(&all[0], "2").put(&all[2], "2");
    conflicts(&client, txn).await;
    let left = join_all(all.iter().map(|key| client.get(key))).await;
    let left: Vec<_> = left.into_iter().map(|entry| entry.map(|entry| entry.value)).collect();
    assert_eq!(left, [Some("1".into()), Some("1".into()), None]);
    client.commit(Txn::new().put(&all[0], "2").delete(&all[1]).put(&all[2], "2")).await;
    assert_eq!(client.keys(&Range::Children(key("a/b"))).await, ["a/b/1", "a/b/3"]);
}

pub(super) async fn deleting_nothing_is_fine(cx: &Context) {
    let client = cx.client().await;
    let one = key("a/b/1");
    client.commit(Txn::new().delete(&one)).await;
    client.commit(Txn::new().delete(&one).put(&key("a/b/2"), "1")).await;
    assert_eq!(client.keys(&Range::Children(key("a/b"))).await, ["a/b/2"]);
}

pub(super) async fn deleting_a_parent_leaves_its_children(cx: &Context) {
    let client = cx.client().await;
    let (parent, child) = (key("a/b"), key("a/b/c"));
    client.commit(Txn::new().put(&parent, "1").put(&child, "1")).await;
    client.commit(Txn::new().delete(&parent)).await;
    assert_eq!(client.get(&parent).await, None);
    assert!(client.get(&child).await.is_some());
    client.commit(Txn::new().absent(&parent).put(&parent, "2")).await;
    client.commit(Txn::new().delete(&child).delete(&parent)).await;
    assert_eq!(client.keys(&Range::Subtree(Key::root())).await, [""; 0]);
}

pub(super) async fn increments_of_many_clients_add_up(cx: &Context) {
    const CLIENTS: u32 = 8;
    const EACH: u32 = 10;
    let clients = join_all((0..CLIENTS).map(|_| cx.client())).await;
    let counter = key("counter");
    clients[0].commit(Txn::new().put(&counter, "0")).await;
    join_all(clients.iter().map(async |client| {
        for _ in 0..EACH {
            increment(client, &counter).await;
        }
    }))
    .await;
    assert_eq!(count(&latest(&clients[0], &counter).await), CLIENTS * EACH);
}

pub(super) async fn of_many_creators_one_wins(cx: &Context) {
    let clients = join_all((0..8).map(|_| cx.client())).await;
    let one = key("a/b/1");
    let outcomes = join_all(clients.iter().map(|client| {
        let txn = Txn::new().absent(&one).put(&one, "1");
        client.kv().commit(txn)
    }))
    .await;
    let won = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
    assert_eq!(won, 1, "{outcomes:?}");
    let lost = outcomes.iter().filter_map(|outcome| outcome.as_ref().err());
    assert!(lost.map(Error::kind).all(|kind| kind == ErrorKind::Conflict), "{outcomes:?}");
}

pub(super) async fn revisions_of_commits_grow(cx: &Context) {
    let (client, other) = (cx.client().await, cx.client().await);
    let mut last = Revision(0);
    for n in 0..20 {
        let who = if n % 2 == 0 { &client } else { &other };
        let revision = who.commit(Txn::new().put(&key(&format!("a/{n}")), "1")).await;
        assert!(revision > last, "{revision} came after {last}");
        last = revision;
    }
}

/// One more, by compare and set, however often somebody else is quicker.
async fn increment(client: &Client, counter: &Key) {
    loop {
        let entry = latest(client, counter).await;
        let next = (count(&entry) + 1).to_string();
        // A store that answers at once leaves nobody else a turn.
        task::yield_now().await;
        match client.kv().commit(Txn::new().unmodified(&entry).put(counter, next)).await {
            Ok(_) => return,
            Err(error) => assert_eq!(error.kind(), ErrorKind::Conflict, "{error}"),
        }
    }
}

/// The entry, once this client sees it.
async fn latest(client: &Client, key: &Key) -> Entry {
    loop {
        if let Some(entry) = client.get(key).await {
            return entry;
        }
        task::yield_now().await;
    }
}

fn count(entry: &Entry) -> u32 {
    std::str::from_utf8(&entry.value).expect("text").parse().expect("a number")
}

async fn conflicts(client: &Client, txn: Txn) {
    refused(client.kv().commit(txn).await, ErrorKind::Conflict);
}

/// An entry that nobody touches.
async fn other(client: &Client) -> Entry {
    let other = key("somewhere/else");
    client.commit(Txn::new().put(&other, "1")).await;
    client.get(&other).await.expect("it was just written")
}
