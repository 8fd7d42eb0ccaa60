//! Certificates, parsed when they are given so that a bad one is an error at once.

use std::fmt;

use discovery::{Error, Result};
use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use tonic::transport::{Certificate, ClientTlsConfig, Identity};

/// Encrypts the connections and proves the server to be who it says, and us if there is an identity.
#[derive(Clone)]
pub struct Tls(ClientTlsConfig);

impl Tls {
    /// Trusts the servers whose certificates one of these authorities signed; PEM text.
    ///
    /// # Errors
    ///
    /// [`Invalid`](discovery::ErrorKind::Invalid) if there is no certificate in it, or one that is broken.
    pub fn new(authorities: &str) -> Result<Self> {
        let mut roots = RootCertStore::empty();
        for certificate in certificates("authorities", authorities)? {
            roots.add(certificate).map_err(|error| {
                Error::invalid("the authorities hold a certificate that cannot be trusted").with_source(error)
            })?;
        }
        Ok(Self(ClientTlsConfig::new().ca_certificate(Certificate::from_pem(authorities))))
    }

    /// Shows this certificate, with its chain, to servers that ask for one; PEM texts.
    ///
    /// # Errors
    ///
    /// [`Invalid`](discovery::ErrorKind::Invalid) if there is no certificate or no key in them.
    pub fn identity(self, certificate: &str, key: &str) -> Result<Self> {
        certificates("client certificate", certificate)?;
        PrivateKeyDer::from_pem_slice(key.as_bytes())
            .map_err(|error| unreadable("key of the client certificate", error))?;
        Ok(Self(self.0.identity(Identity::from_pem(certificate, key))))
    }

    pub(super) fn config(&self) -> ClientTlsConfig {
        self.0.clone()
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tls")
    }
}

/// The certificates in a PEM text; at least one.
fn certificates(what: &str, pem: &str) -> Result<Vec<CertificateDer<'static>>> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    match found {
        Ok(found) if found.is_empty() => {
            Err(Error::invalid(format!("the {what} holds no certificate; PEM is expected")))
        }
        found => found.map_err(|error| unreadable(what, error)),
    }
}

fn unreadable(what: &str, error: rustls::pki_types::pem::Error) -> Error {
    Error::invalid(format!("the {what} cannot be read; PEM is expected")).with_source(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_pem_is_refused() {
        for bad in [
            "",
            "-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n",
            "-----BEGIN CERTIFICATE-----\n?\n-----END CERTIFICATE-----\n",
        ] {
            assert!(Tls::new(bad).unwrap_err().to_string().contains("authorities"), "{bad}");
        }
    }
}
