//! A client process stands still for longer than its session lives, as a machine that was suspended does.
//!
//! The process is this test binary once more, told to run [`agent`] only.

use std::{
    env, io,
    process::{Child, Command, Stdio},
};

use discovery::Scope;
use tokio::time::sleep;

use crate::stage::{BRIEF, Client, STEADY, Stage, eventually, instance, soon};

/// Where the agent finds the server; set for the process that is to be the agent.
const SERVER: &str = "DISCOVERY_TEST_AGENT_SERVER";

/// What the agent registers.
const AGENT: std::ops::Range<u64> = 10..13;

#[tokio::test]
async fn a_process_that_was_frozen_past_its_session_comes_back() {
    let Some((server, mut stage)) = Stage::on_a_server(STEADY).await else { return };
    let mut agent = Agent::start(&server.connect_string());
    let there = |wanted: usize| {
        let witness = &stage.witness;
        async move || {
            let there = AGENT.filter(|id| witness.sees(&instance(*id))).count();
            (there != wanted).then(|| format!("{there} are there"))
        }
    };
    eventually("the agent has registered", there(3)).await;
    agent.signal("STOP");
    eventually("the agent's session has ended", there(0)).await;
    // Its own clock has to see it, too, which counts from the last renewal.
    sleep(BRIEF).await;
    agent.signal("CONT");
    eventually("the agent has come back", there(3)).await;
    agent.stop().await;
    eventually("the agent has left", there(0)).await;
    let departures = stage.witness.history.departures();
    assert_eq!(departures.len(), 2 * AGENT.count(), "when it froze, and when it left: {departures:?}");
    stage.recovered([0, 0]).await;
    stage.cleared(&[server]).await;
}

/// Registers, follows what happens to itself until its standard input ends, and checks what it saw.
#[tokio::test]
#[ignore = "for the test above, which runs it in a process of its own"]
async fn agent() {
    let Ok(server) = env::var(SERVER) else { return };
    let mut client = Client::open(&server, BRIEF).await;
    client.populate(AGENT).await;
    let closed = tokio::task::spawn_blocking(|| io::copy(&mut io::stdin(), &mut io::sink()));
    closed.await.unwrap().unwrap();
    eventually("all is well again", async || {
        let truth = client.discovery.fetch(Scope::everything()).await;
        truth.map_or_else(|error| Some(error.to_string()), |truth| client.lags_behind(&truth))
    })
    .await;
    client.history.assert_sound();
    assert_eq!(client.history.outages(), 1);
    let left = client.history.departures();
    assert!(
        client.wanted().all(|own| !left.contains(own.key())),
        "who slept did not see itself leave: {left:?}"
    );
    for registration in client.registrations {
        soon("to be deregistered", registration.deregister()).await.unwrap();
    }
}

struct Agent(Child);

impl Agent {
    fn start(server: &str) -> Self {
        let mut command = Command::new(env::current_exe().unwrap());
        command.args(["process::agent", "--exact", "--ignored", "--nocapture"]).env(SERVER, server);
        Self(command.stdin(Stdio::piped()).spawn().unwrap())
    }

    fn signal(&self, signal: &str) {
        let sent = Command::new("sh").args(["-c", &format!("kill -{signal} {}", self.0.id())]).status();
        assert!(sent.unwrap().success());
    }

    /// Lets it end, and takes its word for what it saw.
    async fn stop(&mut self) {
        drop(self.0.stdin.take());
        eventually("the agent ends", async || match self.0.try_wait().unwrap() {
            Some(status) => {
                assert!(status.success(), "{status}");
                None
            }
            None => Some("it runs".into()),
        })
        .await;
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // One that has ended already is no matter.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
