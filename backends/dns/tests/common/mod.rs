//! What all tests of the zone need: handles on a server, strangers with keys, a follower of a range, waiting with a limit.

#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use discovery::{
    Backend, Backoff, Discovery, Error, LeaseId, Leases, Result, Revision,
    kv::{Entry, Key, Kv, KvChange, KvUpdate, KvUpdates, Range},
};
use discovery_dns::{DnsZone, DnsZoneConfig, DnsZoneConfigBuilder, Notify, TsigKey};
use discovery_testbed::NameServer;
use futures_util::StreamExt;
use tokio::time::{Instant, sleep, timeout};

/// How long a test waits for what must happen, also on a busy machine.
pub(crate) const SOON: Duration = Duration::from_secs(30);

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
    let end = Instant::now() + SOON;
    while !condition().await {
        assert!(Instant::now() < end, "not within {SOON:?}: {what}");
        sleep(Duration::from_millis(10)).await;
    }
}

/// Waits until a server is left with nothing.
pub(crate) async fn emptied(server: &NameServer) {
    let mut left = Vec::new();
    let end = Instant::now() + SOON;
    while Instant::now() < end {
        left = leftovers(server).await;
        if left.is_empty() {
            return;
        }
        sleep(Duration::from_millis(50)).await;
    }
    panic!("left in the zone: {left:#?}");
}

/// Waits for something that must happen.
pub(crate) async fn soon<T>(what: &str, happens: impl IntoFuture<Output = T>) -> T {
    timeout(SOON, happens.into_future()).await.unwrap_or_else(|_| panic!("not within {SOON:?}: {what}"))
}

/// A watch and what it has told so far.
pub(crate) struct Follower {
    updates: KvUpdates,
    pub(crate) entries: BTreeMap<Key, Entry>,
    pub(crate) revision: Revision,
    /// Every change behind the first reset, in order.
    pub(crate) changes: Vec<KvChange>,
    /// How often it began with the whole range.
    pub(crate) resets: usize,
}

impl Follower {
    /// Follows a range; returns behind the first reset.
    pub(crate) async fn start(zone: &DnsZone, range: &Range) -> Result<Self> {
        let mut follower = Self {
            updates: kv(zone).watch(range, None),
            entries: BTreeMap::new(),
            revision: Revision(0),
            changes: Vec::new(),
            resets: 0,
        };
        match follower.next().await? {
            KvUpdate::Reset(_) => Ok(follower),
            other => panic!("{other:?} before a reset"),
        }
    }

    /// Goes on behind what is known, with another watch; returns behind the first update.
    pub(crate) async fn resume(&mut self, zone: &DnsZone, range: &Range) -> Result<KvUpdate> {
        self.updates = kv(zone).watch(range, Some(self.revision));
        self.next().await
    }

    /// Takes the next update, and checks that revisions do not decrease unless all begins anew.
    pub(crate) async fn next(&mut self) -> Result<KvUpdate> {
        let update = soon("an update", self.updates.next()).await.expect("an error before the end")?;
        let revision = match &update {
            KvUpdate::Reset(scan) => {
                let entries = scan.entries.iter().cloned();
                self.entries = entries.map(|entry| (entry.key.clone(), entry)).collect();
                self.resets += 1;
                self.revision = scan.revision;
                scan.revision
            }
            KvUpdate::Delta { revision, changes } => {
                for change in changes {
                    match change {
                        KvChange::Put(entry) => self.entries.insert(entry.key.clone(), entry.clone()),
                        KvChange::Delete(key) => self.entries.remove(key),
                    };
                }
                self.changes.extend_from_slice(changes);
                *revision
            }
            KvUpdate::Progress(revision) => *revision,
        };
        assert!(revision >= self.revision, "{revision:?} behind {:?}", self.revision);
        self.revision = revision;
        Ok(update)
    }

    /// Takes updates until something is as wanted.
    pub(crate) async fn until(&mut self, what: &str, mut wanted: impl FnMut(&Self) -> bool) {
        let end = Instant::now() + SOON;
        while !wanted(self) {
            assert!(Instant::now() < end, "not within {SOON:?}: {what}; there is {:?}", self.entries);
            if let Err(error) = self.next().await {
                panic!("{what}: {error:?}");
            }
        }
    }

    /// Takes updates until the stream fails, and checks that this is its end.
    pub(crate) async fn failure(&mut self) -> Error {
        loop {
            if let Err(error) = self.next().await {
                assert!(soon("the end", self.updates.next()).await.is_none(), "an item behind the error");
                return error;
            }
        }
    }

    pub(crate) fn value(&self, text: &str) -> Option<&[u8]> {
        self.entries.get(&key(text)).map(|entry| &entry.value[..])
    }

    /// Whether a key was ever reported as gone.
    pub(crate) fn saw_removal(&self, text: &str) -> bool {
        self.changes.iter().any(|change| matches!(change, KvChange::Delete(gone) if *gone == key(text)))
    }
}
