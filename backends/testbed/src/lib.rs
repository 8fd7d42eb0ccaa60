//! Real servers and a TCP fault proxy for the tests of the discovery crates.
