//! What the client library reports, in the terms of the contract: what happened, and whether a write took effect.

use std::fmt;

use discovery::{Error, ErrorKind};
use zookeeper_client as zk;

/// The scheme, and the name of this backend in errors.
pub(crate) const SCHEME: &str = "zk";

/// Why a request has no answer.
#[derive(Debug)]
pub(crate) enum Trouble {
    /// The client or the server says so.
    Client(zk::Error),
    /// The deadline passed first.
    Late,
    /// The lease it was sent under was given up.
    Ended,
}

impl Trouble {
    /// Whether it is this answer of the server.
    pub(crate) fn is(&self, error: &zk::Error) -> bool {
        matches!(self, Self::Client(found) if found == error)
    }

    /// Whether the session is gone for good.
    pub(crate) fn is_end_of_session(&self) -> bool {
        use zk::Error as E;
        matches!(self, Self::Client(E::SessionExpired | E::ClientClosed | E::SessionMoved))
    }
}

impl From<zk::Error> for Trouble {
    fn from(error: zk::Error) -> Self {
        Self::Client(error)
    }
}

impl From<zk::MultiWriteError> for Trouble {
    fn from(error: zk::MultiWriteError) -> Self {
        Self::Client(error.into())
    }
}

/// A request that was sent has failed; if it was a write, the outcome says whether it may be in effect.
impl From<Trouble> for Error {
    fn from(trouble: Trouble) -> Self {
        use zk::Error as E;
        let error = match trouble {
            Trouble::Client(error) => error,
            Trouble::Late => return Self::new(ErrorKind::Timeout, "no answer within the call timeout"),
            Trouble::Ended => {
                let message = "the lease ended while the request was under way";
                return Self::new(ErrorKind::Unavailable, message);
            }
        };
        let described = match &error {
            // Answers of the server: it did nothing.
            E::NoAuth => Self::new(ErrorKind::Denied, "the server refuses it; check user, secret and acl"),
            E::AuthFailed => Self::new(ErrorKind::Denied, "the server does not accept user and secret"),
            E::InvalidAcl => Self::new(
                ErrorKind::Denied,
                "the server sees no identity that could be the creator of acl creator",
            ),
            E::QuotaExceeded => Self::new(ErrorKind::Denied, "a quota of the server is exhausted"),
            E::NoNode => Self::new(ErrorKind::NotFound, "a node is missing"),
            E::NoChildrenForEphemerals => Self::invalid(
                "a leased entry cannot have keys below it, as ZooKeeper's ephemeral nodes cannot",
            ),
            E::Throttled => {
                Self::new(ErrorKind::Unavailable, "the server is overloaded; try later").not_applied()
            }
            E::NotReadOnly => {
                Self::new(ErrorKind::Unavailable, "the server has no quorum and only reads").not_applied()
            }
            E::Unimplemented => {
                Self::new(ErrorKind::Unsupported, "the server is too old for it; 3.6 or later is needed")
            }
            E::BadArguments(_) => Self::invalid("the client refuses the request"),
            E::NodeExists | E::BadVersion | E::NotEmpty => {
                Self::new(ErrorKind::Conflict, "somebody else was faster")
            }
            // The session is gone, and with it whatever was still waiting to be sent; the server answers in order,
            // so what it had applied before it said so has had its answer.
            E::SessionExpired | E::SessionMoved | E::ClientClosed => {
                Self::new(ErrorKind::Unavailable, "the session is over; the next call opens another")
                    .not_applied()
            }
            // No connection was made.
            E::NoHosts => Self::new(ErrorKind::Unavailable, "no server could be reached").not_applied(),
            E::Timeout => Self::new(ErrorKind::Timeout, "no server answered in time").not_applied(),
            E::UnmarshalError { .. } => {
                Self::new(ErrorKind::Other, "the server's answer cannot be understood")
            }
            E::UnexpectedErrorCode(_) | E::MarshallingError => {
                Self::new(ErrorKind::Other, "the server answered with an error that is not known here")
            }
            // The connection broke under the request, whatever else the client says about it.
            _ => Self::new(ErrorKind::Unavailable, "the connection broke before the answer came"),
        };
        described.with_source(Cause(error))
    }
}

/// An error of the client library as a source: to be read by people, not to be matched on.
pub(crate) struct Cause(pub(crate) zk::Error);

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl std::error::Error for Cause {}

#[cfg(test)]
mod tests {
    use discovery::Outcome;

    use super::*;

    fn error(error: zk::Error) -> Error {
        Trouble::from(error).into()
    }

    #[test]
    fn only_a_lost_answer_leaves_the_outcome_unknown() {
        for rejected in [
            zk::Error::NoAuth,
            zk::Error::NodeExists,
            zk::Error::SessionExpired,
            zk::Error::ClientClosed,
            zk::Error::NoHosts,
            zk::Error::Timeout,
            zk::Error::Throttled,
        ] {
            assert_eq!(error(rejected.clone()).outcome(), Outcome::NotApplied, "{rejected:?}");
        }
        for lost in [zk::Error::ConnectionLoss, zk::Error::UnexpectedError("?".into())] {
            assert_eq!(error(lost.clone()).outcome(), Outcome::Unknown, "{lost:?}");
        }
        assert_eq!(Error::from(Trouble::Late).outcome(), Outcome::Unknown);
    }

    #[test]
    fn the_source_is_told_apart_from_the_message() {
        let error = error(zk::Error::ConnectionLoss);
        let source = std::error::Error::source(&error).unwrap().to_string();
        assert!(!error.to_string().contains(&source), "{error}: {source}");
        assert!(error.is_transient());
    }
}
