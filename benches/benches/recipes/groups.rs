//! A departure from a group of ten, and from one of a thousand: how long it takes until it is settled, and how many calls
//! all members together make because of it.
//!
//! A thousand are ten processes with a hundred members each: many more watches on one session than those have the backend
//! of ZooKeeper refuses. Memory and DNS wake all watches of a store or a process for all news, so there the time, not the
//! calls, depends on how many there are.
//!
//! Who dies here takes its entry along. How long a store takes to notice that a process is gone is another matter, and
//! the same for all: the lease's ttl.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use discovery::{
    kv::Txn,
    recipe::{Group, Membership, News},
};
use discovery_benches::turns::{Turns, is_wanted};
use tokio::{runtime::Runtime, sync::mpsc, task::AbortHandle, time::sleep};

use crate::{
    calls::{Calls, Costs},
    registry::{Kind, Registry, name},
};

const SIZES: [(usize, &str); 2] = [(10, "of 10"), (1000, "of 1000")];
const TIME: Duration = Duration::from_secs(8);
/// Nobody dies because the machine is busy.
const TTL: Duration = Duration::from_secs(60);
/// How long nothing may happen for what was caused to be over.
const SETTLE: Duration = Duration::from_millis(30);
/// How many members a process has.
const PER_PROCESS: usize = 100;
/// How long it is watched what happens when nothing happens.
const IDLE: Duration = Duration::from_secs(5);

pub(crate) fn bench(kind: Kind) {
    let group = format!("{}_group_departure", kind.label());
    // BIND has to be told whom to notify.
    if kind == Kind::DnsBind || !is_wanted(&group) {
        return;
    }
    let runtime = Runtime::new().expect("a runtime");
    runtime.block_on(async {
        // A server for each: what one group writes is no news to the other.
        if let (Some(few), Some(many)) = (Registry::start(kind).await, Registry::start(kind).await) {
            departures([&few, &many], group).await;
        }
    });
}

async fn departures(registries: [&Registry; 2], group: String) {
    let mut parties = Vec::new();
    for (registry, (size, _)) in registries.into_iter().zip(SIZES) {
        parties.push(Party::gather(registry, size).await);
    }
    let mut turns = Turns::new(group, TIME);
    while turns.go_on() {
        for (party, (_, side)) in parties.iter_mut().zip(SIZES) {
            turns.add(side, party.lose_one().await);
        }
    }
    let group = turns.name().to_owned();
    turns.finish(SIZES[1].1);
    for (party, (size, _)) in parties.iter().zip(SIZES) {
        println!("calls {group:<40} of {size}:{}", party.costs);
    }
    // What watches deliver, or are opened for, while nobody dies is no part of a departure, but is in the counts above.
    for party in &parties {
        party.calls.take();
    }
    sleep(IDLE).await;
    for (party, (size, _)) in parties.iter().zip(SIZES) {
        let mut idle = Costs::default();
        idle.add(party.calls.take());
        println!("idle  {group:<40} of {size}, in {IDLE:?}:{idle}");
    }
    println!();
    // Before the runtime ends with the leases.
    for (_, task) in parties.iter().flat_map(|party| &party.members) {
        task.abort();
    }
    sleep(SETTLE).await;
}

/// A group, all members of which look after their buddies.
struct Party {
    /// The group as its processes see it, the next one to have a newcomer first.
    groups: VecDeque<Group>,
    calls: Calls,
    costs: Costs,
    members: Vec<(String, AbortHandle)>,
    /// Who was covered for, and when that was settled; an empty name is a new buddy.
    report: mpsc::UnboundedSender<(String, Instant)>,
    reports: mpsc::UnboundedReceiver<(String, Instant)>,
}

impl Party {
    async fn gather(registry: &Registry, size: usize) -> Self {
        let (calls, costs) = (Calls::default(), Costs::default());
        let mut groups = VecDeque::new();
        for _ in 0..size.div_ceil(PER_PROCESS) {
            let process = registry.process().await.layer(calls.clone());
            groups.push_back(process.group(&name()).expect("a store with leases").ttl(TTL));
        }
        let (report, reports) = mpsc::unbounded_channel();
        let mut party = Self { groups, calls, costs, members: Vec::new(), report, reports };
        for n in 0..size {
            party.admit(&format!("member {n}")).await;
        }
        party.settle().await;
        party
    }

    async fn admit(&mut self, label: &str) {
        self.groups.rotate_left(1);
        let member = self.groups[0].join(label).await.expect("the server is up");
        let id = member.id().to_owned();
        let task = tokio::spawn(serve(member, self.report.clone()));
        self.members.push((id, task.abort_handle()));
    }

    /// One of them dies; how long it takes until it is covered for.
    async fn lose_one(&mut self) -> Duration {
        self.calls.take();
        let at = self.members.len() / 2;
        let (gone, task) = self.members.remove(at);
        let began = Instant::now();
        task.abort();
        let settled = loop {
            match self.reports.recv().await.expect("we can report ourselves") {
                (id, settled) if id == gone => break settled,
                _ => {}
            }
        };
        self.settle().await;
        self.costs.add(self.calls.take());
        self.admit("newcomer").await;
        self.settle().await;
        settled.duration_since(began)
    }

    /// Waits until nothing happens any more.
    async fn settle(&mut self) {
        let mut calls = None;
        while calls != Some(self.calls.reads_and_writes()) {
            calls = Some(self.calls.reads_and_writes());
            sleep(SETTLE).await;
        }
        while self.reports.try_recv().is_ok() {}
    }
}

/// Looks after the buddy for as long as nobody aborts this.
async fn serve(mut member: Membership, report: mpsc::UnboundedSender<(String, Instant)>) {
    loop {
        let told = match member.next().await.expect("the lease lives") {
            News::Departed(gone) => {
                gone.settle(Txn::new()).await.expect("nobody else joins");
                gone.id().to_owned()
            }
            News::Buddy(_) => String::new(),
        };
        // Who is gone asks for nothing any more.
        let _ = report.send((told, Instant::now()));
    }
}
