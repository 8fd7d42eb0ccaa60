//! The Pac sample.

mod command_line;
mod compose;
mod dns;
#[cfg(feature = "etcd")]
mod etcd;
mod memory;
mod page;
mod processes;
mod socket;
mod zookeeper;
