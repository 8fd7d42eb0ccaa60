//! Runs that take too long.

use rustix::process::Signal;
use serde_json::json;

use crate::{
    eventually,
    registry::Registry,
    run_state::processes::{Commands, Server, recipes},
};

pub(crate) async fn what_takes_too_long_times_out_whoever_serves<R: Registry>() {
    let Some(registry) = R::start_or_skip().await else { return };
    let on = Commands::on(&registry);
    let (runs, circle) = recipes(&registry).await;
    let server = on.serve().await;
    on.ok(&["create", "short", r#"{"a": [1,2]}"#, "--limit", "500ms"]).await;
    on.ok(&["create", "long", r#"{"a": [1,2]}"#, "--limit", "1h"]).await;
    let timed_out = async |id: &str| {
        let run = runs.run(id).unwrap();
        eventually("it has timed out", async || run.status().await.unwrap().state == "timed-out").await;
        run.status().await.unwrap()
    };
    let status = timed_out("short").await;
    assert_eq!((status.round, status.is_over), (2, true));
    assert_eq!(status.moves[0].cause, "init took longer than 500ms");
    on.refuses(&["complete", "short", "a", "1", "init", "provisioning"], "is in state \"timed-out\"").await;

    // A run that nobody supervises goes on; whoever serves next begins to measure.
    server.0.signal(Signal::KILL);
    drop(server);
    on.ok(&["create", "orphan", r#"{"a": [1]}"#, "--limit", "500ms"]).await;
    let servers = [on.serve().await, on.serve().await];
    assert_eq!(timed_out("orphan").await.moves.len(), 1, "by one of two that saw it");

    // With two of them, one may die.
    on.ok(&["create", "heir", r#"{"a": [1]}"#, "--limit", "2s"]).await;
    servers[0].0.signal(Signal::KILL);
    assert_eq!(timed_out("heir").await.moves.len(), 1);
    assert_eq!(runs.run("long").unwrap().status().await.unwrap().state, "init");

    // The limit is for a state: each has it anew.
    let heir = &servers[1];
    heir.create("steady", json!({ "a": [1] })).await;
    on.ok(&["create", "stages", r#"{"a": [1]}"#, "--limit", "1s", "--states", "one,two,three"]).await;
    assert_eq!(heir.complete("stages", "a/1", "one", "two").await, "moved");
    assert_eq!(timed_out("stages").await.moves[1].cause, "two took longer than 1s");
    assert_eq!(runs.run("steady").unwrap().status().await.unwrap().state, "init", "no limit is none");
    eventually("who lives covered for who died", async || circle.seats().await.unwrap().len() == 1).await;
}

#[tokio::test]
async fn a_run_of_the_same_name_is_supervised_as_well() {
    let server = Server::on_memory().await;
    let order = json!({ "id": "r", "topology": { "a": [1] }, "limit": "100ms" });
    for _ in 0..10 {
        server.does(201, "POST", "/runs", order.clone()).await;
        server.does(204, "DELETE", "/runs/r", json!(null)).await;
    }
    server.does(201, "POST", "/runs", order).await;
    eventually("it has timed out", async || server.get("/runs/r/state").await.body == "timed-out").await;
}
