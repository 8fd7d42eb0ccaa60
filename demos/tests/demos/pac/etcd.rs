//! What is special about etcd, and all that is not.

use std::{ffi::OsStr, os::unix::ffi::OsStrExt};

use base64::{Engine, prelude::BASE64_STANDARD};
use discovery::ServiceName;
use discovery_testbed::{Etcd, Proxy};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::{
    demo::Demo,
    eventually,
    pac::processes::{ghost, server_on, tests_on},
    pac::socket::Socket,
    registry::{Registry, connect},
};

tests_on!(Etcd);

/// What etcd's own client says of one key; null if there is none.
async fn entry(etcd: &Etcd, key: &str) -> Value {
    let answer = etcd.cli().run(["get", key, "--write-out=json"]).await.unwrap();
    serde_json::from_str::<Value>(&answer).unwrap()["kvs"].get(0).cloned().unwrap_or_default()
}

#[tokio::test]
async fn the_tree_is_cloudnames() {
    let Some(etcd) = Etcd::start_or_skip().await else { return };
    let server = server_on(&etcd, 0, &["--coordinate", "2a.pacman.test.local"]).await;
    let mut ghost = ghost(&etcd, &["--coordinate", "1f.blinky.test.local", "--ttl", "20s"]).await;
    let mut socket = Socket::open(&server).await;
    socket.until("the ghost", |socket| socket.shows("1f.blinky.test.local")).await;
    eventually("the server is registered", async || server.state().await["status"] == "active").await;

    let keys = async || {
        let keys = etcd.cli().run(["get", "", "--prefix", "--keys-only"]).await.unwrap();
        keys.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(keys().await, ["/cn/local/test/blinky/1f", "/cn/local/test/pacman/2a"]);
    let blinky = entry(&etcd, "/cn/local/test/blinky/1f").await;
    let record = BASE64_STANDARD.decode(blinky["value"].as_str().unwrap()).unwrap();
    let record: Value = serde_json::from_slice(&record).unwrap();
    let port: u16 = ghost.port().parse().unwrap();
    assert_eq!(record["endpoints"], json!([{ "name": "http", "host": "127.0.0.1", "port": port }]));

    let lease = blinky["lease"].as_u64().expect("it lives as long as its lease");
    let lease = etcd.cli().run(["lease", "timetolive", "--keys", &format!("{lease:x}")]).await.unwrap();
    assert!(lease.contains("granted with TTL(20s)"), "{lease}");
    assert!(lease.contains("attached keys([/cn/local/test/blinky/1f])"), "{lease}");

    ghost.signal(Signal::TERM);
    assert!(ghost.ended().await.success());
    assert_eq!(keys().await, ["/cn/local/test/pacman/2a"], "who leaves takes everything along");
}

/// etcd takes any bytes for a key and for a value, and has no tree that others have to fit in.
#[tokio::test]
async fn what_is_no_entry_is_left_out() {
    let Some(etcd) = Etcd::start_or_skip().await else { return };
    let server = server_on(&etcd, 0, &[]).await;
    let mut socket = Socket::open(&server).await;
    socket.until("an empty maze", |socket| socket.ready).await;

    let good = r#"{"endpoints":[{"name":"http","host":"127.0.0.1","port":80}]}"#;
    let long = format!(r#"{{"endpoints":[],"metadata":{{"a":"{}"}}}}"#, "a".repeat(100_000));
    let put = async |key: &[u8], value: &[u8]| {
        let command = [OsStr::new("put"), OsStr::new("--"), OsStr::from_bytes(key), OsStr::from_bytes(value)];
        etcd.cli().run(command).await.unwrap();
    };
    for key in [
        &b"/cn/local/test/evil/\xff"[..],
        b"/cn/local/test/evil/a b",
        b"/cn/local/test/evil/",
        b"/cn/local/test//1",
        b"/cn/local/test/evil/.fence/1",
        b"/cn//local/test/evil/1",
        b"/cnx/local/test/evil/1",
        b"cn/local/test/evil/1",
    ] {
        put(key, good.as_bytes()).await;
    }
    put(b"/cn/local/test/evil/1", b"\xff\xfe").await;
    put(b"/cn/local/test/evil/2", long.as_bytes()).await;
    put(b"/cn/local/test/evil/3", good.as_bytes()).await;

    socket.until("what is one", |socket| socket.shows("3.evil.test.local")).await;
    assert_eq!(socket.ghosts.len(), 1, "{:?}", socket.ghosts);
    let mut late = Socket::open(&server).await;
    late.until("the state", |socket| socket.ready).await;
    assert_eq!(late.ghosts.len(), 1, "{:?}", late.ghosts);

    // What was good may turn bad, and the other way round.
    put(b"/cn/local/test/evil/3", b"}{").await;
    put(b"/cn/local/test/evil/1", good.as_bytes()).await;
    socket.until("what is one now", |socket| socket.shows("1.evil.test.local")).await;
    assert_eq!(socket.ghosts.len(), 1, "{:?}", socket.ghosts);
}

/// A watch goes on where it was: nobody has to guess who has left and who has only not come back yet.
#[tokio::test]
async fn what_happened_behind_an_outage_is_told_as_it_was() {
    let Some(etcd) = Etcd::start_or_skip().await else { return };
    let proxy = Proxy::start(etcd.address()).unwrap();
    let blind = Etcd::locator_at(proxy.address());
    let server = Demo::start(["pac", "server", "--port", "0", "--backend", &blind]).await;
    let dead = ghost(&etcd, &["blinky", "--ttl", "4s"]).await;
    let alive = ghost(&etcd, &["clyde"]).await;
    let mut socket = Socket::open(&server).await;
    socket.until("two ghosts", |socket| socket.ghosts.len() == 2).await;

    proxy.refuse().await;
    socket.until("stale", |socket| socket.stale).await;
    dead.signal(Signal::KILL);
    let discovery = connect(&etcd).await;
    let blinky: ServiceName = "local/test/blinky".parse().unwrap();
    eventually("its lease is over", async || discovery.lookup(&blinky).await.is_ok_and(|all| all.is_empty()))
        .await;
    let _new = ghost(&etcd, &["sue"]).await;
    let sue: ServiceName = "local/test/sue".parse().unwrap();
    eventually("sue is there", async || discovery.lookup(&sue).await.is_ok_and(|all| all.len() == 1)).await;
    assert_eq!(socket.ghosts.len(), 2, "what is known is still shown");

    proxy.pass().await;
    socket.until("live", |socket| !socket.stale && socket.shows("sue")).await;
    assert!(!socket.shows("blinky"), "its removal was seen: {:?}", socket.heard);
    assert_eq!(server.state().await["held"], 0);
    let clyde = alive.coordinate().await;
    assert_eq!((socket.count("created", &clyde), socket.count("removed", &clyde)), (1, 0));
}

/// Another cluster knows none of the leases; whoever lives only has to notice.
#[tokio::test]
async fn an_etcd_that_has_lost_everything_removes_nobody_who_lives() {
    let Some(etcd) = Etcd::start_or_skip().await else { return };
    let server = server_on(&etcd, 0, &[]).await;
    let ghosts = [ghost(&etcd, &["inky"]).await, ghost(&etcd, &["clyde"]).await];
    let mut socket = Socket::open(&server).await;
    socket.until("two ghosts", |socket| socket.ghosts.len() == 2).await;

    etcd.wipe().await.unwrap();
    let third = ghost(&etcd, &["sue"]).await;
    socket.until("live, with all of them", |socket| !socket.stale && socket.shows("sue")).await;
    for ghost in ghosts.iter().chain([&third]) {
        let coordinate = ghost.coordinate().await;
        let key: Vec<_> = coordinate.split('.').rev().collect();
        let key = format!("/cn/{}", key.join("/"));
        eventually("it is registered", async || !entry(&etcd, &key).await.is_null()).await;
    }
    eventually("nobody is waited for", async || server.state().await["held"] == 0).await;
    // Told behind all that: what had to be said has been said.
    let fourth = ghost(&etcd, &["pinky"]).await;
    socket.until("pinky", |socket| socket.shows("pinky")).await;
    for ghost in ghosts.iter().chain([&third, &fourth]) {
        let coordinate = ghost.coordinate().await;
        assert_eq!(socket.count("created", &coordinate), 1, "{coordinate}: {:#?}", socket.heard);
        assert_eq!(socket.count("removed", &coordinate), 0, "{coordinate}: {:#?}", socket.heard);
    }
}
