//! The way of a transaction to the server.

use std::sync::Arc;

use discovery::{Result, Revision, kv::Txn};
use tokio::{sync::Semaphore, time::Instant};
use zookeeper_client as zk;

use super::{
    Reader, answers,
    memory::{Memory, zxid},
    multi::Multi,
    reader::acquire,
    view::View,
};
use crate::{
    error::Trouble,
    path::{Stripe, keys_of},
    session::{Session, revision},
};

/// A session to write through, and who takes note of what was written.
#[derive(Clone)]
pub(super) struct Line {
    pub(super) reader: Arc<Reader>,
    pub(super) memory: Arc<Memory>,
    pub(super) session: Arc<Session>,
    /// The session that entries will belong to; 0 for permanent ones.
    pub(super) owner: i64,
    /// One at a time makes missing directories, or each of many writers would make all of them.
    pub(super) making: Arc<Semaphore>,
}

impl Line {
    /// Sends the multi that does what a transaction says, provided that the view still holds.
    ///
    /// # Errors
    ///
    /// The outer one says that it was not sent.
    pub(super) async fn send(
        &self,
        txn: &Txn,
        view: &View,
        deadline: Instant,
    ) -> Result<Result<Revision, Trouble>> {
        let Self { reader, memory, session, owner, .. } = self;
        let known = reader.horizon().zxid();
        let (steps, answer) = Multi::new(reader, session, txn, view)?.send();
        let results = match session.call(deadline, answer).await {
            Ok(results) => results,
            Err(trouble) => return Ok(Err(trouble)),
        };
        // If nothing had to be written, all is as it was at the latest revision that we knew.
        let zxid = zxid(&results).unwrap_or(known);
        match steps.iter().find_map(|step| step.witness(reader.layout())) {
            Some(node) => session.has_written(zxid, node, reader.horizon()),
            None => session.has_applied(zxid, reader.horizon()),
        }
        memory.learn(steps, &results, *owner);
        Ok(Ok(revision(zxid)))
    }

    /// Creates what a transaction needs and does not find: the chroot, the stripes, the directories of its keys.
    pub(super) async fn make_missing(&self, txn: &Txn, deadline: Instant) -> Result<()> {
        let _turn = acquire(&self.making, deadline).await?;
        let session = &*self.session;
        let failed = |trouble| session.failed(trouble).not_applied();
        let (layout, keys) = (self.reader.layout(), keys_of(txn));
        let permanent = |node| (node, zk::CreateMode::Persistent);
        let top = layout.chroot_nodes().map(str::to_owned).chain([layout.epoch_node()]).map(permanent);
        let directories = layout.directories(keys.iter().copied());
        let directories = directories.into_iter().map(|node| (node, zk::CreateMode::Container));
        let needed: Vec<_> = top.chain(directories).collect();
        let stripes: Vec<_> = keys.into_iter().map(|key| layout.stripe_node(Stripe::of(key))).collect();

        // Looked for first: to create what exists may be denied where its parent is not ours.
        let nodes = needed.iter().map(|(node, _)| node).chain(&stripes);
        let asked = nodes.map(|node| session.client().check_stat(node)).collect();
        let mut found = answers(session, deadline, asked).await.into_iter();
        let mut missing = Vec::new();
        for (node, found) in needed.into_iter().zip(found.by_ref()) {
            if found.map_err(failed)?.is_none() {
                missing.push(node);
            }
        }
        if found.any(|found| matches!(found, Ok(None))) {
            // The first write under a new chroot: make them all while we are at it.
            missing.extend(Stripe::all().map(|stripe| permanent(layout.stripe_node(stripe))));
        }
        let acl = self.reader.config().acl();
        let created =
            missing.iter().map(|(node, mode)| session.client().create(node, b"", &mode.with_acls(acl)));
        for created in answers(session, deadline, created.collect()).await {
            match created {
                // Somebody else was faster, or the server has just reaped what is above: the next attempt will see.
                Ok(_) | Err(Trouble::Client(zk::Error::NodeExists | zk::Error::NoNode)) => {}
                Err(trouble) => return Err(failed(trouble)),
            }
        }
        Ok(())
    }
}
