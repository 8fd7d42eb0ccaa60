//! The command that follows a value, as the clients of the original do.

use discovery_testbed::Port;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::{
    demo::{self, Demo},
    registry::Registry,
    run_state::{
        processes::{Commands, Server},
        telling::Way,
    },
};

pub(crate) async fn a_follower_comes_back_to_another_server_and_repeats_nothing<R: Registry>() {
    let Some(registry) = R::start_or_skip().await else { return };
    let on = Commands::on(&registry);
    let port = Port::reserve().unwrap();
    let mut server = on.serve_on(port.number()).await;
    server.create("r", json!({ "node1": [1] })).await;
    let address = server.0.url().to_owned();
    let follow = |what: &str, until: &str| {
        Demo::spawn(["run-state", "follow", what, "--until", until, "--server", &address])
    };
    let mut state = follow("runs/r/state", "ready");
    let mut parameter = follow("runs/r/nodes/node1/1/p1", "done");
    state.says("Receiving...\nReceived 'init'\n").await;
    // It is connected once it has received something: whoever cannot connect at first is not there to stay.
    server.does(200, "PUT", "/runs/r/nodes/node1/1/p1", json!({ "value": "first" })).await;
    parameter.says("Receiving...\nReceived 'first'\n").await;

    let row = ["init", "provisioning", "executing", "sending-report", "ready"];
    for (round, step) in row.windows(2).enumerate() {
        // Killed, and told to go, by turns.
        server.0.signal(if round % 2 == 0 { Signal::KILL } else { Signal::TERM });
        server.0.ended().await;
        server = on.serve_on(port.number()).await;
        assert_eq!(server.complete("r", "node1/1", step[0], step[1]).await, "moved");
        let value = if round == 3 { "done".to_owned() } else { format!("value {round}") };
        server.does(200, "PUT", "/runs/r/nodes/node1/1/p1", json!({ "value": value })).await;
        state.says(&format!("Received '{}'\n", step[1])).await;
        parameter.says(&format!("Received '{value}'\n")).await;
    }
    assert!(state.ended().await.success());
    assert!(parameter.ended().await.success());
    let received: Vec<_> = row.iter().map(|state| format!("Received '{state}'")).collect();
    assert_eq!(state.out(), format!("Receiving...\n{}\n", received.join("\n")));
    assert_eq!(parameter.out().matches("Received").count(), 5, "{}", parameter.out());
}

#[tokio::test]
async fn what_cannot_be_followed_ends_with_the_reason() {
    let mut server = Server::on_memory().await;
    let address = server.0.url().trim_end_matches('/').to_owned();
    let refused = async |what: &str, reason: &str| {
        let output = demo::run(&["run-state", "follow", what, "--server", &address]).await;
        let log = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{what}: {log}");
        assert!(log.contains(reason), "{what}: {reason:?} is not in {log}");
    };
    refused("runs/none/state", "there is no run none").await;
    refused("nothing/at/all", "404").await;
    refused("https://127.0.0.1/runs", "only http:// and ws://").await;

    server.create("r", json!({ "a": [1] })).await;
    let mut whole = Demo::spawn(["run-state", "follow", &server.url("/runs/r/state")]);
    whole.says("Received 'init'").await;
    let mut state = Way::Socket.follow(&server, "/runs/r/state").await;
    state.until_value("init").await;
    let seen = state.seq().to_string();
    let mut newer =
        Demo::spawn(["run-state", "follow", "runs/r/state", "--after", &seen, "--server", &address]);
    newer.says("Receiving...").await;
    assert_eq!(server.complete("r", "a/1", "init", "provisioning").await, "moved");
    for follower in [&mut whole, &mut newer] {
        follower.says("Received 'provisioning'").await;
    }
    assert_eq!(newer.out(), "Receiving...\nReceived 'provisioning'\n");
    server.does(204, "DELETE", "/runs/r", Value::Null).await;
    for follower in [&mut whole, &mut newer] {
        assert_eq!(follower.ended().await.code(), Some(1));
        assert!(follower.log().contains("it was deleted"), "{}", follower.log());
    }

    server.0.signal(Signal::TERM);
    assert!(server.0.ended().await.success());
    refused("runs/r/state", "is `run-state serve` running?").await;
}
