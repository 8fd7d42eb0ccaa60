//! The key that signs updates and transfers (TSIG).

use base64::{Engine, engine::general_purpose::STANDARD};

/// What BIND, Knot and their clients all call the algorithm.
const ALGORITHM: &str = "hmac-sha256";

/// The name of every server's key; the secrets differ.
const NAME: &str = "disco-key";

/// A name and a secret that server and client share.
#[derive(Debug, Clone)]
pub(super) struct Key {
    pub(super) name: String,
    /// In base64.
    pub(super) secret: String,
}

impl Key {
    pub(super) fn new(name: impl Into<String>, secret: impl Into<String>) -> Self {
        Self { name: name.into(), secret: secret.into() }
    }

    pub(super) fn generate() -> Self {
        let secret: [u8; 32] = std::array::from_fn(|_| fastrand::u8(..));
        Self::new(NAME, STANDARD.encode(secret))
    }

    /// As the clients want it after `-y`.
    pub(super) fn argument(&self) -> String {
        format!("{ALGORITHM}:{}:{}", self.name, self.secret)
    }

    /// As BIND and its tools read it.
    pub(super) fn for_bind(&self) -> String {
        let Self { name, secret } = self;
        format!("key \"{name}\" {{ algorithm {ALGORITHM}; secret \"{secret}\"; }};\n")
    }

    /// As Knot reads it.
    pub(super) fn for_knot(&self) -> String {
        let Self { name, secret } = self;
        format!("key:\n  - id: {name}\n    algorithm: {ALGORITHM}\n    secret: {secret}\n")
    }
}
