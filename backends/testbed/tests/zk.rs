//! The handle of a single `ZooKeeper` server, against the real server.

mod common;

use std::net::TcpListener;

use common::{eventually, is_alive};
use discovery_testbed::{Proxy, Role, ZooKeeper, ZooKeeperEnsemble};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

#[tokio::test]
async fn data_outlive_a_kill_and_a_stop() {
    let Some(zk) = ZooKeeper::start_or_skip().await else { return };
    let address = zk.address();
    assert_eq!(zk.role().await.unwrap(), Role::Standalone);
    assert_eq!(zk.cli().run(["create", "/kept", "some data"]).await.unwrap(), "Created /kept");

    let killed = zk.id().unwrap();
    zk.kill().unwrap();
    assert!(zk.id().is_none() && !is_alive(killed));
    zk.restart().await.unwrap();
    assert_eq!(zk.cli().run(["get", "/kept"]).await.unwrap(), "some data");

    let stopped = zk.id().unwrap();
    zk.stop().await.unwrap();
    assert!(zk.id().is_none() && !is_alive(stopped));
    zk.restart().await.unwrap();
    assert_eq!(zk.cli().run(["get", "/kept"]).await.unwrap(), "some data");
    assert_eq!(zk.address(), address);
}

#[tokio::test]
async fn a_paused_server_keeps_its_connections_and_answers_later() {
    let Some(zk) = ZooKeeper::start_or_skip().await else { return };
    let mut before = TcpStream::connect(zk.address()).await.unwrap();
    zk.pause().unwrap();
    // The kernel accepts on behalf of the server; nobody answers.
    let error = zk.role().await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::TimedOut, "{error}");
    before.write_all(b"ruok").await.unwrap();
    zk.resume().unwrap();
    let mut answer = String::new();
    before.read_to_string(&mut answer).await.unwrap();
    assert_eq!(answer, "imok");
    assert_eq!(zk.role().await.unwrap(), Role::Standalone);
}

#[tokio::test]
async fn drop_leaves_no_process_and_no_files() {
    let Some(zk) = ZooKeeper::start_or_skip().await else { return };
    zk.pause().unwrap();
    let (id, dir) = (zk.id().unwrap(), zk.dir().to_owned());
    assert!(is_alive(id) && dir.exists());
    drop(zk);
    assert!(!is_alive(id) && !dir.exists());
}

#[tokio::test]
async fn a_test_that_panics_leaves_no_process_and_no_files() {
    let Some(zk) = ZooKeeper::start_or_skip().await else { return };
    let (id, dir) = (zk.id().unwrap(), zk.dir().to_owned());
    let test = tokio::spawn(async move {
        assert!(zk.id().is_none(), "this panic is part of the test");
    });
    assert!(test.await.unwrap_err().is_panic());
    assert!(!is_alive(id) && !dir.exists());
}

#[tokio::test]
async fn operations_on_a_server_that_is_down_say_so() {
    let Some(zk) = ZooKeeper::start_or_skip().await else { return };
    zk.kill().unwrap();
    zk.kill().unwrap();
    zk.stop().await.unwrap();
    for error in [zk.pause().unwrap_err(), zk.resume().unwrap_err()] {
        assert!(error.to_string().contains("is not running"), "{error}");
    }
}

#[tokio::test]
async fn a_server_that_cannot_come_up_shows_its_log() {
    let Some(zk) = ZooKeeper::start_or_skip().await else { return };
    zk.kill().unwrap();
    let _thief = TcpListener::bind(zk.address()).unwrap();
    let error = zk.restart().await.unwrap_err().to_string();
    assert!(error.contains("Address already in use"), "{error}");
    assert!(zk.log().contains("Address already in use"));
    assert!(zk.id().is_none());
}

#[tokio::test]
async fn servers_of_parallel_tests_do_not_meet() {
    let starts = (0..4).map(|_| tokio::spawn(ZooKeeper::start_or_skip())).collect::<Vec<_>>();
    let mut servers = Vec::new();
    for start in starts {
        let Some(zk) = start.await.unwrap() else { return };
        servers.push(zk);
    }
    for (index, zk) in servers.iter().enumerate() {
        zk.cli().run(["create", "/who", &index.to_string()]).await.unwrap();
    }
    for (index, zk) in servers.iter().enumerate() {
        assert_eq!(zk.cli().run(["get", "/who"]).await.unwrap(), index.to_string());
    }
}

#[tokio::test]
async fn short_sessions_are_granted() {
    let Some(zk) = ZooKeeper::start_or_skip().await else { return };
    let conf = zk.four_letter_word("conf").await.unwrap();
    assert!(conf.contains("minSessionTimeout=400\n"), "{conf}");
    assert!(conf.contains("maxSessionTimeout=60000\n"), "{conf}");
}

#[tokio::test]
async fn the_largest_request_and_the_sync_policy_are_options() {
    let Some(zk) = ZooKeeper::builder().max_buffer(4000).unsynced().start_or_skip().await else { return };
    zk.cli().run(["create", "/small", &"x".repeat(3000)]).await.unwrap();
    // The server drops the connection of a client that sends more.
    let error = zk.cli().run(["create", "/large", &"x".repeat(5000)]).await.unwrap_err();
    assert!(error.to_string().contains("ConnectionLoss"), "{error}");
    let config = std::fs::read_to_string(zk.dir().join("zoo.cfg")).unwrap();
    assert!(config.lines().any(|line| line == "forceSync=no"), "{config}");
    zk.kill().unwrap();
    zk.restart().await.unwrap();
    assert_eq!(zk.cli().run(["get", "/small"]).await.unwrap().len(), 3000);
}

#[tokio::test]
async fn the_client_says_why_a_command_failed() {
    let Some(zk) = ZooKeeper::start_or_skip().await else { return };
    let error = zk.cli().run(["get", "/nothing"]).await.unwrap_err().to_string();
    assert!(error.contains("Node does not exist: /nothing"), "{error}");
    assert_eq!(zk.cli().run(["ls", "-R", "/"]).await.unwrap().lines().next(), Some("/"));
    let nobody = zk.cli().connect_string("127.0.0.1:1").run(["get", "/"]).await.unwrap_err().to_string();
    assert!(nobody.contains("ConnectionLoss"), "{nobody}");
}

#[tokio::test]
async fn tls_demands_a_client_certificate() {
    let Some(zk) = ZooKeeper::builder().tls().start_or_skip().await else { return };
    assert!(zk.certificates().is_some());
    zk.cli().run(["create", "/secret", "data"]).await.unwrap();
    assert_eq!(zk.cli().run(["get", "/secret"]).await.unwrap(), "data");

    let error = zk.cli().without_certificate().run(["get", "/secret"]).await.unwrap_err().to_string();
    assert!(error.contains("ConnectionLoss"), "{error}");
    eventually("the server says what is wrong with the client", async || {
        zk.log().contains("Empty server certificate chain")
            || zk.log().contains("Empty client certificate chain")
    })
    .await;
}

#[tokio::test]
async fn another_authority_is_not_trusted() {
    let Some(zk) = ZooKeeper::builder().tls().start_or_skip().await else { return };
    let Some(stranger) = ZooKeeper::builder().tls().start_or_skip().await else { return };
    let error = stranger.cli().connect_string(zk.connect_string()).run(["get", "/"]).await.unwrap_err();
    assert!(error.to_string().contains("ConnectionLoss"), "{error}");
}

#[tokio::test]
async fn sasl_demands_a_login() {
    let Some(zk) = ZooKeeper::builder().sasl("alice", "wonder land").start_or_skip().await else { return };
    zk.cli().run(["create", "/mine", "data", "sasl:alice:cdrwa"]).await.unwrap();
    assert_eq!(zk.cli().run(["get", "/mine"]).await.unwrap(), "data");
    assert!(zk.cli().without_login().run(["ls", "/"]).await.is_err());
}

#[tokio::test]
async fn tls_and_sasl_go_together() {
    let options = ZooKeeper::builder().tls().sasl("alice", "secret");
    let Some(zk) = options.start_or_skip().await else { return };
    assert!(zk.cli().run(["ls", "/"]).await.is_ok());
    assert!(zk.cli().without_login().run(["ls", "/"]).await.is_err());
    assert!(zk.cli().without_certificate().run(["ls", "/"]).await.is_err());
}

#[test]
fn handles_and_their_futures_can_move_between_threads() {
    fn movable<T: Send>(_: T) {}
    fn check(zk: &'static ZooKeeper, ensemble: &'static ZooKeeperEnsemble, proxy: &'static Proxy) {
        movable((zk, zk.restart(), zk.stop(), zk.role(), zk.cli()));
        movable((ensemble, ensemble.wait_for_quorum(), ensemble.leader(), ZooKeeperEnsemble::start(3)));
        movable((proxy, proxy.cut()));
    }
    // Compiling it is the test.
    let _ = check;
}
