//! A client process stands still for longer than its lease lives, or dies.

use discovery::{
    Scope,
    conformance::stage::{BRIEF, Client, STEADY, Stage, eventually, instance, soon},
};
use discovery_dns::TsigKey;
use discovery_testbed::{Agent, NameServer};
use tokio::time::{Instant, sleep};

use crate::{
    common::{bind, leftovers, unsigned_at},
    stage::{self, cleared},
};

/// What the agent registers.
const AGENT: std::ops::Range<u64> = 10..13;

fn start(server: &NameServer) -> Agent {
    let order = format!("{} {} {}", server.address(), server.key_name(), server.key_secret());
    Agent::start("process::agent", &order).unwrap()
}

/// Waits until so many of the agent's registrations are there.
async fn there(stage: &Stage, wanted: usize) {
    eventually(format!("{wanted} are there"), async || {
        let there = AGENT.filter(|id| stage.witness().sees(instance(*id).key())).count();
        (there != wanted).then(|| format!("{there} are there"))
    })
    .await;
}

#[tokio::test]
async fn a_process_that_was_frozen_past_its_lease_comes_back() {
    let Some(server) = bind().await else { return };
    let mut stage = stage::on(&server, STEADY).await;
    let mut agent = start(&server);
    there(&stage, 3).await;
    agent.pause().unwrap();
    there(&stage, 0).await;
    // Its own clock has to see it, too, which counts from the last renewal.
    sleep(BRIEF).await;
    agent.resume().unwrap();
    there(&stage, 3).await;
    assert!(agent.end().await.unwrap().success());
    there(&stage, 0).await;
    // What was waited for is the view; the watch may hear of it later.
    stage.recovered([0, 0]).await;
    let departures = stage.witness().history().departures();
    assert_eq!(departures.len(), 2 * AGENT.count(), "when it froze, and when it left: {departures:?}");
    cleared(stage, &server).await;
}

#[tokio::test]
async fn a_process_that_is_killed_is_gone_after_its_lease() {
    let Some(server) = bind().await else { return };
    let mut stage = stage::on(&server, STEADY).await;
    let agent = start(&server);
    there(&stage, 3).await;
    // The others of the service have the same address, but names of their own.
    let own = async || {
        let of = |id| format!("{}.cart.prod.eu1.", instance(id).id());
        let records = leftovers(&server).await;
        let is_own = |record: &&String| AGENT.map(of).any(|own| record.contains(&own));
        records.iter().filter(is_own).count()
    };
    assert!(own().await > 0);
    drop(agent);
    let start = Instant::now();
    there(&stage, 0).await;
    let lived = start.elapsed();
    assert!(lived >= BRIEF / 2 && lived < 4 * BRIEF, "{lived:?}");
    eventually("its records are gone", async || match own().await {
        0 => None,
        left => Some(format!("{left} are left")),
    })
    .await;
    stage.recovered([0, 0]).await;
    assert_eq!(stage.witness().history().departures().len(), AGENT.count());
    cleared(stage, &server).await;
}

/// Registers, follows what happens to itself until it is asked to end, and checks what it saw.
#[tokio::test]
#[ignore = "for the tests above, which run it in a process of its own"]
async fn agent() {
    let Some(order) = Agent::order() else { return };
    let [address, name, secret] = order.split(' ').collect::<Vec<_>>()[..] else { panic!("{order}") };
    let key = TsigKey::new(name, secret).unwrap();
    let config = unsigned_at("disco.test", address.parse().unwrap()).key(key);
    let mut client = Client::open(stage::discovery(config), BRIEF);
    client.populate(AGENT).await;
    Agent::until_asked_to_end().await.unwrap();
    client.update_all().await;
    eventually("all is well again", async || {
        let truth = client.discovery().fetch(Scope::everything()).await;
        truth.map_or_else(|error| Some(error.to_string()), |truth| client.lags_behind(&truth))
    })
    .await;
    client.history().assert_sound();
    for id in AGENT {
        soon("to be deregistered", client.release(id).deregister()).await.unwrap();
    }
}
