//! Processes of their own, on a real server: what is the same on each kind.

use std::time::Duration;

use discovery::{Instance, Registration, ServiceName};
use futures_util::future::try_join_all;
use rustix::process::Signal;
use tokio::time::Instant;

use crate::{
    demo::Demo,
    eventually, http,
    pac::socket::Socket,
    registry::{Registry, connect, name},
};

/// Makes all of them tests on one kind.
macro_rules! tests_on {
    ($registry:ty) => {
        tests_on! { $registry:
            ghosts_of_any_name_come_leave_and_die
            records_of_others_are_read_or_skipped
            a_crowd_comes_and_goes
            a_restarted_registry_shows_as_stale_and_removes_nobody
            the_registry_may_come_last
            a_departure_without_the_registry_does_not_hang
            who_starts_again_under_its_id_waits_for_its_old_lease
        }
    };
    ($registry:ty: $($test:ident)+) => {
        $(
            #[tokio::test]
            async fn $test() {
                crate::pac::processes::$test::<$registry>().await;
            }
        )+
    };
}
pub(crate) use tests_on;

/// What a loaded machine may add to anything.
const SLACK: Duration = Duration::from_secs(5);

async fn server(registry: &impl Registry, more: &[&str]) -> Demo {
    server_on(registry, 0, more).await
}

pub(crate) async fn server_on(registry: &impl Registry, port: u16, more: &[&str]) -> Demo {
    let (port, locator) = (port.to_string(), registry.locator());
    let args = ["pac", "server", "--drain", "0s", "--port", &port, "--backend", &locator];
    Demo::start(args.iter().chain(more)).await
}

pub(crate) async fn ghost(registry: &impl Registry, args: &[&str]) -> Demo {
    let common = ["pac", "ghost", "--drain", "300ms", "--backend", &registry.locator()];
    Demo::start(common.iter().chain(args)).await
}

pub(crate) async fn ghosts_of_any_name_come_leave_and_die<R: Registry>() {
    let Some(registry) = R::start_or_skip().await else { return };
    let server = server(&registry, &[]).await;
    let mut socket = Socket::open(&server).await;
    socket.until("an empty maze", |socket| socket.ready).await;
    assert_eq!(socket.hello["registry"], name(&registry));
    let command = socket.hello["command"].as_str().unwrap();
    assert!(command.ends_with(&format!("pac ghost blinky --backend '{}'", registry.locator())), "{command}");

    let mut sue = ghost(&registry, &["sue"]).await;
    let lease = Duration::from_secs(2);
    let blinky = ghost(&registry, &["blinky", "--ttl", "2s"]).await;
    let mut pinky = ghost(&registry, &["pinky"]).await;
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

pub(crate) async fn records_of_others_are_read_or_skipped<R: Registry>() {
    let Some(registry) = R::start_or_skip().await else { return };
    let server = server(&registry, &[]).await;
    let _inky = ghost(&registry, &["inky"]).await;
    let mut socket = Socket::open(&server).await;
    socket.until("inky", |socket| socket.shows("inky")).await;

    registry.write("/cn/local/test/evil", "").await;
    for (id, record) in [
        ("1", "}{"),
        ("2", &"[".repeat(50_000)),
        ("3", r#"{"endpoints":[{"name":"http","host":"<script>","port":1}]}"#),
        ("NOT_AN_ID", r#"{"endpoints":[]}"#),
        // As the sample of old writes it.
        ("5", r#"{"endpoints":[{"name":"http","host":"127.0.0.1","port":80}]}"#),
        ("6", r#"{"endpoints":[]}"#),
    ] {
        registry.write(&format!("/cn/local/test/evil/{id}"), record).await;
    }

    socket.until("what can be read", |socket| socket.ghosts.len() == 3).await;
    assert!(socket.shows("5.evil.test.local"));
    let homeless = socket.find("6.evil.test.local").unwrap();
    assert!(homeless.get("host").is_none() && homeless.get("port").is_none(), "{homeless}");
    assert_eq!(server.log().matches("skipped a record").count(), 3, "{}", server.log());

    registry.delete("/cn/local/test/evil/5").await;
    socket.until("its removal", |socket| !socket.shows("5.evil.test.local")).await;
}

pub(crate) async fn a_crowd_comes_and_goes<R: Registry>() {
    const CROWD: usize = 1_000;
    let Some(registry) = R::start_or_skip().await else { return };
    let server = server(&registry, &[]).await;
    let mut sockets = [Socket::open(&server).await, Socket::open(&server).await];
    sockets[0].until("an empty maze", |socket| socket.ready).await;

    let discovery = connect(&registry).await;
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

pub(crate) async fn a_restarted_registry_shows_as_stale_and_removes_nobody<R: Registry>() {
    let Some(registry) = R::start_or_skip().await else { return };
    let server = server(&registry, &["--ttl", "20s"]).await;
    let ghosts = [
        ghost(&registry, &["inky", "--ttl", "20s"]).await,
        ghost(&registry, &["clyde", "--ttl", "20s"]).await,
    ];
    let mut socket = Socket::open(&server).await;
    socket.until("two ghosts", |socket| socket.ghosts.len() == 2).await;

    for round in 1..=2 {
        registry.kill();
        socket.until("stale", |socket| socket.stale).await;
        assert_eq!(socket.ghosts.len(), 2, "what is known is still shown");
        // A page that is opened now sees the same.
        let mut late = Socket::open(&server).await;
        late.until("the state, and that it is old", |late| late.stale && late.ready).await;
        assert_eq!(late.ghosts.len(), 2);
        assert_eq!(server.state().await["live"], false);

        registry.restart().await;
        socket.until("live again", |socket| !socket.stale).await;
        late.until("live again", |late| !late.stale).await;
        let stale = socket.heard.iter().filter(|message| message["action"] == "stale").count();
        assert_eq!(stale, round, "once in an outage");
    }
    // Whoever comes now is seen: the watch is a real one.
    let third = ghost(&registry, &["sue"]).await;
    socket.until("sue", |socket| socket.shows("sue")).await;
    for ghost in ghosts.iter().chain([&third]) {
        let coordinate = ghost.coordinate().await;
        assert_eq!(socket.count("created", &coordinate), 1, "{coordinate}");
        assert_eq!(socket.count("removed", &coordinate), 0, "{coordinate}");
        eventually("it knows that it is registered", async || ghost.state().await["status"] == "active")
            .await;
    }
}

pub(crate) async fn the_registry_may_come_last<R: Registry>() {
    let Some(registry) = R::start_or_skip().await else { return };
    registry.kill();
    let server = server(&registry, &[]).await;
    let inky = ghost(&registry, &["inky"]).await;
    let mut socket = Socket::open(&server).await;
    socket.until("stale from the start", |socket| socket.stale).await;
    let reason = socket.heard[0]["reason"].as_str().unwrap();
    assert!(reason.contains(&registry.address().to_string()), "{reason}");
    assert!(!socket.ready, "an unknown maze is not an empty one");
    assert_eq!(inky.state().await["status"], "pending");
    assert!(http::get(inky.url()).await.body.contains("inky"), "its page is there before it is registered");
    for demo in [&server, &inky] {
        let said = format!("{} is not reachable yet; trying again", name(&registry));
        eventually("it says so", async || demo.log().contains(&said)).await;
        eventually("and again", async || demo.log().contains("is not reachable yet, after")).await;
    }
    registry.restart().await;
    socket.until("inky", |socket| socket.ready && !socket.stale && socket.shows("inky")).await;
    eventually("all are registered", async || {
        inky.state().await["status"] == "active" && server.state().await["status"] == "active"
    })
    .await;
}

pub(crate) async fn a_departure_without_the_registry_does_not_hang<R: Registry>() {
    let Some(registry) = R::start_or_skip().await else { return };
    let mut inky = ghost(&registry, &["inky", "--ttl", "20s"]).await;
    eventually("it is registered", async || inky.state().await["status"] == "active").await;
    registry.kill();
    inky.signal(Signal::INT);
    assert!(inky.ended().await.success());
    assert!(inky.log().contains("does not answer"), "{}", inky.log());
}

pub(crate) async fn who_starts_again_under_its_id_waits_for_its_old_lease<R: Registry>() {
    let Some(registry) = R::start_or_skip().await else { return };
    let args = ["--coordinate", "1f.inky.test.local", "--ttl", "2s"];
    let first = ghost(&registry, &args).await;
    eventually("it is registered", async || first.state().await["status"] == "active").await;
    first.signal(Signal::KILL);
    let second = ghost(&registry, &args).await;
    eventually("it takes the place", async || second.state().await["status"] == "active").await;
    assert!(second.log().contains("another has the place of 1f.inky.test.local"), "{}", second.log());
}
