//! What a backend is and what it can do.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use crate::{Error, ErrorKind};

/// Describes a backend: where it is, what it can do, what it had to skip.
///
/// What a backend offers at all is told by its facets ([`Backend::registrar`](crate::Backend::registrar) and its
/// siblings); [`Capabilities`] tell the differences in degree.
#[derive(Clone, Debug)]
pub struct Info {
    scheme: &'static str,
    locator: String,
    capabilities: Capabilities,
    /// Added to by whoever decodes records, read by whoever asks; a plain statistic, so relaxed ordering will do.
    skipped: Arc<AtomicU64>,
}

impl Info {
    /// The description of a backend; `locator` must not contain secrets.
    pub fn new(scheme: &'static str, locator: impl Into<String>, capabilities: Capabilities) -> Self {
        Self { scheme, locator: locator.into(), capabilities, skipped: Arc::default() }
    }

    /// The scheme of its locator (`"zk"`).
    pub fn scheme(&self) -> &'static str {
        self.scheme
    }

    /// Where it is, without secrets.
    pub fn locator(&self) -> &str {
        &self.locator
    }

    /// What it can do.
    pub fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    /// How often a record that could not be decoded was passed over since this backend was made.
    pub fn skipped(&self) -> u64 {
        self.skipped.load(Ordering::Relaxed)
    }

    /// The error for a facet that the backend does not have.
    pub(crate) fn lacks(&self, facet: &str) -> Error {
        let message = format!("{} has no {facet} facet; choose another backend for this", self.locator);
        Error::new(ErrorKind::Unsupported, message).on_backend(self.scheme)
    }

    /// Counts a record that could not be decoded.
    pub fn count_skipped(&self) {
        self.skipped.fetch_add(1, Ordering::Relaxed);
    }
}

/// The differences in degree between backends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Capabilities {
    /// How changes come to a watch.
    pub delivery: Delivery,
    /// Whether a watch can continue where an earlier one ended.
    pub resume: Resume,
    /// The most bytes an encoded record may have; larger ones are refused before they reach the server.
    pub max_record: usize,
    /// The most registrations that should share one lease; the keeper spreads them.
    pub max_per_lease: usize,
    /// The bound within which a watch notices that its transport died without a word.
    pub detects_silence_within: Duration,
}

impl Default for Capabilities {
    /// Push, no resume, records of up to 64 KiB, any number of registrations a lease, silence noticed within 10 s.
    fn default() -> Self {
        Self {
            delivery: Delivery::Push,
            resume: Resume::Never,
            max_record: 64 * 1024,
            max_per_lease: usize::MAX,
            detects_silence_within: Duration::from_secs(10),
        }
    }
}

/// How changes come to a watch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Delivery {
    /// The server says so.
    Push,
    /// The backend asks again and again.
    Poll,
}

/// Whether a watch can continue after a revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Resume {
    /// Each watch starts with the whole scope.
    Never,
    /// As long as the backend still has the history in between.
    Bounded,
}

impl fmt::Display for Info {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.locator)
    }
}
