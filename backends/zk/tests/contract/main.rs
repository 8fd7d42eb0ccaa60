//! The contract of `Kv` and `Leases`, against real servers.

#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "../common/mod.rs"]
mod common;

mod access;
mod connection;
mod entries;
mod guards;
mod leases;
mod runtimes;
mod watches;
