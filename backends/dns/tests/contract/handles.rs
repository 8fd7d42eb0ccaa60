//! What a handle has of tasks and sockets, and what is left of it.

use std::time::Duration;

use discovery::kv::Txn;
use discovery_testbed::Proxy;
use tokio::{runtime::Handle, time::sleep};

use crate::common::{Follower, bind, config_at, eventually, everything, key, kv, leases, on, zone};

fn tasks() -> usize {
    Handle::current().metrics().num_alive_tasks()
}

#[tokio::test]
async fn a_dropped_handle_is_gone_with_all_its_tasks() {
    let Some(server) = bind().await else { return };
    let line = Proxy::start(server.address()).unwrap();
    // Connections of the line have tasks, too, which end some time after the client's.
    let before = tasks();
    for _ in 0..3 {
        let zone = zone(config_at(&server, line.address()));
        let lease = leases(&zone).grant(Duration::from_secs(10)).await.unwrap().id;
        kv(&zone).commit(Txn::new().put_leased(&key("a"), "1", lease)).await.unwrap();
        let followers = [
            Follower::start(&zone, &everything()).await.unwrap(),
            Follower::start(&zone, &everything()).await.unwrap(),
        ];
        drop(followers);
        leases(&zone).renew(lease).await.unwrap();
        drop(zone);
        eventually("it is silent", async || {
            let heard = line.datagrams() + line.accepted();
            sleep(Duration::from_millis(300)).await;
            line.connections() == 0 && line.datagrams() + line.accepted() == heard
        })
        .await;
    }
    drop(line);
    eventually("all tasks have ended", async || tasks() < before).await;
}

/// A handle without watches and leases asks nobody anything.
#[tokio::test]
async fn an_idle_handle_is_silent() {
    let Some(server) = bind().await else { return };
    let line = Proxy::start(server.address()).unwrap();
    let zone = zone(config_at(&server, line.address()));
    kv(&zone).commit(Txn::new().put(&key("a"), "1")).await.unwrap();
    let follower = Follower::start(&zone, &everything()).await.unwrap();
    drop(follower);
    // What the watch has begun may end; then many poll intervals pass.
    sleep(Duration::from_millis(200)).await;
    let heard = line.datagrams() + line.accepted();
    sleep(Duration::from_secs(1)).await;
    assert_eq!(line.datagrams() + line.accepted(), heard);
}

/// A write whose caller has left, and whose handle is gone, is over.
#[tokio::test]
async fn what_is_given_up_with_its_handle_is_not_written_later() {
    let Some(server) = bind().await else { return };
    let line = Proxy::start(server.address()).unwrap();
    let zone = zone(config_at(&server, line.address()));
    kv(&zone).get(&key("a")).await.unwrap();
    line.refuse().await;
    let write = kv(&zone).commit(Txn::new().put(&key("a"), "1"));
    let given_up = tokio::time::timeout(Duration::from_millis(50), write).await;
    drop(given_up);
    drop(zone);
    line.pass().await;
    // Time to arrive late.
    sleep(Duration::from_millis(500)).await;
    assert!(kv(&on(&server)).get(&key("a")).await.unwrap().is_none());
}

#[tokio::test]
async fn a_handle_outlives_the_runtime_that_it_was_first_used_on() {
    let Some(server) = bind().await else { return };
    let zone = on(&server);
    let first = zone.clone();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            kv(&first).commit(Txn::new().put(&key("a"), "1")).await.unwrap();
            let follower = Follower::start(&first, &everything()).await.unwrap();
            // Stopped on their way.
            for n in 0..20 {
                let write = kv(&first).commit(Txn::new().put(&key(&format!("b/{n}")), "1"));
                assert!(futures_util::FutureExt::now_or_never(write).is_none());
            }
            drop(follower);
        });
    })
    .join()
    .unwrap();
    eventually("it reads again", async || kv(&zone).get(&key("a")).await.is_ok()).await;
    eventually("it writes again", async || kv(&zone).commit(Txn::new().put(&key("c"), "1")).await.is_ok())
        .await;
}
