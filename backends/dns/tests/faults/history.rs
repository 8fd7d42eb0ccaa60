//! The zone is replaced under a running watch.

use discovery::{
    Registration,
    conformance::stage::{BRIEF, Client, STEADY, Stage, soon},
    kv::Txn,
};
use discovery_testbed::NameServer;

use crate::{
    common::{Follower, content, eventually, everything, key, kv, listed, on},
    stage::{self, cleared, settled},
};

fn expect_restart(stage: &Stage) {
    for client in stage.clients() {
        client.history().expect_restart();
    }
}

/// Everybody may have seen everybody leave and come back, once.
fn assert_all_left_once_at_most(stage: &Stage) {
    let all: Vec<_> =
        stage.clients().into_iter().flat_map(Client::registrations).map(Registration::key).collect();
    for client in stage.clients() {
        client.history().assert_only_left(all.iter().copied());
    }
}

on_both!(
    a_serial_that_goes_back_changes_nothing,
    a_wiped_zone_is_filled_again,
    a_restored_zone_gets_the_latest_data,
    a_restored_zone_with_a_higher_serial_gets_the_latest_data,
    other_content_under_the_same_serial_is_found_out,
    serials_wrap,
);

async fn a_serial_that_goes_back_changes_nothing(server: NameServer) {
    let zone = on(&server);
    for n in 0..20 {
        kv(&zone).commit(Txn::new().put(&key(&format!("a/{}", n % 3)), n.to_string())).await.unwrap();
    }
    let mut follower = Follower::start(&zone, &everything()).await.unwrap();
    let before = listed(&zone, &everything()).await;
    server.reload_zone(&content(&server).await, 3).await.unwrap();
    follower.until("it has begun anew", |it| it.resets == 2).await;
    assert_eq!(listed(&zone, &everything()).await, before);
    kv(&zone).commit(Txn::new().put(&key("a/0"), "new")).await.unwrap();
    follower.until("it is seen", |it| it.value("a/0") == Some(b"new")).await;
    assert!(!follower.saw_removal("a/0") && !follower.saw_removal("a/1"));
}

async fn a_wiped_zone_is_filled_again(server: NameServer) {
    let mut stage = stage::on(&server, STEADY).await;
    expect_restart(&stage);
    server.wipe().await.unwrap();
    let outages = settled(&stage).await;
    stage.recovered(outages).await;
    assert_all_left_once_at_most(&stage);
    cleared(stage, &server).await;
}

/// A backup brings leases back, with what was under them at the time.
async fn restored(server: NameServer, serial: impl FnOnce(u32) -> u32) {
    let stage = Stage::builder()
        // So short that what comes back with the backup, and is nobody's any more, ends soon.
        .owner(stage::discovery(crate::common::config(&server)), 2 * BRIEF)
        .witness(stage::discovery(crate::common::config(&server)), 2 * BRIEF);
    let mut stage = stage.set().await;
    let backup = content(&server).await;
    stage.owner().update_all().await;
    let left = stage.owner_mut().release(1);
    soon("to be deregistered", left.deregister()).await.unwrap();
    stage.owner_mut().populate([7]).await;
    stage.recovered([0, 0]).await;
    expect_restart(&stage);
    let serial = serial(server.serial().await.unwrap());
    server.reload_zone(&backup, serial).await.unwrap();
    // What was deregistered is back, and ends with its lease, which nobody renews.
    let outages = settled(&stage).await;
    stage.recovered(outages).await;
    cleared(stage, &server).await;
}

async fn a_restored_zone_gets_the_latest_data(server: NameServer) {
    restored(server, |_| 2).await;
}

async fn a_restored_zone_with_a_higher_serial_gets_the_latest_data(server: NameServer) {
    restored(server, |serial| serial + 100).await;
}

/// Nobody should do that, and somebody will: nothing tells that the content is another until something is written.
async fn other_content_under_the_same_serial_is_found_out(server: NameServer) {
    let zone = on(&server);
    kv(&zone).commit(Txn::new().put(&key("a"), "1")).await.unwrap();
    let backup = content(&server).await;
    for n in 0..5 {
        kv(&zone).commit(Txn::new().put(&key("a"), format!("new {n}"))).await.unwrap();
        kv(&zone).commit(Txn::new().put(&key("b"), "1")).await.unwrap();
    }
    listed(&zone, &everything()).await;
    server.reload_zone(&backup, server.serial().await.unwrap()).await.unwrap();
    eventually("it writes", async || kv(&zone).commit(Txn::new().put(&key("c"), "1")).await.is_ok()).await;
    let truth = ["a=1", "c=1"];
    assert_eq!(listed(&zone, &everything()).await, truth);
    assert_eq!(listed(&on(&server), &everything()).await, truth);
}

async fn serials_wrap(server: NameServer) {
    drop(server.log());
    let zone = on(&server);
    kv(&zone).commit(Txn::new().put(&key("a"), "1")).await.unwrap();
    let mut follower = Follower::start(&zone, &everything()).await.unwrap();
    // Serials go forward only, by less than half their range at a time.
    server.reload_zone(&content(&server).await, 4_294_967_290).await.unwrap();
    let mut numbers = Vec::new();
    for n in 0..20 {
        numbers.push(kv(&zone).commit(Txn::new().put(&key("a"), n.to_string())).await.unwrap());
        follower.until("it is seen", |it| it.value("a") == Some(n.to_string().as_bytes())).await;
    }
    assert!(numbers.is_sorted_by(|a, b| a < b), "{numbers:?}");
    assert!(server.serial().await.unwrap() < 1000);
    // The reload, and no more: a serial that wraps is no other history.
    assert_eq!(follower.resets, 2);
    assert_eq!(listed(&on(&server), &everything()).await, ["a=19"]);
}
