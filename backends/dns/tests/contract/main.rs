//! What this backend promises beyond the conformance suite, on real BIND and Knot.

#![allow(clippy::unwrap_used, reason = "tests")]

mod access;
mod clocks;
#[path = "../common/mod.rs"]
mod common;
mod handles;
mod leases;
mod notify;
mod records;
mod runtimes;
mod strangers;
