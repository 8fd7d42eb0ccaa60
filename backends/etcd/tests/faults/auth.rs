//! Who we are is forgotten, or changed, while we are at work.

use std::time::Duration;

use discovery::{
    ErrorKind,
    conformance::stage::{STEADY, Stage, eventually, next_version, soon},
};
use discovery_testbed::Etcd;
use tokio::time::sleep;

use crate::stage::set;

const TOKEN: Duration = Duration::from_secs(1);

async fn guarded() -> Option<(Etcd, Stage)> {
    let server = Etcd::builder().unsynced().auth("me", "s3cret").token_ttl(TOKEN).start_or_skip().await?;
    let stage = set(&format!("me:s3cret@{}/cn", server.address()), STEADY).await;
    Some((server, stage))
}

#[tokio::test]
async fn a_token_that_expires_is_replaced() {
    let Some((_server, mut stage)) = guarded().await else { return };
    for _ in 0..2 {
        // Nobody writes for longer than a token lives.
        sleep(3 * TOKEN).await;
        soon("to be updated", stage.owner().update_all()).await;
        stage.recovered([0, 0]).await;
    }
    stage.assert_nobody_left();
}

#[tokio::test]
async fn a_server_that_forgets_its_tokens_is_one_outage() {
    let Some((server, mut stage)) = guarded().await else { return };
    server.kill().unwrap();
    server.restart().await.unwrap();
    stage.recovered([1, 1]).await;
    stage.owner().update_all().await;
    stage.recovered([0, 0]).await;
    stage.assert_nobody_left();
}

#[tokio::test]
async fn new_users_do_not_disturb_those_at_work() {
    let Some((server, mut stage)) = guarded().await else { return };
    for n in 0..5 {
        let root = server.cli().login("root", "s3cret");
        root.run(["user", "add", &format!("user{n}:x")]).await.unwrap();
        soon("to be updated", stage.owner().update_all()).await;
        stage.recovered([0, 0]).await;
    }
    stage.assert_nobody_left();
}

#[tokio::test]
async fn who_is_shut_out_keeps_trying_and_comes_back() {
    let Some((server, mut stage)) = guarded().await else { return };
    let root = server.cli().login("root", "s3cret");
    // The role that the testbed gives to whom it lets in.
    let change = async |what: &str| root.run(["user", what, "me", "everything"]).await.unwrap();
    change("revoke-role").await;
    let one = &stage.owner().registrations()[0];
    let refused = soon("an answer", one.update(next_version(one))).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Denied, "{refused}");
    assert!(refused.to_string().contains("role"), "{refused}");
    change("grant-role").await;
    soon("to be updated", stage.owner().update_all()).await;
    let truth = stage.wanted();
    eventually("the owner knows", async || stage.owner().lags_behind(&truth)).await;
    let outages = stage.clients().map(|client| client.history().outages());
    stage.recovered(outages).await;
    stage.assert_nobody_left();
}
