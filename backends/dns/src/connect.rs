//! From a locator to one of the backends.

use std::sync::Arc;

use async_trait::async_trait;
use discovery::{Backend, Connector, Locator, Result};

use crate::{
    error::SCHEME,
    resolver,
    zone::{self, DnsZone, DnsZoneConfig},
};

/// The connector for `dns://` and `dns+zone://` locators.
pub fn connector() -> impl Connector {
    DnsConnector
}

#[derive(Debug)]
struct DnsConnector;

#[async_trait]
impl Connector for DnsConnector {
    fn schemes(&self) -> &'static [&'static str] {
        &[SCHEME, zone::SCHEME]
    }

    async fn connect(&self, locator: &Locator) -> Result<Arc<dyn Backend>> {
        if locator.scheme() == SCHEME {
            return Ok(Arc::new(resolver::connect(locator)?));
        }
        Ok(Arc::new(DnsZone::new(DnsZoneConfig::from_locator(locator)?)))
    }
}
