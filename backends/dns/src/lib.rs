//! DNS backends for the [`discovery`] crate.
#![allow(dead_code, reason = "the parts that use it are on their way")]

mod authority;
mod error;
mod names;
mod records;
mod tsig;
mod zone;

use discovery::{Result, kv::Key};

pub use crate::{
    authority::{Authority, AuthorityBuilder, ZoneConfig},
    tsig::TsigKey,
    zone::{DnsZone, DnsZoneConfig, DnsZoneConfigBuilder, Notify},
};

/// The name under which the entry of a key is in a zone, absolute: for whoever reads or writes entries with other tools.
///
/// ```
/// let name = discovery_dns::entry_name("disco.example", &"eu1/prod/cart/1f".parse()?)?;
/// assert_eq!(name, "1f.cart.prod.eu1.disco.example.");
/// # Ok::<(), discovery::Error>(())
/// ```
///
/// # Errors
///
/// [`Invalid`](discovery::ErrorKind::Invalid) for what is no name of a zone.
pub fn entry_name(zone: &str, key: &Key) -> Result<String> {
    Ok(names::Origin::parse(zone)?.entry(key).to_ascii())
}
