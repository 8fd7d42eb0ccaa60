//! Stages on real etcd servers, and what only those servers know.

use std::time::Duration;

use discovery::{
    Backoff, Connectors, Discovery,
    conformance::stage::{Client, STEADY, Stage, eventually, soon},
};
use discovery_testbed::{Etcd, EtcdCluster, Proxy};

/// A server, a line to it that can be broken, and a stage whose owner is at the end of that line.
pub(crate) async fn behind_a_line(ttl: Duration) -> Option<(Etcd, Proxy, Stage)> {
    behind_a_line_with(ttl, "").await
}

/// The same with options in the locator of the owner.
pub(crate) async fn behind_a_line_with(ttl: Duration, options: &str) -> Option<(Etcd, Proxy, Stage)> {
    let server = server().await?;
    let proxy = Proxy::start(server.address()).unwrap();
    let stage = Stage::builder()
        .owner(connect(&format!("{}/cn?{options}", proxy.address())).await, ttl)
        .witness(connect(&format!("{}/cn", server.address())).await, STEADY)
        .set()
        .await;
    Some((server, proxy, stage))
}

/// A server, and a stage on it.
pub(crate) async fn on_a_server(ttl: Duration) -> Option<(Etcd, Stage)> {
    let server = server().await?;
    let stage = set(&format!("{}/cn", server.address()), ttl).await;
    Some((server, stage))
}

/// Three servers, and a stage on them.
pub(crate) async fn on_three_servers(ttl: Duration) -> Option<(EtcdCluster, Stage)> {
    let cluster = cluster().await?;
    let stage = set(&format!("{}/cn?silence_timeout=3s", cluster.connect_string()), ttl).await;
    Some((cluster, stage))
}

/// Owner, with leases of `ttl`, and witness, each at what a locator has behind `etcd://`.
pub(crate) async fn set(locator: &str, ttl: Duration) -> Stage {
    let stage = Stage::builder().owner(connect(locator).await, ttl);
    stage.witness(connect(locator).await, STEADY).set().await
}

/// A client at what a locator has behind `etcd://`, up or not.
pub(crate) async fn client(locator: &str, ttl: Duration) -> Client {
    Client::open(connect(locator).await, ttl)
}

/// A handle on what a locator has behind `etcd://`, up or not.
pub(crate) async fn connect(locator: &str) -> Discovery {
    let connectors = Connectors::new().with(discovery_etcd::connector());
    // Quicker than users need it, so that the tests wait for the fault and not for the next attempt.
    let backoff = Backoff::new(Duration::from_millis(20), Duration::from_millis(100));
    Discovery::connect(&format!("etcd://{locator}"), &connectors).await.unwrap().backoff(backoff)
}

/// A server that does not wait for the disk.
pub(crate) async fn server() -> Option<Etcd> {
    Etcd::builder().unsynced().start_or_skip().await
}

/// Three of them.
pub(crate) async fn cluster() -> Option<EtcdCluster> {
    Etcd::builder().unsynced().start_cluster_or_skip(3).await
}

/// A client that knows nothing of this crate.
pub(crate) async fn stranger(server: &Etcd) -> etcd_client::Client {
    etcd_client::Client::connect([server.connect_string()], None).await.unwrap()
}

/// Waits until a client has noticed that it is cut off, on all of its watches: each has a stream of its own.
pub(crate) async fn noticed(client: &Client) {
    eventually("the outage is noticed", async || {
        let (view, watch) = (client.view().freshness().is_live(), !client.history().is_stale());
        (view || watch).then(|| format!("live are view: {view}, watch: {watch}"))
    })
    .await;
}

/// Waits until all is well, and counts the outages that each has lived through: how many depends on who was connected
/// to what.
pub(crate) async fn settled(stage: &Stage) -> [usize; 2] {
    // Who knows what is newer than the outage has noticed it.
    for client in stage.clients() {
        soon("to be updated", client.update_all()).await;
    }
    let truth = stage.wanted();
    for client in stage.clients() {
        eventually("it knows", async || client.lags_behind(&truth)).await;
    }
    let outages = stage.clients().map(|client| client.history().outages());
    assert!(outages.iter().all(|outages| *outages <= 3), "{outages:?}");
    outages
}

/// Has the server forget everything up to now.
pub(crate) async fn compact(server: &Etcd) {
    let mut stranger = stranger(server).await;
    let now = stranger.get("/", None).await.unwrap().header().unwrap().revision();
    stranger.compact(now, None).await.unwrap();
}

/// How many requests of a kind a server has begun to serve.
pub(crate) async fn requests(server: &Etcd, method: &str) -> f64 {
    let label = format!("grpc_method=\"{method}\"");
    server.metric_labelled("grpc_server_started_total", &label).await.unwrap()
}

/// Drops the stage and waits until nothing of it is left: no task here, no lease, entry and watch there.
pub(crate) async fn cleared(stage: Stage, servers: &[Etcd]) {
    let left = async || {
        for server in servers {
            let watches = server.metric("etcd_debugging_mvcc_watcher_total").await.unwrap();
            if watches > 0.0 {
                return Some(format!("{watches} watches"));
            }
        }
        // By the server's own client, which leaves no task behind.
        let cli = servers[0].cli();
        let leases = cli.run(["lease", "list"]).await.unwrap();
        let keys = cli.run(["get", "--prefix", "/cn/", "--keys-only"]).await.unwrap();
        let nothing = leases.starts_with("found 0 leases") && keys.is_empty();
        (!nothing).then(|| format!("{leases}\n{keys}"))
    };
    stage.cleared(left).await;
}
