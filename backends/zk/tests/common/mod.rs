//! What all tests of this backend need: handles on a server, and waiting with a limit.

#![allow(dead_code, reason = "each test binary uses a part of it")]

use discovery::{
    Backend, Leases,
    conformance::stage,
    kv::{Key, Kv, Range},
};
use discovery_zk::{Zk, ZkConfig};
use zookeeper_client as raw;

#[allow(unused_imports, reason = "each test binary uses a part of it")]
pub(crate) use stage::{Follower, STEADY, soon};

/// A backend at `authority`: what a locator has between `zk://` and the chroot `/cn`.
pub(crate) fn zk(authority: &str) -> Zk {
    zk_at(&format!("{authority}/cn"))
}

/// A backend at what a locator has behind `zk://`.
pub(crate) fn zk_at(locator: &str) -> Zk {
    Zk::new(ZkConfig::from_locator(&format!("zk://{locator}").parse().unwrap()).unwrap())
}

pub(crate) fn kv(zk: &Zk) -> &dyn Kv {
    zk.kv().unwrap()
}

pub(crate) fn leases(zk: &Zk) -> &dyn Leases {
    zk.leases().unwrap()
}

pub(crate) fn key(text: &str) -> Key {
    text.parse().unwrap()
}

pub(crate) fn everything() -> Range {
    Range::Subtree(Key::root())
}

/// The keys and values of a range, as text.
pub(crate) async fn listed(zk: &Zk, range: &Range) -> Vec<String> {
    let entries = kv(zk).scan(range).await.unwrap().entries;
    entries.iter().map(|entry| format!("{}={}", entry.key.as_str(), entry.value.escape_ascii())).collect()
}

/// A stranger: a client that knows nothing of this crate.
pub(crate) async fn stranger(authority: &str) -> raw::Client {
    raw::Client::connect(authority).await.unwrap()
}

/// Has a stranger write a node, with the nodes above it.
pub(crate) async fn plant(stranger: &raw::Client, path: &str, data: &[u8]) {
    let options = raw::CreateMode::Persistent.with_acls(raw::Acls::anyone_all());
    if let Some((parent, _)) = path.rsplit_once('/').filter(|(parent, _)| !parent.is_empty()) {
        stranger.mkdir(parent, &options).await.unwrap();
    }
    stranger.create(path, data, &options).await.unwrap();
}

/// Waits until a condition holds.
pub(crate) async fn eventually(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    stage::eventually(what, async || (!condition().await).then(|| "it is not so".into())).await;
}
