//! Records that somebody else wrote, badly or with intent.

use super::context::{Client, Context, instance, key, keys, port, removals, service, shows, subtree};
use crate::{Scope, kv::Txn};

/// What no reader may trip over.
fn hostile() -> Vec<(&'static str, Vec<u8>)> {
    let text = |what, text: &str| (what, text.as_bytes().to_vec());
    vec![
        text("not-json", "}{"),
        text("half", r#"{"endpoints":[{"name":"http""#),
        ("binary", (0..=255).collect()),
        text("null", "null"),
        text("number", "42"),
        text("array", "[]"),
        text("no-endpoints", "{}"),
        text("endpoints-an-object", r#"{"endpoints":{}}"#),
        text("port-0", r#"{"endpoints":[{"name":"http","host":"a","port":0}]}"#),
        text("port-70000", r#"{"endpoints":[{"name":"http","host":"a","port":70000}]}"#),
        text("port-a-text", r#"{"endpoints":[{"name":"http","host":"a","port":"80"}]}"#),
        text("host-a-script", r#"{"endpoints":[{"name":"http","host":"<script>","port":1}]}"#),
        text("host-empty", r#"{"endpoints":[{"name":"http","host":"","port":1}]}"#),
        text("name-missing", r#"{"endpoints":[{"host":"a","port":1}]}"#),
        text("status-sideways", r#"{"endpoints":[],"status":"sideways"}"#),
        text("weight-negative", r#"{"endpoints":[],"weight":-1}"#),
        text("metadata-nested", r#"{"endpoints":[],"metadata":{"a":{}}}"#),
        text("version-of-tomorrow", r#"{"v":999,"endpoints":[]}"#),
        ("deep", "[".repeat(50_000).into_bytes()),
        ("deep-inside", format!(r#"{{"endpoints":[],"x":{}"#, "[".repeat(50_000)).into_bytes()),
        ("deep-objects", r#"{"endpoints":"#.repeat(3_000).into_bytes()),
    ]
}

pub(super) async fn unreadable_ones_are_skipped_and_counted(cx: &Context) {
    let client = cx.client().await;
    let (first, last) = (instance("a/b", "0", 1), instance("a/b", "zz", 2));
    client.put(&first).await;
    client.put(&last).await;
    let hostile = hostile();
    for (id, value) in &hostile {
        cx.plant(&format!("a/b/{id}"), value.clone()).await;
    }
    let planted = key(&format!("a/b/{}", hostile[hostile.len() - 1].0));
    cx.eventually("the client to see what was planted", async || client.get(&planted).await.is_some()).await;
    for scope in [Scope::Service(service("a/b")), subtree("a")] {
        let before = client.0.info().skipped();
        let found = client.fetch(scope).await;
        assert_eq!(keys(&found), ["a/b/0", "a/b/zz"], "no more and no less than can be read");
        let skipped = client.0.info().skipped() - before;
        assert_eq!(skipped, hostile.len() as u64, "each is counted");
    }
}

pub(super) async fn a_watch_passes_over_unreadable_ones(cx: &Context) {
    let client = cx.client().await;
    cx.plant("a/b/early", "}{").await;
    let mut feed = cx.feed(&client, service("a/b")).await;
    let before = client.0.info().skipped();
    let hostile = hostile();
    for (id, value) in &hostile {
        cx.plant(&format!("a/b/{id}"), value.clone()).await;
        let sibling = instance("a/b", &format!("sibling-of-{id}"), 1);
        client.put(&sibling).await;
        feed.until_shows(&sibling).await;
    }
    feed.fence(&client, "a/b").await;
    assert_eq!(feed.known().len(), hostile.len(), "the siblings, and nothing else");
    assert!(client.0.info().skipped() >= before + hostile.len() as u64, "each is counted");
}

pub(super) async fn overwritten_by_garbage_is_gone(cx: &Context) {
    let client = cx.client().await;
    let (one, sibling) = (instance("a/b", "1", 1), instance("a/b", "2", 1));
    client.put(&one).await;
    client.put(&sibling).await;
    let mut feed = cx.feed(&client, service("a/b")).await;
    feed.until_len(2).await;
    cx.plant("a/b/1", "garbage").await;
    let seen = feed.until_gone(&one).await;
    assert_eq!(removals(&seen), [one.key()].into());
    assert!(shows(&client.fetch(service("a/b")).await, &sibling));
    // And back.
    cx.plant("a/b/1", r#"{"endpoints":[{"name":"http","host":"127.0.0.1","port":9}]}"#).await;
    feed.until("the record that can be read again", |known| {
        known.get(one.key()).is_some_and(|found| port(found) == 9)
    })
    .await;
}

pub(super) async fn a_huge_one_is_skipped(cx: &Context) {
    let client = cx.client().await;
    let one = instance("a/b", "1", 1);
    client.put(&one).await;
    let mut feed = cx.feed(&client, service("a/b")).await;
    let before = client.0.info().skipped();
    let padding = "x".repeat(1_000_000);
    let huge = format!(r#"{{"endpoints":[],"metadata":{{"padding":"{padding}"}}}}"#);
    cx.plant("a/b/huge", huge).await;
    feed.fence(&client, "a/b").await;
    assert_eq!(keys(feed.known()), ["a/b/1"]);
    assert!(client.0.info().skipped() > before, "it is counted");
    assert_eq!(keys(&client.fetch(service("a/b")).await), ["a/b/1"]);
}

pub(super) async fn another_spelling_is_not_the_instance(cx: &Context) {
    let client = cx.client().await;
    let one = instance("a/b", "1f", 1);
    client.put(&one).await;
    let mut feed = cx.feed(&client, subtree("a")).await;
    feed.until_shows(&one).await;
    let alias = r#"{"endpoints":[{"name":"http","host":"evil.example","port":6666}]}"#;
    for name in ["a/b/1F", "a/B/1f", "A/b/1f", "a/b_c/1", "a/b/-1", "a/b/1.f", "top"] {
        cx.plant(name, alias).await;
    }
    assert_eq!(feed.fence(&client, "a/b").await, []);
    for scope in [Scope::Service(service("a/b")), subtree("a"), Scope::everything()] {
        assert_eq!(keys(&client.fetch(scope).await), ["a/b/1f"]);
    }
    // Deleting the alias is not deleting the instance.
    delete(&client, "a/b/1F").await;
    delete(&client, "a/B/1f").await;
    assert_eq!(feed.fence(&client, "a/b").await, []);
    assert!(shows(feed.known(), &one));
}

pub(super) async fn fields_of_tomorrow_are_ignored(cx: &Context) {
    let client = cx.client().await;
    let tomorrow =
        r#"{"endpoints":[{"name":"http","host":"127.0.0.1","port":80,"weight":3}],"colour":{"r":1}}"#;
    cx.plant("a/b/1", tomorrow).await;
    let mut feed = cx.feed(&client, service("a/b")).await;
    feed.until("the record", |known| known.iter().any(|found| port(found) == 80)).await;
}

pub(super) async fn cloudnames_records_are_read(cx: &Context) {
    let client = cx.client().await;
    let mut feed = cx.feed(&client, service("local/test/blinky")).await;
    let record = r#"{"endpoints":[{"name":"http","host":"127.0.0.1","port":80},{"name":"webconsole","host":"::1","port":81}]}"#;
    cx.plant("local/test/blinky/5f0c7b1d", record).await;
    feed.until_len(1).await;
    let found = feed.known().iter().next().cloned().expect("one");
    assert_eq!(found.endpoint("http").expect("http").to_string(), "127.0.0.1:80");
    assert_eq!(found.endpoint("webconsole").expect("webconsole").to_string(), "[::1]:81");
    assert_ne!(found.incarnation(), 0, "a life without a number gets that of its creation");
}

async fn delete(client: &Client, text: &str) {
    client.commit(Txn::new().delete(&key(text))).await;
}
