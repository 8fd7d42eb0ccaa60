//! What the client library and the server report, in the terms of the contract: what happened, and whether a write took
//! effect.

use std::{error::Error as StdError, fmt};

use discovery::{Error, ErrorKind};
use tonic::{Code, ConnectError, Status};

/// The scheme, and the name of this backend in errors.
pub(crate) const SCHEME: &str = "etcd";

/// Why a request has no answer, or one that was not hoped for.
#[derive(Debug)]
pub(crate) enum Trouble {
    /// The client or the server says so.
    Client(etcd_client::Error),
    /// The deadline passed first.
    Late,
}

impl From<etcd_client::Error> for Trouble {
    fn from(error: etcd_client::Error) -> Self {
        Self::Client(error)
    }
}

impl Trouble {
    /// A refusal for which there is only a text.
    pub(crate) fn refused(reason: &str) -> Self {
        Self::Client(etcd_client::Error::GRpcStatus(Status::new(Code::Unknown, reason)))
    }

    /// Whether a server answered, if only with a refusal.
    pub(crate) fn is_answer(&self) -> bool {
        self.is_lease_gone() || self.status().is_some_and(is_answer)
    }

    /// Whether another connection may do better: one to another member, or to the same after another login.
    pub(crate) fn is_of_connection(&self) -> bool {
        !self.is_answer() || self.status().is_some_and(|status| is_lost_leader(status) || is_stranger(status))
    }

    /// Whether the request never left.
    pub(crate) fn is_unsent(&self) -> bool {
        let is_unsent = |status| is_unsent(status) || find::<ConnectError>(status).is_some();
        self.status().is_some_and(is_unsent)
    }

    /// Whether the lease of a request does not exist.
    pub(crate) fn is_lease_gone(&self) -> bool {
        self.says("requested lease not found")
            || matches!(self, Self::Client(etcd_client::Error::LeaseKeepAliveError(text)) if text == "lease not found")
    }

    /// Whether the server has no authentication enabled and so cannot log us in.
    pub(crate) fn is_auth_disabled(&self) -> bool {
        self.says("authentication is not enabled")
    }

    /// Whether we may not do what was asked for, or not there.
    pub(crate) fn is_permission_denied(&self) -> bool {
        self.status().is_some_and(|status| status.code() == Code::PermissionDenied)
    }

    fn says(&self, text: &str) -> bool {
        self.status().is_some_and(|status| status.message().contains(text))
    }

    fn status(&self) -> Option<&Status> {
        match self {
            Self::Client(etcd_client::Error::GRpcStatus(status)) => Some(status),
            _ => None,
        }
    }
}

/// A request that was sent has failed; if it was a write, the outcome says whether it may be in effect.
impl From<Trouble> for Error {
    fn from(trouble: Trouble) -> Self {
        use etcd_client::Error as E;
        let described = match &trouble {
            Trouble::Late => return Self::new(ErrorKind::Timeout, "no answer within the call timeout"),
            Trouble::Client(E::GRpcStatus(status)) if is_answer(status) => answered(status),
            Trouble::Client(E::GRpcStatus(status)) if is_unsent(status) => unsent(),
            Trouble::Client(E::GRpcStatus(status)) => broken(status),
            Trouble::Client(E::InvalidArgs(_)) => Self::invalid("the client refuses the request"),
            Trouble::Client(E::TransportError(error)) => broken(error),
            // A stream that ended before it began.
            Trouble::Client(E::WatchError(_) | E::LeaseKeepAliveError(_)) => {
                Self::new(ErrorKind::Unavailable, "the connection broke before the answer came")
            }
            Trouble::Client(_) => Self::new(ErrorKind::Other, "the request failed in the client"),
        };
        match trouble {
            Trouble::Client(error) => described.with_source(Cause(error)),
            Trouble::Late => described,
        }
    }
}

/// Whether the server wrote this, and not the client about its connection: what the client writes has a cause, or says
/// that there is no connection to send anything on.
fn is_answer(status: &Status) -> bool {
    status.source().is_none()
        && !is_unsent(status)
        && !matches!(status.code(), Code::Cancelled | Code::DataLoss | Code::Internal)
}

fn is_unsent(status: &Status) -> bool {
    status.message().starts_with("Service was not ready")
}

/// Whether the member that was asked cannot do anything for us, while another might.
fn is_lost_leader(status: &Status) -> bool {
    matches!(status.code(), Code::Unavailable | Code::FailedPrecondition)
        || status.message().contains("no leader")
}

/// Whether the server does not know who we are: to log in once more may help.
fn is_stranger(status: &Status) -> bool {
    status.code() == Code::Unauthenticated
        || ["user name is empty", "invalid auth token", "revision of auth store is old"]
            .iter()
            .any(|text| status.message().contains(text))
}

/// What a server has answered, sorted by what it says: the codes differ between its versions.
fn answered(status: &Status) -> Error {
    let says = |text: &str| status.message().contains(text);
    let (kind, message) = match status.code() {
        _ if says("requested lease not found") => {
            (ErrorKind::LeaseLost, "the lease is gone; grant a new one")
        }
        _ if says("user name is empty") => {
            (ErrorKind::Denied, "the server wants to know who we are; write etcd://user:secret@host")
        }
        _ if says("invalid user ID or password") => {
            (ErrorKind::Denied, "the server does not accept user and secret")
        }
        _ if says("authentication is not enabled") => {
            (ErrorKind::Denied, "the server has no authentication enabled; leave user and secret out")
        }
        _ if says("revision of auth store is old") => {
            (ErrorKind::Unavailable, "the users of the server have changed; the next call logs in again")
        }
        _ if says("invalid auth token") || status.code() == Code::Unauthenticated => {
            (ErrorKind::Unavailable, "the login has expired; the next call logs in again")
        }
        _ if says("permission denied") || status.code() == Code::PermissionDenied => (
            ErrorKind::Denied,
            "the server refuses it; grant a role of the user readwrite on all keys below the namespace",
        ),
        _ if says("request is too large") || says("message larger than max") => {
            (ErrorKind::Invalid, "the request is over the server's limit; make it smaller, or use several")
        }
        _ if says("too many operations") => {
            (ErrorKind::Invalid, "the server allows fewer operations in a transaction; raise its max-txn-ops")
        }
        _ if says("too large lease TTL") => (ErrorKind::Invalid, "the ttl is longer than the server allows"),
        // Said also of the write that used it up, which is in effect.
        _ if says("database space exceeded") => {
            let message = "the server's space is used up; compact and defragment it, and disarm its alarm";
            return Error::new(ErrorKind::Unavailable, message);
        }
        Code::Unimplemented => (
            ErrorKind::Unsupported,
            "the server does not know the call; is it an etcd of 3.4 or later, and the port right?",
        ),
        Code::ResourceExhausted => (ErrorKind::Unavailable, "the server is overloaded; try later"),
        _ if says("no leader") => (ErrorKind::Unavailable, "the cluster has no leader now"),
        Code::FailedPrecondition => (ErrorKind::Unavailable, "this member of the cluster cannot do it now"),
        // It may come of it yet: the server only gave up waiting.
        Code::Unavailable | Code::DeadlineExceeded => {
            return Error::new(ErrorKind::Unavailable, "the cluster did not come to a decision in time");
        }
        // Compacted meanwhile, or of a history that is no more.
        Code::OutOfRange => (ErrorKind::Unavailable, "the server does not know that revision; try again"),
        Code::InvalidArgument => (ErrorKind::Invalid, "the server refuses the request"),
        _ => return Error::new(ErrorKind::Other, "the server answered with an error that is not known here"),
    };
    Error::new(kind, message).not_applied()
}

/// What became of a request whose connection failed.
fn broken(error: &(dyn StdError + 'static)) -> Error {
    if is_foreign(error) {
        let message = "the server does not speak gRPC; is it an etcd of 3.4 or later, and the port right?";
        return Error::new(ErrorKind::Unsupported, message);
    }
    if find::<ConnectError>(error).is_some() {
        return unsent();
    }
    Error::new(ErrorKind::Unavailable, "the connection broke before the answer came")
}

fn unsent() -> Error {
    let message = "the connection is over; the next call makes another";
    Error::new(ErrorKind::Unavailable, message).not_applied()
}

/// Whether what came back was not HTTP/2: an HTTP/1 server (etcd 2 was one) says so in words that make no frame.
fn is_foreign(error: &(dyn StdError + 'static)) -> bool {
    use h2::Reason;
    let reason = find::<h2::Error>(error).and_then(h2::Error::reason);
    matches!(reason, Some(Reason::FRAME_SIZE_ERROR | Reason::PROTOCOL_ERROR))
}

/// The first error of a kind among one and its causes.
fn find<'e, T: StdError + 'static>(error: &'e (dyn StdError + 'static)) -> Option<&'e T> {
    let mut causes =
        std::iter::successors(Some(error), |error: &&'e (dyn StdError + 'static)| (*error).source());
    causes.find_map(|error| error.downcast_ref())
}

/// An error of the client library as a source: to be read by people, not to be matched on.
pub(crate) struct Cause(pub(crate) etcd_client::Error);

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            // Its own text repeats metadata that nobody wants to see.
            etcd_client::Error::GRpcStatus(status) => write!(f, "{:?}: {}", status.code(), status.message()),
            error => error.fmt(f),
        }
    }
}

impl fmt::Debug for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl StdError for Cause {}

/// Names backend and operation in an error.
pub(crate) fn named(operation: &'static str) -> impl Fn(Error) -> Error {
    move |error| error.on_backend(SCHEME).during(operation)
}
