//! Nobody begins before all are there, and nobody goes on before all are done.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::SeqCst},
};

use futures_util::future::join_all;
use tokio::task::JoinHandle;

use super::{LONG, clients, done, filled, is_lost, name};
use crate::{
    Result,
    conformance::context::{Client, Context},
    recipe::{Barrier, Entered},
};

/// Where the parties are.
const INSIDE: &str = "_barriers/eu1.prod.thing/in";

fn barrier(client: &Client, parties: usize) -> Barrier {
    client.discovery().barrier(&name(), parties).expect("there are keys and leases").ttl(LONG)
}

/// A party, with how many had arrived by the time it was let in.
fn enter(barrier: Barrier, arrived: &Arc<AtomicUsize>) -> JoinHandle<Result<(Entered, usize)>> {
    let arrived = arrived.clone();
    tokio::spawn(async move {
        arrived.fetch_add(1, SeqCst);
        let entered = barrier.enter().await?;
        Ok((entered, arrived.load(SeqCst)))
    })
}

/// So many parties, all inside.
async fn inside(cx: &Context, barriers: Vec<Barrier>) -> Vec<Entered> {
    let entering = join_all(barriers.iter().map(Barrier::enter));
    let entered = cx.within("it to open", entering).await;
    entered.into_iter().map(|party| party.expect("it can be entered")).collect()
}

pub(in crate::conformance) async fn nobody_begins_before_the_last_is_there(cx: &Context) {
    let clients = clients(cx, 4).await;
    let arrived = Arc::default();
    let mut waiting = Vec::new();
    for (n, client) in clients[..2].iter().enumerate() {
        waiting.push(enter(barrier(client, 3), &arrived));
        filled(cx, &clients[3], INSIDE, n + 1).await;
    }
    // Who gives up does not count.
    waiting.remove(0).abort();
    filled(cx, &clients[3], INSIDE, 1).await;
    waiting.push(enter(barrier(&clients[2], 3), &arrived));
    filled(cx, &clients[3], INSIDE, 2).await;
    assert!(waiting.iter().all(|party| !party.is_finished()), "one is missing");
    waiting.push(enter(barrier(&clients[3], 3), &arrived));
    for party in waiting {
        let (entered, arrived) = done(cx, "it to open", party).await.expect("it can be entered");
        assert_eq!(arrived, 4, "let in before the last was there");
        assert!(entered.fence().is_valid());
    }
}

pub(in crate::conformance) async fn nobody_goes_on_before_the_last_has_left(cx: &Context) {
    let clients = clients(cx, 3).await;
    let mut entered = inside(cx, clients.iter().map(|client| barrier(client, 3)).collect()).await;
    let last = entered.pop().expect("three");
    let leaving: Vec<_> = entered.into_iter().map(|party| tokio::spawn(party.leave())).collect();
    filled(cx, &clients[0], INSIDE, 1).await;
    assert!(leaving.iter().all(|party| !party.is_finished()), "one is inside");
    assert!(last.fence().is_valid());
    cx.within("the last one to leave", last.leave()).await.expect("it was inside");
    for party in leaving {
        done(cx, "all to have left", party).await.expect("it was inside");
    }
    filled(cx, &clients[0], INSIDE, 0).await;
}

pub(in crate::conformance) async fn rounds_follow_each_other(cx: &Context) {
    const PARTIES: usize = 4;
    const ROUNDS: usize = 3;
    let clients = clients(cx, PARTIES).await;
    let (arrived, leaving) = (AtomicUsize::new(0), AtomicUsize::new(0));
    join_all(clients.iter().map(async |client| {
        let barrier = barrier(client, PARTIES);
        for round in 1..=ROUNDS {
            arrived.fetch_add(1, SeqCst);
            let entered = cx.within("it to open", barrier.enter()).await.expect("it can be entered");
            let there = arrived.load(SeqCst);
            assert_eq!(there, round * PARTIES, "round {round} begins when all are there");
            leaving.fetch_add(1, SeqCst);
            cx.within("all to leave", entered.leave()).await.expect("it was inside");
            let gone = leaving.load(SeqCst);
            assert!(gone >= round * PARTIES, "round {round} ended when {gone} had left");
        }
    }))
    .await;
    filled(cx, &clients[0], INSIDE, 0).await;
}

pub(in crate::conformance) async fn who_is_cut_off_inside_is_not_waited_for(cx: &Context) {
    let (dies, one, two) = (cx.fragile().await, cx.client().await, cx.client().await);
    let parties = vec![barrier(&dies, 3).ttl(cx.ttl()), barrier(&one, 3), barrier(&two, 3)];
    let mut entered = inside(cx, parties).await;
    let dead = entered.remove(0);
    cx.cut().await;
    let leaving = entered.into_iter().map(async |party| {
        party.leave().await.expect("it was inside");
        assert!(!dead.fence().is_valid(), "it believes that it is waited for");
    });
    cx.within("the lease to end", join_all(leaving)).await;
    cx.heal().await;
    is_lost(cx, &one, dead.fence()).await;
}
