//! Whether the cluster still has the history that it had.
//!
//! Revisions count the writes of one history. A cluster that was wiped, or restored from a backup, starts another one,
//! in which the same numbers mean other things; a watch that continued at one of them would miss what it never hears
//! of. The server does not say so: its id may be the same as before, and its revision soon higher.
//!
//! So a handle remembers the newest revision that it has met and one entry that was written at such a revision, its
//! *witness*. A new connection is asked for that entry as of that revision. If it is there, with the same value, the
//! history is the same; if it is not, or nobody can tell any more, what was met so far is not continued from.

use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use etcd_client::ResponseHeader;

/// What a handle has seen of a cluster's history.
#[derive(Debug, Default)]
pub(crate) struct History(Mutex<Seen>);

#[derive(Debug, Default)]
struct Seen {
    cluster: Option<u64>,
    /// The highest revision met.
    newest: i64,
    witness: Option<Witness>,
    /// The highest revision met in histories that may be others.
    distrusted: i64,
}

/// An entry, as it was written at a revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Witness {
    pub(crate) path: Vec<u8>,
    pub(crate) value: Bytes,
    pub(crate) revision: i64,
}

impl History {
    /// Notes the revision of an answer.
    pub(crate) fn met(&self, header: Option<&ResponseHeader>) {
        if let Some(header) = header {
            let mut seen = self.seen();
            seen.newest = seen.newest.max(header.revision());
        }
    }

    /// Notes an entry that was read or written.
    pub(crate) fn witnessed(&self, path: &[u8], value: &Bytes, revision: i64) {
        let mut seen = self.seen();
        seen.newest = seen.newest.max(revision);
        if seen.witness.as_ref().is_none_or(|witness| witness.revision < revision) {
            seen.witness = Some(Witness { path: path.to_vec(), value: value.clone(), revision });
        }
    }

    /// What to ask a new connection for.
    pub(super) fn witness(&self) -> Option<Witness> {
        self.seen().witness.clone()
    }

    /// Takes in what a new connection says of itself, and whether it knows the witness that it was asked for.
    pub(super) fn resume(&self, header: &ResponseHeader, is_known: bool) {
        let mut seen = self.seen();
        let is_first = seen.newest == 0;
        let is_same =
            seen.cluster == Some(header.cluster_id()) && header.revision() >= seen.newest && is_known;
        if !is_first && !is_same {
            tracing::warn!(
                before = seen.newest,
                now = header.revision(),
                "cannot tell whether the cluster has the same history as before; starting over from here"
            );
            seen.distrusted = seen.distrusted.max(seen.newest);
            seen.newest = header.revision();
            seen.witness = None;
        }
        seen.cluster = Some(header.cluster_id());
        seen.newest = seen.newest.max(header.revision());
    }

    /// Whether a watch may continue behind a revision, provided that the cluster has come to it.
    pub(crate) fn is_trusted(&self, revision: i64) -> bool {
        revision > self.seen().distrusted
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        // No step leaves it half-changed, so a panic elsewhere under the lock does no harm.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
