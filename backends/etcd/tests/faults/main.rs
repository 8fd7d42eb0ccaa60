//! What the backend does when things break, on real servers.
//!
//! Every test has registrations, views and watches in place, breaks one thing, and waits until all is well again. The
//! [stage](discovery::conformance::stage) then checks the same for all: registrations are back with their latest data,
//! views equal a fresh fetch, and nothing is left behind on the server or in the runtime.
//!
//! Sleeps are outages only: there the passing of time is the fault. Everything else is waited for.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should panic")]

mod auth;
mod cluster;
mod connection;
mod history;
mod lease;
mod process;
mod server;
mod stage;
