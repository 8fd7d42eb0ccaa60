//! Whether the cluster still has the history that it had.
//!
//! Revisions count the writes of one history. A cluster that was wiped, or restored from a backup, starts another one,
//! in which the same numbers mean other things; a watch that continued at one of them would miss what it never hears
//! of, and a lease that lives on there may hold entries of yesterday. The server does not say so: its id may be the
//! same as before, and its revision soon higher.
//!
//! So a handle remembers the newest revision that it has met and one entry that was written at such a revision, its
//! *witness*. A new connection is asked for that entry, now or as of that revision. If it is there with the same value,
//! the history is the same. If it is not, what was met so far is not continued from, and leases count as lost. Where
//! nobody can tell, because that revision is compacted, watches begin with the whole range and nothing else happens.

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
    /// How many histories there were before this one.
    era: u64,
}

/// An entry, as it was written at a revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Witness {
    pub(crate) path: Vec<u8>,
    pub(crate) value: Bytes,
    pub(crate) revision: i64,
}

/// Whether a new connection knows the witness.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Recall {
    /// It is there as it was.
    Same,
    /// It is not, although it should be.
    Different,
    /// There is none, or it is compacted.
    Unknown,
}

/// What a new connection says of itself.
#[derive(Clone, Copy, Debug)]
pub(super) struct Claim {
    /// The id of its cluster.
    pub(super) cluster: u64,
    /// The newest revision that was met before it was asked.
    pub(super) known: i64,
    /// The revision of the cluster when it was asked, if we may know it.
    pub(super) now: Option<i64>,
    pub(super) recall: Recall,
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

    /// What a new connection has to live up to: the newest revision, and the witness.
    pub(super) fn known(&self) -> (i64, Option<Witness>) {
        let seen = self.seen();
        (seen.newest, seen.witness.clone())
    }

    /// Takes in what a new connection says of itself.
    pub(super) fn resume(&self, Claim { cluster, known, now, recall }: Claim) {
        let mut seen = self.seen();
        let is_other = recall == Recall::Different
            || seen.cluster.is_some_and(|known| known != cluster)
            || now.is_some_and(|now| now < known);
        if seen.newest > 0 && (is_other || recall == Recall::Unknown) {
            tracing::info!(
                before = seen.newest,
                now,
                is_other,
                "not sure of the cluster's history; starting over from here"
            );
            seen.distrusted = seen.distrusted.max(seen.newest);
            seen.witness = None;
        }
        if is_other {
            tracing::warn!(
                before = seen.newest,
                now,
                "the cluster was wiped or restored: all leases are lost"
            );
            seen.era += 1;
            seen.newest = 0;
        }
        seen.cluster = Some(cluster);
        seen.newest = seen.newest.max(now.unwrap_or_default());
    }

    /// Whether a watch may continue behind a revision, provided that the cluster has come to it.
    pub(crate) fn is_trusted(&self, revision: i64) -> bool {
        revision > self.seen().distrusted
    }

    /// Counts the histories: leases of an earlier one are lost.
    pub(crate) fn era(&self) -> u64 {
        self.seen().era
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        // No step leaves it half-changed, so a panic elsewhere under the lock does no harm.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAME: Claim = Claim { cluster: 1, known: 10, now: Some(12), recall: Recall::Same };

    /// What is left of a history up to revision 10 behind another connection: the era, and whether 10 and 13 are
    /// continued from.
    fn behind(claim: Claim) -> (u64, bool, bool) {
        let history = History::default();
        history.resume(Claim { known: 0, now: Some(3), recall: Recall::Unknown, ..SAME });
        history.witnessed(b"/a", &Bytes::from_static(b"1"), 10);
        assert_eq!(history.known().0, 10);
        history.resume(claim);
        (history.era(), history.is_trusted(10), history.is_trusted(13))
    }

    #[test]
    fn what_is_known_is_continued_from() {
        assert_eq!(behind(SAME), (0, true, true));
        // An answer of the connection before came in between.
        assert_eq!(behind(Claim { known: 9, now: Some(9), ..SAME }), (0, true, true));
    }

    #[test]
    fn what_nobody_remembers_is_read_again_and_that_is_all() {
        assert_eq!(behind(Claim { recall: Recall::Unknown, ..SAME }), (0, false, true));
        assert_eq!(behind(Claim { recall: Recall::Unknown, now: None, ..SAME }), (0, false, true));
    }

    #[test]
    fn another_history_is_another_era() {
        for other in [
            Claim { recall: Recall::Different, ..SAME },
            Claim { cluster: 2, ..SAME },
            Claim { now: Some(9), recall: Recall::Unknown, ..SAME },
        ] {
            assert_eq!(behind(other), (1, false, true), "{other:?}");
        }
    }
}
