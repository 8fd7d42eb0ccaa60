//! Stages in zones of real servers.

use std::time::Duration;

use discovery::{
    Discovery,
    conformance::stage::{Client, STEADY, Stage, eventually, soon},
};
use discovery_dns::DnsZoneConfigBuilder;
use discovery_testbed::{NameServer, Proxy};

use crate::common::{self, Follower, config, config_at, everything, leftovers};

pub(crate) fn discovery(config: DnsZoneConfigBuilder) -> Discovery {
    common::discovery(common::zone(config))
}

/// Owner, with leases of `ttl`, and witness on a server.
pub(crate) async fn on(server: &NameServer, ttl: Duration) -> Stage {
    let stage = Stage::builder().owner(discovery(config(server)), ttl);
    stage.witness(discovery(config(server)), STEADY).set().await
}

/// The same, with the owner at the end of a line that can be broken.
pub(crate) async fn behind_a_line(server: &NameServer, ttl: Duration) -> (Proxy, Stage) {
    behind_a_line_with(server, ttl, |config| config).await
}

/// The same, with more in the configuration of the owner.
pub(crate) async fn behind_a_line_with(
    server: &NameServer,
    ttl: Duration,
    more: impl FnOnce(DnsZoneConfigBuilder) -> DnsZoneConfigBuilder,
) -> (Proxy, Stage) {
    let line = Proxy::start(server.address()).unwrap();
    let stage = Stage::builder()
        .owner(discovery(more(config_at(server, line.address()))), ttl)
        .witness(discovery(config(server)), STEADY)
        .set()
        .await;
    (line, stage)
}

/// Waits until a client has noticed that it is cut off, on all of its watches.
pub(crate) async fn noticed(client: &Client) {
    eventually("the outage is noticed", async || {
        let (view, watch) = (client.view().freshness().is_live(), !client.history().is_stale());
        (view || watch).then(|| format!("live are view: {view}, watch: {watch}"))
    })
    .await;
}

/// Waits until all is well, and counts the outages that each has lived through: how many depends on who asked when.
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

/// Drops the stage and waits until nothing of it is left: no task here, and in the zone nothing but the head of the log.
pub(crate) async fn cleared(stage: Stage, server: &NameServer) {
    cleared_but(stage, server, async || {}).await;
}

/// The same for a stage behind a line, which remembers who sent datagrams until it is cut.
pub(crate) async fn cleared_behind(line: &Proxy, stage: Stage, server: &NameServer) {
    cleared_but(stage, server, async || line.cut().await).await;
}

/// A lease that was granted to somebody who did not hear of it is nobody's, and ends when somebody is there to see that.
async fn cleared_but(stage: Stage, server: &NameServer, at_last: impl AsyncFn()) {
    let mut bystander = None;
    stage
        .cleared(async || {
            let left = leftovers(server).await;
            if left.is_empty() {
                bystander = None;
                at_last().await;
                return None;
            }
            if bystander.is_none() && left.iter().all(|record| record.contains("._lease.")) {
                bystander = Follower::start(&common::on(server), &everything()).await.ok();
            }
            Some(left.join("\n"))
        })
        .await;
}
