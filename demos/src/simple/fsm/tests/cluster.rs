//! The examples of the original: instances that are provisioned, and nodes made of an agent and an instance.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::time;

use super::super::{Clock, Instance, Machine, Machines, State};

const TICK: Duration = Duration::from_millis(100);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Provision {
    Requested,
    Creating,
    Allocated,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Told {
    Create,
    Found,
}

/// `TestClusterProvisionFlow`.
#[tokio::test(start_paused = true)]
async fn thirty_are_provisioned_as_they_are_found() {
    let machine: Machine<_, _, String> = Machine::builder()
        .state(State::new(Provision::Requested).on(Told::Create, Provision::Creating).ttl(3, Told::Create))
        .state(State::new(Provision::Creating).on(Told::Found, Provision::Allocated))
        .state(State::new(Provision::Allocated))
        .build()
        .unwrap();
    let machines = Machines::new(machine);
    let all: Vec<_> = (0..30).map(|_| machines.add(Provision::Requested).unwrap()).collect();
    let mut clock = Clock::wall(&machines, TICK);
    clock.start();
    let find = |instance: &Instance<_, _, _>| {
        instance.signal_with(Told::Found, format!("id-{}", instance.id())).unwrap();
    };
    time::sleep(TICK * 4).await;
    all[..10].iter().for_each(find);
    time::sleep(TICK * 16).await;
    assert_eq!((machines.count(Provision::Allocated), machines.count(Provision::Creating)), (10, 20));
    all[10..].iter().for_each(find);
    assert_eq!(machines.count(Provision::Allocated), 30);
    for instance in &all {
        assert_eq!(instance.data(), Some(format!("id-{}", instance.id())));
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Node {
    Unmatched,
    MatchedInstance,
    MatchedAgent,
    Cluster,
    ClusterDown,
    PendingDestroy,
    Removed,
    Done,
}
use Node::*;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Heard {
    InstanceOk,
    InstanceGone,
    AgentReady,
    AgentDown,
    AgentGone,
    Timeout,
}
use Heard::*;

/// What was done, in order.
type Deeds = Arc<Mutex<Vec<&'static str>>>;

struct Fleet {
    machines: Machines<Node, Heard, ()>,
    deeds: Deeds,
}

impl Fleet {
    fn new() -> Self {
        let deeds = Deeds::default();
        let does = |deed: &'static str| {
            let deeds = deeds.clone();
            move |_| {
                deeds.lock().unwrap().push(deed);
                std::future::ready(Ok(()))
            }
        };
        let machine = Machine::builder()
            .state(
                State::new(Unmatched)
                    .on(InstanceOk, MatchedInstance)
                    .on(AgentReady, MatchedAgent)
                    .on(AgentDown, MatchedAgent)
                    .on(Timeout, Removed)
                    .ttl(10, Timeout),
            )
            .state(
                State::new(MatchedInstance)
                    .on(AgentReady, Cluster)
                    .on(InstanceGone, Removed)
                    .on(Timeout, PendingDestroy)
                    .ttl(5, Timeout),
            )
            .state(
                State::new(MatchedAgent)
                    .on(InstanceOk, Cluster)
                    .on(AgentGone, Removed)
                    .on(Timeout, Removed)
                    .act(Timeout, "remove the agent", does("agent-remove"))
                    .ttl(5, Timeout),
            )
            .state(
                State::new(Cluster)
                    .on(AgentReady, Cluster)
                    .on(AgentDown, ClusterDown)
                    .on(InstanceGone, MatchedAgent),
            )
            .state(
                State::new(ClusterDown)
                    .on(AgentReady, Cluster)
                    .on(InstanceGone, MatchedAgent)
                    .on(Timeout, PendingDestroy)
                    .ttl(10, Timeout),
            )
            .state(
                State::new(PendingDestroy)
                    .on(AgentReady, Cluster)
                    .on(Timeout, Removed)
                    .act(Timeout, "destroy", does("destroy"))
                    .ttl(3, Timeout),
            )
            .state(
                State::new(Removed)
                    .on(AgentDown, Done)
                    .on(Timeout, Done)
                    .act(AgentDown, "remove the agent", does("agent-remove"))
                    .ttl(10, Timeout),
            )
            .state(State::new(Done))
            .build()
            .unwrap();
        Self { machines: Machines::new(machine), deeds }
    }

    async fn play(&self, steps: &[(Heard, Node)]) -> Instance<Node, Heard, ()> {
        let instance = self.machines.add(Unmatched).unwrap();
        for (heard, then) in steps {
            instance.signal(*heard).unwrap();
            assert_eq!(instance.settled().await, Ok(*then), "{heard:?}");
        }
        instance
    }

    async fn ticks(&self, count: usize) {
        for _ in 0..count {
            self.machines.tick();
            // Actions run in tasks of their own.
            tokio::task::yield_now().await;
        }
    }

    fn deeds(&self) -> BTreeMap<&'static str, usize> {
        let mut counts = BTreeMap::new();
        for deed in self.deeds.lock().unwrap().iter() {
            *counts.entry(*deed).or_default() += 1;
        }
        counts
    }
}

/// `TestClusterCases`, 1.
#[tokio::test]
async fn a_node_whose_instance_goes_is_removed() {
    let fleet = Fleet::new();
    let steps = [
        (AgentReady, MatchedAgent),
        (InstanceOk, Cluster),
        (AgentReady, Cluster),
        (AgentDown, ClusterDown),
        (InstanceGone, MatchedAgent),
    ];
    let node = fleet.play(&steps).await;
    fleet.ticks(6).await;
    assert_eq!(node.settled().await, Ok(Removed));
    assert_eq!(fleet.deeds(), [("agent-remove", 1)].into());
    fleet.ticks(11).await;
    assert_eq!(node.settled().await, Ok(Done));
}

/// 2.
#[tokio::test]
async fn an_instance_without_an_agent_is_destroyed() {
    let fleet = Fleet::new();
    let node = fleet.play(&[(InstanceOk, MatchedInstance)]).await;
    fleet.ticks(6).await;
    assert_eq!(node.settled().await, Ok(PendingDestroy));
    fleet.ticks(3).await;
    assert_eq!(node.settled().await, Ok(Removed));
    assert_eq!(fleet.deeds(), [("destroy", 1)].into());
    fleet.ticks(11).await;
    assert_eq!(node.settled().await, Ok(Done));
}

/// 3.
#[tokio::test]
async fn a_node_whose_agent_stays_down_is_destroyed() {
    let fleet = Fleet::new();
    let steps = [
        (InstanceOk, MatchedInstance),
        (AgentReady, Cluster),
        (AgentReady, Cluster),
        (AgentDown, ClusterDown),
        (InstanceOk, ClusterDown),
    ];
    let node = fleet.play(&steps).await;
    fleet.ticks(11).await;
    assert_eq!(node.settled().await, Ok(PendingDestroy));
    fleet.ticks(4).await;
    assert_eq!(node.settled().await, Ok(Removed));
    node.signal(AgentDown).unwrap();
    assert_eq!(node.settled().await, Ok(Done));
    assert_eq!(fleet.deeds(), [("agent-remove", 1), ("destroy", 1)].into());
}

/// 4.
#[tokio::test]
async fn an_agent_without_an_instance_is_removed() {
    let fleet = Fleet::new();
    let node = fleet.play(&[(AgentReady, MatchedAgent)]).await;
    fleet.ticks(6).await;
    assert_eq!(node.settled().await, Ok(Removed));
    assert_eq!(fleet.deeds(), [("agent-remove", 1)].into());
    fleet.ticks(11).await;
    assert_eq!(node.settled().await, Ok(Done));
}
