//! What all tests of the zone need: handles on a server, strangers with keys, waiting with a limit.

#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::{net::SocketAddr, time::Duration};

use discovery::{
    Backend, Backoff, Discovery, LeaseId, Leases,
    conformance::stage,
    kv::{Key, Kv, Range},
};
use discovery_dns::{DnsZone, DnsZoneConfig, DnsZoneConfigBuilder, Notify, TsigKey};
use discovery_testbed::NameServer;

#[allow(unused_imports, reason = "each test binary uses a part of it")]
pub(crate) use stage::{Follower, soon};

/// The time after which a watch gives a server up that says nothing.
pub(crate) const SILENCE: Duration = Duration::from_secs(2);

/// How clients of a server are set up for tests: they poll often, so that nothing takes long.
pub(crate) fn config(server: &NameServer) -> DnsZoneConfigBuilder {
    config_at(server, server.address())
}

/// The same through something in front of the server.
pub(crate) fn config_at(server: &NameServer, address: SocketAddr) -> DnsZoneConfigBuilder {
    let key = TsigKey::new(server.key_name(), server.key_secret()).unwrap();
    unsigned_at(server.zone(), address).key(key)
}

/// The same without a key.
pub(crate) fn unsigned_at(zone: &str, address: SocketAddr) -> DnsZoneConfigBuilder {
    DnsZoneConfig::builder()
        .server(address.ip().to_string(), address.port())
        .zone(zone)
        .notify(Notify::Off)
        .poll_interval(Duration::from_millis(50))
        .silence_timeout(SILENCE)
}

pub(crate) fn zone(config: DnsZoneConfigBuilder) -> DnsZone {
    DnsZone::new(config.build().unwrap())
}

/// A backend on a server.
pub(crate) fn on(server: &NameServer) -> DnsZone {
    zone(config(server))
}

/// A handle on a backend. Its pace is quicker than users need it, so that tests wait for the fault and not for the next
/// attempt.
pub(crate) fn discovery(zone: DnsZone) -> Discovery {
    Discovery::new(zone).backoff(Backoff::new(Duration::from_millis(20), Duration::from_millis(100)))
}

/// A BIND with an empty zone.
pub(crate) async fn bind() -> Option<NameServer> {
    NameServer::bind().start_or_skip().await
}

/// A Knot with an empty zone.
pub(crate) async fn knot() -> Option<NameServer> {
    NameServer::knot().start_or_skip().await
}

pub(crate) fn kv(zone: &DnsZone) -> &dyn Kv {
    zone.kv().unwrap()
}

pub(crate) fn leases(zone: &DnsZone) -> &dyn Leases {
    zone.leases().unwrap()
}

pub(crate) fn key(text: &str) -> Key {
    text.parse().unwrap()
}

pub(crate) fn everything() -> Range {
    Range::Subtree(Key::root())
}

/// The keys and values of a range, as text.
pub(crate) async fn listed(zone: &DnsZone, range: &Range) -> Vec<String> {
    let entries = kv(zone).scan(range).await.unwrap().entries;
    entries.iter().map(|entry| format!("{}={}", entry.key.as_str(), entry.value.escape_ascii())).collect()
}

/// Everything in the zone but what is there from the beginning, a line each, without ttl and class.
pub(crate) async fn records(server: &NameServer) -> Vec<String> {
    let records = server.dig().transfer(server.zone()).await.unwrap();
    let (apex, ns) = (format!("{}.", server.zone()), format!("ns.{}.", server.zone()));
    let line = |record: &String| {
        let fields: Vec<_> = record.splitn(5, ' ').collect();
        let [name, _, _, kind, data] = fields[..] else { panic!("{record}") };
        (name != apex && name != ns).then(|| format!("{name} {kind} {data}"))
    };
    let mut records: Vec<_> = records.iter().filter_map(line).collect();
    records.sort();
    records
}

/// Everything in the zone but the head of the log.
pub(crate) async fn leftovers(server: &NameServer) -> Vec<String> {
    let head = format!("_log.{}. TXT ", server.zone());
    records(server).await.into_iter().filter(|record| !record.starts_with(&head)).collect()
}

/// The zone as lines of a zone file, but for what every zone of a server has.
pub(crate) async fn content(server: &NameServer) -> String {
    let records = server.dig().transfer(server.zone()).await.unwrap();
    let (apex, ns) = (format!("{}. ", server.zone()), format!("ns.{}. ", server.zone()));
    let lines: Vec<_> =
        records.into_iter().filter(|line| !line.starts_with(&apex) && !line.starts_with(&ns)).collect();
    lines.join("\n")
}

/// The name of an entry.
pub(crate) fn name(server: &NameServer, text: &str) -> String {
    discovery_dns::entry_name(server.zone(), &key(text)).unwrap()
}

/// The name of the record of a lease.
pub(crate) fn lease_name(server: &NameServer, id: LeaseId) -> String {
    format!("{id}._lease.{}.", server.zone())
}

/// The name of the head of the log.
pub(crate) fn head_name(server: &NameServer) -> String {
    format!("_log.{}.", server.zone())
}

/// Changes the zone as a stranger who has the key.
pub(crate) async fn update(server: &NameServer, script: &str) {
    server.nsupdate().run(script).await.unwrap();
}

/// Changes how a BIND is configured, and starts it again.
pub(crate) async fn reconfigure(server: &NameServer, change: impl FnOnce(&str) -> String) {
    let file = server.dir().join("named.conf");
    let (old, new) = std::fs::read_to_string(&file).map(|old| (old.clone(), change(&old))).unwrap();
    assert_ne!(old, new, "nothing was changed");
    std::fs::write(file, new).unwrap();
    server.stop().await.unwrap();
    server.restart().await.unwrap();
}

/// Waits until a condition holds.
pub(crate) async fn eventually(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    stage::eventually(what, async || (!condition().await).then(|| "it is not so".into())).await;
}

/// Waits until a server is left with nothing.
pub(crate) async fn emptied(server: &NameServer) {
    stage::eventually("the zone is empty", async || {
        let left = leftovers(server).await;
        (!left.is_empty()).then(|| format!("{left:#?}"))
    })
    .await;
}
