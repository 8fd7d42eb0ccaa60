//! Processes of their own, on a real `ZooKeeper`.

use std::time::Duration;

use discovery::{Connectors, Discovery, Instance, Registration, ServiceName};
use discovery_testbed::{Proxy, ZooKeeper};
use futures_util::future::try_join_all;
use rustix::process::Signal;
use serde_json::Value;
use tokio::time::Instant;

use crate::{demo::Demo, eventually, http, socket::Socket};

/// What a loaded machine may add to anything.
const SLACK: Duration = Duration::from_secs(5);

fn locator(zk: &ZooKeeper) -> String {
    format!("zk://{}/cn", zk.address())
}

async fn connect(zk: &ZooKeeper) -> Discovery {
    let connectors = Connectors::new().with(discovery_zk::connector());
    Discovery::connect(&locator(zk), &connectors).await.unwrap()
}

async fn server(zk: &ZooKeeper, more: &[&str]) -> Demo {
    server_on(zk, 0, more).await
}

pub(crate) async fn server_on(zk: &ZooKeeper, port: u16, more: &[&str]) -> Demo {
    let (port, locator) = (port.to_string(), locator(zk));
    let args = ["server", "--drain", "0s", "--port", &port, "--backend", &locator];
    Demo::start(args.iter().chain(more)).await
}

pub(crate) async fn ghost(zk: &ZooKeeper, args: &[&str]) -> Demo {
    let common = ["ghost", "--drain", "300ms", "--backend", &locator(zk)];
    Demo::start(common.iter().chain(args)).await
}

#[tokio::test]
async fn ghosts_of_any_name_come_leave_and_die() {
    let Some(zk) = ZooKeeper::start_or_skip().await else { return };
    let server = server(&zk, &[]).await;
    let mut socket = Socket::open(&server).await;
    socket.until("an empty maze", |socket| socket.ready).await;

    let mut sue = ghost(&zk, &["sue"]).await;
    let lease = Duration::from_secs(2);
    let blinky = ghost(&zk, &["blinky", "--ttl", "2s"]).await;
    let mut pinky = ghost(&zk, &["pinky"]).await;
    socket
        .until("three ghosts", |socket| ["sue", "blinky", "pinky"].iter().all(|name| socket.shows(name)))
        .await;
    assert_eq!(socket.find("sue").unwrap()["coordinate"], sue.coordinate().await);

    http::post(&format!("{}shutdown", sue.url()), "").await;
    socket
        .until("sue drains", |socket| socket.find("sue").is_some_and(|sue| sue["status"] == "draining"))
        .await;
    socket.until("sue has left", |socket| !socket.shows("sue")).await;
    assert!(sue.ended().await.success());

    pinky.signal(Signal::TERM);
    socket.until("pinky has left", |socket| !socket.shows("pinky")).await;
    assert!(pinky.ended().await.success());

    assert!(socket.shows("blinky"));
    blinky.signal(Signal::KILL);
    let killed = Instant::now();
    socket.until("blinky's lease has ended", |socket| socket.ghosts.is_empty()).await;
    assert!(killed.elapsed() < lease + SLACK, "{:?}", killed.elapsed());
}

#[tokio::test]
async fn the_tree_is_cloudnames() {
    let Some(zk) = ZooKeeper::start_or_skip().await else { return };
    let server = server(&zk, &["--coordinate", "2a.pacman.test.local"]).await;
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
    assert_eq!(
        record["endpoints"],
        serde_json::json!([{ "name": "http", "host": "127.0.0.1", "port": port }])
    );
    assert!(!entry.contains("ephemeralOwner = 0x0\n"), "it lives as long as its session: {entry}");
    let parent = zk.cli().run(["get", "-s", "/cn/local/test/blinky"]).await.unwrap();
    assert!(parent.contains("dataLength = 0"), "{parent}");
}

#[tokio::test]
async fn records_of_others_are_read_or_skipped() {
    let Some(zk) = ZooKeeper::start_or_skip().await else { return };
    let server = server(&zk, &[]).await;
    let _inky = ghost(&zk, &["inky"]).await;
    let mut socket = Socket::open(&server).await;
    socket.until("inky", |socket| socket.shows("inky")).await;

    let create = async |path: &str, data: &str| {
        zk.cli().run(["create", &format!("/cn/local/test/{path}"), data]).await.unwrap();
    };
    create("evil", "").await;
    create("evil/1", "}{").await;
    create("evil/2", &"[".repeat(50_000)).await;
    create("evil/3", r#"{"endpoints":[{"name":"http","host":"<script>","port":1}]}"#).await;
    create("evil/NOT_AN_ID", r#"{"endpoints":[]}"#).await;
    // As the sample of old writes it.
    create("evil/5", r#"{"endpoints":[{"name":"http","host":"127.0.0.1","port":80}]}"#).await;
    create("evil/6", r#"{"endpoints":[]}"#).await;

    socket.until("what can be read", |socket| socket.ghosts.len() == 3).await;
    assert!(socket.shows("5.evil.test.local"));
    let homeless = socket.find("6.evil.test.local").unwrap();
    assert!(homeless.get("host").is_none() && homeless.get("port").is_none(), "{homeless}");
    assert_eq!(server.log().matches("skipped a record").count(), 3, "{}", server.log());

    zk.cli().run(["delete", "/cn/local/test/evil/5"]).await.unwrap();
    socket.until("its removal", |socket| !socket.shows("5.evil.test.local")).await;
}

#[tokio::test]
async fn a_crowd_comes_and_goes() {
    const CROWD: usize = 1_000;
    let Some(zk) = ZooKeeper::start_or_skip().await else { return };
    let server = server(&zk, &[]).await;
    let mut sockets = [Socket::open(&server).await, Socket::open(&server).await];
    sockets[0].until("an empty maze", |socket| socket.ready).await;

    let discovery = connect(&zk).await;
    let service: ServiceName = "local/test/crowd".parse().unwrap();
    let arrivals = (0..CROWD).map(|_| {
        let one = Instance::builder(service.clone()).endpoint("http", "127.0.0.1", 80).build().unwrap();
        discovery.register(one).into_future()
    });
    let crowd = try_join_all(arrivals).await.unwrap();
    for socket in &mut sockets {
        socket.until("all of them", |socket| socket.ghosts.len() == CROWD).await;
    }
    let mut late = Socket::open(&server).await;
    late.until("the state", |socket| socket.ready).await;
    assert_eq!(late.ghosts.len(), CROWD);

    try_join_all(crowd.into_iter().map(Registration::deregister)).await.unwrap();
    for socket in sockets.iter_mut().chain([&mut late]) {
        socket.until("none of them", |socket| socket.ghosts.is_empty()).await;
    }
}

#[tokio::test]
async fn a_restarted_zookeeper_shows_as_stale_and_removes_nobody() {
    let Some(zk) = ZooKeeper::start_or_skip().await else { return };
    let server = server(&zk, &["--ttl", "20s"]).await;
    let ghosts = [ghost(&zk, &["inky", "--ttl", "20s"]).await, ghost(&zk, &["clyde", "--ttl", "20s"]).await];
    let mut socket = Socket::open(&server).await;
    socket.until("two ghosts", |socket| socket.ghosts.len() == 2).await;

    for round in 1..=2 {
        zk.kill().unwrap();
        socket.until("stale", |socket| socket.stale).await;
        assert_eq!(socket.ghosts.len(), 2, "what is known is still shown");
        // A page that is opened now sees the same.
        let mut late = Socket::open(&server).await;
        late.until("the state, and that it is old", |late| late.stale && late.ready).await;
        assert_eq!(late.ghosts.len(), 2);
        assert_eq!(server.state().await["live"], false);

        zk.restart().await.unwrap();
        socket.until("live again", |socket| !socket.stale).await;
        late.until("live again", |late| !late.stale).await;
        let stale = socket.heard.iter().filter(|message| message["action"] == "stale").count();
        assert_eq!(stale, round, "once in an outage");
    }
    // Whoever comes now is seen: the watch is a real one.
    let third = ghost(&zk, &["sue"]).await;
    socket.until("sue", |socket| socket.shows("sue")).await;
    for ghost in ghosts.iter().chain([&third]) {
        let coordinate = ghost.coordinate().await;
        assert_eq!(socket.count("created", &coordinate), 1, "{coordinate}");
        assert_eq!(socket.count("removed", &coordinate), 0, "{coordinate}");
        eventually("it knows that it is registered", async || ghost.state().await["status"] == "active")
            .await;
    }
}

#[tokio::test]
async fn who_is_missing_behind_an_outage_may_come_back_before_anybody_is_told() {
    let Some(zk) = ZooKeeper::start_or_skip().await else { return };
    let proxy = Proxy::start(zk.address()).unwrap();
    let blind = format!("zk://{}/cn", proxy.address());
    let server = Demo::start(["server", "--port", "0", "--backend", &blind]).await;
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

#[tokio::test]
async fn zookeeper_may_come_last() {
    let Some(zk) = ZooKeeper::start_or_skip().await else { return };
    zk.kill().unwrap();
    let server = server(&zk, &[]).await;
    let inky = ghost(&zk, &["inky"]).await;
    let mut socket = Socket::open(&server).await;
    socket.until("stale from the start", |socket| socket.stale).await;
    let reason = socket.heard[0]["reason"].as_str().unwrap();
    assert!(reason.contains(&zk.address().to_string()), "{reason}");
    assert!(!socket.ready, "an unknown maze is not an empty one");
    assert_eq!(inky.state().await["status"], "pending");
    assert!(http::get(inky.url()).await.body.contains("inky"), "its page is there before it is registered");
    for demo in [&server, &inky] {
        let said = format!("ZooKeeper at {} is not reachable yet; trying again", zk.address());
        eventually("it says so", async || demo.log().contains(&said)).await;
        eventually("and again", async || demo.log().contains("is not reachable yet, after")).await;
    }
    zk.restart().await.unwrap();
    socket.until("inky", |socket| socket.ready && !socket.stale && socket.shows("inky")).await;
    eventually("all are registered", async || {
        inky.state().await["status"] == "active" && server.state().await["status"] == "active"
    })
    .await;
}

#[tokio::test]
async fn a_departure_without_zookeeper_does_not_hang() {
    let Some(zk) = ZooKeeper::start_or_skip().await else { return };
    let mut inky = ghost(&zk, &["inky", "--ttl", "20s"]).await;
    eventually("it is registered", async || inky.state().await["status"] == "active").await;
    zk.kill().unwrap();
    inky.signal(Signal::INT);
    assert!(inky.ended().await.success());
    assert!(inky.log().contains("does not answer"), "{}", inky.log());
}

#[tokio::test]
async fn who_starts_again_under_its_id_waits_for_its_old_lease() {
    let Some(zk) = ZooKeeper::start_or_skip().await else { return };
    let args = ["--coordinate", "1f.inky.test.local", "--ttl", "2s"];
    let first = ghost(&zk, &args).await;
    eventually("it is registered", async || first.state().await["status"] == "active").await;
    first.signal(Signal::KILL);
    let second = ghost(&zk, &args).await;
    eventually("it takes the place", async || second.state().await["status"] == "active").await;
    assert!(second.log().contains("refuses 1f.inky.test.local"), "{}", second.log());
}
