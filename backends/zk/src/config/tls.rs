//! Certificates, parsed when they are given so that a bad one is an error at once.

use std::fmt;

use discovery::{Error, Result};
use zookeeper_client as zk;

use crate::error;

/// Encrypts the connections and proves the server to be who it says, and us if there is an identity.
#[derive(Clone)]
pub struct Tls(zk::TlsOptions);

impl Tls {
    /// Trusts the servers whose certificates one of these authorities signed; PEM text.
    ///
    /// # Errors
    ///
    /// [`Invalid`](discovery::ErrorKind::Invalid) if there is no certificate in it.
    pub fn new(authorities: &str) -> Result<Self> {
        let options = zk::TlsOptions::new().with_pem_ca(authorities).map_err(|error| {
            Error::invalid("the authorities hold no certificate; PEM is expected")
                .with_source(error::Cause(error))
        })?;
        Ok(Self(options))
    }

    /// Shows this certificate, with its chain, to servers that ask for one; PEM texts.
    ///
    /// # Errors
    ///
    /// [`Invalid`](discovery::ErrorKind::Invalid) if there is no certificate or no key in them.
    pub fn identity(self, certificate: &str, key: &str) -> Result<Self> {
        if !certificate.contains("-----BEGIN CERTIFICATE-----") {
            return Err(Error::invalid("the client certificate holds no certificate; PEM is expected"));
        }
        let options = self.0.with_pem_identity(certificate, key).map_err(|error| {
            Error::invalid("the client certificate or its key cannot be read; PEM is expected")
                .with_source(error::Cause(error))
        })?;
        Ok(Self(options))
    }

    pub(super) fn options(&self) -> &zk::TlsOptions {
        &self.0
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tls")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_pem_is_refused() {
        assert!(Tls::new("").unwrap_err().to_string().contains("authorities"));
        assert!(Tls::new("-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n").is_err());
    }
}
