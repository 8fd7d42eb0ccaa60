//! Many registrations.

use std::time::Duration;

use discovery::conformance::stage::STEADY;

use crate::{
    common::bind,
    stage::{self, cleared_behind},
};

#[tokio::test]
async fn a_thousand_registrations_come_back_with_their_latest_data() {
    let Some(server) = bind().await else { return };
    let (line, mut stage) = stage::behind_a_line(&server, STEADY).await;
    for crowd in 0..5 {
        stage.owner_mut().populate(1000 + 200 * crowd..1200 + 200 * crowd).await;
    }
    stage.recovered([0, 0]).await;
    line.refuse().await;
    stage::noticed(stage.owner()).await;
    // The latest data are those that were asked for while nothing could be written.
    tokio::join!(stage.owner().update_all(), async {
        // None of them can be written before; how many have been asked for by now does not matter.
        tokio::time::sleep(Duration::from_millis(100)).await;
        line.pass().await;
    });
    stage.recovered([1, 0]).await;
    stage.assert_nobody_left();
    cleared_behind(&line, stage, &server).await;
}
