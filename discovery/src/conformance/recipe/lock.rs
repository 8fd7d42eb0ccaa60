//! One at a time, in order, and nobody believes to be it too long.

use std::sync::{Arc, Mutex, mpsc};

use futures_util::{FutureExt, future::join_all};
use tokio::{sync::oneshot, task};

use super::{LONG, clients, done, filled, freeze, is_lost, name, nothing_left, was_lost};
use crate::{
    conformance::context::{Client, Context, key, service},
    kv::{Key, Range, Txn},
    recipe::{Lock, LockGuard},
};

/// Where those are who have it or wait for it.
const TOP: &str = "_locks";

fn lock(client: &Client) -> Lock {
    client.discovery().lock(&name()).expect("there are keys and leases").ttl(LONG)
}

async fn acquired(cx: &Context, lock: &Lock) -> LockGuard {
    cx.within("the lock", lock.acquire()).await.expect("it can be had")
}

pub(in crate::conformance) async fn what_is_counted_under_it_adds_up(cx: &Context) {
    const CLIENTS: usize = 5;
    const EACH: usize = 4;
    let (clients, counter) = (clients(cx, CLIENTS).await, key("counter"));
    let work = async |client: &Client| {
        let lock = lock(client);
        for _ in 0..EACH {
            let held = acquired(cx, &lock).await;
            let (count, before) = read(client, &counter).await;
            let token = held.fence().token();
            assert!(token > before, "{token} comes after {before}");
            task::yield_now().await;
            // No condition on the counter: nothing but the lock protects it.
            let txn = Txn::new().put(&counter, format!("{} {token}", count + 1));
            held.fence().commit(txn).await.expect("it is held");
            held.release().await.expect("it was held");
        }
    };
    join_all(clients.iter().map(work)).await;
    let is_complete = async || read(&clients[0], &counter).await.0 == CLIENTS * EACH;
    cx.eventually("all to be counted", is_complete).await;
}

pub(in crate::conformance) async fn first_come_first_served(cx: &Context) {
    let clients = clients(cx, 5).await;
    let held = acquired(cx, &lock(&clients[0])).await;
    let served = Arc::new(Mutex::new(Vec::new()));
    let mut waiting = Vec::new();
    for (n, client) in clients.iter().enumerate().skip(1) {
        let (lock, served) = (lock(client), served.clone());
        waiting.push(tokio::spawn(async move {
            let held = lock.acquire().await?;
            served.lock().expect("no panic").push(n);
            held.release().await
        }));
        filled(cx, &clients[0], TOP, n + 1).await;
    }
    waiting.remove(1).abort();
    filled(cx, &clients[0], TOP, 4).await;
    assert!(served.lock().expect("no panic").is_empty(), "somebody has it");
    held.release().await.expect("it was held");
    for waiter in waiting {
        done(cx, "its turn", waiter).await.expect("it can be had");
    }
    assert_eq!(*served.lock().expect("no panic"), [1, 3, 4], "the second gave up");
}

pub(in crate::conformance) async fn what_is_not_free_is_not_tried(cx: &Context) {
    let (one, other) = (cx.client().await, cx.client().await);
    let (one, theirs) = (lock(&one), lock(&other));
    let held = one.try_acquire().await.expect("it can be tried").expect("it is free");
    for lock in [&one, &theirs] {
        let refused = cx.within("an answer", lock.try_acquire()).await.expect("it can be tried");
        assert!(refused.is_none(), "two have it");
    }
    filled(cx, &other, TOP, 1).await;
    assert!(held.fence().is_valid());
    held.release().await.expect("it was held");
    let mut found = None;
    cx.eventually("it to be free", async || {
        found = theirs.try_acquire().await.expect("it can be tried");
        found.is_some()
    })
    .await;
}

pub(in crate::conformance) async fn who_is_cut_off_knows_before_the_next_one_has_it(cx: &Context) {
    let (holder, other) = (cx.fragile().await, cx.client().await);
    let held = acquired(cx, &lock(&holder).ttl(cx.ttl())).await;
    let (fence, next) = (held.fence().clone(), lock(&other));
    let next = tokio::spawn(async move {
        let next = next.acquire().await.expect("it can be had");
        (fence.is_valid(), next)
    });
    filled(cx, &other, TOP, 2).await;
    cx.cut().await;
    let (both, next) = done(cx, "the lease to end", next).await;
    assert!(!both, "two believe to have it");
    assert!(next.fence().token() > held.fence().token());
    cx.heal().await;
    is_lost(cx, &other, held.fence()).await;
    was_lost(held.release().await);
    next.fence().commit(Txn::new().put(&key("a"), "1")).await.expect("it is the next one's");
}

pub(in crate::conformance) async fn who_was_frozen_knows_when_it_wakes_up(cx: &Context) {
    let other = cx.client().await;
    let (has_it, told) = oneshot::channel();
    let (wake, go_on) = mpsc::channel();
    let frozen = cx.program(async move |cx| {
        let client = cx.client().await;
        let held = acquired(&cx, &lock(&client).ttl(cx.ttl())).await;
        has_it.send(held.fence().token()).expect("the check goes on");
        freeze(go_on);
        assert!(!held.fence().is_valid(), "two believe to have it");
        is_lost(&cx, &client, held.fence()).await;
        was_lost(held.release().await);
    });
    let token = cx.within("the lock", told).await.expect("no panic");
    let next = acquired(cx, &lock(&other)).await;
    assert!(next.fence().token() > token);
    wake.send(()).expect("it is frozen");
    done(cx, "the holder to be told", frozen).await;
    next.fence().commit(Txn::new().put(&key("a"), "1")).await.expect("it is the next one's");
    next.release().await.expect("it was held");
}

pub(in crate::conformance) async fn who_is_expired_is_told_and_writes_no_more(cx: &Context) {
    let (holder, other) = (cx.fragile().await, cx.client().await);
    let held = acquired(cx, &lock(&holder)).await;
    held.fence().commit(Txn::new().put(&key("a"), "1")).await.expect("it is held");
    cx.expire().await;
    let next = acquired(cx, &lock(&other)).await;
    assert!(next.fence().token() > held.fence().token());
    is_lost(cx, &other, held.fence()).await;
    was_lost(held.release().await);
    next.fence().commit(Txn::new().put(&key("a"), "2")).await.expect("it is the next one's");
    // The same client gets it again, as the last one.
    let again = lock(&holder);
    let again = tokio::spawn(async move { again.acquire().await });
    filled(cx, &other, TOP, 2).await;
    next.release().await.expect("it was held");
    let _ = done(cx, "its turn", again).await.expect("it can be had");
}

pub(in crate::conformance) async fn an_entry_that_is_removed_by_hand_is_lost(cx: &Context) {
    let (holder, other) = (cx.client().await, cx.client().await);
    let held = acquired(cx, &lock(&holder)).await;
    let next = lock(&other);
    let next = tokio::spawn(async move { next.acquire().await });
    filled(cx, &holder, TOP, 2).await;
    let all = holder.kv().scan(&Range::Subtree(key(TOP))).await.expect("the range can be read").entries;
    let ours = all.iter().find(|entry| entry.created.0 == held.fence().token()).expect("it is there");
    other.commit(Txn::new().alive(ours).delete(&ours.key)).await;
    let next = done(cx, "its turn", next).await.expect("it can be had");
    is_lost(cx, &other, held.fence()).await;
    was_lost(held.release().await);
    next.release().await.expect("it was held");
}

pub(in crate::conformance) async fn who_loses_the_place_in_the_queue_lines_up_again(cx: &Context) {
    let (holder, waiter) = (cx.client().await, cx.fragile().await);
    let held = acquired(cx, &lock(&holder)).await;
    let waiting = lock(&waiter).ttl(cx.ttl());
    let waiting = tokio::spawn(async move { waiting.acquire().await });
    filled(cx, &holder, TOP, 2).await;
    cx.cut().await;
    filled(cx, &holder, TOP, 1).await;
    cx.heal().await;
    filled(cx, &holder, TOP, 2).await;
    assert!(held.fence().is_valid() && !waiting.is_finished());
    held.release().await.expect("it was held");
    let _ = done(cx, "its turn", waiting).await.expect("it can be had");
}

pub(in crate::conformance) async fn short_outages_cost_nothing(cx: &Context) {
    let (holder, other) = (cx.fragile().await, cx.client().await);
    let held = acquired(cx, &lock(&holder)).await;
    for _ in 0..3 {
        cx.cut().await;
        cx.feed_after(&holder, service("a/b"), None).end().await;
        cx.heal().await;
    }
    assert!(held.fence().is_valid());
    let write = async || match held.fence().commit(Txn::new().put(&key("a"), "1")).await {
        Err(error) if error.is_transient() => false,
        outcome => outcome.is_ok_and(|_| held.fence().is_valid()),
    };
    cx.eventually("the holder to be back", write).await;
    assert!(lock(&other).try_acquire().await.expect("it can be tried").is_none());
    held.release().await.expect("it was held all the time");
}

pub(in crate::conformance) async fn who_does_not_go_on_holds_up_no_other(cx: &Context) {
    let discovery = cx.client().await.discovery();
    let lock = |name: &str| discovery.lock(&service(name)).expect("there are keys and leases").ttl(LONG);
    let (idle, busy) = (lock("idle"), lock("busy"));
    let mut attempt = Box::pin(idle.acquire());
    // It has begun, and goes no further.
    let begun = attempt.as_mut().now_or_never();
    acquired(cx, &busy).await.release().await.expect("it was held");
    let held = match begun {
        Some(held) => held,
        None => cx.within("the lock", attempt).await,
    };
    held.expect("it can be had").release().await.expect("it was held");
}

pub(in crate::conformance) async fn nothing_is_left_when_all_have_gone(cx: &Context) {
    let clients = clients(cx, 4).await;
    let held = acquired(cx, &lock(&clients[0])).await;
    let mut waiting = Vec::new();
    for (n, client) in clients.iter().enumerate().skip(1) {
        let lock = lock(client);
        waiting.push(tokio::spawn(async move { lock.acquire().await }));
        filled(cx, &clients[0], TOP, n + 1).await;
    }
    assert!(lock(&clients[3]).try_acquire().await.expect("it can be tried").is_none());
    waiting.remove(1).abort();
    drop(held);
    for waiter in waiting {
        drop(done(cx, "its turn", waiter).await.expect("it can be had"));
    }
    nothing_left(cx, &clients[0]).await;
}

/// How much was counted, and by the holder of which token.
async fn read(client: &Client, counter: &Key) -> (usize, u64) {
    let Some(entry) = client.get(counter).await else { return (0, 0) };
    let text = std::str::from_utf8(&entry.value).expect("text");
    let (count, token) = text.split_once(' ').expect("two numbers");
    (count.parse().expect("a number"), token.parse().expect("a number"))
}
