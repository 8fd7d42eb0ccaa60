//! The resolver on real servers: BIND and Knot with zones, dnsmasq as Docker is, servers that lie, and what becomes of
//! watches and views when any of them is down, slow, or of another opinion.
//!
//! Sleeps are outages only, or times in which nothing must happen. Everything else is waited for.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should panic")]

mod common;
mod compose;
mod conformance;
mod faults;
mod finding;
mod lies;
mod probes;
mod views;
mod watching;
