//! Watches under paused time, against a backend that plays every kind of trouble.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should panic")]

mod support;

use std::time::Duration;

use discovery::{
    Backoff, Change, Discovery, Error, ErrorKind, Event, Revision, Scope, ServiceName, Update, Watch,
};
use futures_util::{FutureExt, StreamExt};
use support::{Scripted, Upstream, instance, snapshot};
use tokio::{
    sync::mpsc::UnboundedReceiver,
    time::{self, Instant},
};

fn cart() -> ServiceName {
    "cart".parse().unwrap()
}

fn down() -> Error {
    Error::new(ErrorKind::Unavailable, "cut")
}

fn start() -> (Discovery, Watch, UnboundedReceiver<Upstream>) {
    let (backend, upstreams) = Scripted::new();
    let discovery = Discovery::new(backend);
    let watch = discovery.watch(cart());
    (discovery, watch, upstreams)
}

async fn next(watch: &mut Watch) -> Event {
    watch.next().await.expect("a watch goes on").expect("no error was scripted")
}

fn put(id: u64, revision: u64) -> Update {
    Update::Delta { revision: Revision(revision), changes: vec![Change::Put(instance(id))] }
}

/// Who has given up for a while is told when somebody else gets an answer.
#[tokio::test(start_paused = true)]
async fn one_answer_ends_the_pauses_of_all() {
    let (backend, mut upstreams) = Scripted::new();
    let discovery =
        Discovery::new(backend).backoff(Backoff::new(Duration::from_secs(60), Duration::from_secs(60)));
    let mut watches = [discovery.watch(cart()), discovery.watch(Scope::everything())];
    for watch in &mut watches {
        let first = upstreams.recv().await.unwrap();
        first.reset(5, [1]);
        assert!(matches!(next(watch).await, Event::Reset(_)));
        first.fail(down());
        assert!(matches!(next(watch).await, Event::Stale(_)));
    }
    // Their jitter parts them: one comes first, and then the other does not wait any longer.
    upstreams.recv().await.unwrap().send(Update::Progress(Revision(6)));
    let heard = Instant::now();
    upstreams.recv().await.unwrap().send(Update::Progress(Revision(6)));
    assert!(heard.elapsed() < Duration::from_secs(1), "{:?}", heard.elapsed());
    for watch in &mut watches {
        assert!(matches!(next(watch).await, Event::Live));
    }
}

/// Answers that are worth nothing must not have all the watches chase each other.
#[tokio::test(start_paused = true)]
async fn a_backend_that_answers_and_fails_is_not_hammered() {
    let (backend, mut upstreams) = Scripted::new();
    let discovery = Discovery::new(backend);
    let _watches: Vec<_> =
        (0..4).map(|n| discovery.watch(format!("cart{n}").parse::<ServiceName>().unwrap())).collect();
    let mut opened = 0;
    let hammer = async {
        loop {
            let upstream = upstreams.recv().await.unwrap();
            upstream.reset(5, [1]);
            upstream.fail(down());
            opened += 1;
        }
    };
    let _ = time::timeout(Duration::from_secs(10), hammer).await;
    // Each pauses ever longer, and each time wakes the other three.
    assert!((4..200).contains(&opened), "{opened}");
}

#[tokio::test(start_paused = true)]
async fn a_backend_that_panics_is_one_that_fails() {
    let (_discovery, mut watch, mut upstreams) = start();
    let first = upstreams.recv().await.unwrap();
    first.reset(5, [1]);
    assert!(matches!(next(&mut watch).await, Event::Reset(_)));
    first.panic();
    assert!(matches!(next(&mut watch).await, Event::Stale(error) if error.kind() == ErrorKind::Other));
    // And once more before it has said anything.
    upstreams.recv().await.unwrap().panic();
    let back = upstreams.recv().await.unwrap();
    assert_eq!(back.after, Some(Revision(5)));
    back.send(put(2, 9));
    assert!(matches!(next(&mut watch).await, Event::Delta { .. }));
    assert!(matches!(next(&mut watch).await, Event::Live));
}

#[tokio::test(start_paused = true)]
async fn an_outage_is_told_once_and_the_watch_continues_behind_what_is_known() {
    let (_discovery, mut watch, mut upstreams) = start();
    let first = upstreams.recv().await.unwrap();
    assert_eq!(first.after, None);
    first.reset(5, [1]);
    assert!(matches!(next(&mut watch).await, Event::Reset(all) if all == snapshot(0, [1])));
    first.send(Update::Progress(Revision(7)));
    first.fail(down());
    assert!(matches!(next(&mut watch).await, Event::Stale(error) if error.kind() == ErrorKind::Unavailable));

    // Refused a few times more: nothing new to tell.
    for _ in 0..3 {
        let again = upstreams.recv().await.unwrap();
        assert_eq!(again.after, Some(Revision(7)), "progress counts as known");
        again.fail(down());
    }
    let back = upstreams.recv().await.unwrap();
    back.send(put(2, 9));
    assert!(matches!(next(&mut watch).await, Event::Delta { changes, .. } if changes.len() == 1));
    assert!(matches!(next(&mut watch).await, Event::Live));
}

#[tokio::test(start_paused = true)]
async fn a_resync_that_finds_nothing_new_is_no_news() {
    let (_discovery, mut watch, mut upstreams) = start();
    let first = upstreams.recv().await.unwrap();
    first.reset(5, [1, 2]);
    next(&mut watch).await;
    first.fail(down());
    assert!(matches!(next(&mut watch).await, Event::Stale(_)));
    upstreams.recv().await.unwrap().reset(6, [1, 2]);
    assert!(matches!(next(&mut watch).await, Event::Live));
}

#[tokio::test(start_paused = true)]
async fn a_resync_that_finds_changes_resets_before_it_goes_live() {
    let (_discovery, mut watch, mut upstreams) = start();
    let first = upstreams.recv().await.unwrap();
    first.reset(5, [1, 2]);
    next(&mut watch).await;
    first.fail(down());
    next(&mut watch).await;
    upstreams.recv().await.unwrap().reset(6, [2, 3]);
    assert!(matches!(next(&mut watch).await, Event::Reset(all) if all == snapshot(0, [2, 3])));
    assert!(matches!(next(&mut watch).await, Event::Live));
}

#[tokio::test(start_paused = true)]
async fn attempts_are_paced_and_never_given_up() {
    let (_discovery, _watch, mut upstreams) = start();
    let began = Instant::now();
    for _ in 0..100 {
        upstreams.recv().await.unwrap().fail(down());
    }
    let mean = began.elapsed() / 100;
    assert!(mean > Duration::from_secs(4) && mean < Duration::from_secs(10), "{mean:?} between attempts");
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_ends_without_a_word_is_an_outage() {
    let (_discovery, mut watch, mut upstreams) = start();
    drop(upstreams.recv().await.unwrap());
    assert!(matches!(next(&mut watch).await, Event::Stale(_)));
    assert!(upstreams.recv().await.is_some(), "and is opened again");
}

#[tokio::test(start_paused = true)]
async fn a_refusal_ends_the_watch_only_if_it_never_worked() {
    let (discovery, mut watch, mut upstreams) = start();
    let denied = || Error::new(ErrorKind::Denied, "not for you");
    upstreams.recv().await.unwrap().fail(denied());
    assert_eq!(watch.next().await.unwrap().unwrap_err().kind(), ErrorKind::Denied);
    assert!(watch.next().await.is_none());

    let mut again = discovery.watch(cart());
    let second = upstreams.recv().await.expect("an ended watch is not shared");
    second.reset(1, []);
    next(&mut again).await;
    second.fail(denied());
    assert!(matches!(next(&mut again).await, Event::Stale(_)));
    upstreams.recv().await.unwrap().reset(2, [1]);
    assert!(matches!(next(&mut again).await, Event::Reset(_)));
}

#[tokio::test(start_paused = true)]
async fn a_slow_watcher_starts_over_from_the_latest_and_holds_up_nobody() {
    let (discovery, mut slow, mut upstreams) = start();
    let mut quick = discovery.watch(cart());
    let upstream = upstreams.recv().await.unwrap();
    upstream.reset(1, []);
    next(&mut slow).await;
    next(&mut quick).await;
    let last = 10_000;
    for id in 1..=last {
        upstream.send(put(id, id + 1));
        assert!(matches!(next(&mut quick).await, Event::Delta { .. }));
    }
    match next(&mut slow).await {
        Event::Reset(latest) => assert_eq!(latest.len() as u64, last),
        event => panic!("{event:?}"),
    }
    assert!(slow.next().now_or_never().is_none(), "nothing older comes behind the reset");
}

#[tokio::test(start_paused = true)]
async fn a_hundred_watchers_share_one_upstream_and_the_last_to_go_closes_it() {
    let (discovery, watch, mut upstreams) = start();
    let watches: Vec<_> = (0..99).map(|_| discovery.watch(cart())).chain([watch]).collect();
    let upstream = upstreams.recv().await.unwrap();
    upstream.reset(1, [1]);
    for mut watch in watches {
        assert!(matches!(next(&mut watch).await, Event::Reset(_)));
    }
    time::timeout(Duration::from_secs(1), upstream.closed()).await.expect("nobody is listening any more");
    assert!(upstreams.recv().now_or_never().is_none(), "there was one upstream only");
}

#[tokio::test(start_paused = true)]
async fn who_comes_during_an_outage_hears_what_is_known_and_that_it_is_old() {
    let (discovery, mut watch, mut upstreams) = start();
    let upstream = upstreams.recv().await.unwrap();
    upstream.reset(1, [1]);
    next(&mut watch).await;
    upstream.fail(down());
    next(&mut watch).await;
    let mut late = discovery.watch(cart());
    assert!(matches!(next(&mut late).await, Event::Reset(all) if all.len() == 1));
    assert!(matches!(next(&mut late).await, Event::Stale(_)));
}

#[tokio::test(start_paused = true)]
async fn who_lags_across_an_outage_hears_that_it_is_over() {
    let (discovery, mut slow, mut upstreams) = start();
    let mut quick = discovery.watch(cart());
    let upstream = upstreams.recv().await.unwrap();
    upstream.reset(1, []);
    next(&mut slow).await;
    next(&mut quick).await;
    upstream.fail(down());
    assert!(matches!(next(&mut slow).await, Event::Stale(_)));
    assert!(matches!(next(&mut quick).await, Event::Stale(_)));

    let back = upstreams.recv().await.unwrap();
    back.send(Update::Progress(Revision(1)));
    assert!(matches!(next(&mut quick).await, Event::Live));
    for id in 1..=1000 {
        back.send(put(id, id + 1));
        next(&mut quick).await;
    }
    assert!(matches!(next(&mut slow).await, Event::Reset(latest) if latest.len() == 1000));
    assert!(matches!(next(&mut slow).await, Event::Live));
    assert!(slow.next().now_or_never().is_none());
}
