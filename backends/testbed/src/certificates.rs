//! A throw-away certificate authority with one server and one client.

use std::{
    fs, io,
    net::{IpAddr, Ipv4Addr},
    path::{Path, PathBuf},
};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};

/// A certificate and its key as PEM text.
#[derive(Debug, Clone)]
pub struct Identity {
    certificate: String,
    key: String,
}

impl Identity {
    /// The certificate, PEM.
    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    /// The private key, PEM (PKCS #8).
    pub fn key(&self) -> &str {
        &self.key
    }
}

/// A certificate authority made for one server, and what it issued; valid for `127.0.0.1` and `localhost`.
#[derive(Debug, Clone)]
pub struct Certificates {
    authority: String,
    server: Identity,
    client: Identity,
}

impl Certificates {
    /// Makes a new authority and has it sign a server and a client.
    ///
    /// # Errors
    ///
    /// When a key or certificate cannot be made.
    pub fn generate() -> io::Result<Self> {
        Self::issue().map_err(|error| io::Error::other(format!("cannot make test certificates: {error}")))
    }

    fn issue() -> Result<Self, rcgen::Error> {
        let mut params = named("discovery test authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let key = KeyPair::generate()?;
        let certificate = params.self_signed(&key)?;
        let issuer = Issuer::new(params, key);
        Ok(Self {
            authority: certificate.pem(),
            server: sign("discovery test server", ExtendedKeyUsagePurpose::ServerAuth, &issuer)?,
            client: sign("discovery test client", ExtendedKeyUsagePurpose::ClientAuth, &issuer)?,
        })
    }

    /// The authority's certificate, PEM: what either side has to trust.
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// The server's identity.
    pub fn server(&self) -> &Identity {
        &self.server
    }

    /// The client's identity.
    pub fn client(&self) -> &Identity {
        &self.client
    }
}

/// Certificates as the files that a server and its command line client read.
#[derive(Debug)]
pub(crate) struct PemFiles {
    pub(crate) authority: PathBuf,
    pub(crate) server: PathBuf,
    pub(crate) client: PathBuf,
}

impl PemFiles {
    /// Where the files of `dir` are; see [`PemFiles::write`].
    pub(crate) fn in_dir(dir: &Path) -> Self {
        Self { authority: dir.join("ca.pem"), server: dir.join("server.pem"), client: dir.join("client.pem") }
    }

    /// Writes the authority, and for either side one file with key and certificate: Java wants both in one file, and
    /// Go, which is told the file of either, takes from it what it looks for.
    pub(crate) fn write(dir: &Path, certificates: &Certificates) -> io::Result<Self> {
        let files = Self::in_dir(dir);
        fs::write(&files.authority, &certificates.authority)?;
        for (file, identity) in [(&files.server, &certificates.server), (&files.client, &certificates.client)]
        {
            fs::write(file, format!("{}{}", identity.key, identity.certificate))?;
        }
        Ok(files)
    }
}

fn sign(
    name: &str,
    purpose: ExtendedKeyUsagePurpose,
    issuer: &Issuer<'static, KeyPair>,
) -> Result<Identity, rcgen::Error> {
    let mut params = named(name);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![purpose];
    // The client too: ZooKeeper's server checks the address that a client comes from against its certificate.
    params.subject_alt_names =
        vec![SanType::IpAddress(IpAddr::V4(Ipv4Addr::LOCALHOST)), SanType::DnsName("localhost".try_into()?)];
    let key = KeyPair::generate()?;
    let certificate = params.signed_by(&key, issuer)?;
    Ok(Identity { certificate: certificate.pem(), key: key.serialize_pem() })
}

fn named(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params
}
