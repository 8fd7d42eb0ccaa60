//! The multi that does what a transaction says, provided that a view still holds.

use std::collections::BTreeSet;

use bytes::Bytes;
use discovery::{
    Error, LeaseId, Result,
    kv::{Key, Op, Txn},
};
use zookeeper_client as zk;

use super::{
    Reader,
    view::{Node, View},
};
use crate::{
    error::Trouble,
    path::{Layout, Stripe, keys_of},
    session::Session,
};

/// A multi being put together.
pub(super) struct Multi<'s> {
    reader: &'s Reader,
    session: &'s Session,
    txn: &'s Txn,
    view: &'s View,
    writer: zk::MultiWriter<'s>,
    steps: Vec<Step>,
    /// The stripes of the keys that come to be.
    counted: BTreeSet<Stripe>,
}

/// What a part of a multi does, for who reads the results.
#[derive(Debug)]
pub(super) enum Step {
    /// Creates the entry.
    Create(Key),
    /// Writes the entry in place.
    Set(Key),
    /// Deletes the entry.
    Delete(Key),
    /// Writes the stripe.
    Count(Stripe),
    /// Writes the node above the stripes.
    Clock,
    /// Checks that the stripe has this version.
    CheckCount(Stripe, i32),
    /// Changes nothing that matters later.
    Other,
}

impl Step {
    /// The node that it writes in place, if it does.
    pub(super) fn witness(&self, layout: &Layout) -> Option<String> {
        match self {
            Self::Count(stripe) => Some(layout.stripe_node(*stripe)),
            Self::Clock => Some(layout.epoch_node()),
            Self::Set(key) => Some(layout.node(key)),
            Self::Create(_) | Self::Delete(_) | Self::CheckCount(..) | Self::Other => None,
        }
    }
}

impl<'s> Multi<'s> {
    pub(super) fn new(
        reader: &'s Reader,
        session: &'s Session,
        txn: &'s Txn,
        view: &'s View,
    ) -> Result<Self> {
        let writer = session.client().new_multi_writer();
        let mut multi =
            Self { reader, session, txn, view, writer, steps: Vec::new(), counted: BTreeSet::new() };
        for op in txn.ops() {
            match op {
                Op::Put { key, value, lease } => multi.put(key, value, *lease)?,
                Op::Delete(key) => multi.delete(key)?,
            }
        }
        let written: BTreeSet<_> = txn.ops().iter().map(Op::key).collect();
        for guard in txn.guards() {
            // What is written is checked by the writing; what is absent, by its stripe.
            if let (false, Some(node)) = (written.contains(guard.key()), view.nodes.get(guard.key())) {
                let path = reader.layout().node(guard.key());
                multi.step(Step::Other, |writer| writer.add_check_version(&path, node.version))?;
            }
        }
        for stripe in keys_of(txn).into_iter().map(Stripe::of).collect::<BTreeSet<_>>() {
            let (path, version) = (reader.layout().stripe_node(stripe), view.stripes.get(&stripe).copied());
            if multi.counted.contains(&stripe) {
                multi.step(Step::Count(stripe), |writer| writer.add_set_data(&path, b"", version))?;
            } else if let Some(version) = version {
                let check = Step::CheckCount(stripe, version);
                multi.step(check, |writer| writer.add_check_version(&path, version))?;
            }
        }
        if multi.steps.iter().any(|step| matches!(step, Step::Delete(_))) {
            // Tells the zxid, which a deletion does not. Nobody checks the version of this node.
            let path = reader.layout().epoch_node();
            multi.step(Step::Clock, |writer| writer.add_set_data(&path, b"", None))?;
        }
        Ok(multi)
    }

    /// Sends it; the results are those of the steps.
    pub(super) fn send(
        mut self,
    ) -> (Vec<Step>, impl Future<Output = Result<Vec<zk::MultiWriteResult>, zk::MultiWriteError>> + 's) {
        (self.steps, self.writer.commit())
    }

    fn put(&mut self, key: &Key, value: &Bytes, lease: Option<LeaseId>) -> Result<()> {
        let path = self.reader.layout().node(key);
        let (owner, mode) = match lease {
            Some(_) => (self.session.id(), zk::CreateMode::Ephemeral),
            None => (0, zk::CreateMode::Persistent),
        };
        let options = mode.with_acls(self.reader.config().acl());
        let is_above_others = self.view.is_above_others(key, self.txn);
        match self.view.nodes.get(key) {
            Some(Node { is_entry: true, owner: present, version, .. }) if *present == owner => {
                return self.set(key, &path, value, *version);
            }
            None => {}
            // Another owner, or a directory so far: a node of the right kind takes its place, in one step.
            Some(Node { version, .. }) if !is_above_others => {
                self.step(Step::Other, |writer| writer.add_delete(&path, Some(*version)))?;
            }
            Some(_) if lease.is_some() => {
                return Err(Error::invalid(format!(
                    "{key} has keys below it and cannot be leased: ZooKeeper's ephemeral nodes have no children"
                )));
            }
            Some(Node { version, .. }) => {
                self.counted.insert(Stripe::of(key));
                self.set(key, &path, value, *version)?;
                if !self.view.kept.contains(key) {
                    // The directory may be a container, which would be reaped with its last child, data or not.
                    let keep = self.reader.layout().keep_node(key);
                    self.step(Step::Other, |writer| writer.add_create(&keep, b"", &options))?;
                }
                return Ok(());
            }
        }
        self.counted.insert(Stripe::of(key));
        self.step(Step::Create(key.clone()), |writer| writer.add_create(&path, value, &options))
    }

    fn set(&mut self, key: &Key, path: &str, value: &Bytes, version: i32) -> Result<()> {
        self.step(Step::Set(key.clone()), |writer| writer.add_set_data(path, value, Some(version)))
    }

    fn delete(&mut self, key: &Key) -> Result<()> {
        let Some(node) = self.view.nodes.get(key).filter(|node| node.is_entry) else { return Ok(()) };
        let path = self.reader.layout().node(key);
        let is_above_others = self.view.is_above_others(key, self.txn);
        self.step(Step::Delete(key.clone()), |writer| {
            if is_above_others {
                // The directory stays, the entry goes.
                writer.add_set_data(&path, b"", Some(node.version))
            } else {
                writer.add_delete(&path, Some(node.version))
            }
        })
    }

    fn step(
        &mut self,
        step: Step,
        add: impl FnOnce(&mut zk::MultiWriter<'s>) -> Result<(), zk::Error>,
    ) -> Result<()> {
        add(&mut self.writer).map_err(Trouble::from)?;
        self.steps.push(step);
        Ok(())
    }
}
