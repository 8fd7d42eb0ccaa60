//! A client process stands still for longer than its lease lives, as a machine that was suspended does.

use discovery::{
    Scope,
    conformance::stage::{BRIEF, STEADY, eventually, instance, soon},
};
use discovery_testbed::Agent;
use tokio::time::sleep;

use crate::stage::{self, cleared, client};

/// What the agent registers.
const AGENT: std::ops::Range<u64> = 10..13;

#[tokio::test]
async fn a_process_that_was_frozen_past_its_lease_comes_back() {
    let Some((server, mut stage)) = stage::on_a_server(STEADY).await else { return };
    let mut agent = Agent::start("process::agent", &format!("{}/cn", server.address())).unwrap();
    let there = |wanted: usize| {
        let witness = stage.witness();
        async move || {
            let there = AGENT.filter(|id| witness.sees(instance(*id).key())).count();
            (there != wanted).then(|| format!("{there} are there"))
        }
    };
    eventually("the agent has registered", there(3)).await;
    agent.pause().unwrap();
    eventually("the agent's lease has ended", there(0)).await;
    // Its own clock has to see it, too, which counts from the last renewal.
    sleep(BRIEF).await;
    agent.resume().unwrap();
    eventually("the agent has come back", there(3)).await;
    assert!(agent.end().await.unwrap().success());
    eventually("the agent has left", there(0)).await;
    // What was waited for is the view; the watch may hear of it later.
    stage.recovered([0, 0]).await;
    let departures = stage.witness().history().departures();
    assert_eq!(departures.len(), 2 * AGENT.count(), "when it froze, and when it left: {departures:?}");
    cleared(stage, &[server]).await;
}

/// Registers, follows what happens to itself until it is asked to end, and checks what it saw.
#[tokio::test]
#[ignore = "for the test above, which runs it in a process of its own"]
async fn agent() {
    let Some(locator) = Agent::order() else { return };
    let mut client = client(&locator, BRIEF).await;
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
