//! DNS backends for the [`discovery`] crate: services in any DNS there is, in a zone that programs register in, and a
//! DNS server within the program.
//!
//! | | what it is | locator |
//! |---|---|---|
//! | [`Dns`] | finds services in any DNS, by the names that Compose, SRV or DNS-SD give them; reads only | `dns://` |
//! | [`DnsZone`] | registers, leases, watches and compares-and-sets in a zone of a stock DNS server | `dns+zone://` |
//! | [`Authority`] | shows any registry to programs that know only DNS, and has zones for [`DnsZone`] | |
//!
//! # Example: register in a zone, and be found by everybody
//!
//! ```no_run
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> discovery::Result<()> {
//! use discovery::{Connectors, Discovery, Instance};
//!
//! let connectors = Connectors::new().with(discovery_dns::connector());
//! let zone = "dns+zone://disco-key:c2VjcmV0IHNlY3JldA%3D%3D@ns1.example/disco.example";
//! let discovery = Discovery::connect(zone, &connectors).await?;
//!
//! let cart = Instance::builder("eu1/prod/cart".parse()?).endpoint("http", "10.0.0.7", 8080).build()?;
//! let registration = discovery.register(cart).await?;
//! // Anybody: `dig cart.prod.eu1.disco.example`, `dig _http._tcp.cart.prod.eu1.disco.example SRV`
//! # drop(registration);
//! # Ok(()) }
//! ```
#![doc = include_str!("../docs/zone.md")]

mod authority;
mod connect;
mod error;
mod names;
mod protocol;
mod records;
mod resolver;
mod tsig;
mod zone;

use discovery::{Result, kv::Key};

pub use crate::{
    authority::{Authority, AuthorityBuilder, ZoneConfig},
    connect::connector,
    resolver::{Dns, DnsConfig, DnsConfigBuilder, Family, Probe, Records},
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

/// For the fuzz targets only.
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzz {
    pub use crate::authority::fuzz::{instances, requests};
}
