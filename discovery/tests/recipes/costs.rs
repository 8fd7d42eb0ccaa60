//! What things cost does not depend on how many there are.

use std::{collections::BTreeMap, time::Duration};

use discovery::{kv::Txn, mem::Mem, recipe::News};
use tokio::{sync::mpsc, task::AbortHandle, time};

use super::support::{Client, MOMENT, filled, name};

const FEW: usize = 10;
const MANY: usize = 1000;

/// Longer than a test takes, so that all calls are told apart from renewals.
const TTL: Duration = Duration::from_secs(3600);

type Cost = BTreeMap<&'static str, usize>;

fn cost(calls: &[(&'static str, usize)]) -> Cost {
    calls.iter().copied().collect()
}

/// A queue of so many, all of one client, whose turns end when the test says so.
struct Queue {
    client: Client,
    waiters: Vec<AbortHandle>,
    next: mpsc::Receiver<AbortHandle>,
    mem: Mem,
}

impl Queue {
    async fn of(count: usize) -> Self {
        let mem = Mem::new();
        let client = Client::new(&mem);
        let lock = client.discovery.lock(&name()).unwrap().ttl(TTL);
        let (turns, next) = mpsc::channel(count);
        let mut waiters: Vec<AbortHandle> = Vec::new();
        for n in 0..count {
            let (lock, turns) = (lock.clone(), turns.clone());
            let (itself, handle) = tokio::sync::oneshot::channel::<AbortHandle>();
            let task = tokio::spawn(async move {
                let handle = handle.await.unwrap();
                let _held = lock.acquire().await.unwrap();
                turns.send(handle).await.unwrap();
                std::future::pending::<()>().await;
            });
            itself.send(task.abort_handle()).unwrap();
            waiters.push(task.abort_handle());
            // The first has it before the others come.
            if n == 0 {
                filled(&mem, "_locks", 1).await;
            }
        }
        filled(&mem, "_locks", count).await;
        time::sleep(MOMENT).await;
        Self { client, waiters, next, mem }
    }

    /// What it costs all together that the next one has its turn.
    async fn hand_over(&mut self) -> Cost {
        let holder = self.next.recv().await.unwrap();
        time::sleep(MOMENT).await;
        self.client.calls.take();
        holder.abort();
        time::sleep(MOMENT).await;
        self.client.calls.take()
    }

    /// What it costs all together that one in the middle gives up.
    async fn give_up(&mut self) -> Cost {
        self.client.calls.take();
        self.waiters[self.waiters.len() / 2].abort();
        time::sleep(MOMENT).await;
        self.client.calls.take()
    }
}

#[tokio::test(start_paused = true)]
async fn a_departure_from_a_queue_costs_the_same_among_ten_and_a_thousand() {
    for count in [FEW, MANY] {
        let mut queue = Queue::of(count).await;
        // The commit takes the entry back; the one behind hears of it, and reads the list; its new proof is watched.
        for _ in 0..5 {
            let handed_over = queue.hand_over().await;
            assert_eq!(
                handed_over,
                cost(&[("commit", 1), ("item", 2), ("scan", 1), ("watch", 1)]),
                "of {count}"
            );
        }
        // The one behind watches another one now.
        let given_up = queue.give_up().await;
        assert_eq!(given_up, cost(&[("commit", 1), ("item", 2), ("scan", 1), ("watch", 1)]), "of {count}");
        filled(&queue.mem, "_locks", count - 6).await;
    }
}

/// What it costs all members together that somebody joins, and that one in the middle dies and is covered for.
async fn group(count: usize) -> (Cost, Cost) {
    let mem = Mem::new();
    let client = Client::new(&mem);
    let group = client.discovery.group(&name()).unwrap().ttl(TTL);
    let mut members = Vec::new();
    for _ in 0..count {
        members.push(group.join("member").await.unwrap());
    }
    let look_after = |mut member: discovery::recipe::Membership| {
        let task = tokio::spawn(async move {
            loop {
                if let News::Departed(gone) = member.next().await.unwrap() {
                    gone.settle(Txn::new()).await.unwrap();
                }
            }
        });
        task.abort_handle()
    };
    let tasks: Vec<_> = members.into_iter().map(look_after).collect();
    time::sleep(MOMENT).await;
    client.calls.take();

    let newcomer = group.join("newcomer").await.unwrap();
    let newcomer = look_after(newcomer);
    time::sleep(MOMENT).await;
    let join = client.calls.take();
    tasks[count / 2].abort();
    time::sleep(MOMENT).await;
    let death = client.calls.take();
    newcomer.abort();
    (join, death)
}

#[tokio::test(start_paused = true)]
async fn joins_and_deaths_in_a_group_cost_the_same_among_ten_and_a_thousand() {
    for count in [FEW, MANY] {
        let (join, death) = group(count).await;
        // Reads the circle and the first record. Watches its proof, its record, its buddy; the first a new buddy. Both read
        // the name of their buddies.
        assert_eq!(join, cost(&[("commit", 1), ("get", 4), ("item", 5), ("watch", 4)]), "of {count}");
        // One commit is the death itself, one covers for it. Three readings of three entries: of what there is to cover
        // for, for the settlement, and once more whether there is anything left. And the name of the new buddy.
        assert_eq!(death, cost(&[("commit", 2), ("get", 10), ("item", 3), ("watch", 1)]), "of {count}");
    }
}

#[tokio::test(start_paused = true)]
async fn who_leaves_a_barrier_wakes_few() {
    for count in [FEW, 300] {
        let mem = Mem::new();
        let client = Client::new(&mem);
        let barrier = client.discovery.barrier(&name(), count).unwrap().ttl(TTL);
        let entered = futures_util::future::join_all((0..count).map(|_| barrier.enter())).await;
        client.calls.take();
        let mut parties = tokio::task::JoinSet::new();
        for (n, party) in entered.into_iter().enumerate() {
            parties.spawn(async move {
                time::sleep(Duration::from_millis(n as u64)).await;
                party.unwrap().leave().await.unwrap();
            });
        }
        parties.join_all().await;
        let calls = client.calls.take();
        let each = calls["scan"] / count;
        assert!(each <= 2 + 2 * count.ilog2() as usize, "of {count}: {calls:?}");
    }
}
