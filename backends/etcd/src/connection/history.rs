//! Whether the cluster still has the history that it had.
//!
//! Revisions count the writes of one history. A cluster that was wiped, or restored from a backup, starts another one,
//! in which the same numbers mean other things; a watch that continued at one of them would miss what it never hears
//! of, and a lease that lives on there may hold entries of yesterday. The server does not say so: its id may be the
//! same as before, and its revision soon higher.
//!
//! So a handle remembers the newest revision that it has met and, as its *witnesses*, two entries with the revisions at
//! which they were written: the newest that it has met, and the newest that it has written itself. A new connection is
//! asked for them, now or as of then. If one is there with the same value, the history is the same. If none is, or that
//! is compacted, what was met so far is not continued from, and leases count as lost, which nobody sees: everything is
//! put back under new ones before the old ones end. Without a witness watches begin with the whole range, and that is
//! all.
//!
//! Each history is an *era* of the handle. A connection belongs to the era that it was opened in; what still comes from
//! one of an earlier era counts for nothing.

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
    /// The newest entry that was met.
    witness: Option<Witness>,
    /// The newest entry that was written here, unless it was removed.
    own: Option<Witness>,
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

/// Whether a new connection knows one of the witnesses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Recall {
    /// It is there as it was.
    Same,
    /// It is not, although it should be; or that is compacted.
    Different,
    /// There is none, or we may not read it.
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
    /// Notes the revision of an answer that belongs to an era.
    pub(crate) fn met(&self, era: u64, header: Option<&ResponseHeader>) {
        let mut seen = self.seen();
        if let Some(header) = header.filter(|_| seen.era == era) {
            seen.newest = seen.newest.max(header.revision());
        }
    }

    /// Notes an entry that was read or written in an era.
    pub(crate) fn witnessed(&self, era: u64, path: &[u8], value: &Bytes, revision: i64) {
        let mut seen = self.seen();
        if seen.era != era {
            return;
        }
        seen.newest = seen.newest.max(revision);
        if seen.witness.as_ref().is_none_or(|witness| witness.revision < revision) {
            seen.witness = Some(Witness { path: path.to_vec(), value: value.clone(), revision });
        }
    }

    /// Notes an entry that was written here in an era.
    pub(crate) fn wrote(&self, era: u64, path: &[u8], value: &Bytes, revision: i64) {
        self.witnessed(era, path, value, revision);
        let mut seen = self.seen();
        if seen.era == era && seen.own.as_ref().is_none_or(|own| own.revision < revision) {
            seen.own = Some(Witness { path: path.to_vec(), value: value.clone(), revision });
        }
    }

    /// Notes that an entry was removed here.
    pub(crate) fn removed(&self, path: &[u8]) {
        self.seen().own.take_if(|own| own.path == path);
    }

    /// What a new connection has to live up to: the newest revision, and the witnesses.
    pub(super) fn known(&self) -> (i64, Vec<Witness>) {
        let seen = self.seen();
        let mut witnesses: Vec<_> = seen.witness.iter().chain(&seen.own).cloned().collect();
        witnesses.dedup();
        (seen.newest, witnesses)
    }

    /// Takes in what a new connection says of itself. Returns the era that its answers belong to.
    pub(super) fn resume(&self, Claim { cluster, known, now, recall }: Claim) -> u64 {
        let mut seen = self.seen();
        let is_other = recall == Recall::Different
            || seen.cluster.is_some_and(|known| known != cluster)
            || now.is_some_and(|now| now < known);
        if seen.newest == 0 {
            // What somebody else has met is not known to be of this history.
            seen.distrusted = now.unwrap_or_default().saturating_sub(1);
        } else if is_other || recall == Recall::Unknown {
            tracing::info!(
                before = seen.newest,
                now,
                "not sure of the cluster's history; starting over from here"
            );
            seen.distrusted = seen.distrusted.max(seen.newest);
            (seen.witness, seen.own) = (None, None);
        }
        if is_other {
            tracing::warn!(
                before = seen.newest,
                now,
                "the cluster was wiped or restored, as far as can be told: its leases count as lost"
            );
            seen.era += 1;
            seen.newest = 0;
        }
        seen.cluster = Some(cluster);
        seen.newest = seen.newest.max(now.unwrap_or_default());
        seen.era
    }

    /// Whether a watch may continue behind a revision: one that was met here, in this history.
    pub(crate) fn is_trusted(&self, revision: i64) -> bool {
        let seen = self.seen();
        revision > seen.distrusted && revision <= seen.newest
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

    /// What is left of a history up to revision 10 behind another connection: the era, and whether 10 and 12 are
    /// continued from.
    fn behind(claim: Claim) -> (u64, bool, bool) {
        let history = History::default();
        assert_eq!(history.resume(Claim { known: 0, now: Some(3), recall: Recall::Unknown, ..SAME }), 0);
        assert_eq!([2, 3, 4].map(|revision| history.is_trusted(revision)), [false, true, false]);
        history.witnessed(0, b"/a", &Bytes::from_static(b"1"), 10);
        assert_eq!(history.known().0, 10);
        let era = history.resume(claim);
        // Late news of the era before.
        history.witnessed(era + 1, b"/a", &Bytes::from_static(b"1"), 99);
        assert!(!history.is_trusted(99));
        (history.era(), history.is_trusted(10), history.is_trusted(12))
    }

    #[test]
    fn what_is_known_is_continued_from() {
        assert_eq!(behind(SAME), (0, true, true));
        // An answer of the connection before came in between.
        assert_eq!(behind(Claim { known: 9, now: Some(9), ..SAME }), (0, true, false));
    }

    #[test]
    fn what_nobody_remembers_is_read_again_and_that_is_all() {
        assert_eq!(behind(Claim { recall: Recall::Unknown, ..SAME }), (0, false, true));
        assert_eq!(behind(Claim { recall: Recall::Unknown, now: None, ..SAME }), (0, false, false));
    }

    #[test]
    fn another_history_is_another_era() {
        for other in [
            Claim { recall: Recall::Different, ..SAME },
            Claim { cluster: 2, ..SAME },
            Claim { now: Some(9), recall: Recall::Unknown, ..SAME },
        ] {
            let (era, ten, _) = behind(other);
            assert_eq!((era, ten), (1, false), "{other:?}");
        }
    }
}
