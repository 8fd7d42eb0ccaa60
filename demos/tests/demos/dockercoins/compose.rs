//! The compose file, brought up by a real engine.

use std::time::Duration;

use discovery_testbed::{Docker, Program, Project, static_binary};
use serde_json::Value;
use tokio::time::{Instant, sleep};

/// As long as anything in containers may take on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(90);

const COMPOSE: &str = include_str!("../../../compose/dockercoins.yml");

/// What the page of a project shows; `None` while it does not answer.
async fn picture(project: &Project<'_>) -> Option<Value> {
    let webuis = project.containers("webui").await.unwrap();
    let check = ["/demos", "dockercoins", "check", "http://127.0.0.1/state"];
    let answer = project.exec(webuis.first()?, check).await.ok()?;
    serde_json::from_str(&answer).ok()
}

async fn until(project: &Project<'_>, what: &str, condition: impl Fn(&Value) -> bool) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let picture = picture(project).await;
        if picture.as_ref().is_some_and(&condition) {
            return;
        }
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}; {picture:?}");
        sleep(Duration::from_millis(300)).await;
    }
}

fn count(picture: &Value, part: &str) -> usize {
    let parts = picture["parts"].as_array().into_iter().flatten();
    parts.filter(|of| of["part"] == part).filter_map(|of| of["members"].as_array()).map(Vec::len).sum()
}

#[tokio::test]
async fn the_compose_file_comes_up_scales_and_heals() {
    let Some(docker) = Docker::start_or_skip().await else { return };
    let demos = static_binary("discovery-demos", Program::Bin("demos"), &[]).await.unwrap();
    docker.build_scratch("discovery-demos", &demos).await.unwrap();
    let project = docker.compose("coins", COMPOSE).unwrap();
    project.up().await.unwrap();
    until(&project, "work is done", |picture| picture["hashes"].as_u64() > Some(5)).await;
    project.scale("worker", 10).await.unwrap();
    until(&project, "there are ten workers", |picture| count(picture, "worker") == 10).await;
    until(&project, "the ceiling is near", |picture| picture["rate"].as_f64() > Some(8.0)).await;
    project.scale("rng", 2).await.unwrap();
    until(&project, "the ceiling is lifted", |picture| picture["rate"].as_f64() > Some(12.0)).await;

    // Whoever dies comes back, and the count goes on where it was.
    let counted = picture(&project).await.unwrap()["hashes"].as_u64().unwrap();
    let store = project.containers("store").await.unwrap().remove(0);
    project.kill(&store).await.unwrap();
    project.start(&store).await.unwrap();
    until(&project, "the count goes on", |picture| picture["hashes"].as_u64() > Some(counted + 20)).await;

    // As the original's cannot: in order, and quickly.
    let worker = project.containers("worker").await.unwrap().remove(0);
    project.stop(&worker).await.unwrap();
    until(&project, "it has left", |picture| count(picture, "worker") == 9).await;
}
