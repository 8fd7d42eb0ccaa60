//! The run-state sample.

mod command_line;
mod dns;
#[cfg(feature = "etcd")]
mod etcd;
mod flow;
mod follow;
mod limits;
mod memory;
mod page;
mod processes;
mod push;
mod race;
mod rest;
mod telling;
mod workers;
mod zookeeper;
