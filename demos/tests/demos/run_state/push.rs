//! The push service.

use serde_json::{Value, json};
use tokio_tungstenite::{
    connect_async,
    tungstenite::{self, client::IntoClientRequest, http::HeaderValue},
};

use crate::{
    http,
    registry::Registry,
    run_state::{
        processes::{Commands, Server},
        telling::{Listener, Way},
    },
};

/// The states that a run was heard to be in.
fn states(pictures: &[Value]) -> Vec<&str> {
    let mut states: Vec<_> = pictures.iter().map(|picture| picture["state"].as_str().unwrap()).collect();
    states.dedup();
    states
}

pub(crate) async fn what_is_followed_is_heard_with_numbers_and_resumed<R: Registry>() {
    let Some(registry) = R::start_or_skip().await else { return };
    let server = Commands::on(&registry).serve().await;
    for way in Way::BOTH {
        let id = format!("{way:?}").to_lowercase();
        follow_all(&server, way, &id).await;
    }
}

async fn follow_all(server: &Server, way: Way, id: &str) {
    let of_run = |more: &str| format!("/runs/{id}{more}");
    let mut runs = way.follow(server, "/runs").await;
    runs.until("what there is", |runs| runs.value().is_object()).await;
    server.create(id, json!({ "a": [1, 2], "b": [1] })).await;
    runs.until("the run", |runs| runs.value()[id]["state"] == "init").await;

    let mut state = way.follow(server, &of_run("/state")).await;
    let mut picture = way.follow(server, &of_run("")).await;
    let mut machine = way.follow(server, &of_run("/nodes/a/1")).await;
    // Not there yet.
    let mut parameter = way.follow(server, &of_run("/nodes/a/1/p1")).await;
    state.until_value("init").await;
    picture.until("its machines", |picture| picture.value()["tasks"]["b/1"] == false).await;
    machine.until_value(json!({})).await;
    assert_eq!(state.seqs.len(), 1, "the initial value, and that once");

    assert_eq!(server.complete(id, "a/1", "init", "provisioning").await, "counted");
    picture.until("who has reported", |picture| picture.value()["tasks"]["a/1"] == true).await;
    assert_eq!(picture.value()["tasks"], json!({ "a/1": true, "a/2": false, "b/1": false }));
    for machine in ["a/2", "b/1"] {
        server.complete(id, machine, "init", "provisioning").await;
    }
    state.until_value("provisioning").await;
    runs.until("the move", |runs| runs.value()[id]["state"] == "provisioning").await;
    picture.until("the move", |picture| picture.value()["round"] == 2).await;
    assert_eq!(states(&picture.heard), ["init", "provisioning"]);
    assert_eq!(picture.value()["moves"][0]["cause"], "b/1");
    assert_eq!(state.heard, ["init", "provisioning"]);

    server.does(200, "PUT", &of_run("/nodes/a/1/p1"), json!({ "value": "x" })).await;
    parameter.until_value("x").await;
    machine.until_value(json!({ "p1": "x" })).await;
    server.does(200, "PUT", &of_run("/nodes/a/1/p1"), json!({ "value": "y" })).await;
    parameter.until_value("y").await;
    machine.until_value(json!({ "p1": "y" })).await;
    assert_eq!(parameter.heard, ["x", "y"]);

    // Who comes back hears only what is newer.
    let mut late = way.resume(server, &of_run("/state"), Some(state.seqs[0])).await;
    late.until_value("provisioning").await;
    assert_eq!(late.heard, ["provisioning"]);
    let mut present = way.resume(server, &of_run("/state"), Some(state.seq())).await;
    let mut same = way.resume(server, &of_run("/nodes/a/1/p1"), Some(parameter.seqs[0])).await;
    same.until_value("y").await;
    let mut silent = way.resume(server, &of_run("/nodes/a/1/p1"), Some(same.seq())).await;
    for machine in ["a/1", "a/2", "b/1"] {
        server.complete(id, machine, "provisioning", "executing").await;
    }
    for listener in [&mut state, &mut late, &mut present] {
        listener.until_value("executing").await;
    }
    assert_eq!(present.heard, ["executing"]);
    server.does(200, "PUT", &of_run("/nodes/a/1/p1"), json!({ "value": "z" })).await;
    silent.until_value("z").await;
    assert_eq!(silent.heard, ["z"]);

    server.does(204, "DELETE", &of_run(""), Value::Null).await;
    for listener in
        [&mut state, &mut late, &mut present, &mut picture, &mut machine, &mut parameter, &mut silent]
    {
        listener.until("that it is gone", |listener| listener.is_gone).await;
        listener.until("the end", |listener| listener.ended).await;
    }
    runs.until("its absence", |runs| runs.value().get(id).is_none()).await;
}

pub(crate) async fn who_follows_hears_on_behind_an_outage_of_the_registry<R: Registry>() {
    let Some(registry) = R::start_or_skip().await else { return };
    let server = Commands::on(&registry).serve().await;
    server.create("r", json!({ "a": [1] })).await;
    let mut listeners = Vec::new();
    for way in Way::BOTH {
        for path in ["/runs/r/state", "/runs/r", "/runs", "/circle"] {
            let mut listener = way.follow(&server, path).await;
            listener.until("the initial value", |listener| !listener.heard.is_empty()).await;
            listeners.push(listener);
        }
    }
    let heard: Vec<_> = listeners.iter().map(|listener| listener.heard.len()).collect();
    assert_eq!(heard, [1; 8]);

    let row = ["init", "provisioning", "executing", "sending-report"];
    for (from, to) in row.into_iter().zip(&row[1..]).take(2) {
        registry.kill();
        assert_eq!(server.get("/healthz").await.body, "ok\n", "the server itself is there");
        registry.restart().await;
        assert_eq!(server.complete("r", "a/1", from, to).await, "moved");
        for listener in &mut listeners {
            let is_there = |value: &Value| value == to || value["state"] == *to || value["r"]["state"] == *to;
            if listener.path() != "/circle" {
                listener.until("the move", |listener| is_there(listener.value())).await;
            }
        }
    }
    for listener in listeners.iter().filter(|listener| listener.path() == "/runs/r/state") {
        assert_eq!(listener.heard, row[..3], "nothing twice");
        assert_eq!(listener.seqs.len(), 3);
    }
}

/// The list and the picture of a run come from two watches, and a move may write both in one step.
#[tokio::test]
async fn the_last_value_is_never_missed() {
    let server = Server::on_memory().await;
    for n in 0..20 {
        let id = format!("r{n}");
        let run = format!("/runs/{id}");
        let order = json!({ "id": id, "topology": { "a": [1, 2, 3] }, "states": ["one", "two"] });
        server.does(201, "POST", "/runs", order).await;
        let mut picture = Way::Socket.follow(&server, &run).await;
        picture.until("the initial value", |picture| !picture.heard.is_empty()).await;
        for machine in ["a/1", "a/2"] {
            server.complete(&id, machine, "one", "two").await;
        }
        server.does(200, "DELETE", &format!("{run}/nodes/a/3"), Value::Null).await;
        picture.until("the move", |picture| picture.value()["state"] == "two").await;
        let present = server.picture(&id).await;
        assert_eq!(present["tasks"], json!({ "a/1": false, "a/2": false }));
        picture.until("what is there", |picture| *picture.value() == present).await;
    }
    // Where there is a choice, the first one who reports decides for all, and says so in the same step.
    server.create("choice", json!({ "a": [1, 2] })).await;
    let mut picture = Way::Socket.follow(&server, "/runs/choice").await;
    let row = ["init", "provisioning", "executing", "sending-report", "ready"];
    for round in 0..10 {
        let row = if round == 0 {
            &row[..]
        } else {
            &["ready", "provisioning", "executing", "sending-report", "ready"]
        };
        for step in row.windows(2) {
            let before = picture.heard.len();
            server.complete("choice", "a/1", step[0], step[1]).await;
            let present = server.picture("choice").await;
            picture.until("what is there", |picture| *picture.value() == present).await;
            // A connection may break behind any message.
            for (value, seq) in picture.heard.iter().zip(&picture.seqs).skip(before) {
                if *value != present {
                    let mut resumed = Way::Events.resume(&server, "/runs/choice", Some(*seq)).await;
                    resumed.until("what is there", |resumed| *resumed.value() == present).await;
                }
            }
            server.complete("choice", "a/2", step[0], step[1]).await;
        }
    }
}

/// A run may be written without a move: as soon as somebody has chosen what follows.
#[tokio::test]
async fn a_state_is_told_once_a_move() {
    let server = Server::on_memory().await;
    server.create("r", json!({ "a": [1, 2] })).await;
    for way in Way::BOTH {
        let mut state = way.follow(&server, "/runs/r/state").await;
        state.until("the initial value", |state| !state.heard.is_empty()).await;
        let row: &[&str] = match way {
            Way::Socket => &["init", "provisioning", "executing", "sending-report", "ready", "provisioning"],
            Way::Events => {
                &["provisioning", "executing", "sending-report", "ready", "finalizing", "terminated"]
            }
        };
        for step in row.windows(2) {
            let seen = state.seq();
            server.complete("r", "a/1", step[0], step[1]).await;
            let mut resumed = way.resume(&server, "/runs/r/state", Some(seen)).await;
            server.complete("r", "a/2", step[0], step[1]).await;
            for listener in [&mut state, &mut resumed] {
                listener.until_value(step[1]).await;
            }
            assert_eq!(resumed.heard, [step[1]]);
        }
        assert_eq!(state.heard, row);
    }
}

#[tokio::test]
async fn who_comes_back_misses_nothing() {
    let server = Server::on_memory().await;
    let three = |circle: &Listener| circle.value().as_array().is_some_and(|all| all.len() == 3);
    for way in Way::BOTH {
        let mut log = way.follow(&server, "/log").await;
        log.until("what ada says", |log| log.heard.iter().any(|word| word["worker"] == "ada")).await;
        let mut circle = way.follow(&server, "/circle").await;
        circle.until("three workers", three).await;
        // They have no numbers: what is there is told anew, whatever the client says that it has seen.
        for after in [None, Some(1), Some(u64::MAX)] {
            let mut runs = way.resume(&server, "/runs", after).await;
            runs.until("what there is", |runs| runs.value().get("run-1235").is_some()).await;
            let id = format!("{way:?}-{}", after.unwrap_or_default() % 10).to_lowercase();
            server.create(&id, json!({ "a": [1] })).await;
            runs.until("a new one", |runs| runs.value().get(&id).is_some()).await;
            let mut circle = way.resume(&server, "/circle", after).await;
            circle.until("three workers", three).await;
        }

        let mut later = way.resume(&server, "/log", Some(log.seq())).await;
        server.does(204, "POST", "/workers/ada/kill", Value::Null).await;
        later.until("what happens to ada", |log| log.heard.iter().any(|word| word["text"] == "killed")).await;
        assert!(later.seqs[0] > log.seq(), "nothing twice");
        circle.until("a seat less", |circle| !three(circle)).await;
        circle.until("ada is back", three).await;
    }
}

#[tokio::test]
async fn who_may_not_follow_is_told_why() {
    let server = Server::on_memory().await;
    for (status, path) in [
        (404, "/runs/none"),
        (404, "/runs/none/state"),
        (404, "/runs/run-1235/nodes/web/99"),
        (404, "/runs/run-1235/nodes/none/1/p1"),
        (400, "/runs/no_run/state"),
        (400, "/runs/run-1235/state?after=x"),
    ] {
        let events = http::request("GET", &server.url(path), "Accept: text/event-stream\r\n", "").await;
        assert_eq!(events.status, status, "{path}: {events:?}");
        let refusal = connect_async(server.url(path).replace("http://", "ws://")).await.unwrap_err();
        assert!(
            matches!(&refusal, tungstenite::Error::Http(answer) if answer.status() == status),
            "{refusal}"
        );
    }
    let mut request = server.url("/runs").replace("http://", "ws://").into_client_request().unwrap();
    request.headers_mut().insert("origin", HeaderValue::from_static("http://evil.example"));
    let refusal = connect_async(request).await.unwrap_err();
    assert!(matches!(&refusal, tungstenite::Error::Http(answer) if answer.status() == 403), "{refusal}");
    // By address instead of by header.
    let events =
        http::open(&server.url("/runs/run-1235/state?after=0"), "Accept: text/event-stream\r\n").await;
    drop(events);
}
