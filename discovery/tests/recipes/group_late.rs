//! Members whose writes arrive later than everybody thought, their replies lost.

use std::time::Duration;

use discovery::{kv::Txn, mem::Mem, recipe::News};
use tokio::time;

use super::support::{Client, MOMENT, TTL, entries, key, value, within};

/// From before the next attempt to long behind it.
fn latenesses() -> impl Iterator<Item = Duration> {
    (0..400).map(Duration::from_millis)
}

#[tokio::test(start_paused = true)]
async fn who_joins_late_is_in_once() {
    for others in 0..3 {
        for late in latenesses() {
            let mem = Mem::new();
            let (one, two) = (Client::seeded(&mem, 1), Client::seeded(&mem, 2));
            let group = one.group();
            let mut there = Vec::new();
            for _ in 0..others {
                there.push(group.join("there").await.unwrap());
            }
            two.fault.delay(MOMENT);
            two.calls.strand_next(late);
            let joined = two.group().join("late").await;
            let member = joined.unwrap_or_else(|error| panic!("{others} others, late by {late:?}: {error}"));
            let seats = group.seats().await;
            let seats = seats.unwrap_or_else(|error| panic!("{others} others, late by {late:?}: {error}"));
            let labels: Vec<_> = seats.iter().map(|seat| seat.label.as_str()).collect();
            assert_eq!(labels, [vec!["there"; others], vec!["late"]].concat(), "late by {late:?}");
            drop(member);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_settlement_that_arrives_late_is_one() {
    for late in latenesses() {
        let mem = Mem::new();
        let (one, two) = (Client::seeded(&mem, 1), Client::seeded(&mem, 2));
        let (theirs, ours) = (one.group(), two.group());
        let first = theirs.join("first").await.unwrap();
        first.entrust("this").await.unwrap();
        let mut second = ours.join("second").await.unwrap();
        drop((first, theirs, one));
        let gone = loop {
            if let News::Departed(gone) = within(3 * TTL, "it is told", second.next()).await.unwrap() {
                break gone;
            }
        };
        two.fault.delay(MOMENT);
        two.calls.strand_next(late);
        let done = key("done");
        let settled = gone.settle(Txn::new().put(&done, "yes")).await;
        // Until what is late has arrived.
        time::sleep(TTL / 9).await;
        assert!(settled.is_ok(), "late by {late:?}: {settled:?}");
        assert_eq!(value(&mem, &done).await.as_deref(), Some("yes"), "late by {late:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn who_leaves_late_as_the_last_has_left() {
    for late in latenesses() {
        let mem = Mem::new();
        let client = Client::seeded(&mem, 2);
        let group = client.group();
        let member = group.join("alone").await.unwrap();
        client.fault.delay(MOMENT);
        client.calls.strand_next(late);
        let left = member.leave().await;
        assert!(left.is_ok(), "late by {late:?}: {left:?}");
        assert!(entries(&mem).await.is_empty(), "late by {late:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn who_leaves_without_the_store_is_gone_with_the_lease() {
    let mem = Mem::new();
    let client = Client::new(&mem);
    let member = client.group().join("us").await.unwrap();
    client.fault.partition();
    let left = within(2 * TTL, "the lease has ended", member.leave()).await;
    assert_eq!(left.unwrap_err().kind(), discovery::ErrorKind::LeaseLost);
}
