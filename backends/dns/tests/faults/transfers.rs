//! Servers that know only the whole zone, or have forgotten what changed.

use discovery::conformance::stage::{STEADY, eventually};

use crate::{
    common::{bind, reconfigure},
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
    assert!(!server.log().contains("IXFR started"), "there were whole transfers only");
    cleared(stage, &server).await;
}

#[tokio::test]
async fn a_journal_that_was_removed_is_no_loss() {
    let Some(server) = bind().await else { return };
    let mut stage = stage::on(&server, STEADY).await;
    // In order, so that all is in the file of the zone.
    server.stop().await.unwrap();
    std::fs::remove_file(server.dir().join("zone.journal")).unwrap();
    server.restart().await.unwrap();
    let outages = settled(&stage).await;
    stage.recovered(outages).await;
    stage.assert_nobody_left();
    cleared(stage, &server).await;
}
