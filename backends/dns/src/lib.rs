//! DNS backends for the [`discovery`] crate.

#![allow(dead_code, reason = "the parts that use it are on their way")]

mod authority;
mod error;
mod names;
mod records;
mod tsig;

pub use crate::{
    authority::{Authority, AuthorityBuilder, ZoneConfig},
    tsig::TsigKey,
};

/// For the fuzz targets only.
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzz {
    pub use crate::authority::fuzz::{instances, requests};
}
