//! A transaction: guards as comparisons, operations as operations, in one request.

use std::collections::BTreeSet;

use discovery::{
    Error, ErrorKind, LeaseId, Outcome, Result, Revision,
    kv::{Guard, Op, Txn},
};
use etcd_client::{Compare, CompareOp, GetOptions, PutOptions, TxnOp, TxnOpResponse};

use tokio::time::Instant;

use super::{Store, batch::is_sociable, revision};
use crate::{lease::Pledge, path::Layout};

/// How often a transaction starts over because a fence was moved while it was on its way.
const ATTEMPTS: usize = 8;

impl Store {
    /// Carries out a transaction.
    pub(super) async fn apply(&self, txn: &Txn) -> Result<Revision> {
        txn.check(self.cluster.config().max_record())?;
        Layout::check_txn(txn)?;
        let deadline = self.cluster.deadline();
        if is_sociable(txn) {
            // Whoever gives up leaves a doubt, whatever becomes of the others.
            let mut pledge = self.leases.pledge(&leases_of(txn))?;
            let outcome = self.apply_together(txn, deadline).await;
            if outcome.as_ref().err().is_none_or(|error| error.outcome() == Outcome::NotApplied) {
                pledge.settle();
            }
            if let Some(revision) = outcome? {
                return Ok(revision);
            }
        }
        self.apply_alone(txn, deadline).await
    }

    /// Carries out a transaction with a request of its own.
    pub(super) async fn apply_alone(&self, txn: &Txn, deadline: Instant) -> Result<Revision> {
        let cluster = &self.cluster;
        let leases = leases_of(txn);
        let connection = cluster.connection(deadline).await?;
        let _place = cluster.admit(deadline).await?;
        for _ in 0..ATTEMPTS {
            let mut pledge = self.leases.pledge(&leases)?;
            let request = self.request(txn, &pledge);
            let answer = match connection.call(deadline, connection.kv().txn(request)).await {
                Ok(answer) => answer,
                Err(trouble) => {
                    let error = Error::from(trouble);
                    if error.outcome() == Outcome::NotApplied {
                        pledge.settle();
                    }
                    return Err(error);
                }
            };
            pledge.settle();
            cluster.history().met(answer.header());
            let written = answer.header().map_or(0, etcd_client::ResponseHeader::revision);
            if answer.succeeded() {
                self.remember(txn, written);
                return Ok(revision(written));
            }
            if !pledge.is_outdated(&fences(&answer.op_responses())) {
                let message = "a key is not as the guards of the transaction expect";
                return Err(Error::new(ErrorKind::Conflict, message));
            }
        }
        let message = format!("renewals came in between all the time; gave up after {ATTEMPTS} attempts");
        Err(Error::new(ErrorKind::Unavailable, message).not_applied())
    }

    /// The transaction as etcd wants it. Where a comparison fails, it tells the state of the fences.
    fn request(&self, txn: &Txn, pledge: &Pledge) -> etcd_client::Txn {
        let layout = self.cluster.layout();
        let fences = pledge.fences().map(|(lease, version)| (layout.fence(lease), version));
        let (comparisons, reads): (Vec<_>, Vec<_>) = fences
            .map(|(path, version)| {
                let read = TxnOp::get(path.clone(), Some(GetOptions::new()));
                (Compare::version(path, CompareOp::Equal, version), read)
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

    /// Takes note of something that was written.
    fn remember(&self, txn: &Txn, revision: i64) {
        for op in txn.ops() {
            if let Op::Put { key, value, .. } = op {
                let path = self.cluster.layout().path(key);
                return self.cluster.history().witnessed(path.as_bytes(), value, revision);
            }
        }
    }
}

/// The versions of the fences that a transaction has read; 0 for one that is not there.
fn fences(answers: &[TxnOpResponse]) -> Vec<i64> {
    let version = |answer: &TxnOpResponse| match answer {
        TxnOpResponse::Get(found) => found.kvs().first().map_or(0, etcd_client::KeyValue::version),
        _ => 0,
    };
    answers.iter().map(version).collect()
}

/// The leases that a transaction binds to.
fn leases_of(txn: &Txn) -> BTreeSet<LeaseId> {
    let lease = |op: &Op| match op {
        Op::Put { lease, .. } => *lease,
        Op::Delete(_) => None,
    };
    txn.ops().iter().filter_map(lease).collect()
}
