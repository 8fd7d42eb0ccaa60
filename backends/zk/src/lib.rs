//! ZooKeeper backend for the discovery crate.
