//! A zone that its programs have among themselves: one serves it, the others take over.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::{net::SocketAddr, time::Duration};

use discovery::{
    Backoff, Connectors, Discovery,
    conformance::stage::{STEADY, Stage, eventually},
};
use discovery_testbed::{Dig, Port};

const ZONE: &str = "disco.internal";

async fn connect(address: SocketAddr) -> Discovery {
    let connectors = Connectors::new().with(discovery_dns::connector());
    let locator = format!("dns+zone://{address}/{ZONE}?serve=true&poll_interval=50ms&silence_timeout=2s");
    let pace = Backoff::new(Duration::from_millis(20), Duration::from_millis(100));
    Discovery::connect(&locator, &connectors).await.unwrap().backoff(pace)
}

/// A port that is free by UDP and TCP, for as long as nobody else takes it.
fn free_port() -> Port {
    Port::reserve().unwrap()
}

#[tokio::test]
async fn when_the_one_that_serves_ends_another_takes_its_place_and_nobody_leaves() {
    let port = free_port();
    let address = port.address();
    let host = connect(address).await;
    host.lookup(&"nobody".parse().unwrap()).await.unwrap();

    let mut stage = Stage::builder()
        .owner(connect(address).await, STEADY)
        .witness(connect(address).await, STEADY)
        .set()
        .await;
    let before = Dig::new(address).query(ZONE, "SOA").await.unwrap();
    drop(host);
    stage.recovered([1, 1]).await;
    stage.assert_nobody_left();
    let after = Dig::new(address).query(ZONE, "SOA").await.unwrap();
    assert_ne!(before.records, after.records, "another serves it, under another serial");
    stage.cleared(async || None).await;

    eventually("nobody serves it any more", async || {
        Dig::new(address)
            .option("tries=1")
            .option("timeout=1")
            .query(ZONE, "SOA")
            .await
            .is_ok()
            .then(|| "still".into())
    })
    .await;
}
