//! A transaction: look, compare, write, and again if something moved in between.

use std::collections::BTreeSet;

use discovery::{
    Error, ErrorKind, LeaseId, Result, Revision,
    kv::{Guard, Op, Txn},
};
use zookeeper_client as zk;

use super::{Store, line::Line, view::View};
use crate::{error::Trouble, session::AsOf};

/// How often a transaction starts over because something it is about moved, or a key of the same stripe came to be.
const ATTEMPTS: usize = 64;

/// The most bytes of a transaction: a server drops the connection of a client that sends more than 1 MiB.
const TXN_MAX: usize = 1_000_000;

/// What an operation takes beside its path and value, generously.
const OP_OVERHEAD: usize = 128;

impl Store {
    /// Carries out a transaction.
    pub(super) async fn apply(&self, txn: &Txn) -> Result<Revision> {
        let reader = &*self.reader;
        txn.check(reader.config().max_record())?;
        reader.layout().check_txn(txn)?;
        self.check_size(txn)?;
        let lease = lease_of(txn)?;
        let deadline = reader.deadline();
        // The session first: who waits for one that is away must not hold a place that others could use.
        let session = match lease {
            Some(lease) => self.leased(lease, deadline).await?,
            None => reader.session(deadline).await?,
        };
        let _place = reader.admit(deadline).await?;
        let owner = lease.map_or(0, |_| session.id());
        let line = Line {
            reader: self.reader.clone(),
            memory: self.memory.clone(),
            session,
            owner,
            making: self.making.clone(),
        };
        let session = &line.session;
        if is_all_new(txn)
            && let Some(revision) = self.batches.create(&line, txn, deadline).await?
        {
            return Ok(revision);
        }
        // What should all be new is written without a look, since the server itself refuses what exists; and so is
        // what nobody else seems to have written since we did.
        let mut guess = if is_all_new(txn) { Some(View::default()) } else { self.memory.recall(txn, owner) };
        let mut as_of = AsOf::Horizon;
        for _ in 0..ATTEMPTS {
            let view = match guess.take() {
                Some(view) => view,
                None => match reader.look(session, txn, deadline, as_of).await {
                    Ok(Some(view)) => {
                        self.memory.note(&view.stripes);
                        view
                    }
                    Ok(None) => {
                        line.make_missing(txn, deadline).await?;
                        continue;
                    }
                    Err(trouble) => return Err(session.failed(trouble).not_applied()),
                },
            };
            if let Some(broken) = txn.guards().iter().find(|guard| !view.confirms(guard)) {
                if as_of == AsOf::Now {
                    let message = format!("{} is not as expected", broken.key());
                    return Err(Error::new(ErrorKind::Conflict, message));
                }
                as_of = AsOf::Now;
                continue;
            }
            match line.send(txn, &view, deadline).await? {
                Ok(revision) => return Ok(revision),
                Err(trouble) if trouble.is(&zk::Error::NoNode) => {
                    line.make_missing(txn, deadline).await?;
                }
                Err(Trouble::Client(zk::Error::BadVersion | zk::Error::NodeExists | zk::Error::NotEmpty)) => {
                }
                Err(trouble) => return Err(session.failed(trouble)),
            }
            as_of = AsOf::Now;
        }
        let message = format!("the keys are being written all the time; gave up after {ATTEMPTS} attempts");
        Err(Error::new(ErrorKind::Unavailable, message).not_applied())
    }

    fn check_size(&self, txn: &Txn) -> Result<()> {
        let size = |op: &Op| match op {
            Op::Put { value, .. } => value.len(),
            Op::Delete(_) => 0,
        };
        let path = |op: &Op| self.reader.layout().node(op.key()).len();
        let bytes: usize = txn.ops().iter().map(|op| size(op) + path(op) + OP_OVERHEAD).sum();
        if bytes > TXN_MAX {
            return Err(Error::invalid(format!(
                "a transaction takes {bytes} bytes; ZooKeeper allows {TXN_MAX}: use several"
            )));
        }
        Ok(())
    }
}

/// The one lease of a transaction, if any.
fn lease_of(txn: &Txn) -> Result<Option<LeaseId>> {
    let leases = txn.ops().iter().filter_map(|op| match op {
        Op::Put { lease, .. } => *lease,
        Op::Delete(_) => None,
    });
    let leases: BTreeSet<_> = leases.collect();
    if leases.len() > 1 {
        let message = "a transaction can bind to one lease only: each is a session of its own in ZooKeeper";
        return Err(Error::new(ErrorKind::Unsupported, message));
    }
    Ok(leases.into_iter().next())
}

/// Whether a transaction does nothing but create entries that must not be there.
fn is_all_new(txn: &Txn) -> bool {
    let absent = txn.guards().iter().filter(|guard| matches!(guard, Guard::Absent(_)));
    let puts = txn.ops().iter().filter(|op| matches!(op, Op::Put { .. }));
    absent.clone().count() == txn.guards().len()
        && puts.clone().count() == txn.ops().len()
        && absent.map(Guard::key).collect::<BTreeSet<_>>() == puts.map(Op::key).collect()
}

#[cfg(test)]
mod tests {
    use discovery::kv::Key;

    use super::*;

    #[test]
    fn only_pure_creation_is_written_without_a_look() {
        let (a, b): (Key, Key) = ("a".parse().unwrap(), "b".parse().unwrap());
        assert!(is_all_new(&Txn::new().absent(&a).put(&a, "1")));
        assert!(is_all_new(&Txn::new().absent(&b).absent(&a).put(&a, "1").put(&b, "1")));
        for other in [
            Txn::new().put(&a, "1"),
            Txn::new().absent(&a).put(&b, "1"),
            Txn::new().absent(&a).absent(&b).put(&a, "1"),
            Txn::new().absent(&a).put(&a, "1").delete(&b),
            Txn::new().guard(Guard::Unmodified(a.clone(), Revision(1))).put(&a, "1"),
        ] {
            assert!(!is_all_new(&other), "{other:?}");
        }
    }

    #[test]
    fn a_transaction_has_one_lease_at_most() {
        let (a, b): (Key, Key) = ("a".parse().unwrap(), "b".parse().unwrap());
        let (one, two) = (LeaseId(1), LeaseId(2));
        assert_eq!(lease_of(&Txn::new().put(&a, "1")).unwrap(), None);
        assert_eq!(
            lease_of(&Txn::new().put_leased(&a, "1", one).put_leased(&b, "1", one)).unwrap(),
            Some(one)
        );
        let error = lease_of(&Txn::new().put_leased(&a, "1", one).put_leased(&b, "1", two)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
    }
}
