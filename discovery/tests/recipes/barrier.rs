//! Barriers: together in, together out, and nobody waits for the dead.

use std::time::Duration;

use discovery::{Error, ErrorKind, Result, mem::Mem, recipe::Entered};
use tokio::{
    task::JoinHandle,
    time::{self, Instant},
};

use super::support::{Client, MOMENT, TTL, entries, eventually, filled, nothing_left, within};

const PARTIES: usize = 3;

fn enter(client: &Client) -> JoinHandle<Result<Entered>> {
    let barrier = client.barrier(PARTIES);
    tokio::spawn(async move { barrier.enter().await })
}

fn clients(mem: &Mem, count: usize) -> Vec<Client> {
    (0..count).map(|_| Client::new(mem)).collect()
}

/// So many parties, all inside.
async fn inside(clients: &[Client]) -> Vec<Entered> {
    let entering: Vec<_> = clients.iter().map(enter).collect();
    let mut entered = Vec::new();
    for party in entering {
        entered.push(within(MOMENT, "it opens", party).await.unwrap().unwrap());
    }
    entered
}

#[tokio::test(start_paused = true)]
async fn nobody_begins_before_the_last_is_there() {
    let mem = Mem::new();
    let clients = clients(&mem, PARTIES);
    let mut waiting = Vec::new();
    for client in &clients[1..] {
        waiting.push(enter(client));
        time::sleep(3 * TTL).await;
        assert!(waiting.iter().all(|party| !party.is_finished()));
    }
    let last = within(MOMENT, "it opens", clients[0].barrier(PARTIES).enter()).await.unwrap();
    for party in waiting {
        let entered = within(MOMENT, "it opens for all", party).await.unwrap().unwrap();
        assert!(entered.fence().is_valid());
        drop(entered);
    }
    drop(last);
}

#[tokio::test(start_paused = true)]
async fn nobody_goes_on_before_the_last_has_left() {
    let mem = Mem::new();
    let clients = clients(&mem, PARTIES);
    let mut entered = inside(&clients).await;
    let last = entered.pop().unwrap();
    let leaving: Vec<_> = entered.into_iter().map(|party| tokio::spawn(party.leave())).collect();
    time::sleep(3 * TTL).await;
    assert!(leaving.iter().all(|party| !party.is_finished()));
    within(MOMENT, "nobody else is inside", last.leave()).await.unwrap();
    for party in leaving {
        within(MOMENT, "all have left", party).await.unwrap().unwrap();
    }
    drop(clients);
    eventually("nobody is left", async || entries(&mem).await.len() == 1).await;
}

#[tokio::test(start_paused = true)]
async fn who_dies_before_it_opens_does_not_count() {
    let mem = Mem::new();
    let clients = clients(&mem, PARTIES + 1);
    let dies = enter(&clients[0]);
    let waits = enter(&clients[1]);
    filled(&mem, "_barriers", 2).await;
    clients[0].fault.partition();
    time::sleep(TTL + MOMENT).await;
    assert_eq!(dies.await.unwrap().unwrap_err().kind(), ErrorKind::LeaseLost);
    let third = enter(&clients[2]);
    time::sleep(TTL).await;
    assert!(!waits.is_finished() && !third.is_finished(), "two are there");
    let last = within(MOMENT, "three are there", clients[3].barrier(PARTIES).enter()).await.unwrap();
    drop((last, waits.await.unwrap().unwrap(), third.await.unwrap().unwrap()));
}

#[tokio::test(start_paused = true)]
async fn who_dies_inside_is_waited_for_until_its_lease_is_over() {
    let mem = Mem::new();
    let clients = clients(&mem, PARTIES);
    let mut entered = inside(&clients).await;
    clients[2].fault.partition();
    let (cut, dead) = (Instant::now(), entered.pop().unwrap());
    let leaving: Vec<_> = entered.into_iter().map(|party| tokio::spawn(party.leave())).collect();
    for party in leaving {
        within(TTL + MOMENT, "the dead are not waited for", party).await.unwrap().unwrap();
    }
    assert!(cut.elapsed() > TTL / 2 && !dead.fence().is_valid());
    assert_eq!(dead.leave().await.unwrap_err().kind(), ErrorKind::LeaseLost);
}

#[tokio::test(start_paused = true)]
async fn a_dropped_entering_leaves_whenever_it_is_dropped() {
    for lost in 0..2 {
        for millis in (0..100).step_by(4) {
            let mem = Mem::new();
            let client = Client::new(&mem);
            client.fault.delay(Duration::from_millis(7));
            client.fault.lose_replies(lost);
            let barrier = client.barrier(2);
            assert!(time::timeout(Duration::from_millis(millis), barrier.enter()).await.is_err());
            time::sleep(TTL / 9).await;
            assert_eq!(entries(&mem).await, [], "dropped after {millis} ms");
            drop((barrier, client));
            nothing_left(&mem).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_dropped_party_has_left() {
    let mem = Mem::new();
    let clients = clients(&mem, PARTIES);
    let mut entered = inside(&clients).await;
    let last = entered.pop().unwrap();
    drop(entered);
    within(MOMENT, "the others have left", last.leave()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_reply_that_is_lost_while_it_opens_opens_it_once() {
    for lost in 1..4 {
        let mem = Mem::new();
        let clients = clients(&mem, PARTIES);
        let waiting = [enter(&clients[0]), enter(&clients[1])];
        filled(&mem, "_barriers", 2).await;
        clients[2].fault.lose_replies(lost);
        let last = within(TTL, "it opens", clients[2].barrier(PARTIES).enter()).await.unwrap();
        let mut leaving = vec![tokio::spawn(last.leave())];
        for party in waiting {
            leaving.push(tokio::spawn(party.await.unwrap().unwrap().leave()));
        }
        for party in leaving {
            within(TTL, "all leave", party).await.unwrap().unwrap();
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_out_of_reach_is_waited_for() {
    let mem = Mem::new();
    let clients = clients(&mem, PARTIES);
    clients[0].fault.partition();
    let entering: Vec<_> = clients.iter().map(enter).collect();
    time::sleep(5 * TTL).await;
    assert!(entering.iter().all(|party| !party.is_finished()));
    clients[0].fault.heal();
    for party in entering {
        drop(within(TTL, "it opens", party).await.unwrap().unwrap());
    }
}

#[tokio::test(start_paused = true)]
async fn a_barrier_for_nobody_is_refused_and_one_for_one_is_open() {
    let mem = Mem::new();
    let client = Client::new(&mem);
    let nobody = client.discovery.barrier(&"a".parse().unwrap(), 0).unwrap_err();
    assert_eq!(nobody.kind(), ErrorKind::Invalid);
    let barrier = client.barrier(1);
    for _ in 0..5 {
        within(MOMENT, "it is open", barrier.enter()).await.unwrap().leave().await.unwrap();
    }
    client.fault.fail_next(1, &Error::new(ErrorKind::Denied, "not for you"));
    let refused = barrier.enter().await.unwrap_err();
    assert_eq!((refused.kind(), refused.operation()), (ErrorKind::Denied, Some("enter")));
}
