//! The library on the resolver: views through outages, and balancers.

use std::time::Duration;

use discovery::{Backoff, Discovery, FreshnessState, balance::RoundRobin};
use discovery_testbed::{NameServer, Proxy};

use crate::common::{CART, SOON, dns, service};

fn discovery(dns: discovery_dns::Dns) -> Discovery {
    Discovery::new(dns).backoff(Backoff::new(Duration::from_millis(10), Duration::from_millis(100)))
}

#[tokio::test]
async fn a_view_outlives_an_outage_and_says_so() {
    let Some(server) = NameServer::bind().records(CART).start_or_skip().await else { return };
    let link = Proxy::start(server.address()).unwrap();
    let dns = dns(&[link.address()], "/disco.test?floor=50ms&ceiling=50ms&deadline=500ms");
    let mut view = discovery(dns).view(service("cart")).await.unwrap();
    assert_eq!(view.snapshot().len(), 2);
    for _ in 0..3 {
        link.black_hole().await;
        let stale = view.wait_for(|all, freshness| {
            assert_eq!(all.len(), 2, "an outage empties nothing");
            freshness.state() == FreshnessState::Stale
        });
        tokio::time::timeout(SOON, stale).await.unwrap().unwrap();
        link.pass().await;
        let live = view.wait_for(|all, freshness| {
            assert_eq!(all.len(), 2, "nor does its end");
            freshness.is_live()
        });
        tokio::time::timeout(SOON, live).await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn weights_are_picked_by() {
    let Some(server) = NameServer::knot().records(CART).start_or_skip().await else { return };
    let discovery = discovery(dns(&[server.address()], "/disco.test"));
    let view = discovery.view(service("cart")).await.unwrap();
    let balancer = view.balance(RoundRobin);
    let picked = balancer.pick().unwrap();
    assert!(picked.endpoint("http").is_some());
}
