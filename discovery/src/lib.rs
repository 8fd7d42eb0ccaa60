//! Find services, register yourself and follow changes, whatever store is behind.
