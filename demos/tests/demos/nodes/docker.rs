//! In containers, by the compose file that is shipped: found by Docker's own DNS and nothing else.

use discovery_testbed::{Container, Project};

use crate::{
    compose::{engine_or_skip, healthy},
    eventually,
};

const FILE: &str = include_str!("../../../compose/nodes/compose.yaml");

/// Runs a command of the sample in a container; says whether it succeeded, and what it printed.
async fn run(project: &Project<'_>, container: &Container, args: &[&str]) -> (bool, String) {
    match project.exec(container, [&["/demos", "nodes"], args].concat()).await {
        Ok(out) => (true, out),
        Err(error) => (false, error.to_string()),
    }
}

async fn until(project: &Project<'_>, args: &[&str], is_good: bool, parts: &[&str]) {
    let container = &project.containers("node").await.unwrap()[0];
    let mut last = String::new();
    eventually(&format!("{args:?} has {parts:?}"), async || {
        let (is_ok, out) = run(project, container, args).await;
        let is_met = is_ok == is_good && parts.iter().all(|part| out.contains(part));
        if out != last {
            println!("{out}");
            last = out;
        }
        is_met
    })
    .await;
}

#[tokio::test]
async fn the_compose_file_brings_up_nodes_that_find_each_other() {
    let Some(docker) = engine_or_skip().await else { return };
    let project = docker.compose("distributed_docker_system", FILE).unwrap();
    project.up().await.unwrap();
    // Version 1 does not hand the project on, and in DNS its underscores are hyphens.
    let name = |node: u32| format!("distributed-docker-system-node-{node}  answers 1 in ");
    let [first, last] = [name(1), name(5)];
    until(&project, &["ping"], true, &["5 of 5 answer", &first, &last]).await;
    let classic = "Ping distributed_docker_system_node_5\t\t\tGot return code 1\n\
        Ping distributed_docker_system_node_6\t\t\tdistributed_docker_system_node_6 not responding\n";
    let named = ["ping", "--classic", "--project", "distributed_docker_system"];
    until(&project, &named, false, &[classic]).await;

    // The health check of the file says that they are well.
    healthy(&docker, 5).await;

    // One that is killed by its engine stays dead; the others are told by DNS, and name it.
    let nodes = project.containers("node").await.unwrap();
    assert_eq!(nodes[2].name(), "distributed_docker_system_node_3");
    project.kill(&nodes[2]).await.unwrap();
    let reason = "no answer from node 3 of distributed-docker-system";
    until(&project, &["ping"], false, &["4 of 5 answer", "-node-3  does not answer: not there", reason])
        .await;
    project.start(&nodes[2]).await.unwrap();
    until(&project, &["ping"], true, &["5 of 5 answer"]).await;

    // One that is paused is listed, but does not answer.
    project.pause(&nodes[3]).await.unwrap();
    until(&project, &["ping"], false, &["-node-4  does not answer: no answer within 2s", "4 of 5 answer"])
        .await;
    project.unpause(&nodes[3]).await.unwrap();
    until(&project, &["ping"], true, &["5 of 5 answer"]).await;

    // A partition within the containers.
    until(&project, &["partition", "distributed_docker_system_node_1", "2"], true, &["nodes 1, 2"]).await;
    let matrix = "  1 · + x x x\n  2 + · x x x\n  3 x x · + +\n  4 x x + · +\n  5 x x + + ·\n";
    until(&project, &["ping", "--matrix"], false, &["5 of 5 answer", matrix]).await;
    until(&project, &["heal"], true, &[]).await;

    // More and fewer, without a tear-down.
    project.scale("node", 7).await.unwrap();
    until(&project, &["ping", "--matrix"], true, &["7 of 7 answer", "  7 + + + + + + ·"]).await;
    project.scale("node", 2).await.unwrap();
    until(&project, &["ping"], true, &["2 of 2 answer"]).await;
    until(&project, &["scale", "3"], false, &["docker compose up --detach --scale node=N"]).await;
    until(&project, &["logs", "2"], true, &["node-2 | Received message: Hello, World!"]).await;
    // As the second version of Compose calls it.
    docker
        .run(["rename", "distributed_docker_system_node_2", "distributed_docker_system-node-2"])
        .await
        .unwrap();
    until(&project, &["ping"], true, &["2 of 2 answer"]).await;
}
