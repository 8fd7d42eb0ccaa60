//! What is special about `ZooKeeper`, and all that is not.

use discovery::ServiceName;
use discovery_testbed::{Proxy, ZooKeeper};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::{
    demo::Demo,
    eventually,
    pac::processes::{ghost, server_on, tests_on},
    pac::socket::Socket,
    registry::{Registry, connect},
};

tests_on!(ZooKeeper);

#[tokio::test]
async fn the_tree_is_cloudnames() {
    let Some(zk) = ZooKeeper::start_or_skip().await else { return };
    let server = server_on(&zk, 0, &["--coordinate", "2a.pacman.test.local"]).await;
    let ghost = ghost(&zk, &["--coordinate", "1f.blinky.test.local"]).await;
    let mut socket = Socket::open(&server).await;
    socket.until("the ghost", |socket| socket.shows("1f.blinky.test.local")).await;
    eventually("the server is registered", async || server.state().await["status"] == "active").await;

    let tree = zk.cli().run(["ls", "-R", "/cn/local"]).await.unwrap();
    assert_eq!(
        tree.lines().collect::<Vec<_>>(),
        [
            "/cn/local",
            "/cn/local/test",
            "/cn/local/test/blinky",
            "/cn/local/test/pacman",
            "/cn/local/test/blinky/1f",
            "/cn/local/test/pacman/2a",
        ]
    );
    let entry = zk.cli().run(["get", "-s", "/cn/local/test/blinky/1f"]).await.unwrap();
    let record: Value = serde_json::from_str(entry.lines().next().unwrap()).unwrap();
    let port: u16 = ghost.port().parse().unwrap();
    assert_eq!(record["endpoints"], json!([{ "name": "http", "host": "127.0.0.1", "port": port }]));
    assert!(!entry.contains("ephemeralOwner = 0x0\n"), "it lives as long as its session: {entry}");
    let parent = zk.cli().run(["get", "-s", "/cn/local/test/blinky"]).await.unwrap();
    assert!(parent.contains("dataLength = 0"), "{parent}");
}

#[tokio::test]
async fn who_is_missing_behind_an_outage_may_come_back_before_anybody_is_told() {
    let Some(zk) = ZooKeeper::start_or_skip().await else { return };
    let proxy = Proxy::start(zk.address()).unwrap();
    let blind = ZooKeeper::locator_at(proxy.address());
    let server = Demo::start(["pac", "server", "--port", "0", "--backend", &blind]).await;
    let frozen = ghost(&zk, &["inky", "--ttl", "2s"]).await;
    let dead = ghost(&zk, &["blinky", "--ttl", "2s"]).await;
    let _alive = ghost(&zk, &["clyde"]).await;
    let inky = frozen.coordinate().await;
    let mut socket = Socket::open(&server).await;
    socket.until("three ghosts", |socket| socket.ghosts.len() == 3).await;

    proxy.refuse().await;
    socket.until("stale", |socket| socket.stale).await;
    // A lease so short may have ended before, on a machine under load; that is not the point.
    let told = |socket: &Socket| (socket.count("created", &inky), socket.count("removed", &inky));
    let before = told(&socket);
    frozen.signal(Signal::STOP);
    dead.signal(Signal::KILL);
    let discovery = connect(&zk).await;
    for name in ["inky", "blinky"] {
        let service: ServiceName = format!("local/test/{name}").parse().unwrap();
        eventually("its lease is over", async || {
            discovery.lookup(&service).await.is_ok_and(|all| all.is_empty())
        })
        .await;
    }
    proxy.pass().await;
    socket.until("live", |socket| !socket.stale).await;
    assert_eq!(socket.ghosts.len(), 3, "nobody was seen to leave");
    assert_eq!(server.state().await["held"], 2);

    frozen.signal(Signal::CONT);
    socket.until("who died is gone in the end", |socket| !socket.shows("blinky")).await;
    assert_eq!(told(&socket), before, "inky never left");
    assert_eq!(server.state().await["held"], 0);
}
