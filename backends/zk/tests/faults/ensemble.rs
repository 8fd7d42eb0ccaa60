//! Three servers, of which one or two are lost.

use discovery::conformance::stage::{BRIEF, STEADY, eventually};
use tokio::time::sleep;

use crate::stage::{self, cleared};

#[tokio::test]
async fn the_leader_dies_and_nobody_leaves() {
    let Some((ensemble, mut stage)) = stage::on_three_servers(STEADY).await else { return };
    let leader = ensemble.leader().await.unwrap();
    ensemble.servers()[leader].kill().unwrap();
    stage.recovered([1, 1]).await;
    stage.owner().update_all().await;
    ensemble.restart(leader).unwrap();
    ensemble.wait_for_quorum().await.unwrap();
    stage.recovered([0, 0]).await;
    stage.assert_nobody_left();
    cleared(stage, ensemble.servers()).await;
}

#[tokio::test]
async fn the_quorum_is_lost_and_comes_back_and_nobody_leaves() {
    let Some((ensemble, mut stage)) = stage::on_three_servers(STEADY).await else { return };
    let leader = ensemble.leader().await.unwrap();
    let [follower, left] = [1, 2].map(|next| (leader + next) % 3);
    // The leader first, without whom nobody is served; the other way round would be two outages for some.
    for lost in [leader, follower] {
        ensemble.servers()[lost].kill().unwrap();
    }
    eventually("both notice", async || {
        let live = stage.clients().into_iter().filter(|client| !client.is_stale()).count();
        (live > 0).then(|| format!("{live} do not"))
    })
    .await;
    // The server that is left goes on trying, and so do its clients.
    sleep(BRIEF).await;
    assert!(ensemble.servers()[left].role().await.is_err());
    for lost in [leader, follower] {
        ensemble.restart(lost).unwrap();
    }
    ensemble.wait_for_quorum().await.unwrap();
    stage.recovered([1, 1]).await;
    stage.assert_nobody_left();
    cleared(stage, ensemble.servers()).await;
}
