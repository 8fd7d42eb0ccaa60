//! Watches of zones that change.

use std::time::Duration;

use discovery::{Backend, Capabilities, Delivery, Scope};
use discovery_testbed::{Dnsmasq, NameServer};
use tokio::time::Instant;

use crate::common::{BRISK, CART, Follower, authorities, dns, service};

#[tokio::test]
async fn arrival_change_and_departure_are_told() {
    for server in authorities(CART) {
        let Some(server) = server.start_or_skip().await else { continue };
        let dns = dns(&[server.address()], &format!("/disco.test?records=srv&{BRISK}"));
        let mut follower = Follower::start(&dns, "cart").await;
        assert_eq!(follower.known.len(), 2);
        let update = server.nsupdate();
        let srv = "_http._tcp.cart.disco.test.";
        update
            .run(&format!(
                "add 3.cart.disco.test. 5 A 127.0.0.3\nadd {srv} 5 SRV 0 1 8003 3.cart.disco.test."
            ))
            .await
            .unwrap();
        follower.until("3 to come", |seen| seen.known.len() == 3).await;
        update
            .run(&format!(
                "delete {srv} SRV 0 1 8003 3.cart.disco.test.\nadd {srv} 5 SRV 0 9 8003 3.cart.disco.test."
            ))
            .await
            .unwrap();
        follower.until("3 to change", |seen| seen.known.iter().any(|one| one.weight() == 9)).await;
        update.run(&format!("delete {srv} SRV 0 9 8003 3.cart.disco.test.")).await.unwrap();
        follower.until("3 to leave", |seen| seen.known.len() == 2).await;
        assert_eq!(follower.changes, ["3", "3", "-3"]);
        update.run(&format!("delete {srv} SRV")).await.unwrap();
        follower.until("all to leave", |seen| seen.known.is_empty()).await;
        follower.until("quiet", |seen| seen.quiet > 3).await;
    }
}

#[tokio::test]
async fn a_service_that_does_not_exist_yet_is_followed() {
    for server in authorities("") {
        let Some(server) = server.start_or_skip().await else { continue };
        let dns = dns(&[server.address()], &format!("/disco.test?port=80&{BRISK}"));
        let mut follower = Follower::start(&dns, "late").await;
        assert!(follower.known.is_empty());
        server.nsupdate().run("add late.disco.test. 5 A 127.0.0.1").await.unwrap();
        follower.until("it", |seen| seen.known.len() == 1).await;
    }
}

#[tokio::test]
async fn a_subtree_follows_services_that_come_and_go() {
    for server in authorities(CART) {
        let Some(server) = server.start_or_skip().await else { continue };
        let dns = dns(&[server.address()], &format!("/disco.test?records=sd&{BRISK}"));
        let mut follower = Follower::of(dns.watch(&Scope::everything(), None)).await;
        assert_eq!(follower.known.len(), 2);
        let z = "disco.test.";
        server
            .nsupdate()
            .run(&format!(
                "add x.db.eu1.{z} 5 A 127.0.0.9\nadd _sql._tcp.db.eu1.{z} 5 PTR x._sql._tcp.db.eu1.{z}\n\
                 add x._sql._tcp.db.eu1.{z} 5 SRV 0 1 5432 x.db.eu1.{z}\nadd x._sql._tcp.db.eu1.{z} 5 TXT \"a=b\"\n\
                 add _services._dns-sd._udp.db.eu1.{z} 5 PTR _sql._tcp.db.eu1.{z}\n\
                 add b._dns-sd._udp.{z} 5 PTR db.eu1.{z}"
            ))
            .await
            .unwrap();
        follower.until("another service", |seen| seen.known.of(&service("eu1/db")).count() == 1).await;
        server.nsupdate().run(&format!("delete b._dns-sd._udp.{z} PTR")).await.unwrap();
        follower.until("nothing listed", |seen| seen.known.is_empty()).await;
    }
}

#[tokio::test]
async fn the_time_to_live_is_the_pace() {
    let options = Dnsmasq::builder().hosts("127.0.0.1 web.disco.test").option("local-ttl=1");
    let Some(server) = options.start_or_skip().await else { return };
    let dns = dns(&[server.address()], "/disco.test?port=80&records=a&family=4&floor=10ms&jitter=0");
    let mut follower = Follower::start(&dns, "web").await;
    let begin = Instant::now();
    follower.until("two looks", |seen| seen.quiet == 2).await;
    assert!(begin.elapsed() > Duration::from_millis(1900), "{:?}", begin.elapsed());
}

#[tokio::test]
async fn a_refresh_does_not_wait() {
    let Some(server) = NameServer::knot().records("web 600 A 127.0.0.1").start_or_skip().await else {
        return;
    };
    let dns = dns(&[server.address()], "/disco.test?port=80&floor=20ms&ceiling=10m&misses=1");
    let mut follower = Follower::start(&dns, "web").await;
    let update = "delete web.disco.test. A 127.0.0.1\nadd web.disco.test. 600 A 127.0.0.2";
    server.nsupdate().run(update).await.unwrap();
    dns.refresh(&service("other"));
    dns.refresh(&service("web"));
    follower.until("the change", |seen| seen.changes == ["127-0-0-2", "-127-0-0-1"]).await;
}

#[tokio::test]
async fn it_says_what_it_can_do() {
    let dns = dns(&["127.0.0.1:53".parse().unwrap()], "/disco.test?ceiling=10s&jitter=0&deadline=3s");
    assert!(dns.registrar().is_none() && dns.leases().is_none() && dns.kv().is_none());
    let capabilities: &Capabilities = dns.info().capabilities();
    assert_eq!(capabilities.delivery, Delivery::Poll);
    assert_eq!(capabilities.detects_silence_within, Duration::from_secs(14));
    assert_eq!(dns.info().locator(), "dns://127.0.0.1:53/disco.test");
}
