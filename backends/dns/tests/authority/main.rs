//! The embedded authority as others see it: `dig`, `nsupdate`, BIND and Knot as secondaries, and strangers.

#![allow(clippy::unwrap_used, reason = "tests")]

mod client;
mod hostile;
mod lifecycle;
mod notify;
mod queries;
mod secondaries;
mod strangers;
mod updates;
mod views;

use std::{future::Future, time::Duration};

use discovery_dns::{Authority, AuthorityBuilder, ZoneConfig};
use discovery_testbed::{Dig, NsUpdate};
use tokio::time::{Instant, sleep};

pub(crate) const ZONE: &str = "disco.test";
pub(crate) const KEY: &str = "disco-key";
pub(crate) const SECRET: &str = "c2VjcmV0IHNlY3JldCBzZWNyZXQ=";

/// An authority on any port of the loopback interface.
pub(crate) fn local() -> AuthorityBuilder {
    Authority::builder().listen("127.0.0.1:0".parse().unwrap())
}

/// One with the dynamic zone `disco.test` and a key.
pub(crate) async fn dynamic() -> Authority {
    let builder = local().key(format!("{KEY}:{SECRET}").parse().unwrap());
    builder.zone(ZoneConfig::dynamic(ZONE).serial(1)).start().await.unwrap()
}

pub(crate) fn dig(authority: &Authority) -> Dig {
    Dig::new(authority.address())
}

pub(crate) fn signed_dig(authority: &Authority) -> Dig {
    dig(authority).key(KEY, SECRET)
}

pub(crate) fn nsupdate(authority: &Authority) -> NsUpdate {
    NsUpdate::to(authority.address(), ZONE).key(KEY, SECRET)
}

/// Whether the programs are there; says why a test is skipped.
pub(crate) fn has_programs() -> bool {
    let has = |program: &str| std::process::Command::new(program).arg("-V").output().is_ok();
    let all = has("dig") && has("nsupdate");
    if !all {
        assert!(std::env::var(discovery_testbed::REQUIRE).is_err(), "dig and nsupdate are missing");
        eprintln!("skipped: dig or nsupdate is missing");
    }
    all
}

/// Waits until it is so.
pub(crate) async fn until<F: Future<Output = bool>>(what: &str, mut is_so: impl FnMut() -> F) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !is_so().await {
        assert!(Instant::now() < deadline, "{what}: not within 20 s");
        sleep(Duration::from_millis(20)).await;
    }
}
