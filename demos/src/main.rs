//! Five well-known samples re-created on the discovery crate.

fn main() {}
