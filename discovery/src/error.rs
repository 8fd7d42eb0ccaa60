//! The one error type of this crate.

use std::{error::Error as StdError, fmt, sync::Arc};

/// A result whose error is [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, in terms that hold for every backend.
///
/// One word wide, cheap to clone, and free of client-library types: code that handles it works unchanged on
/// another backend. Decide on [`kind`](Error::kind); decide whether a write may be repeated on
/// [`outcome`](Error::outcome); show the [`Display`](fmt::Display) text, which never repeats
/// [`source`](StdError::source), to a person.
#[derive(Clone)]
pub struct Error(Arc<Inner>);

#[derive(Clone)]
struct Inner {
    kind: ErrorKind,
    outcome: Outcome,
    backend: Option<&'static str>,
    operation: Option<&'static str>,
    message: String,
    source: Option<Arc<dyn StdError + Send + Sync>>,
}

/// The class of an [`Error`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The handle, or the backend behind it, was closed.
    Closed,
    /// A guard did not hold, or the entry belongs to another owner.
    Conflict,
    /// A record or an answer cannot be understood.
    Corrupt,
    /// The backend knows us, or knows that it does not, and says no.
    Denied,
    /// The request itself is wrong; repeating it cannot help.
    Invalid,
    /// The lease is gone for good, with everything that was bound to it.
    LeaseLost,
    /// No such thing.
    NotFound,
    /// No answer within the deadline.
    Timeout,
    /// The backend cannot be reached, or cannot serve now.
    Unavailable,
    /// This backend does not offer the operation.
    Unsupported,
    /// Anything else; the message and the source tell.
    Other,
}

/// Whether a failed write may have taken effect all the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// Nothing was changed: the request was never sent, or it was rejected.
    NotApplied,
    /// The reply was lost: the write may be in effect, now or in a moment.
    Unknown,
}

impl Error {
    /// An error of `kind`; `message` says what was wrong and what the reader can do, in lower case.
    ///
    /// The outcome is [`Outcome::Unknown`] for the kinds in which a reply may have been lost ([`ErrorKind::Timeout`],
    /// [`ErrorKind::Unavailable`], [`ErrorKind::Other`]) and [`Outcome::NotApplied`] for all others; where more is
    /// known, say so with [`not_applied`](Error::not_applied).
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        let outcome = match kind {
            ErrorKind::Timeout | ErrorKind::Unavailable | ErrorKind::Other => Outcome::Unknown,
            _ => Outcome::NotApplied,
        };
        Self(Arc::new(Inner {
            kind,
            outcome,
            backend: None,
            operation: None,
            message: message.into(),
            source: None,
        }))
    }

    /// Shorthand for an error of kind [`ErrorKind::Invalid`].
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Invalid, message)
    }

    /// The class of this error.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Whether a write that ended in this error may have taken effect.
    pub fn outcome(&self) -> Outcome {
        self.0.outcome
    }

    /// Whether the same request can succeed later without anybody changing anything: a time-out, or a backend that
    /// is not reachable now.
    pub fn is_transient(&self) -> bool {
        matches!(self.0.kind, ErrorKind::Timeout | ErrorKind::Unavailable)
    }

    /// The scheme of the backend that reported it (`"zk"`), if one did.
    pub fn backend(&self) -> Option<&'static str> {
        self.0.backend
    }

    /// The operation that failed (`"put"`), if known.
    pub fn operation(&self) -> Option<&'static str> {
        self.0.operation
    }

    /// Marks the request as certainly without effect.
    #[must_use]
    pub fn not_applied(self) -> Self {
        self.with(|inner| inner.outcome = Outcome::NotApplied)
    }

    /// Marks the request as possibly in effect: for whoever knows of an earlier try whose reply was lost.
    #[must_use]
    pub fn maybe_applied(self) -> Self {
        self.with(|inner| inner.outcome = Outcome::Unknown)
    }

    /// Attaches the error underneath.
    #[must_use]
    pub fn with_source(self, source: impl StdError + Send + Sync + 'static) -> Self {
        self.with(|inner| inner.source = Some(Arc::new(source)))
    }

    /// Names the backend, unless one is named already: the innermost knows best.
    #[must_use]
    pub fn on_backend(self, scheme: &'static str) -> Self {
        self.with(|inner| inner.backend = inner.backend.or(Some(scheme)))
    }

    /// Names the operation, unless one is named already.
    #[must_use]
    pub fn during(self, operation: &'static str) -> Self {
        self.with(|inner| inner.operation = inner.operation.or(Some(operation)))
    }

    fn with(mut self, change: impl FnOnce(&mut Inner)) -> Self {
        change(Arc::make_mut(&mut self.0));
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.0.backend, self.0.operation) {
            (Some(backend), Some(operation)) => write!(f, "{backend}: {operation}: ")?,
            (Some(one), None) | (None, Some(one)) => write!(f, "{one}: ")?,
            (None, None) => {}
        }
        f.write_str(&self.0.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("Error");
        out.field("kind", &self.0.kind).field("outcome", &self.0.outcome).field("message", &self.to_string());
        if let Some(source) = &self.0.source {
            out.field("source", source);
        }
        out.finish()
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_deref().map(|source| source as _)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn display_names_backend_and_operation_once_and_never_the_source() {
        let error = Error::new(ErrorKind::Unavailable, "no server answered")
            .with_source(std::io::Error::other("refused"))
            .on_backend("zk")
            .during("put")
            .on_backend("outer")
            .during("register");
        assert_eq!(error.to_string(), "zk: put: no server answered");
        assert_eq!(StdError::source(&error).map(ToString::to_string), Some("refused".into()));
    }

    #[test]
    fn only_a_lost_reply_leaves_the_outcome_unknown() {
        assert_eq!(Error::new(ErrorKind::Timeout, "").outcome(), Outcome::Unknown);
        assert_eq!(Error::new(ErrorKind::Timeout, "").not_applied().outcome(), Outcome::NotApplied);
        assert_eq!(Error::new(ErrorKind::Conflict, "").outcome(), Outcome::NotApplied);
    }

    #[test]
    fn is_one_word_and_crosses_threads() {
        fn crosses<T: Clone + Send + Sync + 'static>() {}
        crosses::<Error>();
        assert_eq!(size_of::<Error>(), size_of::<usize>());
    }
}
