//! Locks and elections among five processes in random trouble: one at a time, whatever happens, and in the end somebody.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use discovery::{
    Backend,
    kv::Txn,
    layer::Odds,
    mem::Mem,
    recipe::{Fence, Leadership, LockGuard},
};
use futures_util::StreamExt;
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{self, Instant},
};

use super::{
    resource::{Ledger, Resource},
    support::{Client, MOMENT, TTL, entries, for_seeds, freezable, nothing_left, within},
};

const SEEDS: u64 = 200;
const CLIENTS: usize = 5;
const TROUBLE: Duration = Duration::from_secs(90);

#[derive(Clone, Copy, Debug, PartialEq)]
enum Recipe {
    Lock,
    Election,
}

/// Whether the store takes things away on its own, before a lease has run out.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Store {
    Honest,
    Rude,
}

#[test]
fn a_lock_is_held_by_one_at_a_time() {
    for_seeds(SEEDS, |seed| run(Recipe::Lock, Store::Honest, seed));
}

#[test]
fn a_lock_protects_what_asks_for_its_token_even_if_the_store_takes_it_away() {
    for_seeds(SEEDS, |seed| run(Recipe::Lock, Store::Rude, seed));
}

#[test]
fn one_leads_at_a_time_and_in_the_end_somebody_does() {
    for_seeds(SEEDS, |seed| run(Recipe::Election, Store::Honest, seed));
}

#[test]
fn an_election_protects_what_asks_for_its_token_even_if_the_store_takes_it_away() {
    for_seeds(SEEDS, |seed| run(Recipe::Election, Store::Rude, seed));
}

enum Turn {
    Lock(LockGuard),
    Lead(Leadership),
}

impl Turn {
    async fn take(recipe: Recipe, client: &Client) -> Self {
        match recipe {
            Recipe::Lock => Self::Lock(client.lock().acquire().await.unwrap()),
            Recipe::Election => Self::Lead(client.election().campaign("somebody").await.unwrap()),
        }
    }

    fn fence(&self) -> &Fence {
        match self {
            Self::Lock(guard) => guard.fence(),
            Self::Lead(leadership) => leadership.fence(),
        }
    }

    async fn give_back(self) {
        // Whether it had been lost is not the question here.
        let _ = match self {
            Self::Lock(guard) => guard.release().await,
            Self::Lead(leadership) => leadership.resign().await,
        };
    }
}

/// What all processes and the test know of each other.
#[derive(Clone, Default)]
struct Shared {
    resource: Resource,
    ledger: Ledger,
    /// Every proof that anybody ever had.
    proofs: Arc<Mutex<Vec<Fence>>>,
}

impl Shared {
    fn believers(&self) -> usize {
        self.proofs.lock().unwrap().iter().filter(|proof| proof.is_valid()).count()
    }
}

async fn run(recipe: Recipe, store: Store, seed: u64) {
    let mem = Mem::with_history(64);
    let clients: Vec<_> = (0..CLIENTS as u64).map(|n| Client::seeded(&mem, seed * 100 + n)).collect();
    let shared = Shared::default();
    let mut processes = JoinSet::new();
    let mut switches = Vec::new();
    for client in &clients {
        let (switch, frozen) = watch::channel(false);
        switches.push(switch);
        processes.spawn(freezable(frozen, process(recipe, client.clone(), shared.clone())));
    }
    let observer = Client::seeded(&mem, seed);
    let mut watching = JoinSet::new();
    watching.spawn(observe(observer.clone(), seed));

    let mut random = fastrand::Rng::with_seed(seed);
    let end = Instant::now() + TROUBLE;
    while Instant::now() < end {
        let victim = random.usize(0..CLIENTS);
        trouble(&mut random, &mem, store, &clients[victim], &switches[victim]).await;
        if random.u8(0..8) == 0 {
            observer.fault.cut();
        }
        let pause = Instant::now() + Duration::from_millis(random.u64(0..3000));
        while Instant::now() < pause {
            time::sleep(Duration::from_millis(random.u64(1..100))).await;
            // The loser of something that was taken away early cannot know at once.
            if store == Store::Honest {
                assert!(shared.believers() <= 1, "seed {seed}: {} believe", shared.believers());
            }
        }
    }
    for (client, switch) in clients.iter().zip(&switches) {
        client.fault.calm();
        client.calls.answer_late(Duration::ZERO);
        switch.send_replace(false);
    }
    let (before, _) = shared.resource.check();
    time::sleep(3 * TTL).await;
    let (after, refused) = shared.resource.check();
    assert!(after > before, "seed {seed}: in the end it goes on");
    assert!(after >= 3, "seed {seed}: {after} turns, {refused} refused: this tested nothing");
    processes.shutdown().await;
    watching.shutdown().await;
    // What is still on its way arrives.
    time::sleep(TTL).await;
    shared.ledger.check(&mem).await;
    drop((clients, shared, observer));
    nothing_left(&mem).await;
}

/// Takes its turns, and works as long as it believes to have one.
async fn process(recipe: Recipe, client: Client, shared: Shared) {
    loop {
        time::sleep(Duration::from_millis(fastrand::u64(0..500))).await;
        let turn = Turn::take(recipe, &client).await;
        let fence = turn.fence().clone();
        shared.proofs.lock().unwrap().push(fence.clone());
        for _ in 0..fastrand::u32(1..20) {
            if !fence.is_valid() {
                break;
            }
            // Between looking at the clock and acting a process may be frozen.
            tokio::task::yield_now().await;
            if !shared.resource.access(fence.token()) {
                break;
            }
            shared.ledger.count(&client, &fence).await;
            time::sleep(Duration::from_millis(fastrand::u64(0..400))).await;
        }
        if fastrand::bool() { turn.give_back().await } else { drop(turn) }
    }
}

async fn trouble(
    random: &mut fastrand::Rng,
    mem: &Mem,
    store: Store,
    client: &Client,
    frozen: &watch::Sender<bool>,
) {
    let fault = &client.fault;
    match random.u32(0..14) {
        0 => fault.partition(),
        1 => fault.heal(),
        2 => fault.lose_replies(random.usize(1..3)),
        3 if store == Store::Rude => fault.expire_next(1),
        4 => fault.cut(),
        5 => fault.delay(Duration::from_millis(random.u64(0..1500))),
        // A process that is frozen sends nothing either.
        6 => {
            frozen.send_replace(true);
            fault.partition();
        }
        7 => {
            fault.heal();
            frozen.send_replace(false);
        }
        8 => {
            fault.calm();
            client.calls.answer_late(Duration::ZERO);
        }
        12 => client.calls.strand_next(Duration::from_millis(random.u64(0..2500))),
        11 => client.calls.answer_late(Duration::from_millis(random.u64(0..2900))),
        9 if store == Store::Rude => mem.expire_all(),
        10 if store == Store::Rude => {
            let all = entries(mem).await;
            let queue: Vec<_> = all.iter().filter(|entry| entry.lease.is_some()).collect();
            if let Some(entry) = random.choice(queue) {
                mem.kv().unwrap().commit(Txn::new().delete(&entry.key)).await.unwrap();
            }
        }
        _ => fault.odds(
            Odds::new().fail(random.f64() * 0.3).lose_reply(random.f64() * 0.3).cut(random.f64() * 0.1),
        ),
    }
}

/// Sees leaders in order, and in the end the one that leads.
async fn observe(client: Client, seed: u64) {
    let mut leaders = client.election().leaders();
    let mut last = 0;
    while let Some(leader) = leaders.next().await {
        if let Some(leader) = leader.unwrap() {
            assert!(leader.token > last, "seed {seed}: {} behind {last}", leader.token);
            last = leader.token;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_frozen_holder_who_wakes_up_is_refused_everywhere() {
    let mem = Mem::new();
    let (one, other) = (Client::new(&mem), Client::new(&mem));
    let (resource, ledger) = (Resource::default(), Ledger::default());
    let (switch, frozen) = watch::channel(false);
    let holder = tokio::spawn(freezable(frozen, {
        let (one, resource, ledger) = (one.clone(), resource.clone(), ledger.clone());
        async move {
            let held = one.lock().acquire().await.unwrap();
            assert!(held.fence().is_valid());
            time::sleep(MOMENT).await;
            let accepted = resource.access(held.fence().token());
            ledger.count(&one, held.fence()).await;
            accepted
        }
    }));
    time::sleep(MOMENT / 2).await;
    switch.send_replace(true);
    one.fault.partition();
    let held = within(2 * TTL, "acquired", other.lock().acquire()).await.unwrap();
    assert!(resource.access(held.fence().token()));
    ledger.count(&other, held.fence()).await;
    one.fault.heal();
    switch.send_replace(false);
    assert!(!holder.await.unwrap(), "it was refused");
    assert_eq!(resource.check(), (1, 1));
    assert_eq!(ledger.check(&mem).await, 1);
}
