//! DNS backends for the [`discovery`] crate.
#![allow(dead_code, reason = "the parts that use it are on their way")]

mod error;
mod names;
mod records;
mod tsig;
mod zone;

pub use crate::{
    tsig::TsigKey,
    zone::{DnsZone, DnsZoneConfig, DnsZoneConfigBuilder, Notify},
};
