//! The conformance suite in zones of stock servers: BIND and Knot.

#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "../common/mod.rs"]
mod common;
mod harness;

use discovery_testbed::NameServer;
use harness::ZoneHarness;

async fn on_bind() -> Option<ZoneHarness> {
    NameServer::bind().start_or_skip().await.map(ZoneHarness::new)
}

async fn on_knot() -> Option<ZoneHarness> {
    NameServer::knot().start_or_skip().await.map(ZoneHarness::new)
}

mod bind {
    use super::on_bind;

    discovery::conformance_tests!(on_bind().await, "conformance-bind.txt");
}

mod knot {
    use super::on_knot;

    discovery::conformance_tests!(on_knot().await, "conformance-knot.txt");
}
