//! Who we are, and who may see what we write.

use std::fmt;

use discovery::{Error, Result};
use zookeeper_client as zk;

/// Who we are to the server. The secret is never printed.
#[derive(Clone)]
pub struct Auth {
    scheme: AuthScheme,
    user: String,
    secret: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum AuthScheme {
    Digest,
    SaslDigestMd5,
}

impl Auth {
    /// ZooKeeper's own `digest` scheme: the server knows nobody, and whoever has the same user and secret is the same.
    pub fn digest(user: impl Into<String>, secret: impl Into<String>) -> Self {
        Self { scheme: AuthScheme::Digest, user: user.into(), secret: secret.into() }
    }

    /// SASL DIGEST-MD5: the server knows its users and refuses others.
    pub fn sasl_digest_md5(user: impl Into<String>, secret: impl Into<String>) -> Self {
        Self { scheme: AuthScheme::SaslDigestMd5, user: user.into(), secret: secret.into() }
    }

    /// Refuses what no server would take.
    pub(super) fn check(&self) -> Result<()> {
        if self.user.is_empty() || self.user.contains(':') {
            return Err(Error::invalid(
                "the user is empty or has a colon in it, which ends the user of a digest",
            ));
        }
        if self.secret.is_empty() {
            return Err(Error::invalid("the secret is empty; write zk://user:secret@host"));
        }
        Ok(())
    }

    pub(super) fn user(&self) -> &str {
        &self.user
    }

    /// Has a client log in.
    pub(super) fn present(&self, connector: zk::Connector) -> zk::Connector {
        let Self { scheme, user, secret } = self;
        match scheme {
            AuthScheme::Digest => connector.with_auth("digest", format!("{user}:{secret}").as_bytes()),
            AuthScheme::SaslDigestMd5 => {
                connector.with_sasl(zk::SaslOptions::digest_md5(user.clone(), secret.clone()))
            }
        }
    }
}

impl fmt::Debug for Auth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Auth({:?} {}:***)", self.scheme, self.user)
    }
}

/// Who may read and write what we create.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Access {
    /// Everybody who reaches the server.
    #[default]
    Open,
    /// Only who has proved to be the same as the creator. All who write under one chroot then need one identity, since
    /// they share its directories.
    Creator,
}
