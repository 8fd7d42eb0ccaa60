//! The resolver against Docker's embedded DNS: Compose projects in an engine of their own, from an image with nothing but
//! the example `container`, which is the services as well as who follows them.
//!
//! How long everything takes to be seen is printed: `cargo test -p discovery-dns --test docker -- --nocapture`.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should panic")]

mod changes;
mod common;
mod emptied;
mod networks;
mod projects;
mod swarm;
