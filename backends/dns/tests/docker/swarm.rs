//! A Swarm of one machine, where a service has one address for all its tasks, and `tasks.` is in front of the name that has
//! those of all.

use std::{collections::BTreeSet, fs, process::Command};

use crate::common::{Heard, LOCATOR, Watcher, done, start, up, watcher};

/// As Docker calls a stack's service: `blue_database`, with three tasks.
const STACK: &str = "
version: '3.8'
services:
  database:
    image: container
    command: [serve, '8000', /database]
    deploy: { replicas: 3, restart_policy: { delay: 0s } }
networks:
  default: { driver: overlay, attachable: true }
";

/// Whether the kernel has what a Swarm's networks are made of.
fn has_overlays() -> bool {
    let link = ["--net", "ip", "link", "add", "overlay", "type", "vxlan", "id", "1", "dstport", "4789"];
    Command::new("unshare").args(link).status().is_ok_and(|status| status.success())
}

/// The numbers of tasks, which are in front of their ids.
fn slots(heard: &Heard) -> Vec<&str> {
    heard.ids().iter().filter_map(|id| Some(id.split_once('-')?.0)).collect()
}

#[tokio::test]
async fn the_tasks_of_a_swarm_are_instances() {
    let Some(docker) = start().await else { return };
    if !has_overlays() {
        eprintln!("skipped: the kernel has no vxlan");
        return;
    }
    let run = async |command: &str| docker.run(command.split(' ')).await;
    run("swarm init --advertise-addr 127.0.0.1 --listen-addr 127.0.0.1:2377").await.unwrap();
    let stack = docker.dir().join("stack.yml");
    fs::write(&stack, STACK).unwrap();
    run(&format!("stack deploy --resolve-image never --compose-file {} blue", stack.display()))
        .await
        .unwrap();
    let network = "networks: { default: { external: true, name: blue_default } }";
    let ops = up(&docker, "ops", &[&watcher("watcher", LOCATOR, "blue/database", "")], network).await;

    let watcher = Watcher::of(&ops, "watcher", "blue/database").await;
    let heard = watcher.until("three", |heard| slots(heard) == ["1", "2", "3"]).await;
    let shared = "service inspect --format {{range.Endpoint.VirtualIPs}}{{.Addr}}{{end}} blue_database";
    let shared = run(shared).await.unwrap();
    let shared = shared.split_once('/').expect("an address and a length").0.parse().unwrap();
    assert!(!heard.addresses().contains(&shared), "{shared} is nobody's own");
    let scale = async { run("service scale --detach blue_database=5").await.map(|_| ()) };
    let heard = watcher.sees("scale to 5", scale, |heard| slots(heard).len() == 5).await.heard;

    // Who takes the place of a dead task is another one.
    let before: BTreeSet<_> = heard.ids().into_iter().map(str::to_owned).collect();
    let dead = run("ps --quiet --filter name=blue_database.2").await.unwrap();
    let kill = async { run(&format!("kill {dead}")).await.map(|_| ()) };
    let others = |heard: &Heard| heard.ids().iter().filter(|id| !before.contains(**id)).count();
    let kill = watcher.sees("kill", kill, |heard| heard.ids().len() == 5 && others(heard) == 1).await;
    assert_eq!(slots(&kill.heard), ["1", "2", "3", "4", "5"]);
    done([ops]);
}
