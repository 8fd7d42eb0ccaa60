//! The dockercoins sample.

mod command_line;
mod compose;
mod dns;
#[cfg(feature = "etcd")]
mod etcd;
mod loss;
mod memory;
mod page;
mod processes;
mod project;
mod redis_server;
mod zookeeper;
