//! What the zone does when things break, on real BIND and Knot.
//!
//! Every test on a stage has registrations, views and watches in place, breaks one thing, and waits until all is well
//! again. The [stage](discovery::conformance::stage) then checks the same for all: registrations are back with their latest
//! data, views equal a fresh fetch, and nothing is left behind on the server or in the runtime. The others look at single
//! commits.
//!
//! Sleeps are outages only: there the passing of time is the fault. Everything else is waited for.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should panic")]

/// Tests that are run on a BIND, and on a Knot.
macro_rules! on_both {
    ($($test:ident),* $(,)?) => {
        mod bind {
            $(#[tokio::test]
            async fn $test() {
                let Some(server) = crate::common::bind().await else { return };
                super::$test(server).await;
            })*
        }

        mod knot {
            $(#[tokio::test]
            async fn $test() {
                let Some(server) = crate::common::knot().await else { return };
                super::$test(server).await;
            })*
        }
    };
}

#[path = "../common/mod.rs"]
mod common;
mod connection;
mod crowd;
mod history;
mod lies;
mod process;
mod secondary;
mod server;
mod stage;
mod transfers;
mod writers;
