//! The conformance suite in zones of real servers: BIND, Knot, and the embedded authority.

#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "../common/mod.rs"]
mod common;
mod harness;

use discovery_dns::Authority;
use discovery_testbed::NameServer;
use harness::{ZoneHarness, authority};

async fn on_bind() -> Option<ZoneHarness<NameServer>> {
    NameServer::bind().start_or_skip().await.map(ZoneHarness::new)
}

async fn on_knot() -> Option<ZoneHarness<NameServer>> {
    NameServer::knot().start_or_skip().await.map(ZoneHarness::new)
}

async fn on_authority() -> ZoneHarness<Authority> {
    ZoneHarness::new(authority().await)
}

mod bind {
    use super::on_bind;

    discovery::conformance_tests!(on_bind().await, "conformance-bind.txt");
}

mod knot {
    use super::on_knot;

    discovery::conformance_tests!(on_knot().await, "conformance-knot.txt");
}

mod embedded {
    use super::on_authority;

    discovery::conformance_tests!(on_authority().await, "conformance-embedded.txt");
}
