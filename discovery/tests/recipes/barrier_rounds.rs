//! Barriers that are used again and again.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use discovery::{
    mem::Mem,
    recipe::{Barrier, Entered},
};
use tokio::{
    task::JoinSet,
    time::{self, Instant},
};

use super::support::{Client, MOMENT, TTL, entries, filled, for_seeds, within};

const PARTIES: usize = 3;

#[tokio::test(start_paused = true)]
async fn the_same_parties_use_it_twenty_times() {
    let mem = Mem::new();
    // Who is in which round: all begin a round before anybody ends it.
    let log = Arc::new(Mutex::new(Vec::new()));
    let mut parties = JoinSet::new();
    for _ in 0..PARTIES {
        let (client, log) = (Client::new(&mem), log.clone());
        client.fault.delay(Duration::from_millis(fastrand::u64(0..5)));
        parties.spawn(async move {
            let barrier = client.barrier(PARTIES);
            for round in 0..20 {
                time::sleep(Duration::from_millis(fastrand::u64(0..30))).await;
                let entered = barrier.enter().await.unwrap();
                log.lock().unwrap().push((round, "in"));
                time::sleep(Duration::from_millis(fastrand::u64(0..30))).await;
                log.lock().unwrap().push((round, "out"));
                entered.leave().await.unwrap();
            }
        });
    }
    within(20 * TTL, "all rounds are done", parties.join_all()).await;
    let log = log.lock().unwrap();
    for (round, steps) in log.chunks(2 * PARTIES).enumerate() {
        assert!(steps.iter().all(|(of, _)| *of == round), "rounds are mixed: {log:?}");
    }
    assert_eq!(log.len(), 20 * 2 * PARTIES);
}

#[tokio::test(start_paused = true)]
async fn who_comes_while_others_leave_is_of_the_next_round() {
    let mem = Mem::new();
    let clients: Vec<_> = (0..2 * PARTIES).map(|_| Client::new(&mem)).collect();
    let (first, second) = clients.split_at(PARTIES);
    let enter = |client: &Client| {
        let barrier = client.barrier(PARTIES);
        tokio::spawn(async move { barrier.enter().await.unwrap() })
    };
    let first: Vec<_> = first.iter().map(enter).collect();
    let mut entered = Vec::new();
    for party in first {
        entered.push(party.await.unwrap());
    }
    // Two of the next round are there already.
    let mut second: Vec<_> = second.iter().map(enter).collect();
    let late = second.pop().unwrap();
    late.abort();
    filled(&mem, "_barriers", 1 + PARTIES + 2).await;
    let leaving: Vec<_> = entered.into_iter().map(|party| tokio::spawn(party.leave())).collect();
    for party in leaving {
        within(MOMENT, "the next round is not waited for", party).await.unwrap().unwrap();
    }
    assert!(second.iter().all(|party| !party.is_finished()), "two are no round");
    let last = within(MOMENT, "three are", clients[0].barrier(PARTIES).enter()).await.unwrap();
    for party in second {
        drop(within(MOMENT, "three are", party).await.unwrap());
    }
    drop(last);
}

#[tokio::test(start_paused = true)]
async fn who_stays_inside_does_not_keep_the_next_round() {
    let mem = Mem::new();
    let round = async || {
        let clients: Vec<_> = (0..PARTIES).map(|_| Client::new(&mem)).collect();
        let barriers: Vec<_> = clients.iter().map(|client| client.barrier(PARTIES)).collect();
        let entered = futures_util::future::try_join_all(barriers.iter().map(Barrier::enter));
        within(MOMENT, "it opens", entered).await.unwrap()
    };
    let stays = round().await;
    let next = futures_util::future::try_join_all(round().await.into_iter().map(Entered::leave));
    within(MOMENT, "the next round leaves", next).await.unwrap();
    drop(stays);
}

#[test]
fn of_many_who_come_at_once_so_many_are_let_in_at_a_time() {
    for_seeds(100, |seed| async move {
        let mem = Mem::new();
        // By token: when somebody came, was inside, and had left.
        let visits = Arc::new(Mutex::new(BTreeMap::new()));
        let mut parties = JoinSet::new();
        for n in 0..20 * PARTIES as u64 {
            let (client, visits) = (Client::seeded(&mem, seed * 100 + n), visits.clone());
            client.fault.delay(Duration::from_millis(fastrand::u64(0..4)));
            parties.spawn(async move {
                time::sleep(Duration::from_millis(fastrand::u64(0..50))).await;
                let came = Instant::now();
                let entered = client.barrier(PARTIES).enter().await.unwrap();
                let (token, began) = (entered.fence().token(), Instant::now());
                time::sleep(Duration::from_millis(fastrand::u64(0..10))).await;
                let done = Instant::now();
                entered.leave().await.unwrap();
                visits.lock().unwrap().insert(token, (came, began, done, Instant::now()));
            });
        }
        within(20 * TTL, &format!("seed {seed}: all rounds are done"), parties.join_all()).await;
        let visits: Vec<_> = visits.lock().unwrap().values().copied().collect();
        assert_eq!(visits.len(), 20 * PARTIES, "seed {seed}");
        for round in visits.chunks(PARTIES) {
            let last_came = round.iter().map(|visit| visit.0).max();
            let first_began = round.iter().map(|visit| visit.1).min();
            assert!(last_came <= first_began, "seed {seed}: {round:?}");
            let last_done = round.iter().map(|visit| visit.2).max();
            let first_left = round.iter().map(|visit| visit.3).min();
            assert!(last_done <= first_left, "seed {seed}: {round:?}");
        }
        assert_eq!(entries(&mem).await.len(), 1, "seed {seed}: nothing but the mark");
    });
}
