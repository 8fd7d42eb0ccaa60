//! What the documentation of this backend promises beyond the conformance suite, on a real etcd.

#![allow(clippy::unwrap_used, reason = "tests")]

mod access;
#[path = "../common/mod.rs"]
mod common;
mod connection;
mod entries;
mod leases;
mod runtimes;
mod watches;
