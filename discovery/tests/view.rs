//! Views under paused time: what they show, how fresh they say it is, and what they refuse to believe.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should panic")]

mod support;

use std::{future::IntoFuture, time::Duration};

use discovery::{
    Change, Discovery, Error, ErrorKind, FreshnessState, InstanceKey, Revision, ServiceName, Snapshot,
    Update, View, ViewBuilder, balance::RoundRobin,
};
use support::{Scripted, Upstream, instance, snapshot};
use tokio::{sync::mpsc::UnboundedReceiver, time};

const HOLD: Duration = Duration::from_secs(60);

fn cart() -> ServiceName {
    "cart".parse().unwrap()
}

fn down() -> Error {
    Error::new(ErrorKind::Unavailable, "cut")
}

/// A view that shows `ids`, and the server behind it.
async fn view_of(
    ids: impl IntoIterator<Item = u64>,
    knobs: impl FnOnce(ViewBuilder<'_>) -> ViewBuilder<'_>,
) -> (View, Upstream, UnboundedReceiver<Upstream>) {
    let (backend, mut upstreams) = Scripted::new();
    let discovery = Discovery::new(backend);
    let mut view = knobs(discovery.view(cart())).open();
    let upstream = upstreams.recv().await.unwrap();
    upstream.reset(1, ids);
    view.wait_for(|_, freshness| freshness.is_live()).await.unwrap();
    (view, upstream, upstreams)
}

/// The backend goes and comes back with `ids`.
async fn outage(
    view: &mut View,
    upstream: Upstream,
    upstreams: &mut UnboundedReceiver<Upstream>,
    ids: impl IntoIterator<Item = u64>,
) -> Upstream {
    upstream.fail(down());
    view.wait_for(|_, freshness| !freshness.is_live()).await.unwrap();
    let back = upstreams.recv().await.unwrap();
    back.reset(2, ids);
    view.wait_for(|_, freshness| freshness.is_live()).await.unwrap();
    back
}

fn shown(view: &View) -> (Snapshot, usize) {
    view.read(|snapshot, freshness| (snapshot.clone(), freshness.held()))
}

#[tokio::test(start_paused = true)]
async fn stale_data_is_served_and_expires_by_the_users_bound() {
    let bound = Duration::from_secs(30);
    let (mut view, upstream, mut upstreams) = view_of([1], |view| view.stale_bound(bound)).await;
    upstream.fail(down());
    view.wait_for(|_, freshness| !freshness.is_live()).await.unwrap();
    assert_eq!(view.freshness().state(), FreshnessState::Stale);
    assert_eq!(view.freshness().cause().map(Error::kind), Some(ErrorKind::Unavailable));
    time::sleep(bound + Duration::from_secs(1)).await;
    assert_eq!(view.freshness().state(), FreshnessState::Expired);
    assert!(view.freshness().last_contact().elapsed() > bound);
    assert_eq!(view.snapshot(), snapshot(0, [1]), "expired or not, it is served");

    let back = upstreams.recv().await.unwrap();
    back.send(Update::Progress(Revision(1)));
    view.wait_for(|_, freshness| freshness.state() == FreshnessState::Live).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn opening_waits_for_the_first_snapshot_and_says_why_there_is_none() {
    let (backend, mut upstreams) = Scripted::new();
    let discovery = Discovery::new(backend);
    let server = async {
        loop {
            upstreams.recv().await.unwrap().fail(down());
        }
    };
    let opened = async { discovery.view(cart()).first_wait(Duration::from_secs(3)).await.unwrap_err() };
    let error = tokio::select! { error = opened => error, () = server => unreachable!() };
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert_eq!(std::error::Error::source(&error).unwrap().to_string(), "cut");
}

#[tokio::test(start_paused = true)]
async fn a_view_whose_backend_refuses_says_so() {
    let (backend, mut upstreams) = Scripted::new();
    let discovery = Discovery::new(backend);
    let server = async { upstreams.recv().await.unwrap().fail(Error::new(ErrorKind::Denied, "not for you")) };
    let (view, ()) = tokio::join!(discovery.view(cart()).into_future(), server);
    assert_eq!(view.unwrap_err().kind(), ErrorKind::Denied);
}

#[tokio::test(start_paused = true)]
async fn a_balancer_whose_backend_refuses_says_so() {
    let (backend, mut upstreams) = Scripted::new();
    let balancer = Discovery::new(backend).view(cart()).open().balance(RoundRobin::new());
    upstreams.recv().await.unwrap().fail(Error::new(ErrorKind::Denied, "not for you"));
    let told = time::timeout(HOLD, balancer.ready()).await.expect("nobody will ever come");
    assert_eq!(told.unwrap_err().kind(), ErrorKind::Denied);
}

#[tokio::test(start_paused = true)]
async fn without_a_guard_a_resync_is_believed() {
    let (mut view, upstream, mut upstreams) = view_of(1..=10, |view| view).await;
    outage(&mut view, upstream, &mut upstreams, [1]).await;
    assert_eq!(shown(&view), (snapshot(0, [1]), 0));
}

#[tokio::test(start_paused = true)]
async fn the_guard_holds_what_vanished_unseen_until_its_time_is_over() {
    let (mut view, upstream, mut upstreams) = view_of(1..=10, |view| view.removal_guard(50, HOLD)).await;
    let _back = outage(&mut view, upstream, &mut upstreams, [1, 11]).await;
    assert_eq!(shown(&view), (snapshot(0, 1..=11), 9), "arrivals are shown, departures held");
    time::sleep(HOLD).await;
    view.wait_for(|_, freshness| freshness.held() == 0).await.unwrap();
    assert_eq!(shown(&view), (snapshot(0, [1, 11]), 0));
}

#[tokio::test(start_paused = true)]
async fn the_guard_lets_go_of_what_comes_back_or_is_seen_to_leave() {
    let (mut view, upstream, mut upstreams) = view_of(1..=10, |view| view.removal_guard(50, HOLD)).await;
    let back = outage(&mut view, upstream, &mut upstreams, [1]).await;
    let gone = InstanceKey::new(cart(), instance(2).id().clone());
    let changes = vec![Change::Put(instance(3)), Change::Remove(gone)];
    back.send(Update::Delta { revision: Revision(3), changes });
    view.wait_for(|_, freshness| freshness.held() == 7).await.unwrap();
    assert_eq!(view.snapshot().len(), 9);
    time::sleep(HOLD).await;
    view.wait_for(|_, freshness| freshness.held() == 0).await.unwrap();
    assert_eq!(view.snapshot(), snapshot(0, [1, 3]));
}

#[tokio::test(start_paused = true)]
async fn a_few_departures_pass_the_guard() {
    let (mut view, upstream, mut upstreams) = view_of(1..=10, |view| view.removal_guard(50, HOLD)).await;
    outage(&mut view, upstream, &mut upstreams, 1..=5).await;
    assert_eq!(shown(&view), (snapshot(0, 1..=5), 0));
}

#[tokio::test(start_paused = true)]
async fn an_empty_set_passes_unless_distrusted() {
    let (mut view, upstream, mut upstreams) = view_of(1..=10, |view| view.removal_guard(50, HOLD)).await;
    outage(&mut view, upstream, &mut upstreams, []).await;
    assert_eq!(shown(&view), (snapshot(0, []), 0));

    let (mut view, upstream, mut upstreams) = view_of(1..=10, wary).await;
    outage(&mut view, upstream, &mut upstreams, []).await;
    assert_eq!(shown(&view), (snapshot(0, 1..=10), 10));
}

fn wary(view: ViewBuilder<'_>) -> ViewBuilder<'_> {
    view.removal_guard(50, HOLD).distrust_empty()
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_a_view_to_expire_is_told() {
    let (mut view, upstream, _upstreams) = view_of([1], |view| view.stale_bound(HOLD)).await;
    upstream.fail(down());
    let expired = view.wait_for(|_, freshness| freshness.state() == FreshnessState::Expired);
    time::timeout(2 * HOLD, expired).await.expect("time alone is a reason").unwrap();
    assert_eq!(view.freshness().since().elapsed(), HOLD + Duration::from_millis(1));
}
