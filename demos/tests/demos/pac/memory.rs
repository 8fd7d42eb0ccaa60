//! Everything in one process, on memory.

use std::time::Duration;

use futures_util::future::join_all;
use rustix::process::Signal;
use tokio::time::Instant;

use crate::{demo::Demo, eventually, http, pac::socket::Socket};

const FOUR: [&str; 4] = ["blinky", "pinky", "inky", "clyde"];

async fn start() -> Demo {
    Demo::start(["pac", "--port", "0", "--drain", "300ms"]).await
}

#[tokio::test]
async fn four_ghosts_are_there_and_one_leaves_by_its_page() {
    let demo = start().await;
    let mut socket = Socket::open(&demo).await;
    socket.until("four ghosts", |socket| socket.ready && FOUR.iter().all(|name| socket.shows(name))).await;
    assert!(!socket.shows("pacman"), "the server is no ghost");

    let inky = socket.find("inky").unwrap().clone();
    let page = format!("http://{}:{}/", inky["host"].as_str().unwrap(), inky["port"]);
    assert!(http::get(&page).await.body.contains(inky["coordinate"].as_str().unwrap()));
    assert_eq!(http::post(&format!("{page}shutdown"), "Origin: http://evil.example\r\n").await.status, 403);
    assert!(http::post(&format!("{page}shutdown"), "").await.body.contains("Shutting down in a jiffy!"));

    socket
        .until("inky drains", |socket| socket.find("inky").is_some_and(|it| it["status"] == "draining"))
        .await;
    socket.until("inky is gone", |socket| !socket.shows("inky")).await;
    assert_eq!(socket.ghosts.len(), 3, "the others stay");
    eventually("inky's page is gone", async || !http::answers(&page).await).await;

    let mut second = Socket::open(&demo).await;
    second.until("ready", |socket| socket.ready).await;
    assert_eq!(second.ghosts.len(), 3, "the state, not the history");
    assert_eq!(second.heard.len(), 4);
}

#[tokio::test]
async fn ctrl_c_drains_deregisters_and_closes_the_sockets() {
    let mut demo = start().await;
    let mut socket = Socket::open(&demo).await;
    socket.until("four ghosts", |socket| socket.ghosts.len() == 4).await;
    demo.signal(Signal::INT);
    socket.until("all ghosts have left, and then the server", |socket| socket.closed).await;
    assert!(socket.ghosts.is_empty(), "{:?}", socket.ghosts);
    assert!(demo.ended().await.success());
}

#[tokio::test]
async fn a_second_signal_ends_at_once() {
    let mut demo = Demo::start(["pac", "--port", "0", "--drain", "60s"]).await;
    demo.signal(Signal::TERM);
    eventually("it is leaving", async || demo.log().contains("leaving")).await;
    let before = Instant::now();
    demo.signal(Signal::INT);
    assert_eq!(demo.ended().await.code(), Some(130));
    assert!(before.elapsed() < Duration::from_secs(10));
}

#[tokio::test]
async fn the_pages_come_with_their_files_and_rules() {
    let demo = start().await;
    let ghost = demo.urls()[1].clone();
    let index = http::get(demo.url()).await;
    assert!(index.headers.contains("content-security-policy: default-src 'self'"), "{}", index.headers);
    assert!(index.headers.contains("x-content-type-options: nosniff"), "{}", index.headers);
    for (base, file, kind) in [
        (demo.url(), "", "text/html"),
        (demo.url(), "pac.css", "text/css"),
        (demo.url(), "pac.js", "text/javascript"),
        (demo.url(), "arcade.woff2", "font/woff2"),
        (demo.url(), "favicon.svg", "image/svg+xml"),
        (demo.url(), "healthz", "text/plain"),
        (demo.url(), "state", "application/json"),
        (&ghost, "", "text/html"),
        (&ghost, "ghost.css", "text/css"),
        (&ghost, "ghost.js", "text/javascript"),
        (&ghost, "state", "application/json"),
    ] {
        let answer = http::get(&format!("{base}{file}")).await;
        assert_eq!(answer.status, 200, "{file}");
        assert!(answer.headers.contains(&format!("content-type: {kind}")), "{file}: {}", answer.headers);
    }
    assert_eq!(http::get(&format!("{}../../etc/passwd", demo.url())).await.status, 404);
    assert_eq!(http::get(&format!("{ghost}shutdown")).await.status, 405, "only its button ends a ghost");
}

#[tokio::test]
async fn a_ghost_tells_its_state() {
    let demo = start().await;
    let mut socket = Socket::open(&demo).await;
    socket.until("four ghosts", |socket| socket.ghosts.len() == 4).await;
    let told = socket.find("blinky").unwrap();
    let url = format!("http://127.0.0.1:{}/state", told["port"]);
    let state = async || serde_json::from_str::<serde_json::Value>(&http::get(&url).await.body).unwrap();
    eventually("it sees itself among its peers", async || state().await["peers"][0] == told["coordinate"])
        .await;
    let state = state().await;
    assert_eq!(state["status"], "active");
    assert_eq!(state["coordinate"], told["coordinate"]);
    assert_eq!(state["endpoints"][0]["port"], told["port"]);
    assert_eq!(state["endpoints"][0]["name"], "http");
}

#[tokio::test]
async fn a_page_that_reads_nothing_holds_nobody_up() {
    let demo = start().await;
    // Opened and never read, as a page of a laptop that went to sleep.
    let asleep: Vec<Socket> = join_all((0..50).map(|_| Socket::open(&demo))).await;
    let mut socket = Socket::open(&demo).await;
    socket.until("four ghosts", |socket| socket.ghosts.len() == 4).await;
    let ghost = demo.urls()[1].clone();
    http::post(&format!("{ghost}shutdown"), "").await;
    socket.until("one is gone", |socket| socket.ghosts.len() == 3).await;
    assert_eq!(demo.state().await["sockets"], 51);
    drop((asleep, socket));
    eventually("the sockets are let go", async || demo.state().await["sockets"] == 0).await;
}

#[tokio::test]
async fn the_heart_beats() {
    let demo = start().await;
    let mut socket = Socket::open(&demo).await;
    let beats = |socket: &Socket| socket.heard.iter().filter(|m| m["action"] == "heartbeat").count();
    socket.until("a heartbeat", |socket| beats(socket) == 1).await;
}
