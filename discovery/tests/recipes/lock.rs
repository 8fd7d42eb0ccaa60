//! Locks while all is well, and when waiters come and go.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use discovery::{ErrorKind, Owner, ServiceName, kv::Range, mem::Mem, recipe::Lock};
use tokio::{task::JoinSet, time};

use super::support::{Client, MOMENT, TTL, entries, filled, name, nothing_left, pending, within};

#[tokio::test(start_paused = true)]
async fn of_many_contenders_one_holds_it_and_tokens_grow() {
    let mem = Mem::new();
    let inside = Arc::new(AtomicUsize::new(0));
    let tokens = Arc::new(Mutex::new(Vec::new()));
    let mut contenders = JoinSet::new();
    for seed in 0..20 {
        let (lock, inside, tokens) = (Client::seeded(&mem, seed).lock(), inside.clone(), tokens.clone());
        contenders.spawn(async move {
            for _ in 0..10 {
                time::sleep(Duration::from_millis(fastrand::u64(0..50))).await;
                let guard = lock.acquire().await.unwrap();
                assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0, "somebody else is inside");
                tokens.lock().unwrap().push(guard.fence().token());
                time::sleep(Duration::from_millis(fastrand::u64(0..20))).await;
                assert!(guard.fence().is_valid());
                inside.fetch_sub(1, Ordering::SeqCst);
                if fastrand::bool() { guard.release().await.unwrap() } else { drop(guard) }
            }
        });
    }
    contenders.join_all().await;
    let tokens = Arc::into_inner(tokens).unwrap().into_inner().unwrap();
    assert_eq!(tokens.len(), 200);
    assert!(tokens.is_sorted_by(|a, b| a < b), "{tokens:?}");
    nothing_left(&mem).await;
}

#[tokio::test(start_paused = true)]
async fn who_waits_longest_is_next() {
    let mem = Mem::new();
    let first = Client::new(&mem).lock().acquire().await.unwrap();
    let order = Arc::new(Mutex::new(Vec::new()));
    let mut waiters = JoinSet::new();
    for n in 0..30 {
        let (lock, order) = (Client::new(&mem).lock(), order.clone());
        waiters.spawn(async move {
            let guard = lock.acquire().await.unwrap();
            order.lock().unwrap().push(n);
            guard.release().await.unwrap();
        });
        filled(&mem, "_locks", n + 2).await;
    }
    first.release().await.unwrap();
    waiters.join_all().await;
    assert!(order.lock().unwrap().iter().copied().eq(0..30));
    nothing_left(&mem).await;
}

#[tokio::test(start_paused = true)]
async fn trying_never_waits_and_is_in_nobodys_way() {
    let mem = Mem::new();
    let (one, other) = (Client::new(&mem).lock(), Client::new(&mem).lock());
    let held = one.try_acquire().await.unwrap().expect("it is free");
    assert!(other.try_acquire().await.unwrap().is_none());
    assert!(one.try_acquire().await.unwrap().is_none(), "not twice for the same handle either");
    assert_eq!(entries(&mem).await.len(), 1, "whoever tries in vain leaves nothing");
    held.release().await.unwrap();
    let held = other.try_acquire().await.unwrap().expect("it is free again");
    drop((held, one, other));
    nothing_left(&mem).await;
}

#[tokio::test(start_paused = true)]
async fn of_many_who_try_at_once_one_gets_it() {
    let mem = Mem::new();
    for _ in 0..50 {
        let clients: Vec<_> = (0..5).map(|_| Client::new(&mem)).collect();
        for client in &clients {
            client.fault.delay(Duration::from_millis(fastrand::u64(1..4)));
        }
        let locks: Vec<_> = clients.iter().map(Client::lock).collect();
        let tried = futures_util::future::join_all(locks.iter().map(Lock::try_acquire)).await;
        let mut got: Vec<_> = tried.into_iter().filter_map(Result::unwrap).collect();
        assert_eq!(got.len(), 1);
        got.remove(0).release().await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_dropped_guard_frees_it_at_once() {
    let mem = Mem::new();
    let lock = Client::new(&mem).lock();
    let other = Client::new(&mem).lock();
    drop(lock.acquire().await.unwrap());
    within(MOMENT, "acquired behind a dropped guard", other.acquire())
        .await
        .unwrap()
        .release()
        .await
        .unwrap();

    // The last handle: the lease goes as well.
    let held = lock.acquire().await.unwrap();
    drop((lock, held));
    within(MOMENT, "acquired behind a dropped handle", other.acquire())
        .await
        .unwrap()
        .release()
        .await
        .unwrap();
    drop(other);
    nothing_left(&mem).await;
}

#[tokio::test(start_paused = true)]
async fn who_gives_up_waiting_is_passed_over() {
    let mem = Mem::new();
    let locks: Vec<_> = (0..4).map(|_| Client::new(&mem).lock()).collect();
    let held = locks[0].acquire().await.unwrap();
    let mut waiters = Vec::new();
    for (n, lock) in locks[1..].iter().cloned().enumerate() {
        waiters.push(tokio::spawn(async move { lock.acquire().await.unwrap() }));
        filled(&mem, "_locks", n + 2).await;
    }
    waiters[1].abort();
    filled(&mem, "_locks", 3).await;
    waiters[0].abort();
    filled(&mem, "_locks", 2).await;
    let last = waiters.pop().unwrap();
    pending("nobody has left who had it", async {
        while !last.is_finished() {
            time::sleep(MOMENT).await;
        }
    })
    .await;
    held.release().await.unwrap();
    within(MOMENT, "acquired behind those who gave up", last).await.unwrap().release().await.unwrap();
    drop((waiters, locks));
    nothing_left(&mem).await;
}

#[tokio::test(start_paused = true)]
async fn a_dropped_wait_leaves_no_entry_whenever_it_is_dropped() {
    for lost in 0..3 {
        for millis in (0..120).step_by(3) {
            let mem = Mem::new();
            let holder = Client::new(&mem);
            let held = holder.lock().acquire().await.unwrap();
            let client = Client::new(&mem);
            client.fault.delay(Duration::from_millis(7));
            client.fault.lose_replies(lost);
            let lock = client.lock();
            let wait = time::timeout(Duration::from_millis(millis), lock.acquire()).await;
            assert!(wait.is_err(), "somebody else holds it");
            // Long before the lease could end.
            time::sleep(TTL / 9).await;
            filled(&mem, "_locks", 1).await;
            assert!(held.fence().is_valid());
            drop((held, holder, lock, client));
            nothing_left(&mem).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_dropped_try_leaves_no_entry_whenever_it_is_dropped() {
    for millis in (0..60).step_by(3) {
        let mem = Mem::new();
        let client = Client::new(&mem);
        client.fault.delay(Duration::from_millis(7));
        client.fault.lose_replies(1);
        let lock = client.lock();
        let _ = time::timeout(Duration::from_millis(millis), lock.try_acquire()).await;
        time::sleep(TTL / 9).await;
        filled(&mem, "_locks", 0).await;
        drop((lock, client));
        nothing_left(&mem).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_dropped_release_goes_on_in_the_background() {
    for millis in 0..20 {
        let mem = Mem::new();
        let client = Client::new(&mem);
        let lock = client.lock();
        let held = lock.acquire().await.unwrap();
        client.fault.delay(Duration::from_millis(7));
        let _ = time::timeout(Duration::from_millis(millis), held.release()).await;
        time::sleep(TTL / 9).await;
        filled(&mem, "_locks", 0).await;
    }
}

#[tokio::test(start_paused = true)]
async fn the_entry_says_who_has_it() {
    let mem = Mem::new();
    let lock = Client::new(&mem).lock().owner(Owner::named("host-7"));
    let _held = lock.acquire().await.unwrap();
    let all = entries(&mem).await;
    assert_eq!(all[0].value, "host-7");
    assert!(Range::Children("_locks/eu1.prod.thing".parse().unwrap()).contains(&all[0].key), "{all:?}");
}

#[tokio::test(start_paused = true)]
async fn locks_of_different_names_have_nothing_to_do_with_each_other() {
    let mem = Mem::new();
    let client = Client::new(&mem);
    let below: ServiceName = format!("{}/part", name()).parse().unwrap();
    let above = client.lock().acquire().await.unwrap();
    let part = client.discovery.lock(&below).unwrap().try_acquire().await.unwrap();
    assert!(part.is_some());
    above.release().await.unwrap();
    assert!(client.lock().try_acquire().await.unwrap().is_some(), "what is below is nobody in the queue");
    assert_eq!(client.discovery.lock(&ServiceName::root()).unwrap_err().kind(), ErrorKind::Invalid);
}
