//! The nodes sample.

mod command_line;
mod dns;
mod docker;
#[cfg(feature = "etcd")]
mod etcd;
mod hostile;
mod memory;
mod net;
mod processes;
mod raw;
mod zookeeper;
