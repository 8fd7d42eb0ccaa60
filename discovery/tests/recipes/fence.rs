//! What a proof says, to whom, and until when.

use std::{pin::pin, time::Duration};

use discovery::{ErrorKind, kv::Txn, mem::Mem};
use futures_util::poll;
use tokio::time::{self, Instant};

use super::support::{Client, MOMENT, TTL, key, name, nothing_left, pending, value, within};

#[tokio::test(start_paused = true)]
async fn a_proof_holds_for_as_long_as_it_is_renewed() {
    let mem = Mem::new();
    let client = Client::new(&mem);
    let held = client.lock().acquire().await.unwrap();
    for _ in 0..100 {
        time::sleep(TTL / 7).await;
        assert!(held.fence().is_valid());
        let left = held.fence().valid_until() - Instant::now();
        assert!(left > TTL / 2 && left <= TTL, "{left:?}");
    }
    pending("it is not lost", held.fence().lost()).await;
}

#[tokio::test(start_paused = true)]
async fn who_looks_away_for_longer_than_a_lease_is_not_told_that_it_is_lost() {
    let mem = Mem::new();
    let client = Client::new(&mem);
    let held = client.lock().acquire().await.unwrap();
    // Both the old deadline and the news of a later one are ready then, and which is taken first was up to chance.
    for _ in 0..30 {
        let mut lost = pin!(held.fence().lost());
        assert!(poll!(&mut lost).is_pending());
        time::sleep(TTL * 2).await;
        assert!(poll!(&mut lost).is_pending());
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_given_back_is_not_proven_any_more_when_the_next_one_has_it() {
    for dropped in [true, false] {
        let mem = Mem::new();
        let (one, other) = (Client::new(&mem), Client::new(&mem));
        let (lock, next) = (one.lock(), other.lock());
        let held = lock.acquire().await.unwrap();
        let fence = held.fence().clone();
        // News of what it did itself reach the old holder late.
        one.fault.delay(Duration::from_millis(700));
        let next = tokio::spawn({
            let fence = fence.clone();
            async move {
                let held = next.acquire().await.unwrap();
                assert!(!fence.is_valid(), "two believe to have it");
                held
            }
        });
        time::sleep(MOMENT).await;
        if dropped {
            drop(held);
        } else {
            held.release().await.unwrap();
        }
        let error = within(Duration::ZERO, "told", fence.lost()).await;
        assert_eq!(error.kind(), ErrorKind::LeaseLost);
        let held = within(TTL, "acquired", next).await.unwrap();
        let late = fence.commit(Txn::new().put(&key("a"), "1")).await.unwrap_err();
        assert_eq!(late.kind(), ErrorKind::LeaseLost);
        drop((held, lock, one, other, fence));
        nothing_left(&mem).await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_lost_stays_lost() {
    // The renewal is answered in the very moment in which the proof ends.
    for seed in 0..50 {
        let mem = Mem::new();
        let client = Client::seeded(&mem, seed);
        let ttl = Duration::from_millis(100);
        let held = client.discovery.lock(&name()).unwrap().ttl(ttl).acquire().await.unwrap();
        let deadline = held.fence().valid_until();
        // Renewals are sent at 34 ms and then every 10 ms, until one is answered.
        client.fault.partition();
        time::sleep(Duration::from_millis(70)).await;
        client.fault.heal();
        client.calls.answer_late(Duration::from_millis(26));
        held.fence().lost().await;
        assert_eq!(Instant::now(), deadline);
        client.calls.answer_late(Duration::ZERO);
        while Instant::now() < deadline + ttl {
            assert!(!held.fence().is_valid(), "seed {seed}: it came back");
            time::sleep(Duration::from_millis(1)).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_commit_whose_reply_is_lost_says_so() {
    let mem = Mem::new();
    let client = Client::new(&mem);
    let held = client.lock().acquire().await.unwrap();
    client.fault.lose_replies(1);
    let unknown = held.fence().commit(Txn::new().put(&key("a"), "1")).await.unwrap_err();
    assert_eq!(unknown.kind(), ErrorKind::Unavailable);
    assert_eq!(unknown.outcome(), discovery::Outcome::Unknown);
    assert_eq!(value(&mem, &key("a")).await.unwrap(), "1");
    assert!(held.fence().is_valid());
}

#[tokio::test(start_paused = true)]
async fn a_commit_that_fails_for_no_reason_that_can_be_told_may_be_tried_again() {
    let mem = Mem::new();
    let client = Client::new(&mem);
    let held = client.lock().acquire().await.unwrap();
    mem.expire_all();
    // The store goes out of reach between the refusal and the look at whose condition it was.
    client.calls.answer_late(MOMENT);
    let commit = || held.fence().commit(Txn::new().put(&key("a"), "1"));
    let (unknown, ()) = tokio::join!(commit(), async {
        time::sleep(MOMENT / 2).await;
        client.fault.partition();
    });
    let unknown = unknown.unwrap_err();
    assert!(unknown.is_transient(), "{unknown}");
    assert_eq!(unknown.outcome(), discovery::Outcome::NotApplied);
    client.fault.heal();
    assert_eq!(commit().await.unwrap_err().kind(), ErrorKind::LeaseLost);
}

#[tokio::test(start_paused = true)]
async fn a_proof_outlives_outages_of_its_watch() {
    let mem = Mem::new();
    let client = Client::new(&mem);
    let held = client.lock().acquire().await.unwrap();
    for _ in 0..20 {
        client.fault.cut();
        client.fault.partition();
        time::sleep(TTL / 3).await;
        client.fault.heal();
        time::sleep(TTL).await;
        assert!(held.fence().is_valid());
    }
    // And the watch is there again when it is needed.
    client.fault.cut();
    time::sleep(MOMENT).await;
    mem.expire_all();
    within(TTL / 3, "told", held.fence().lost()).await;
}

#[tokio::test(start_paused = true)]
async fn a_proof_keeps_nothing_alive() {
    let mem = Mem::new();
    let client = Client::new(&mem);
    let held = client.lock().acquire().await.unwrap();
    let fence = held.fence().clone();
    drop(held);
    within(MOMENT, "told", fence.lost()).await;
    drop(client);
    nothing_left(&mem).await;
    assert!(!fence.is_valid());
}
