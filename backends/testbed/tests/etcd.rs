//! The handle of a single etcd server, against the real server.

mod common;

use std::{fs, net::TcpListener, time::Duration};

use common::{eventually, is_alive};
use discovery_testbed::{Etcd, EtcdCluster, EtcdCtl};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// Reads without the patience that a client has with a server which does not let it in.
const TRY_TO_READ: [&str; 3] = ["get", "/", "--command-timeout=2s"];

/// The value of `key`; empty when there is none.
async fn get(cli: &EtcdCtl, key: &str) -> String {
    cli.run(["get", key, "--print-value-only"]).await.expect("a key that is not there is no failure")
}

/// A number of the header of every answer, e.g. `cluster_id` or `revision`.
async fn header(etcd: &Etcd, field: &str) -> String {
    let answer = etcd.cli().run(["get", "/", "--write-out=fields"]).await.expect("the server serves");
    let label = format!("\"{field}\" : ");
    let value = answer.lines().find_map(|line| line.strip_prefix(&label));
    value.unwrap_or_else(|| panic!("no {field}: {answer}")).to_owned()
}

#[tokio::test]
async fn data_outlive_a_kill_and_a_stop() {
    let Some(etcd) = Etcd::start_or_skip().await else { return };
    let address = etcd.address();
    assert_eq!(etcd.cli().run(["put", "/kept", "some data"]).await.unwrap(), "OK");
    let cluster = header(&etcd, "ClusterID").await;

    let killed = etcd.id().unwrap();
    etcd.kill().unwrap();
    assert!(etcd.id().is_none() && !is_alive(killed));
    etcd.restart().await.unwrap();
    assert_eq!(get(&etcd.cli(), "/kept").await, "some data");

    let stopped = etcd.id().unwrap();
    etcd.stop().await.unwrap();
    assert!(etcd.id().is_none() && !is_alive(stopped));
    etcd.restart().await.unwrap();
    assert_eq!(get(&etcd.cli(), "/kept").await, "some data");
    assert_eq!(etcd.address(), address);
    assert_eq!(header(&etcd, "ClusterID").await, cluster);
}

#[tokio::test]
async fn a_paused_server_keeps_its_connections_and_answers_later() {
    let Some(etcd) = Etcd::start_or_skip().await else { return };
    let mut before = TcpStream::connect(etcd.address()).await.unwrap();
    etcd.pause().unwrap();
    // The kernel accepts on behalf of the server; nobody answers.
    let error = etcd.metric("etcd_server_is_leader").await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::TimedOut, "{error}");
    before.write_all(b"GET /version HTTP/1.0\r\n\r\n").await.unwrap();
    etcd.resume().unwrap();
    let mut answer = String::new();
    before.read_to_string(&mut answer).await.unwrap();
    assert!(answer.contains(r#""etcdserver":"#), "{answer}");
    assert!(etcd.metric("etcd_server_is_leader").await.unwrap() > 0.0);
}

#[tokio::test]
async fn drop_leaves_no_process_and_no_files() {
    let Some(etcd) = Etcd::start_or_skip().await else { return };
    etcd.pause().unwrap();
    let (id, dir) = (etcd.id().unwrap(), etcd.dir().to_owned());
    assert!(is_alive(id) && dir.exists());
    drop(etcd);
    assert!(!is_alive(id) && !dir.exists());
}

#[tokio::test]
async fn operations_on_a_server_that_is_down_say_so() {
    let Some(etcd) = Etcd::start_or_skip().await else { return };
    etcd.kill().unwrap();
    etcd.kill().unwrap();
    etcd.stop().await.unwrap();
    for error in [etcd.pause().unwrap_err(), etcd.resume().unwrap_err()] {
        assert!(error.to_string().contains("is not running"), "{error}");
    }
    let error = etcd.metric("etcd_server_is_leader").await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused, "{error}");
    let error = etcd.save().await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused, "{error}");
}

#[tokio::test]
async fn a_server_that_cannot_come_up_shows_its_log() {
    let Some(etcd) = Etcd::start_or_skip().await else { return };
    etcd.kill().unwrap();
    let _thief = TcpListener::bind(etcd.address()).unwrap();
    let error = etcd.restart().await.unwrap_err().to_string();
    assert!(error.contains("address already in use"), "{error}");
    assert!(etcd.log().contains("address already in use"));
    assert!(etcd.id().is_none());
}

#[tokio::test]
async fn servers_of_parallel_tests_do_not_meet() {
    let starts = (0..4).map(|_| tokio::spawn(Etcd::start_or_skip())).collect::<Vec<_>>();
    let mut servers = Vec::new();
    for start in starts {
        let Some(etcd) = start.await.unwrap() else { return };
        servers.push(etcd);
    }
    for (index, etcd) in servers.iter().enumerate() {
        etcd.cli().run(["put", "/who", &index.to_string()]).await.unwrap();
    }
    for (index, etcd) in servers.iter().enumerate() {
        assert_eq!(get(&etcd.cli(), "/who").await, index.to_string());
    }
}

#[tokio::test]
async fn the_shortest_lease_is_a_second() {
    let Some(etcd) = Etcd::start_or_skip().await else { return };
    let granted = etcd.cli().run(["lease", "grant", "1"]).await.unwrap();
    assert!(granted.ends_with("granted with TTL(1s)"), "{granted}");
}

#[tokio::test]
async fn any_flag_of_the_server_and_the_sync_policy_are_options() {
    let options =
        Etcd::builder().flag("max-request-bytes", "4000").flag("election-timeout", "1400").unsynced();
    let Some(etcd) = options.start_or_skip().await else { return };
    etcd.cli().run(["put", "/small", &"x".repeat(3000)]).await.unwrap();
    let error = etcd.cli().run(["put", "/large", &"x".repeat(5000)]).await.unwrap_err();
    assert!(error.to_string().contains("request is too large"), "{error}");
    let granted = etcd.cli().run(["lease", "grant", "1"]).await.unwrap();
    assert!(granted.ends_with("granted with TTL(3s)"), "the flag given last counts: {granted}");
    let command = fs::read_to_string(format!("/proc/{}/cmdline", etcd.id().unwrap())).unwrap();
    assert!(command.split('\0').any(|argument| argument == "--unsafe-no-fsync=true"), "{command}");
    etcd.kill().unwrap();
    etcd.restart().await.unwrap();
    assert_eq!(get(&etcd.cli(), "/small").await.len(), 3000);
}

#[tokio::test]
async fn metrics_count_requests() {
    let Some(etcd) = Etcd::start_or_skip().await else { return };
    let started = async |label: &str| etcd.metric_labelled("grpc_server_started_total", label).await.unwrap();
    let (before, all_before) = (started(r#"grpc_method="Range""#).await, started("").await);
    for _ in 0..3 {
        etcd.cli().run(["get", "/"]).await.unwrap();
    }
    etcd.cli().run(["put", "/", ""]).await.unwrap();
    // Whole numbers below 2^53, so there is no error to allow for.
    #[allow(clippy::float_cmp, reason = "see above")]
    {
        assert_eq!(started(r#"grpc_method="Range""#).await - before, 3.0);
        assert_eq!(started("").await - all_before, 4.0);
        assert_eq!(started("no-such-label").await, 0.0);
    }
    let error = etcd.metric("no_such_metric").await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::NotFound, "{error}");
}

#[tokio::test]
async fn a_wiped_server_is_another_cluster_with_nothing() {
    let Some(etcd) = Etcd::start_or_skip().await else { return };
    let (address, mut before) = (etcd.address(), header(&etcd, "ClusterID").await);
    for _ in 0..2 {
        etcd.cli().run(["put", "/lost", "data"]).await.unwrap();
        etcd.wipe().await.unwrap();
        assert_eq!(etcd.address(), address);
        assert_eq!(get(&etcd.cli(), "/lost").await, "");
        assert_eq!(header(&etcd, "Revision").await, "1");
        let after = header(&etcd, "ClusterID").await;
        assert_ne!(after, before);
        before = after;
    }
    etcd.restart().await.unwrap();
    assert_eq!(header(&etcd, "ClusterID").await, before);
}

#[tokio::test]
async fn a_restored_server_is_another_cluster_with_what_was_saved() {
    let Some(etcd) = Etcd::start_or_skip().await else { return };
    etcd.cli().run(["put", "/old", "saved"]).await.unwrap();
    let (cluster, revision) = (header(&etcd, "ClusterID").await, header(&etcd, "Revision").await);
    let backup = etcd.save().await.unwrap();
    etcd.cli().run(["put", "/new", "not saved"]).await.unwrap();

    etcd.restore(&backup).await.unwrap();
    assert_eq!(get(&etcd.cli(), "/old").await, "saved");
    assert_eq!(get(&etcd.cli(), "/new").await, "");
    assert_eq!(header(&etcd, "Revision").await, revision);
    assert_ne!(header(&etcd, "ClusterID").await, cluster);

    etcd.wipe().await.unwrap();
    etcd.restore(&backup).await.unwrap();
    assert_eq!(get(&etcd.cli(), "/old").await, "saved");
}

#[tokio::test]
async fn the_client_says_why_a_command_failed() {
    let Some(etcd) = Etcd::start_or_skip().await else { return };
    let error = etcd.cli().run(["lease", "revoke", "1"]).await.unwrap_err().to_string();
    assert!(error.contains("requested lease not found"), "{error}");
    let nobody = etcd.cli().endpoints("127.0.0.1:1").run(TRY_TO_READ).await.unwrap_err().to_string();
    assert!(nobody.contains("context deadline exceeded"), "{nobody}");
}

#[tokio::test]
async fn tls_demands_a_client_certificate() {
    let Some(etcd) = Etcd::builder().tls().start_or_skip().await else { return };
    assert!(etcd.certificates().is_some());
    etcd.cli().run(["put", "/secret", "data"]).await.unwrap();
    assert_eq!(get(&etcd.cli(), "/secret").await, "data");
    assert!(etcd.metric("etcd_server_is_leader").await.unwrap() > 0.0);

    let error = etcd.cli().without_certificate().run(TRY_TO_READ).await.unwrap_err().to_string();
    assert!(error.contains("context deadline exceeded"), "{error}");
    eventually("the server says what is wrong with the client", async || {
        etcd.log().contains("client didn't provide a certificate")
    })
    .await;
}

#[tokio::test]
async fn another_authority_is_not_trusted() {
    let Some(etcd) = Etcd::builder().tls().start_or_skip().await else { return };
    let Some(stranger) = Etcd::builder().tls().start_or_skip().await else { return };
    let error = stranger.cli().endpoints(etcd.connect_string()).run(TRY_TO_READ).await.unwrap_err();
    assert!(error.to_string().contains("context deadline exceeded"), "{error}");
    eventually("the server says that the client does not like it", async || {
        etcd.log().contains("remote error: tls: bad certificate")
    })
    .await;
}

#[tokio::test]
async fn auth_demands_a_login() {
    let Some(etcd) = Etcd::builder().auth("alice", "wonder: land").start_or_skip().await else { return };
    etcd.cli().run(["put", "/mine", "data"]).await.unwrap();
    assert_eq!(get(&etcd.cli(), "/mine").await, "data");
    let error = etcd.cli().without_login().run(["get", "/mine"]).await.unwrap_err().to_string();
    assert!(error.contains("user name is empty"), "{error}");
    let error = etcd.cli().login("alice", "guess").run(["get", "/mine"]).await.unwrap_err().to_string();
    assert!(error.contains("invalid user ID or password"), "{error}");
    assert!(etcd.cli().run(["user", "list"]).await.unwrap_err().to_string().contains("permission denied"));
    let users = etcd.cli().login("root", "wonder: land").run(["user", "list"]).await.unwrap();
    assert_eq!(users, "alice\nroot");

    // Neither a restart nor a new life opens it.
    etcd.restart().await.unwrap();
    assert!(etcd.cli().without_login().run(["get", "/mine"]).await.is_err());
    let backup = etcd.save().await.unwrap();
    etcd.wipe().await.unwrap();
    assert!(etcd.cli().without_login().run(["get", "/mine"]).await.is_err());
    assert_eq!(get(&etcd.cli(), "/mine").await, "");
    etcd.restore(&backup).await.unwrap();
    assert!(etcd.cli().without_login().run(["get", "/mine"]).await.is_err());
    assert_eq!(get(&etcd.cli(), "/mine").await, "data");
}

#[tokio::test]
async fn tls_and_auth_go_together() {
    let options = Etcd::builder().tls().auth("root", "secret").token_ttl(Duration::from_millis(1500));
    let Some(etcd) = options.start_or_skip().await else { return };
    assert!(etcd.cli().run(["get", "/"]).await.is_ok());
    assert!(etcd.cli().without_login().run(["get", "/"]).await.is_err());
    assert!(etcd.cli().without_certificate().run(TRY_TO_READ).await.is_err());
    let command = fs::read_to_string(format!("/proc/{}/cmdline", etcd.id().unwrap())).unwrap();
    assert!(command.split('\0').any(|argument| argument == "--auth-token-ttl=2"), "{command}");
}

#[test]
fn handles_and_their_futures_can_move_between_threads() {
    fn movable<T: Send>(_: T) {}
    fn check(etcd: &'static Etcd, cluster: &'static EtcdCluster) {
        movable((
            etcd,
            etcd.restart(),
            etcd.stop(),
            etcd.metric("any"),
            etcd.wipe(),
            etcd.save(),
            Etcd::start(),
        ));
        movable((
            cluster,
            cluster.wait_for_quorum(),
            cluster.leader(),
            cluster.wipe(),
            EtcdCluster::start(3),
        ));
    }
    // Compiling it is the test.
    let _ = check;
}
