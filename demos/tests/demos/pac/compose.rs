//! The compose file, brought up by a real engine.

use serde_json::Value;

use crate::compose::{engine_or_skip, healthy, state, until};

const FILE: &str = include_str!("../../../compose/pac.yml");

/// How many ghosts of a name there are.
fn count(state: &Value, name: &str) -> usize {
    let ghosts = state["ghosts"].as_array().into_iter().flatten();
    let labels = ghosts.filter_map(|ghost| ghost["coordinate"].as_str()?.split('.').nth(1));
    labels.filter(|label| *label == name).count()
}

fn counts(state: &Value) -> [usize; 4] {
    ["blinky", "pinky", "inky", "clyde"].map(|name| count(state, name))
}

#[tokio::test]
async fn the_compose_file_comes_up_scales_and_heals() {
    let Some(docker) = engine_or_skip().await else { return };
    let project = docker.compose("maze", FILE).unwrap();
    project.up().await.unwrap();
    until(&project, "pacman", "all four are there", |state| counts(state) == [1, 1, 1, 1]).await;
    project.scale("inky", 3).await.unwrap();
    until(&project, "pacman", "there are three inkies", |state| counts(state) == [1, 1, 3, 1]).await;
    healthy(&docker, 8).await;

    // One that is killed by its engine stays dead.
    let inky = project.containers("inky").await.unwrap().remove(0);
    project.kill(&inky).await.unwrap();
    until(&project, "pacman", "one inky is gone", |state| counts(state) == [1, 1, 2, 1]).await;

    // One that crashes comes back, as another one.
    let old = state(&project, "blinky").await.unwrap()["coordinate"].as_str().unwrap().to_owned();
    let blinky = project.containers("blinky").await.unwrap().remove(0);
    project.crash(&blinky).unwrap();
    until(&project, "pacman", "blinky is back", |state| {
        counts(state) == [1, 1, 2, 1] && !state.to_string().contains(&old)
    })
    .await;
    // So does the registry, with nothing left, and all register again.
    let registry = project.containers("registry").await.unwrap().remove(0);
    project.crash(&registry).unwrap();
    let clyde = project.containers("clyde").await.unwrap().remove(0);
    project.stop(&clyde).await.unwrap();
    until(&project, "pacman", "the registry is back", |state| {
        counts(state) == [1, 1, 2, 0] && state["live"] == true
    })
    .await;
}
