//! The leases behind recipes: shared, renewed in time, and given up for good.

use std::time::Duration;

use discovery::{Error, ErrorKind, mem::Mem};
use tokio::time::{self, Instant};

use super::support::{Client, MOMENT, TTL, entries, eventually, filled, nothing_left, within};

#[tokio::test(start_paused = true)]
async fn one_lease_is_shared_by_all_recipes_with_the_same_ttl() {
    let mem = Mem::new();
    let client = Client::new(&mem);
    let (lock, election, group) = (client.lock(), client.election(), client.group());
    let (barrier, longer) = (client.barrier(1), client.discovery.lock(&"another".parse().unwrap()).unwrap());
    let held = futures_util::join!(
        lock.acquire(),
        election.campaign("us"),
        group.join("us"),
        barrier.enter(),
        async { longer.acquire().await },
    );
    assert_eq!(client.calls.of("grant"), 2);
    client.calls.take();
    time::sleep(10 * TTL).await;
    drop(lock.try_acquire().await.unwrap());
    assert_eq!(client.calls.of("grant"), 0, "it is still there");
    held.0.unwrap().release().await.unwrap();
    held.2.unwrap().leave().await.unwrap();
    drop((held.1, held.3, held.4));
    time::sleep(MOMENT).await;
    assert_eq!(client.calls.of("revoke"), 0, "the recipes hold it");
    drop((lock, election, group, barrier));
    eventually("the lease is given back", async || client.calls.of("revoke") == 1).await;
    drop(longer);
    eventually("the other as well", async || client.calls.of("revoke") == 2).await;
}

#[tokio::test(start_paused = true)]
async fn it_is_renewed_three_times_in_a_ttl() {
    let mem = Mem::new();
    let client = Client::new(&mem);
    let _held = client.lock().acquire().await.unwrap();
    time::sleep(10 * TTL + MOMENT).await;
    assert_eq!(client.calls.of("renew"), 30);
}

#[tokio::test(start_paused = true)]
async fn renewals_may_take_almost_a_third_of_the_ttl() {
    let mem = Mem::new();
    let client = Client::new(&mem);
    let held = client.lock().acquire().await.unwrap();
    client.fault.delay(TTL * 3 / 10);
    time::sleep(10 * TTL).await;
    assert!(held.fence().is_valid());

    // What takes longer is no renewal; it is known in time.
    client.fault.delay(TTL * 4 / 10);
    let until = held.fence().valid_until();
    assert_eq!(held.fence().lost().await.kind(), ErrorKind::LeaseLost);
    assert!(Instant::now() <= until + MOMENT);
}

#[tokio::test(start_paused = true)]
async fn an_outage_that_is_shorter_than_the_rest_of_the_ttl_costs_nothing() {
    let mem = Mem::new();
    let client = Client::new(&mem);
    let held = client.lock().acquire().await.unwrap();
    for _ in 0..50 {
        client.fault.partition();
        time::sleep(TTL * 6 / 10).await;
        client.fault.heal();
        time::sleep(TTL / 2).await;
        assert!(held.fence().is_valid());
    }
    assert_eq!(client.calls.of("grant"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_long_partition_ends_it_for_good() {
    let mem = Mem::new();
    let client = Client::new(&mem);
    let lock = client.lock();
    let held = lock.acquire().await.unwrap();
    client.fault.partition();
    held.fence().lost().await;
    time::sleep(MOMENT).await;
    let renewals = client.calls.of("renew");
    client.fault.heal();
    time::sleep(10 * TTL).await;
    assert_eq!(client.calls.of("renew"), renewals, "it is not renewed any more");
    assert!(!held.fence().is_valid());
    assert!(entries(&mem).await.is_empty());

    let again = lock.acquire().await.unwrap();
    assert_eq!(client.calls.of("grant"), 2, "who comes later has another one");
    assert!(again.fence().is_valid() && !held.fence().is_valid());
    drop((held, again, lock, client));
    nothing_left(&mem).await;
}

#[tokio::test(start_paused = true)]
async fn what_is_lost_in_one_recipe_is_lost_in_all() {
    let mem = Mem::new();
    let client = Client::new(&mem);
    let lock = client.lock().acquire().await.unwrap();
    let leadership = client.election().campaign("us").await.unwrap();
    client.fault.expire_next(1);
    let both = futures_util::future::join(lock.fence().lost(), leadership.fence().lost());
    let (one, other) = within(TTL, "both are told", both).await;
    assert_eq!((one.kind(), other.kind()), (ErrorKind::LeaseLost, ErrorKind::LeaseLost));
}

#[tokio::test(start_paused = true)]
async fn who_asks_a_session_that_ends_hears_of_it_at_once() {
    let mem = Mem::new();
    let client = Client::new(&mem);
    let held = client.lock().acquire().await.unwrap();
    let until = held.fence().valid_until();
    // Calls hang, as behind a firewall that swallows everything.
    client.fault.delay(100 * TTL);
    let error = held.release().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::LeaseLost);
    assert!(Instant::now() <= until + MOMENT, "{:?} late", Instant::now() - until);
}

#[tokio::test(start_paused = true)]
async fn a_release_outlives_an_outage() {
    let mem = Mem::new();
    let (one, other) = (Client::new(&mem), Client::new(&mem));
    let lock = one.lock();
    let held = lock.acquire().await.unwrap();
    let next = other.lock();
    let next = tokio::spawn(async move { next.acquire().await.unwrap() });
    filled(&mem, "_locks", 2).await;
    one.fault.partition();
    let released = tokio::spawn(held.release());
    time::sleep(TTL / 3).await;
    assert!(!released.is_finished());
    one.fault.heal();
    // Pauses between attempts have grown to 4 s at the most.
    within(TTL / 2, "released", released).await.unwrap().unwrap();
    drop(within(MOMENT, "acquired", next).await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn one_failure_does_not_keep_a_lease_that_nobody_wants() {
    let mem = Mem::new();
    let (one, other) = (Client::new(&mem), Client::new(&mem));
    let held = one.lock().acquire().await.unwrap();
    one.fault.fail_next(1, &Error::new(ErrorKind::Unavailable, "once"));
    drop(held);
    drop(within(TTL / 9, "acquired behind it", other.lock().acquire()).await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn clients_that_come_and_go_leave_nothing() {
    let mem = Mem::new();
    for seed in 0..100 {
        let client = Client::seeded(&mem, seed);
        client.fault.delay(Duration::from_millis(seed % 7));
        let lock = client.lock();
        let _ = time::timeout(Duration::from_millis(seed % 23), lock.acquire()).await;
    }
    nothing_left(&mem).await;
}

#[tokio::test(start_paused = true)]
async fn a_grant_counts_from_when_it_was_asked_for() {
    let mem = Mem::new();
    let client = Client::new(&mem);
    client.calls.answer_late(TTL / 4);
    let (asked, lock) = (Instant::now(), client.lock());
    let waiter = tokio::spawn(async move { lock.acquire().await.unwrap() });
    time::sleep(MOMENT).await;
    client.calls.answer_late(Duration::ZERO);
    let held = waiter.await.unwrap();
    assert!(asked.elapsed() >= TTL / 4);
    assert_eq!(held.fence().valid_until(), asked + TTL);
}

/// How late stranded writes arrive: not so late that a renewal cannot wait for them.
const LATE: Duration = Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn a_write_that_arrives_late_is_undone_if_nobody_waits_for_it_any_more() {
    let mem = Mem::new();
    let (holder, client) = (Client::new(&mem), Client::new(&mem));
    let held = holder.lock().acquire().await.unwrap();
    // Another recipe keeps the lease alive: nothing ends with it.
    let elsewhere = client.election().campaign("us").await.unwrap();
    let lock = client.lock();
    for drops in [MOMENT, LATE / 2, LATE] {
        client.calls.strand_next(LATE);
        assert!(time::timeout(drops, lock.acquire()).await.is_err());
        time::sleep(2 * LATE).await;
        filled(&mem, "_locks", 1).await;
    }
    client.calls.strand_next(LATE);
    assert!(time::timeout(MOMENT, client.barrier(2).enter()).await.is_err());
    time::sleep(2 * LATE).await;
    filled(&mem, "_barriers", 0).await;
    assert!(elsewhere.fence().is_valid());
    drop(held);
}

#[tokio::test(start_paused = true)]
async fn a_write_that_arrives_late_is_made_once() {
    let mem = Mem::new();
    let client = Client::new(&mem);
    let leadership = client.election().campaign("us").await.unwrap();
    client.calls.strand_next(LATE);
    let held = within(TTL, "acquired", client.lock().acquire()).await.unwrap();
    time::sleep(2 * LATE).await;
    filled(&mem, "_locks", 1).await;
    assert!(held.fence().is_valid() && leadership.fence().is_valid());

    for _ in 0..3 {
        client.calls.strand_next(LATE);
        drop(within(TTL, "joined", client.group().join("late")).await.unwrap());
        time::sleep(2 * LATE).await;
    }
    let seats = client.group().seats().await.unwrap();
    assert_eq!(seats.len(), 3, "{seats:?}");
    assert!(seats.iter().all(|seat| !seat.is_alive), "{seats:?}");

    client.calls.strand_next(LATE);
    within(TTL, "released", held.release()).await.unwrap();
    time::sleep(2 * LATE).await;
    filled(&mem, "_locks", 0).await;
}

#[tokio::test(start_paused = true)]
async fn one_renewal_without_an_answer_costs_nothing() {
    let mem = Mem::new();
    let client = Client::new(&mem);
    let held = client.lock().acquire().await.unwrap();
    time::sleep(TTL * 3 / 10).await;
    client.fault.delay(TTL);
    time::sleep(TTL / 10).await;
    client.fault.delay(Duration::ZERO);
    let lost = time::timeout(10 * TTL, held.fence().lost()).await;
    assert!(lost.is_err(), "it is renewed in time all the same: {lost:?}");
}

#[tokio::test(start_paused = true)]
async fn what_is_dropped_is_taken_back_whatever_goes_wrong_at_first() {
    for kind in [ErrorKind::Other, ErrorKind::Denied] {
        let mem = Mem::new();
        let (client, other) = (Client::new(&mem), Client::new(&mem));
        // It keeps the lease.
        let lock = client.lock();
        let held = lock.acquire().await.unwrap();
        client.fault.fail_next(1, &Error::new(kind, "this once"));
        drop(held);
        drop(within(TTL, "nobody has the lock", other.lock().acquire()).await.unwrap());
    }
}

#[tokio::test(start_paused = true)]
async fn a_release_that_is_refused_says_so_and_is_done_later() {
    let mem = Mem::new();
    let (client, other) = (Client::new(&mem), Client::new(&mem));
    let lock = client.lock();
    let held = lock.acquire().await.unwrap();
    client.fault.fail_next(1, &Error::new(ErrorKind::Denied, "this once"));
    assert_eq!(held.release().await.unwrap_err().kind(), ErrorKind::Denied);
    drop(within(TTL, "nobody has the lock", other.lock().acquire()).await.unwrap());
}
