//! What a transaction is about, as it was read or as it is remembered.

use std::collections::{BTreeMap, BTreeSet};

use discovery::{
    Revision,
    kv::{Guard, Key, Op, Txn},
};
use futures_util::future::try_join_all;
use tokio::time::Instant;
use zookeeper_client as zk;

use super::Reader;
use crate::{
    error::Trouble,
    path::{Stripe, keys_of},
    session::{AsOf, Session, revision},
};

/// The nodes of a transaction's keys, and the versions of their stripes.
#[derive(Debug, Default)]
pub(super) struct View {
    /// The versions of the stripes; empty if nothing was read, in the hope that no key exists.
    pub(super) stripes: BTreeMap<Stripe, i32>,
    /// The nodes that exist.
    pub(super) nodes: BTreeMap<Key, Node>,
    /// The keys whose directory has a child that keeps it.
    pub(super) kept: BTreeSet<Key>,
}

/// A node that exists.
#[derive(Clone, Copy, Debug)]
pub(super) struct Node {
    pub(super) created: Revision,
    pub(super) modified: Revision,
    /// Of its data; starts at 0 whenever the node is created.
    pub(super) version: i32,
    /// The session that it lives with; 0 for none.
    pub(super) owner: i64,
    pub(super) is_entry: bool,
    pub(super) has_children: bool,
}

impl From<zk::Stat> for Node {
    fn from(stat: zk::Stat) -> Self {
        Self {
            created: revision(stat.czxid),
            modified: revision(stat.mzxid),
            version: stat.version,
            owner: stat.ephemeral_owner,
            is_entry: stat.data_length > 0,
            has_children: stat.num_children > 0,
        }
    }
}

impl View {
    /// Whether a guard holds in it.
    pub(super) fn confirms(&self, guard: &Guard) -> bool {
        let entry = self.nodes.get(guard.key()).filter(|node| node.is_entry);
        match guard {
            Guard::Absent(_) => entry.is_none(),
            Guard::Unmodified(_, revision) => entry.is_some_and(|entry| entry.modified == *revision),
            Guard::Alive(_, revision) => entry.is_some_and(|entry| entry.created == *revision),
        }
    }

    /// Whether there are keys below one when a transaction reaches it, or may be.
    pub(super) fn is_above_others(&self, key: &Key, txn: &Txn) -> bool {
        let puts_below = |op: &Op| matches!(op, Op::Put { .. }) && op.key().below(key).is_some();
        self.nodes.get(key).is_some_and(|node| node.has_children) || txn.ops().iter().any(puts_below)
    }

    /// Whether an operation makes a permanent entry of a directory that stays one.
    fn fills_directory(&self, op: &Op, txn: &Txn) -> bool {
        matches!(op, Op::Put { lease: None, .. })
            && self.nodes.get(op.key()).is_some_and(|node| !node.is_entry)
            && self.is_above_others(op.key(), txn)
    }
}

impl Reader {
    /// Reads the stripes of a transaction and then its keys, in one flight. `None` if a stripe does not exist yet.
    pub(super) async fn look(
        &self,
        session: &Session,
        txn: &Txn,
        deadline: Instant,
        as_of: AsOf,
    ) -> Result<Option<View>, Trouble> {
        let keys = keys_of(txn);
        let stripes: BTreeSet<_> = keys.iter().map(|key| Stripe::of(key)).collect();
        let nodes = stripes.iter().map(|stripe| self.layout().stripe_node(*stripe));
        let nodes: Vec<_> = nodes.chain(keys.iter().map(|key| self.layout().node(key))).collect();
        // All are sent when they are called, so the stripes are read first.
        let ask = || try_join_all(nodes.iter().map(|node| session.client().check_stat(node)));
        let mut stats = session.read(deadline, as_of, self.horizon(), ask).await?.into_iter();
        let mut view = View::default();
        for (stripe, stat) in stripes.into_iter().zip(stats.by_ref()) {
            let Some(stat) = stat else { return Ok(None) };
            view.stripes.insert(stripe, stat.version);
        }
        for (key, stat) in keys.into_iter().zip(stats) {
            if let Some(stat) = stat {
                session.has_applied(stat.czxid.max(stat.mzxid).max(stat.pzxid), self.horizon());
                view.nodes.insert(key.clone(), Node::from(stat));
            }
        }
        for op in txn.ops() {
            if view.fills_directory(op, txn) {
                let keep = self.layout().keep_node(op.key());
                if session.call(deadline, session.client().check_stat(&keep)).await?.is_some() {
                    view.kept.insert(op.key().clone());
                }
            }
        }
        Ok(Some(view))
    }
}
