//! Everything in one process, on memory.

use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::{
    demo::{self, Demo},
    eventually,
    run_state::{processes::Server, telling::Way},
};

async fn start(pace: &str, more: &[&str]) -> Server {
    Server(Demo::start([&["run-state", "demo", "--port", "0", "--pace", pace], more].concat()).await)
}

#[tokio::test]
async fn the_run_moves_by_itself_and_buddies_cover_for_who_is_killed() {
    let server = start("100ms", &[]).await;
    let mut state = Way::Socket.follow(&server, "/runs/run-1235/state").await;
    let mut circle = Way::Socket.follow(&server, "/circle").await;
    let mut log = Way::Events.follow(&server, "/log").await;
    assert_eq!(
        server.get("/about").await.json(),
        json!({ "registry": "memory", "workers": ["ada", "grace", "edsger"] })
    );
    let who = |seats: &Value| {
        let label = |seat: &Value| seat["label"].as_str().unwrap().to_owned();
        let mut all: Vec<_> = seats.as_array().into_iter().flatten().map(label).collect();
        all.sort();
        all
    };
    circle.until("three workers", |circle| who(circle.value()) == ["ada", "edsger", "grace"]).await;
    state.until("a whole turn", |state| state.heard.len() > 6).await;

    server.does(204, "POST", "/workers/grace/kill", Value::Null).await;
    server.does(404, "POST", "/workers/grace/kill", Value::Null).await;
    circle.until("a seat less", |circle| who(circle.value()) == ["ada", "edsger"]).await;
    log.until("its buddy covers", |log| {
        log.heard.iter().any(|word| {
            word["worker"] != "grace"
                && word["text"].as_str().unwrap().starts_with("covering for my buddy grace")
        })
    })
    .await;
    let before = state.seq();
    state.until("the run moves on", |state| state.seq() > before + 2).await;
    circle.until("it is back", |circle| who(circle.value()) == ["ada", "edsger", "grace"]).await;
    // Round and round, one step at a time.
    let ring = ["provisioning", "executing", "sending-report", "ready"];
    let follows = |a: &Value, b: &Value| {
        ring.iter().position(|state| a == state).is_none_or(|at| *b == ring[(at + 1) % ring.len()])
    };
    for (values, seqs) in state.heard.windows(2).zip(state.seqs.windows(2)) {
        assert!(seqs[1] > seqs[0] + 1 || follows(&values[0], &values[1]), "{:?}", state.heard);
    }
}

#[tokio::test]
async fn all_leave_in_order() {
    for (pace, signal) in [("50ms", Signal::TERM), ("1h", Signal::INT)] {
        let mut server = start(pace, &["--topology", r#"{"a" [1 2 3]}"#]).await;
        let mut state = Way::Socket.follow(&server, "/runs/run-1235/state").await;
        let mut events = Way::Events.follow(&server, "/runs").await;
        for listener in [&mut state, &mut events] {
            listener.until("something", |listener| !listener.heard.is_empty()).await;
        }
        let before = Instant::now();
        server.0.signal(signal);
        for listener in [&mut state, &mut events] {
            listener.until("the end", |listener| listener.ended).await;
            assert!(!listener.is_gone, "the server goes, not the run");
        }
        assert!(server.0.ended().await.success(), "{}", server.0.log());
        assert!(before.elapsed() < Duration::from_secs(10), "{:?}", before.elapsed());
    }
}

#[tokio::test]
async fn the_run_of_the_demo_can_be_scaled_and_ended() {
    let server = start("100ms", &["--topology", r#"{"a": [1]}"#]).await;
    server.does(201, "PUT", "/runs/run-1235/nodes/b/7", Value::Null).await;
    let round = async || server.picture("run-1235").await["round"].as_u64().unwrap();
    let before = round().await;
    eventually("it goes on with the new machine", async || round().await > before + 1).await;
    server.does(200, "POST", "/runs/run-1235/abort", json!({ "state": "error", "cause": "a test" })).await;
    let picture = server.picture("run-1235").await;
    assert_eq!(
        (&picture["state"], &picture["moves"].as_array().unwrap().last().unwrap()["cause"]),
        (&json!("error"), &json!("a test"))
    );
    // The page is there as before.
    assert_eq!(server.get("/").await.status, 200);
    server.does(204, "DELETE", "/runs/run-1235", Value::Null).await;
    server.create("run-1236", json!({ "a": [1] })).await;
}

#[tokio::test]
async fn the_page_comes_with_its_files_and_rules() {
    let server = start("1h", &[]).await;
    let index = server.get("/").await;
    assert!(index.headers.contains("content-security-policy: default-src 'self'"), "{}", index.headers);
    assert!(index.headers.contains("x-content-type-options: nosniff"), "{}", index.headers);
    for (file, kind) in [
        ("", "text/html"),
        ("run-state.css", "text/css"),
        ("run-state.js", "text/javascript"),
        ("link.js", "text/javascript"),
        ("favicon.svg", "image/svg+xml"),
        ("healthz", "text/plain"),
        ("about", "application/json"),
        ("runs", "application/json"),
        ("circle", "application/json"),
        ("log", "application/json"),
    ] {
        let answer = server.get(file).await;
        assert_eq!(answer.status, 200, "{file}");
        assert!(answer.headers.contains(&format!("content-type: {kind}")), "{file}: {}", answer.headers);
    }
}

#[tokio::test]
async fn three_hundred_rounds_are_moved_by_exactly_one_whoever_dies() {
    for ttl in ["2s", "10s"] {
        let output = demo::run(&[
            "run-state",
            "race",
            "--rounds",
            "300",
            "--kill",
            "30",
            "--seed",
            "1235",
            "--ttl",
            ttl,
        ])
        .await;
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
        for line in [
            "moved by exactly one      300",
            "moved more than once        0",
            "stuck                       0",
            "errors                      0",
            "marks left over             0",
        ] {
            assert!(said.contains(line), "{line:?} is not in {said}");
        }
        assert!(!said.contains("workers killed              0"), "{said}");
    }
}
