//! DNS backends for the [`discovery`] crate.

#![allow(dead_code, reason = "the parts that use it are on their way")]

mod error;
mod names;
mod records;
mod resolver;
mod tsig;

pub use crate::{
    resolver::{Dns, DnsConfig, DnsConfigBuilder, Family, Probe, Records},
    tsig::TsigKey,
};
