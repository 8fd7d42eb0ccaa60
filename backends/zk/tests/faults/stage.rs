//! Stages on real ZooKeeper servers, and what only those servers know.

use std::{collections::BTreeSet, time::Duration};

use discovery::{
    Backoff, Connectors, Discovery,
    conformance::stage::{Client, STEADY, Stage},
};
use discovery_testbed::{Proxy, ZooKeeper, ZooKeeperEnsemble};

/// A server, a line to it that can be broken, and a stage whose owner is at the end of that line.
pub(crate) async fn behind_a_line(ttl: Duration) -> Option<(ZooKeeper, Proxy, Stage)> {
    behind_a_line_with(ttl, "").await
}

/// The same with more options in the locator of the owner.
pub(crate) async fn behind_a_line_with(ttl: Duration, options: &str) -> Option<(ZooKeeper, Proxy, Stage)> {
    let server = server().await?;
    let proxy = Proxy::start(server.address()).unwrap();
    let stage = Stage::builder()
        .owner(connect_with(&proxy.address().to_string(), ttl, options).await, ttl)
        .witness(connect(&server.connect_string(), STEADY).await, STEADY)
        .set()
        .await;
    Some((server, proxy, stage))
}

/// A server, and a stage on it.
pub(crate) async fn on_a_server(ttl: Duration) -> Option<(ZooKeeper, Stage)> {
    let server = server().await?;
    let address = server.connect_string();
    let stage = set(&address, ttl, &address).await;
    Some((server, stage))
}

/// Three servers, and a stage on them.
pub(crate) async fn on_three_servers(ttl: Duration) -> Option<(ZooKeeperEnsemble, Stage)> {
    let ensemble = ZooKeeper::builder().unsynced().start_ensemble_or_skip(3).await?;
    let address = ensemble.connect_string();
    let stage = set(&address, ttl, &address).await;
    Some((ensemble, stage))
}

/// The owner, whose sessions live for `ttl`, at `owner`, and the witness at `witness`.
pub(crate) async fn set(owner: &str, ttl: Duration, witness: &str) -> Stage {
    let stage = Stage::builder().owner(connect(owner, ttl).await, ttl);
    stage.witness(connect(witness, STEADY).await, STEADY).set().await
}

/// A client of the servers at `authority`, up or not. Sessions and leases live for `ttl`.
pub(crate) async fn client(authority: &str, ttl: Duration) -> Client {
    Client::open(connect(authority, ttl).await, ttl)
}

/// A handle on the servers at `authority`, up or not, whose sessions live for `ttl`.
pub(crate) async fn connect(authority: &str, ttl: Duration) -> Discovery {
    connect_with(authority, ttl, "").await
}

async fn connect_with(authority: &str, ttl: Duration, options: &str) -> Discovery {
    let locator = format!("zk://{authority}/cn?session_timeout={}ms{options}", ttl.as_millis());
    let connectors = Connectors::new().with(discovery_zk::connector());
    // Quicker than users need it, so that the tests wait for the fault and not for the next attempt.
    let backoff = Backoff::new(Duration::from_millis(20), Duration::from_millis(100));
    Discovery::connect(&locator, &connectors).await.unwrap().backoff(backoff)
}

/// A server that does not wait for the disk.
pub(crate) async fn server() -> Option<ZooKeeper> {
    ZooKeeper::builder().unsynced().start_or_skip().await
}

/// Drops the stage and waits until nothing of it is left: no task here, no session and no watch there.
pub(crate) async fn cleared(stage: Stage, servers: &[ZooKeeper]) {
    let left = async || {
        for server in servers {
            for name in ["zk_global_sessions", "zk_watch_count", "zk_ephemerals_count"] {
                let left = counter(server, name).await;
                if left > 0 {
                    return Some(format!("{name} {left}"));
                }
            }
        }
        None
    };
    stage.cleared(left).await;
}

/// The paths that a server lists as bound to sessions, as it says itself.
pub(crate) async fn ephemerals(server: &ZooKeeper) -> BTreeSet<String> {
    let dump = server.four_letter_word("dump").await.unwrap();
    let lines = dump.lines().map(str::trim);
    lines.filter(|line| line.starts_with("/cn/")).map(str::to_owned).collect()
}

/// One of the counters that a server keeps.
pub(crate) async fn counter(server: &ZooKeeper, name: &str) -> u64 {
    let counters = server.four_letter_word("mntr").await.unwrap();
    let mut lines = counters.lines().filter_map(|line| line.split_once('\t'));
    let value = lines.find(|(found, _)| *found == name).map(|(_, value)| value.trim().parse());
    value.unwrap_or_else(|| panic!("no {name} in {counters}")).unwrap()
}
