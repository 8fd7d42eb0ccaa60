//! BIND and Knot follow: they hear of changes, and fetch what is new.

use std::{collections::BTreeSet, time::Duration};

use discovery_dns::{Authority, ZoneConfig};
use discovery_testbed::{NameServer, NameServerBuilder, Port};
use tokio::time::timeout;

use crate::{KEY, SECRET, ZONE, local, nsupdate, signed_dig, until};

/// An authority that notifies a secondary, which is described.
async fn pair(secondary: NameServerBuilder) -> (Authority, NameServerBuilder) {
    let port = Port::reserve().unwrap();
    let zone = ZoneConfig::dynamic(ZONE).serial(u32::MAX - 100).secondary(port.address());
    let builder = local().key(format!("{KEY}:{SECRET}").parse().unwrap());
    let authority = builder.zone(zone).start().await.unwrap();
    let secondary = secondary.secondary_at(authority.address(), ZONE, KEY, SECRET).port(port);
    (authority, secondary)
}

/// One of some changes that have to do with each other.
fn random_change(random: &mut fastrand::Rng) -> String {
    let host = format!("h{}.disco.test.", random.u8(..20));
    let address = format!("10.0.0.{}", random.u8(..8));
    match random.u8(..8) {
        0..=3 => format!("add {host} 5 A {address}"),
        4 => format!("add {host} 6 TXT \"{address}\""),
        5 => format!("delete {host} A {address}"),
        6 => format!("delete {host} TXT"),
        _ => format!("delete {host}"),
    }
}

async fn zone_of(dig: &discovery_testbed::Dig) -> BTreeSet<String> {
    dig.transfer(ZONE).await.unwrap().into_iter().collect()
}

async fn is_same(authority: &Authority, secondary: &NameServer) -> bool {
    secondary.serial().await.is_ok_and(|serial| authority.serial(ZONE) == Some(serial))
}

/// Whether the last transfer was of what had changed: BIND says how many records it was.
fn is_incremental(log: &str) -> bool {
    let count = |line: &str| {
        let (before, _) = line.split_once(" records,")?;
        before.rsplit(' ').next()?.parse::<u32>().ok()
    };
    match log.lines().filter(|line| line.contains("Transfer completed")).filter_map(count).next_back() {
        Some(records) => records < 10,
        None => log.contains("IXFR, incoming"),
    }
}

async fn follows(secondary: NameServerBuilder, random: &mut fastrand::Rng) {
    let (authority, secondary) = pair(secondary).await;
    let Some(secondary) = secondary.start_or_skip().await else { return };
    let nsupdate = nsupdate(&authority).tcp();
    for _ in 0..20 {
        // Ten updates with one client.
        let updates: Vec<_> =
            (0..10).map(|_| (0..3).map(|_| random_change(random)).collect::<Vec<_>>().join("\n")).collect();
        nsupdate.run(&updates.join("\nsend\n")).await.unwrap();
    }
    assert!(authority.serial(ZONE).unwrap() < 1 << 31, "the serial went round");
    until("the secondary is up to date", || is_same(&authority, &secondary)).await;
    assert_eq!(zone_of(&signed_dig(&authority)).await, zone_of(&secondary.dig()).await);

    // A crash, and changes that it does not hear of.
    secondary.kill().unwrap();
    nsupdate.run("add late.disco.test. 5 A 10.0.0.1").await.unwrap();
    timeout(Duration::from_secs(20), secondary.restart()).await.unwrap().unwrap();
    until("the secondary is up to date again", || is_same(&authority, &secondary)).await;
    nsupdate.run("add later.disco.test. 5 A 10.0.0.1").await.unwrap();
    until("the secondary hears of changes again", || is_same(&authority, &secondary)).await;
    assert_eq!(zone_of(&signed_dig(&authority)).await, zone_of(&secondary.dig()).await);
    assert!(is_incremental(&secondary.log()), "the whole zone for one record: {}", secondary.log());
}

#[tokio::test]
async fn bind_follows() {
    follows(NameServer::bind(), &mut fastrand::Rng::with_seed(1)).await;
}

#[tokio::test]
async fn knot_follows() {
    follows(NameServer::knot(), &mut fastrand::Rng::with_seed(2)).await;
}

#[tokio::test]
async fn a_large_zone_is_transferred() {
    for secondary in [NameServer::bind(), NameServer::knot()] {
        let (authority, secondary) = pair(secondary).await;
        for part in 0..20 {
            let lines: Vec<_> =
                (0..500).map(|n| format!("add h{part}-{n}.disco.test. 5 TXT \"some text of it\"")).collect();
            nsupdate(&authority).tcp().run(&lines.join("\n")).await.unwrap();
        }
        let Some(secondary) = secondary.start_or_skip().await else { continue };
        until("the secondary is up to date", || is_same(&authority, &secondary)).await;
        assert_eq!(zone_of(&secondary.dig()).await.len(), 10_002);
    }
}
