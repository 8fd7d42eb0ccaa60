//! The `simple` sample.

mod command_line;
mod dns;
mod endpoints;
#[cfg(feature = "etcd")]
mod etcd;
mod family;
mod memory;
mod page;
mod processes;
mod server;
mod stranger;
mod zookeeper;
