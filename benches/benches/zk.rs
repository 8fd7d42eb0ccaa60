//! Beside the raw `zookeeper-client`, on a real server.

fn main() {}
