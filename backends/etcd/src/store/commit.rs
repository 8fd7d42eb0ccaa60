//! A transaction: guards as comparisons, operations as operations, in one request.

use std::collections::BTreeSet;

use discovery::{
    Error, ErrorKind, LeaseId, Outcome, Result, Revision,
    kv::{Guard, Op, Txn},
};
use etcd_client::{Compare, CompareOp, GetOptions, PutOptions, TxnOp, TxnOpResponse};
use tokio::time::Instant;

use super::{Store, batch::is_sociable, revision};
use crate::{connection::Connection, lease::Fence, path::Layout};

/// How often a transaction starts over because a fence was moved while it was on its way.
const ATTEMPTS: usize = 64;

/// What became of a transaction that was answered.
pub(super) enum Sent {
    Applied(Revision),
    /// Something is not as it should be. Where the fences are, in the order of those that were demanded.
    Refused(Vec<i64>),
}

impl Store {
    /// Carries out a transaction.
    pub(super) async fn apply(&self, txn: &Txn) -> Result<Revision> {
        txn.check(self.cluster.config().max_record())?;
        Layout::check_txn(txn)?;
        let leases = leases_of(txn);
        let deadline = self.cluster.deadline();
        let mut is_alone = !is_sociable(txn);
        for _ in 0..ATTEMPTS {
            // Whoever gives up from here on leaves a doubt.
            let mut pledge = self.leases.pledge(&leases)?;
            let sent = if is_alone {
                let _place = self.cluster.admit(deadline).await?;
                self.send(txn, pledge.fences(), deadline).await.map(Some)
            } else {
                self.send_together(txn, pledge.fences(), deadline).await
            };
            if sent.as_ref().err().is_none_or(|error| error.outcome() == Outcome::NotApplied) {
                pledge.settle();
            }
            match sent? {
                Some(Sent::Applied(revision)) => return Ok(revision),
                Some(Sent::Refused(fences)) if !pledge.is_outdated(&fences) => {
                    let message = "a key is not as the guards of the transaction expect";
                    return Err(Error::new(ErrorKind::Conflict, message));
                }
                Some(Sent::Refused(_)) => {}
                None => is_alone = true,
            }
        }
        let message = format!("renewals came in between all the time; gave up after {ATTEMPTS} attempts");
        Err(Error::new(ErrorKind::Unavailable, message).not_applied())
    }

    /// Sends a transaction that demands these fences, with a request of its own.
    pub(super) async fn send(&self, txn: &Txn, fences: &[Fence], deadline: Instant) -> Result<Sent> {
        let request = self.request(txn, fences);
        let send = |connection: &Connection| {
            let (mut kv, request) = (connection.kv(), request.clone());
            async move { kv.txn(request).await }
        };
        let (connection, answer) = self.cluster.call(deadline, send).await?;
        let answer = answer?;
        self.cluster.history().met(connection.era(), answer.header());
        if !answer.succeeded() {
            return Ok(Sent::Refused(moved(&answer.op_responses())));
        }
        let written = answer.header().map_or(0, etcd_client::ResponseHeader::revision);
        self.remember(connection.era(), txn, written);
        Ok(Sent::Applied(revision(written)))
    }

    /// The transaction as etcd wants it. Where a comparison fails, it tells the state of the fences.
    fn request(&self, txn: &Txn, fences: &[Fence]) -> etcd_client::Txn {
        let layout = self.cluster.layout();
        let fences = fences.iter().map(|fence| (layout.fence(fence.lease), fence.moved));
        let (comparisons, reads): (Vec<_>, Vec<_>) = fences
            .map(|(path, moved)| {
                let read = TxnOp::get(path.clone(), Some(GetOptions::new()));
                (Compare::mod_revision(path, CompareOp::Equal, moved), read)
            })
            .unzip();
        let guards = txn.guards().iter().map(|guard| {
            let path = layout.path(guard.key());
            match guard {
                Guard::Absent(_) => Compare::create_revision(path, CompareOp::Equal, 0),
                Guard::Unmodified(_, revision) => {
                    Compare::mod_revision(path, CompareOp::Equal, revision.0.cast_signed())
                }
                Guard::Alive(_, revision) => {
                    Compare::create_revision(path, CompareOp::Equal, revision.0.cast_signed())
                }
            }
        });
        let operations = txn.ops().iter().map(|op| match op {
            Op::Put { key, value, lease } => {
                let lease = lease.map_or(0, |lease| lease.0.cast_signed());
                TxnOp::put(layout.path(key), value.as_ref(), Some(PutOptions::new().with_lease(lease)))
            }
            Op::Delete(key) => TxnOp::delete(layout.path(key), None),
        });
        etcd_client::Txn::new()
            .when(guards.chain(comparisons).collect::<Vec<_>>())
            .and_then(operations.collect::<Vec<_>>())
            .or_else(reads)
    }

    /// Takes note of what was written and removed.
    fn remember(&self, era: u64, txn: &Txn, revision: i64) {
        let (layout, history) = (self.cluster.layout(), self.cluster.history());
        for op in txn.ops() {
            let path = layout.path(op.key());
            match op {
                Op::Put { value, .. } => history.wrote(era, path.as_bytes(), value, revision),
                Op::Delete(_) => history.removed(path.as_bytes()),
            }
        }
    }
}

/// The revisions of the fences that a transaction has read; 0 for one that is not there.
fn moved(answers: &[TxnOpResponse]) -> Vec<i64> {
    let one = |answer: &TxnOpResponse| match answer {
        TxnOpResponse::Get(found) => found.kvs().first().map_or(0, etcd_client::KeyValue::mod_revision),
        _ => 0,
    };
    answers.iter().map(one).collect()
}

/// The leases that a transaction binds to.
fn leases_of(txn: &Txn) -> BTreeSet<LeaseId> {
    let lease = |op: &Op| match op {
        Op::Put { lease, .. } => *lease,
        Op::Delete(_) => None,
    };
    txn.ops().iter().filter_map(lease).collect()
}
