//! What the backend does when things break, on real servers.
//!
//! Every test has registrations, views and watches in place on a [stage](discovery::conformance::stage), breaks one
//! thing, and waits until all is well again. The stage then checks the same for all: registrations are back with their
//! latest data, views equal a fresh fetch, histories are sound, and nothing is left behind on the server or in the
//! runtime.
//!
//! Sleeps are outages only: there the passing of time is the fault. Everything else is waited for.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should panic")]

mod connection;
mod ensemble;
mod intruder;
mod process;
mod server;
mod session;
mod stage;
