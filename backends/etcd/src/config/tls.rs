//! Certificates, parsed when they are given so that a bad one is an error at once.

use std::{fmt, sync::Arc};

use discovery::{Error, Result};
use rustls::{
    ClientConfig, ConfigBuilder, RootCertStore,
    client::WantsClientCert,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, pem, pem::PemObject},
};

/// What gRPC is spoken in, as TLS calls it.
const HTTP2: &[u8] = b"h2";

/// Encrypts the connections and proves the server to be who it says, and us if there is an identity.
#[derive(Clone)]
pub struct Tls {
    roots: Arc<RootCertStore>,
    config: Arc<ClientConfig>,
}

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
        let roots = Arc::new(roots);
        let config = builder(&roots)?.with_no_client_auth();
        Ok(Self { roots, config: for_grpc(config) })
    }

    /// Shows this certificate, with its chain, to servers that ask for one; PEM texts.
    ///
    /// # Errors
    ///
    /// [`Invalid`](discovery::ErrorKind::Invalid) if there is no certificate or no key in them, or one is not the
    /// other's.
    pub fn identity(self, certificate: &str, key: &str) -> Result<Self> {
        let chain = certificates("client certificate", certificate)?;
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes())
            .map_err(|error| unreadable("key of the client certificate", error))?;
        let config = builder(&self.roots)?.with_client_auth_cert(chain, key).map_err(|error| {
            Error::invalid("the client certificate cannot be used; is the key its own?").with_source(error)
        })?;
        Ok(Self { roots: self.roots, config: for_grpc(config) })
    }

    pub(crate) fn config(&self) -> &Arc<ClientConfig> {
        &self.config
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tls")
    }
}

/// The provider is named, so that it does not matter which others are in the process.
fn builder(roots: &Arc<RootCertStore>) -> Result<ConfigBuilder<ClientConfig, WantsClientCert>> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.map_err(|error| Error::invalid("TLS cannot be set up").with_source(error))?;
    Ok(builder.with_root_certificates(roots.clone()))
}

fn for_grpc(mut config: ClientConfig) -> Arc<ClientConfig> {
    config.alpn_protocols = vec![HTTP2.to_vec()];
    Arc::new(config)
}

/// The certificates in a PEM text; at least one.
fn certificates(what: &str, text: &str) -> Result<Vec<CertificateDer<'static>>> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text.as_bytes()).collect();
    match found {
        Ok(found) if found.is_empty() => {
            Err(Error::invalid(format!("there is no certificate in the {what}; PEM is expected")))
        }
        found => found.map_err(|error| unreadable(what, error)),
    }
}

fn unreadable(what: &str, error: pem::Error) -> Error {
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
