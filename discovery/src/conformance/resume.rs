//! What a watch behind a revision tells: all that was missed, or everything.

use super::{
    context::{Client, Context, instance, reborn, removals, service, shows},
    feed::Feed,
};
use crate::{Change, Resume, Revision, Snapshot, Update};

pub(super) async fn continues_or_starts_over(cx: &Context) {
    let client = cx.client().await;
    let feed = history(cx, &client).await;
    let mut resumed = cx.feed_after(&client, service("a/b"), Some(feed.revision())).knowing(&feed);
    let (update, _) = resumed.step().await;
    let promised = client.0.info().capabilities().resume != Resume::Never;
    assert!(promised || matches!(update, Update::Reset(_)), "no resumption was promised: {update:?}");
    resumed.until("the present, on top of what was known", is_the_present).await;
}

pub(super) async fn what_was_missed_is_told(cx: &Context) {
    let client = cx.client().await;
    let mut feed = cx.feed(&client, service("a/b")).await;
    let (one, two, three) = (instance("a/b", "1", 1), instance("a/b", "2", 1), instance("a/b", "3", 1));
    client.put(&one).await;
    client.put(&two).await;
    feed.until_len(2).await;
    let elsewhere = instance("a/c", "1", 1);
    for change in [&elsewhere, &instance("a/b", "1", 2), &instance("a/b", "1", 3), &three] {
        client.put(change).await;
    }
    client.remove(&two).await;
    let mut resumed = cx.feed_after(&client, service("a/b"), Some(feed.revision())).knowing(&feed);
    let mut seen = Vec::new();
    while resumed.known().get(two.key()).is_some() {
        let (update, changes) = resumed.step().await;
        assert!(!matches!(update, Update::Reset(_)), "the history is there: no need to start over");
        seen.extend(changes);
    }
    let expected = [
        Change::Put(instance("a/b", "1", 2).into()),
        Change::Put(instance("a/b", "1", 3).into()),
        Change::Put(three.into()),
        Change::Remove(two.key().clone()),
    ];
    assert_eq!(seen, expected);
}

pub(super) async fn nothing_missed_is_told_at_once(cx: &Context) {
    let client = cx.client().await;
    client.put(&instance("a/b", "1", 1)).await;
    let mut feed = cx.feed(&client, service("a/b")).await;
    feed.until_len(1).await;
    // Nothing will ever happen: whoever waits for a change before it speaks is never heard.
    let mut resumed = cx.feed_after(&client, service("a/b"), Some(feed.revision())).knowing(&feed);
    let (update, changes) = resumed.step().await;
    assert!(changes.is_empty(), "{update:?}");
}

pub(super) async fn nothing_missed_is_progress(cx: &Context) {
    let client = cx.client().await;
    client.put(&instance("a/b", "1", 1)).await;
    let mut feed = cx.feed(&client, service("a/b")).await;
    feed.until_len(1).await;
    let mut resumed = cx.feed_after(&client, service("a/b"), Some(feed.revision())).knowing(&feed);
    let (update, _) = resumed.step().await;
    assert!(matches!(update, Update::Progress(_)), "{update:?}");
    let two = instance("a/b", "2", 2);
    client.put(&two).await;
    resumed.until_shows(&two).await;
}

pub(super) async fn forgotten_history_is_a_reset(cx: &Context) {
    let client = cx.client().await;
    let after = history(cx, &client).await.revision();
    cx.compact().await;
    let mut feed = cx.feed_after(&client, service("a/b"), Some(after));
    let (update, _) = feed.step().await;
    assert!(matches!(update, Update::Reset(_)), "{update:?}");
    feed.until("the present", is_the_present).await;
}

pub(super) async fn an_open_watch_outlives_compaction(cx: &Context) {
    let client = cx.client().await;
    let mut feed = cx.feed(&client, service("a/b")).await;
    let mut idle = cx.feed(&client, service("idle")).await;
    for n in 1..=5 {
        let one = instance("a/b", "1", n);
        client.put(&one).await;
        cx.compact().await;
        feed.until_shows(&one).await;
    }
    // The one that had nothing to say all the while is no worse off.
    let one = instance("idle", "1", 1);
    client.put(&one).await;
    idle.until_shows(&one).await;
}

pub(super) async fn the_future_is_not_believed(cx: &Context) {
    let client = cx.client().await;
    let one = instance("a/b", "1", 1);
    client.put(&one).await;
    // As after a server lost its data and started to count anew.
    let mut feed = cx.feed_after(&client, service("a/b"), Some(Revision(u64::MAX / 2)));
    let (update, _) = feed.step().await;
    assert!(matches!(update, Update::Reset(_)), "{update:?}");
    feed.until_shows(&one).await;
    client.remove(&one).await;
    feed.until_gone(&one).await;
}

pub(super) async fn recreated_while_away_is_replaced(cx: &Context) {
    let client = cx.client().await;
    let one = instance("a/b", "1", 1);
    client.put(&one).await;
    let mut feed = cx.feed(&client, service("a/b")).await;
    feed.until_shows(&one).await;
    client.remove(&one).await;
    client.put(&reborn(&one)).await;
    let mut resumed = cx.feed_after(&client, service("a/b"), Some(feed.revision())).knowing(&feed);
    let seen = resumed.until_shows(&reborn(&one)).await;
    assert!(!seen.is_empty());
    drop(feed);
}

pub(super) async fn a_deletion_while_away_is_told(cx: &Context) {
    let client = cx.client().await;
    let (one, two) = (instance("a/b", "1", 1), instance("a/b", "2", 1));
    client.put(&one).await;
    client.put(&two).await;
    let mut feed = cx.feed(&client, service("a/b")).await;
    feed.until_len(2).await;
    client.remove(&one).await;
    let mut resumed = cx.feed_after(&client, service("a/b"), Some(feed.revision())).knowing(&feed);
    let seen = resumed.until_gone(&one).await;
    assert_eq!(removals(&seen), [one.key()].into());
    assert!(shows(resumed.known(), &two));
}

/// Something happens, is seen, and then more happens: the watch that has seen the one and not the other.
async fn history(cx: &Context, client: &Client) -> Feed<Update> {
    let mut feed = cx.feed(client, service("a/b")).await;
    let first = instance("a/b", "1", 1);
    client.put(&first).await;
    feed.until_shows(&first).await;
    for n in 2..=9 {
        client.put(&instance("a/b", &n.to_string(), n)).await;
    }
    client.remove(&first).await;
    feed
}

/// What [`history`] leaves behind.
fn is_the_present(known: &Snapshot) -> bool {
    known.len() == 8 && (2..=9).all(|n| shows(known, &instance("a/b", &n.to_string(), n)))
}
