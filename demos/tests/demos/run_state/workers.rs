//! Workers as processes, and their deaths.

use std::time::Duration;

use discovery::recipe::{Group, Run};
use discovery_testbed::Proxy;
use rustix::process::Signal;
use serde_json::json;

use crate::{
    demo::Demo,
    eventually,
    registry::Registry,
    run_state::processes::{Commands, TOPOLOGY, recipes},
};

/// A worker that is in the circle.
async fn worker(on: &Commands, circle: &Group, label: &str) -> Demo {
    let worker = on.start(&["work", "--label", label, "--ttl", "2s"]);
    eventually("it is in the circle", async || labels(circle).await.iter().any(|seat| seat == label)).await;
    worker
}

/// Who is in the circle, dead or alive.
async fn labels(circle: &Group) -> Vec<String> {
    let mut labels: Vec<_> = circle.seats().await.unwrap().into_iter().map(|seat| seat.label).collect();
    labels.sort();
    labels
}

fn errand(run: &str, task: &str) -> String {
    json!({ "run": run, "task": task, "from": "init", "to": "provisioning" }).to_string()
}

fn reply(run: &str, task: &str, outcome: &str) -> String {
    format!(r#"{{"run":"{run}","task":"{task}","outcome":"{outcome}"}}"#)
}

/// Waits until a run has moved, and looks whether that was all.
async fn moved_once(run: &Run) {
    eventually("the run moves", async || run.status().await.unwrap().round > 1).await;
    let picture = run.picture().await.unwrap();
    let status = &picture.status;
    assert_eq!((status.state.as_str(), status.round, status.moves.len()), ("provisioning", 2, 1));
    assert_eq!(picture.missing().count(), 4, "nothing of the new state is done");
}

pub(crate) async fn a_buddy_covers_for_a_worker_that_was_killed<R: Registry>() {
    let Some(registry) = R::start_or_skip().await else { return };
    let on = Commands::on(&registry);
    let (runs, circle) = recipes(&registry).await;
    let far = Proxy::start(registry.address()).unwrap();
    let mut ada = worker(&Commands::at(R::locator_at(far.address())), &circle, "ada").await;
    let mut grace = worker(&on, &circle, "grace").await;
    on.ok(&["create", "r", TOPOLOGY]).await;
    let run = runs.run("r").unwrap();

    // A worker that lives says all it has to.
    for task in ["node1/1", "node1/2", "node1/2", "node2/2"] {
        grace.tell(&errand("r", task)).await;
    }
    grace.says(&reply("r", "node2/2", "counted")).await;
    for (task, outcome) in [("node1/1", "counted"), ("node1/2", "counted"), ("node1/2", "already")] {
        grace.says(&reply("r", task, outcome)).await;
    }
    let said = grace.out();
    for task in ["node1/1", "node1/2", "node2/2"] {
        let (accepted, counted) = (reply("r", task, "accepted"), reply("r", task, "counted"));
        assert!(said.find(&accepted) < said.find(&counted), "{said}");
    }
    for (task, reason) in [("node9/9", "no task"), ("node1/1", "no run other")] {
        let run = if task == "node9/9" { "r" } else { "other" };
        grace.tell(&errand(run, task)).await;
        grace.says(&format!(r#"{{"run":"{run}","task":"{task}","outcome":{{"failed":""#)).await;
        assert!(grace.out().contains(reason), "{}", grace.out());
    }

    // It has to look before it can do it, and it will not live to hear what it sees.
    far.delay(Duration::ZERO, Duration::from_millis(300)).await;
    ada.tell(&errand("r", "node1/4")).await;
    ada.says(&reply("r", "node1/4", "accepted")).await;
    ada.signal(Signal::KILL);
    assert_eq!(run.status().await.unwrap().round, 1, "the last machine is in the hands of a dead worker");
    assert_eq!(labels(&circle).await, ["ada", "grace"]);
    moved_once(&run).await;
    assert_eq!(run.status().await.unwrap().moves[0].cause, "node1/4");
    eventually("nothing of the dead worker is left", async || labels(&circle).await == ["grace"]).await;
    assert!(!ada.out().contains("moved"), "{}", ada.out());

    // The run is where it is, whoever says so again.
    grace.tell(&errand("r", "node1/4")).await;
    grace.says(&reply("r", "node1/4", "already")).await;
    grace.hang_up();
    assert!(grace.ended().await.success());
    assert_eq!(labels(&circle).await, [""; 0], "who leaves in order leaves nothing");
    assert_eq!(run.status().await.unwrap().moves.len(), 1);
}

pub(crate) async fn a_worker_that_dies_before_it_answers_loses_nothing<R: Registry>() {
    let Some(registry) = R::start_or_skip().await else { return };
    let on = Commands::on(&registry);
    let (runs, circle) = recipes(&registry).await;
    let mut grace = worker(&on, &circle, "grace").await;
    for (round, id) in ["r1", "r2", "r3"].into_iter().enumerate() {
        on.ok(&["create", id, TOPOLOGY]).await;
        let run = runs.run(id).unwrap();
        for task in ["node1/1", "node1/2", "node1/4"] {
            run.complete(task, "init", "provisioning").await.unwrap();
        }
        let mut ada = worker(&on, &circle, &format!("ada-{round}")).await;
        ada.tell(&errand(id, "node2/2")).await;
        ada.signal(Signal::KILL);
        // Nobody knows how far it got. A machine that gets no answer asks another one.
        grace.tell(&errand(id, "node2/2")).await;
        moved_once(&run).await;
        ada.ended().await;
    }
    eventually("all that died are covered for", async || labels(&circle).await == ["grace"]).await;
    for id in ["r1", "r2", "r3"] {
        moved_once(&runs.run(id).unwrap()).await;
    }

    // What is no errand is in the way of none.
    on.ok(&["create", "r4", r#"{"a": [1]}"#]).await;
    grace.tell("{}").await;
    grace.tell(&errand("r4", "a/1")).await;
    grace.says(&reply("r4", "a/1", "moved")).await;
    assert!(grace.log().contains("\"{}\" is no errand"), "{}", grace.log());
    grace.hang_up();
    assert!(grace.ended().await.success());
    assert_eq!(labels(&circle).await, [""; 0]);
}

pub(crate) async fn a_worker_whose_connection_breaks_goes_on<R: Registry>() {
    let Some(registry) = R::start_or_skip().await else { return };
    let on = Commands::on(&registry);
    let (runs, circle) = recipes(&registry).await;
    let far = Proxy::start(registry.address()).unwrap();
    let mut ada = worker(&Commands::at(R::locator_at(far.address())), &circle, "ada").await;
    for n in 0..10 {
        let id = format!("r{n}");
        on.ok(&["create", &id, r#"{"a": [1]}"#]).await;
        ada.tell(&errand(&id, "a/1")).await;
        match n % 3 {
            0 => far.cut().await,
            1 => {
                ada.says(&reply(&id, "a/1", "accepted")).await;
                far.cut().await;
            }
            _ => {
                far.refuse().await;
                on.ok(&["list"]).await;
                far.pass().await;
            }
        }
        ada.says(&reply(&id, "a/1", "moved")).await;
        assert_eq!(runs.run(&id).unwrap().status().await.unwrap().moves.len(), 1);
    }
    ada.hang_up();
    assert!(ada.ended().await.success());
}
