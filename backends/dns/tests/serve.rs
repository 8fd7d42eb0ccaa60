//! A zone that its programs have among themselves: one serves it, the others take over.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::{net::SocketAddr, time::Duration};

use discovery::{
    Backoff, Connectors, Discovery,
    conformance::stage::{STEADY, Stage, eventually, instance},
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
    let serial = async || {
        let dig = Dig::new(address).option("+tries=1").option("+timeout=1");
        dig.query(ZONE, "SOA").await.ok()?.records.pop()
    };
    let before = serial().await.unwrap();
    drop(host);
    eventually("another serves it, under another serial", async || {
        let now = serial().await;
        now.as_ref().is_none_or(|now| *now == before).then(|| format!("{now:?}"))
    })
    .await;
    // It may be so quick that not everybody takes it for an outage; who sees this has it behind itself.
    let registration = stage.owner().register(99).await.unwrap();
    stage.owner_mut().hold(registration);
    let key = instance(99).key().clone();
    eventually("all see what comes after", async || {
        stage.clients().iter().any(|client| !client.sees(&key) || client.is_stale()).then(|| "not all".into())
    })
    .await;
    let outages = stage.clients().map(|client| client.history().outages());
    stage.recovered(outages).await;
    stage.assert_nobody_left();
    stage.cleared(async || None).await;

    eventually("nobody serves it any more", async || serial().await).await;
}
