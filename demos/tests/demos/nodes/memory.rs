//! Everything in one process, on memory, by what is typed.

use rustix::process::Signal;

use crate::{demo::Demo, eventually};

fn start() -> Demo {
    Demo::spawn(["nodes", "up", "4", "--backend", "mem", "--project", "my_app", "--ttl", "300ms"])
}

/// Types a line until what it prints has this in it.
async fn until(up: &mut Demo, line: &str, what: &str) {
    eventually(&format!("{line}: {what}"), async || {
        let before = up.out().len();
        up.tell(line).await;
        up.tell("nonsense").await;
        eventually(line, async || up.out()[before..].contains("unrecognized subcommand 'nonsense'")).await;
        up.out()[before..].contains(what)
    })
    .await;
}

#[tokio::test]
async fn all_can_be_done_by_typing() {
    let mut up = start();
    up.says("4 nodes of my_app").await;
    until(&mut up, "ping", "4 of 4 answer").await;
    until(&mut up, "kill my_app_node_3", "my_app-node-3 is dead").await;
    until(&mut up, "ps", "my_app-node-3  dead (killed)").await;
    until(&mut up, "ping --matrix", "3 of 4 answer").await;
    until(&mut up, "scale 5", "5 nodes are up").await;
    until(&mut up, "partition 1", "node 1 and the others cannot reach each other").await;
    until(&mut up, "ping", "nodes 2, 3, 4, 5 cannot reach node 1").await;
    until(&mut up, "heal", "all nodes can reach each other again").await;
    until(&mut up, "ping --classic", "Ping my_app_node_5\t\t\tGot return code 1").await;
    until(&mut up, "scale 2", "2 nodes are up").await;
    until(&mut up, "ping", "2 of 2 answer").await;

    // What goes on for ever ends with the next line.
    up.tell("ping --every 10ms --message tick").await;
    up.says("node-2 | Received message: tick").await;
    up.tell("attach 2").await;
    up.says("my_app-node-2: type a message").await;
    up.tell("ping").await;
    up.says("node-2 | Received message: ping").await;
    up.tell("").await;
    until(&mut up, "logs 1", "node-1 | Received message: tick").await;
    up.signal(Signal::INT);
    assert!(up.ended().await.success());
}

#[tokio::test]
async fn lines_are_read_as_a_shell_reads_them() {
    let mut up = start();
    up.says("4 nodes of my_app").await;
    until(&mut up, "help", "`help COMMAND` says more").await;
    assert!(!up.out().contains("<COMMAND>"), "{}", up.out());
    until(&mut up, "help kill", "Usage: kill <NODE>").await;
    until(&mut up, "ping --message \"it's all\\ right\"", "Received message: it's all\\ right").await;
    until(&mut up, "ping --message it's", "error: missing closing quote").await;
    up.tell("quit").await;
    assert!(up.ended().await.success());
}

#[tokio::test]
async fn a_change_that_is_waited_for_can_be_broken_off() {
    let args = ["nodes", "up", "3", "--backend", "mem", "--project", "my_app", "--ttl", "1h"];
    let mut up = Demo::spawn(args);
    up.says("3 nodes of my_app").await;
    until(&mut up, "ping", "3 of 3 answer").await;
    up.tell("kill 3").await;
    up.says("my_app-node-3 is dead").await;
    up.tell("scale 1").await;
    // What is left to wait for takes an hour.
    up.says("node-1 | gone: node 2").await;
    up.signal(Signal::INT);
    assert!(up.ended().await.success());
    assert!(!up.log().contains("not all have come or gone"), "{}", up.log());
}

#[tokio::test]
async fn the_end_of_the_input_is_not_the_end() {
    let mut up = start();
    up.says("4 nodes of my_app").await;
    up.tell("ping --every 10ms --message tick").await;
    up.says("Received message: tick").await;
    up.hang_up();
    let ticks = |up: &Demo| up.out().matches("Received message: tick").count();
    let before = ticks(&up);
    eventually("it goes on for half a second at least", async || ticks(&up) > before + 4 * 50).await;
    up.signal(Signal::TERM);
    assert!(up.ended().await.success());
}
