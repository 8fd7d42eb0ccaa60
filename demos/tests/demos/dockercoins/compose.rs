//! The compose file, brought up by a real engine.

use serde_json::Value;

use crate::compose::{engine_or_skip, healthy, state, until};

const FILE: &str = include_str!("../../../compose/dockercoins.yml");

fn count(picture: &Value, part: &str) -> usize {
    let parts = picture["parts"].as_array().into_iter().flatten();
    parts.filter(|of| of["part"] == part).filter_map(|of| of["instances"].as_array()).map(Vec::len).sum()
}

#[tokio::test]
async fn the_compose_file_comes_up_scales_and_heals() {
    let Some(docker) = engine_or_skip().await else { return };
    let project = docker.compose("coins", FILE).unwrap();
    project.up().await.unwrap();
    until(&project, "webui", "work is done", |picture| picture["hashes"].as_u64() > Some(5)).await;
    project.scale("worker", 10).await.unwrap();
    until(&project, "webui", "there are ten workers", |picture| count(picture, "worker") == 10).await;
    until(&project, "webui", "the ceiling is near", |picture| picture["rate"].as_f64() > Some(8.0)).await;
    project.scale("rng", 2).await.unwrap();
    until(&project, "webui", "the ceiling is lifted", |picture| picture["rate"].as_f64() > Some(12.0)).await;

    healthy(&docker, 6).await;

    // Whoever dies comes back, and the count goes on where it was.
    let counted = state(&project, "webui").await.unwrap()["hashes"].as_u64().unwrap();
    let store = project.containers("store").await.unwrap().remove(0);
    project.crash(&store).unwrap();
    until(&project, "webui", "the count goes on", |picture| picture["hashes"].as_u64() > Some(counted + 20))
        .await;

    // As the original's cannot: in order, before SIGKILL comes.
    let worker = project.containers("worker").await.unwrap().remove(0);
    project.stop(&worker).await.unwrap();
    let code = docker.run(["inspect", "--format", "{{.State.ExitCode}}", worker.id()]).await.unwrap();
    assert_eq!(code.trim(), "0", "{}", project.logs(&worker).await.unwrap());
    until(&project, "webui", "it has left", |picture| count(picture, "worker") == 9).await;
    // All of them bring what they have, or give it back.
    project.scale("worker", 0).await.unwrap();
    until(&project, "webui", "nothing is open", |picture| {
        count(picture, "worker") == 0 && picture["open"] == 0
    })
    .await;
}
