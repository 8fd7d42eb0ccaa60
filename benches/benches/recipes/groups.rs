//! A departure from a group of ten, and from one of a thousand: how long it takes until it is settled, and how many calls
//! all members together make because of it.
//!
//! Who dies here takes its entry along. How long a store takes to notice that a process is gone is another matter, and
//! the same for all: the lease's ttl.

use std::time::{Duration, Instant};

use discovery::{
    Discovery,
    kv::Txn,
    recipe::{Group, Membership, News},
};
use discovery_benches::turns::{Turns, is_wanted};
use tokio::{runtime::Runtime, sync::mpsc, task::AbortHandle, time::sleep};

use crate::{
    calls::{Calls, Costs},
    registry::{Kind, Registry},
};

const SIZES: [(usize, &str); 2] = [(10, "of 10"), (1000, "of 1000")];
const TIME: Duration = Duration::from_secs(8);
/// Nobody dies because the machine is busy.
const TTL: Duration = Duration::from_secs(60);
/// How long nothing may happen for what was caused to be over.
const SETTLE: Duration = Duration::from_millis(30);

pub(crate) fn bench(kind: Kind) {
    let group = format!("{}_group_departure", kind.label());
    // BIND has to be told whom to notify.
    if kind == Kind::DnsBind || !is_wanted(&group) {
        return;
    }
    let runtime = Runtime::new().expect("a runtime");
    runtime.block_on(async {
        if let Some(registry) = Registry::start(kind).await {
            departures(&registry, group).await;
        }
    });
}

async fn departures(registry: &Registry, group: String) {
    let mut parties = Vec::new();
    for (size, _) in SIZES {
        parties.push(Party::gather(registry.process().await, size).await);
    }
    let mut turns = Turns::new(group, TIME);
    while turns.go_on() {
        for (party, (_, side)) in parties.iter_mut().zip(SIZES) {
            turns.add(side, party.lose_one().await);
        }
    }
    let name = turns.name().to_owned();
    turns.finish(SIZES[1].1);
    for (party, (size, _)) in parties.iter().zip(SIZES) {
        println!("calls {name:<40} of {size}:{}", party.costs);
    }
    println!();
}

/// A group, all members of which look after their buddies.
struct Party {
    group: Group,
    calls: Calls,
    costs: Costs,
    members: Vec<(String, AbortHandle)>,
    /// Who was covered for, and when that was settled; an empty name is a new buddy.
    report: mpsc::UnboundedSender<(String, Instant)>,
    reports: mpsc::UnboundedReceiver<(String, Instant)>,
}

impl Party {
    async fn gather(process: Discovery, size: usize) -> Self {
        let (calls, costs) = (Calls::default(), Costs::default());
        let process = process.layer(calls.clone());
        let name = format!("eu1/prod/group{size}").parse().expect("a valid name");
        let group = process.group(&name).expect("a store with leases").ttl(TTL);
        let (report, reports) = mpsc::unbounded_channel();
        let mut party = Self { group, calls, costs, members: Vec::new(), report, reports };
        for n in 0..size {
            party.admit(&format!("member {n}")).await;
        }
        party.settle().await;
        party
    }

    async fn admit(&mut self, label: &str) {
        let member = self.group.join(label).await.expect("the server is up");
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
        while calls != Some(self.calls.all()) {
            calls = Some(self.calls.all());
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
