//! NOTIFY: changes are heard of long before the next poll.

use std::time::Duration;

use discovery::{Backend, Delivery, kv::Txn};
use discovery_dns::Notify;
use discovery_testbed::{NameServer, NameServerBuilder, Port};
use tokio::{net::UdpSocket, time::Instant};

use crate::common::{Follower, config, everything, key, kv, leftovers, on, zone};

/// Much longer than anything here takes.
const POLL: Duration = Duration::from_secs(10);

async fn a_change_is_seen_before_the_next_poll(server: NameServerBuilder) {
    let port = Port::reserve().unwrap();
    let Some(server) = server.also_notify(port.address()).start_or_skip().await else { return };
    let patient = zone(config(&server).poll_interval(POLL).notify(Notify::At(port.address())));
    assert_eq!(patient.info().capabilities().delivery, Delivery::Push);
    let mut follower = Follower::start(&patient, &everything()).await.unwrap();
    let writer = on(&server);
    let start = Instant::now();
    for n in 0..3 {
        kv(&writer).commit(Txn::new().put(&key("a"), n.to_string())).await.unwrap();
        follower.until("it is seen", |it| it.value("a") == Some(n.to_string().as_bytes())).await;
    }
    assert!(start.elapsed() < POLL * 3 / 4, "{:?}", start.elapsed());
}

#[tokio::test]
async fn a_change_is_seen_before_the_next_poll_with_bind() {
    a_change_is_seen_before_the_next_poll(NameServer::bind()).await;
}

/// Knot sends its NOTIFY over TCP, which nobody listens for; a poll has to do.
#[tokio::test]
async fn a_server_that_notifies_in_another_way_does_no_harm() {
    let port = Port::reserve().unwrap();
    let Some(server) = NameServer::knot().also_notify(port.address()).start_or_skip().await else { return };
    let zone = zone(config(&server).notify(Notify::At(port.address())));
    let mut follower = Follower::start(&zone, &everything()).await.unwrap();
    kv(&on(&server)).commit(Txn::new().put(&key("a"), "1")).await.unwrap();
    follower.until("it is seen", |it| it.value("a").is_some()).await;
}

/// What comes in there is no NOTIFY, or from nobody knows whom.
#[tokio::test]
async fn anything_may_come_in() {
    let port = Port::reserve().unwrap();
    let Some(server) = NameServer::bind().also_notify(port.address()).start_or_skip().await else { return };
    let patient = zone(config(&server).poll_interval(POLL).notify(Notify::At(port.address())));
    let mut follower = Follower::start(&patient, &everything()).await.unwrap();
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    for n in 0..2000_usize {
        let packet: Vec<u8> = (0..n % 600).map(|_| fastrand::u8(..)).collect();
        let _ = socket.send_to(&packet, port.address()).await;
    }
    let start = Instant::now();
    kv(&on(&server)).commit(Txn::new().put(&key("a"), "1")).await.unwrap();
    follower.until("it is seen", |it| it.value("a").is_some()).await;
    assert!(start.elapsed() < POLL * 3 / 4, "{:?}", start.elapsed());
}

/// Two handles in one process may not both have the port. One polls.
#[tokio::test]
async fn a_port_that_is_taken_is_no_obstacle() {
    let port = Port::reserve().unwrap();
    let Some(server) = NameServer::bind().start_or_skip().await else { return };
    let handles = [(); 2].map(|()| zone(config(&server).notify(Notify::At(port.address()))));
    let mut followers = Vec::new();
    for handle in &handles {
        followers.push(Follower::start(handle, &everything()).await.unwrap());
    }
    kv(&handles[0]).commit(Txn::new().put(&key("a"), "1")).await.unwrap();
    for follower in &mut followers {
        follower.until("it is seen", |it| it.value("a").is_some()).await;
    }
    kv(&handles[0]).commit(Txn::new().delete(&key("a"))).await.unwrap();
    assert_eq!(leftovers(&server).await, [""; 0]);
}
