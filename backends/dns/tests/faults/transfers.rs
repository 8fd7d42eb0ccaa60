//! Servers that know only the whole zone, or have forgotten what changed.

use discovery::conformance::stage::{STEADY, eventually};
use discovery_testbed::NameServer;

use crate::{
    common::{bind, content, reconfigure},
    stage::{self, cleared, settled},
};

#[tokio::test]
async fn whole_transfers_are_as_good() {
    let Some(server) = bind().await else { return };
    reconfigure(&server, |config| config.replace("max-ixfr-ratio unlimited;", "provide-ixfr no;")).await;
    let mut stage = stage::on(&server, STEADY).await;
    for n in 0..100 {
        stage.witness_mut().change(n).await;
    }
    let truth = stage.wanted();
    eventually("the owner knows", async || stage.owner().lags_behind(&truth)).await;
    stage.recovered([0, 0]).await;
    // With each of them leases go on, and nobody is excused for ever.
    stage.owner().update_all().await;
    stage.recovered([0, 0]).await;
    assert!(!server.log().contains("': IXFR started"), "there were whole transfers only");
    cleared(stage, &server).await;
}

on_both!(a_zone_that_is_loaded_anew_changes_nothing);

/// The server does not know any more what changed, nor what from.
async fn a_zone_that_is_loaded_anew_changes_nothing(server: NameServer) {
    let mut stage = stage::on(&server, STEADY).await;
    // Nobody writes within so short a time after all is well, or loading would undo it.
    for serial in [2000, 2000, 1000, 3_000_000_000] {
        let content = content(&server).await;
        server.reload_zone(&content, serial).await.unwrap();
        let outages = settled(&stage).await;
        stage.recovered(outages.map(|_| 0)).await;
    }
    stage.assert_nobody_left();
    cleared(stage, &server).await;
}
