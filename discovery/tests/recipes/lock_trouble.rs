//! Locks in trouble: partitions, lost leases, lost replies, and hands that delete what is not theirs.

use std::time::Duration;

use discovery::{
    Error, ErrorKind, Outcome,
    kv::{Kv, Txn},
    mem::Mem,
    recipe::{Lock, LockGuard},
};
use tokio::{
    task::JoinHandle,
    time::{self, Instant},
};

use super::support::{Client, MOMENT, TTL, entries, filled, name, nothing_left, within};

/// Somebody who waits, as the second.
async fn waiter(mem: &Mem, client: &Client) -> JoinHandle<(Instant, LockGuard)> {
    let lock = client.lock();
    let waiter = tokio::spawn(async move {
        let guard = lock.acquire().await.unwrap();
        (Instant::now(), guard)
    });
    filled(mem, "_locks", 2).await;
    waiter
}

#[tokio::test(start_paused = true)]
async fn a_holder_who_is_cut_off_knows_before_the_next_one_has_it() {
    for ttl in [1000, 3000, 9000, 60_000].map(Duration::from_millis) {
        for delay in [0, 1, 50, 250].map(Duration::from_millis) {
            for into in [0, 1, 333, 500, 999].map(|thousandth| ttl * thousandth / 1000) {
                cut_off(ttl, (delay, Duration::ZERO), into).await;
                cut_off(ttl, (Duration::ZERO, delay), into).await;
            }
        }
    }
}

/// The holder is cut off `into` the time of its first lease. Its requests are on their way for a while, or the answers.
async fn cut_off(ttl: Duration, (delay, lateness): (Duration, Duration), into: Duration) {
    let mem = Mem::new();
    let (one, other) = (Client::new(&mem), Client::new(&mem));
    one.fault.delay(delay);
    one.calls.answer_late(lateness);
    let lock = |client: &Client| -> Lock { client.discovery.lock(&name()).unwrap().ttl(ttl) };
    let held = lock(&one).acquire().await.unwrap();
    let (fence, token) = (held.fence().clone(), held.fence().token());
    let lost = tokio::spawn(async move { (fence.lost().await, fence.is_valid(), Instant::now()) });
    let (fence, next) = (held.fence().clone(), lock(&other));
    let next = tokio::spawn(async move {
        let guard = next.acquire().await.unwrap();
        assert!(!fence.is_valid(), "two believe to have it");
        assert!(fence.valid_until() <= Instant::now());
        (Instant::now(), guard)
    });
    time::sleep(into).await;
    one.fault.partition();
    let cut = Instant::now();
    let (error, valid, lost) = lost.await.unwrap();
    let (acquired, guard) = next.await.unwrap();
    assert_eq!((error.kind(), valid), (ErrorKind::LeaseLost, false));
    assert!(lost <= acquired, "told {:?} late", lost - acquired);
    let limit = ttl + 2 * delay + MOMENT;
    assert!(
        acquired - cut <= limit,
        "ttl {ttl:?}, delay {delay:?}, late {lateness:?}: took {:?}",
        acquired - cut
    );
    assert!(guard.fence().token() > token);

    // It does not come back with the network.
    one.fault.heal();
    time::sleep(2 * ttl).await;
    assert!(!held.fence().is_valid() && guard.fence().is_valid());
    assert_eq!(held.release().await.unwrap_err().kind(), ErrorKind::LeaseLost);
    drop((guard, one, other));
    nothing_left(&mem).await;
}

#[tokio::test(start_paused = true)]
async fn a_holder_whose_lease_the_server_ends_is_told_and_the_next_one_has_it() {
    for by_renewal in [true, false] {
        let mem = Mem::new();
        let (one, other) = (Client::new(&mem), Client::new(&mem));
        let held = one.lock().acquire().await.unwrap();
        // Waits for the holder, and lines up again if its own lease ends as well.
        let next = waiter(&mem, &other).await;
        if by_renewal {
            one.fault.expire_next(1);
        } else {
            mem.expire_all();
        }
        let error = within(TTL / 3 + MOMENT, "told", held.fence().lost()).await;
        assert_eq!(error.kind(), ErrorKind::LeaseLost);
        let (_, guard) = within(TTL, "the next one has it", next).await.unwrap();
        assert!(guard.fence().token() > held.fence().token());
        assert_eq!(held.release().await.unwrap_err().kind(), ErrorKind::LeaseLost);
        assert!(guard.fence().is_valid(), "a late release takes nothing from the next one");
        drop((guard, one, other));
        nothing_left(&mem).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_holder_whose_entry_is_deleted_by_hand_is_told_and_the_next_one_has_it() {
    let mem = Mem::new();
    let (one, other) = (Client::new(&mem), Client::new(&mem));
    let held = one.lock().acquire().await.unwrap();
    let entry = entries(&mem).await.remove(0).key;
    let next = waiter(&mem, &other).await;
    discovery::Backend::kv(&mem).unwrap().commit(Txn::new().delete(&entry)).await.unwrap();
    let error = within(MOMENT, "told", held.fence().lost()).await;
    assert_eq!(error.kind(), ErrorKind::LeaseLost);
    assert!(error.to_string().contains("removed"), "{error}");
    let (_, guard) = within(MOMENT, "the next one has it", next).await.unwrap();
    assert!(!held.fence().is_valid() && guard.fence().is_valid());
}

#[tokio::test(start_paused = true)]
async fn an_entry_that_is_written_anew_by_hand_is_not_the_one_that_was_held() {
    let mem = Mem::new();
    let one = Client::new(&mem);
    let held = one.lock().acquire().await.unwrap();
    let entry = entries(&mem).await.remove(0).key;
    one.fault.cut();
    discovery::Backend::kv(&mem).unwrap().commit(Txn::new().delete(&entry)).await.unwrap();
    mem.plant(&entry, "forged");
    within(TTL, "told", held.fence().lost()).await;
    let late = held.fence().commit(Txn::new().put(&"a".parse().unwrap(), "1")).await.unwrap_err();
    assert_eq!(late.kind(), ErrorKind::LeaseLost);
}

#[tokio::test(start_paused = true)]
async fn waiters_who_lose_their_place_line_up_again() {
    let mem = Mem::new();
    let (holder, waiting) = (Client::new(&mem), Client::new(&mem));
    let held = holder.lock().acquire().await.unwrap();
    let waiter = waiter(&mem, &waiting).await;
    let before = entries(&mem).await;
    waiting.fault.expire_next(1);
    time::sleep(TTL).await;
    let after = entries(&mem).await;
    assert_eq!((before.len(), after.len()), (2, 2));
    assert_ne!(before, after, "it has another place");

    // A partition that outlasts the lease comes to the same.
    waiting.fault.partition();
    time::sleep(3 * TTL).await;
    filled(&mem, "_locks", 1).await;
    waiting.fault.heal();
    filled(&mem, "_locks", 2).await;
    held.release().await.unwrap();
    let (_, guard) = within(TTL, "it has its turn", waiter).await.unwrap();
    guard.release().await.unwrap();
    drop((holder, waiting));
    nothing_left(&mem).await;
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_wiped_makes_everybody_line_up_again() {
    let mem = Mem::new();
    let clients: Vec<_> = (0..5).map(|_| Client::new(&mem)).collect();
    let held = clients[0].lock().acquire().await.unwrap();
    let waiters: Vec<_> = clients[1..]
        .iter()
        .map(|client| {
            let lock = client.lock();
            tokio::spawn(async move { lock.acquire().await.unwrap().release().await.unwrap() })
        })
        .collect();
    filled(&mem, "_locks", 5).await;
    mem.expire_all();
    within(MOMENT, "told", held.fence().lost()).await;
    for waiter in waiters {
        within(2 * TTL, "each has its turn", waiter).await.unwrap();
    }
    drop((held, clients));
    nothing_left(&mem).await;
}

#[tokio::test(start_paused = true)]
async fn lost_replies_of_lining_up_leave_one_entry() {
    let lost = Error::new(ErrorKind::Unavailable, "lost");
    for (applied, denied, attempts) in [(0, 1, 2), (1, 0, 1), (0, 3, 4), (2, 2, 3), (1, 1, 2)] {
        let mem = Mem::new();
        let client = Client::new(&mem);
        let lock = client.lock();
        // The session first, so that the failures are those of the entry.
        drop(lock.acquire().await.unwrap());
        filled(&mem, "_locks", 0).await;
        client.fault.fail_next(denied, &lost);
        client.fault.lose_replies(applied);
        client.calls.take();
        let held = within(TTL, "acquired", lock.acquire()).await.unwrap();
        assert_eq!(entries(&mem).await.len(), 1, "after {attempts} attempts");
        client.fault.calm();
        held.release().await.unwrap();
        filled(&mem, "_locks", 0).await;
        drop((lock, client));
        nothing_left(&mem).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_out_of_reach_is_waited_for() {
    let mem = Mem::new();
    let client = Client::new(&mem);
    client.fault.partition();
    let lock = client.lock();
    let waiter = tokio::spawn(async move { lock.acquire().await.unwrap() });
    let lock = client.lock();
    let trying = tokio::spawn(async move { lock.try_acquire().await });
    time::sleep(10 * TTL).await;
    assert!(!waiter.is_finished() && !trying.is_finished());
    client.fault.heal();
    // Either may be the first; the one who tries gives it back then.
    drop(within(TTL, "tried", trying).await.unwrap().unwrap());
    let held = within(TTL, "acquired", waiter).await.unwrap();
    assert!(held.fence().is_valid());
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_told_and_leaves_nothing() {
    let mem = Mem::new();
    let client = Client::new(&mem);
    let lock = client.lock();
    drop(lock.acquire().await.unwrap());
    filled(&mem, "_locks", 0).await;
    let refusal = Error::new(ErrorKind::Denied, "not for you");
    client.fault.fail_next(1, &refusal);
    let error = lock.acquire().await.unwrap_err();
    assert_eq!((error.kind(), error.operation()), (ErrorKind::Denied, Some("lock")));
    drop((lock, client));
    nothing_left(&mem).await;
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_is_called_lost_without_being_so_does_no_harm() {
    let mem = Mem::new();
    let client = Client::new(&mem);
    let lock = client.lock();
    drop(lock.acquire().await.unwrap());
    filled(&mem, "_locks", 0).await;
    client.fault.fail_next(1, &Error::new(ErrorKind::LeaseLost, "says a proxy"));
    let held = lock.acquire().await.unwrap();
    time::sleep(3 * TTL).await;
    assert!(held.fence().is_valid(), "{}", held.fence().lost().await);
}

#[tokio::test(start_paused = true)]
async fn the_old_holder_writes_nothing() {
    let mem = Mem::new();
    let (one, other) = (Client::new(&mem), Client::new(&mem));
    let old = one.lock().acquire().await.unwrap();
    let next = waiter(&mem, &other).await;
    one.fault.expire_next(1);
    let (_, new) = next.await.unwrap();
    let report = "report".parse().unwrap();
    let late = old.fence().commit(Txn::new().put(&report, "old")).await.unwrap_err();
    assert_eq!((late.kind(), late.outcome()), (ErrorKind::LeaseLost, Outcome::NotApplied));
    new.fence().commit(Txn::new().absent(&report).put(&report, "new")).await.unwrap();

    // Who holds it and demands too much is told that, and nothing else.
    let demand = Txn::new().absent(&report).put(&report, "newer");
    assert_eq!(new.fence().commit(demand.clone()).await.unwrap_err().kind(), ErrorKind::Conflict);
    assert_eq!(old.fence().commit(demand).await.unwrap_err().kind(), ErrorKind::LeaseLost);
    let found = Kv::get(discovery::Backend::kv(&mem).unwrap(), &report).await.unwrap().unwrap();
    assert_eq!(found.value, "new");
}
