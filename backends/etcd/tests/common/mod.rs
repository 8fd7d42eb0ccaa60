//! What all tests of this backend need: handles on a server, and waiting with a limit.

#![allow(dead_code, reason = "each test binary uses a part of it")]

use discovery::{
    Backend, Leases,
    conformance::stage,
    kv::{Key, Kv, Range},
};
use discovery_etcd::{Etcd, EtcdConfig};

#[allow(unused_imports, reason = "each test binary uses a part of it")]
pub(crate) use stage::{Follower, soon};

/// A backend at `authority`: what a locator has between `etcd://` and the namespace `/cn`.
pub(crate) fn etcd(authority: &str) -> Etcd {
    etcd_at(&format!("{authority}/cn"))
}

/// A backend at what a locator has behind `etcd://`.
pub(crate) fn etcd_at(locator: &str) -> Etcd {
    Etcd::new(EtcdConfig::from_locator(&format!("etcd://{locator}").parse().unwrap()).unwrap())
}

pub(crate) fn kv(etcd: &Etcd) -> &dyn Kv {
    etcd.kv().unwrap()
}

pub(crate) fn leases(etcd: &Etcd) -> &dyn Leases {
    etcd.leases().unwrap()
}

pub(crate) fn key(text: &str) -> Key {
    text.parse().unwrap()
}

pub(crate) fn everything() -> Range {
    Range::Subtree(Key::root())
}

/// The keys and values of a range, as text.
pub(crate) async fn listed(etcd: &Etcd, range: &Range) -> Vec<String> {
    let entries = kv(etcd).scan(range).await.unwrap().entries;
    entries.iter().map(|entry| format!("{}={}", entry.key.as_str(), entry.value.escape_ascii())).collect()
}

/// A stranger: a client that knows nothing of this crate.
pub(crate) async fn stranger(authority: &str) -> etcd_client::Client {
    etcd_client::Client::connect([authority], None).await.unwrap()
}

/// Waits until a condition holds.
pub(crate) async fn eventually(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    stage::eventually(what, async || (!condition().await).then(|| "it is not so".into())).await;
}
