//! What this handle wrote last, so that to change it again takes no look.
//!
//! A multi that wrote an entry also wrote or checked its stripe, so at one moment the entry had one version and the
//! stripe another. As long as the stripe has that version, nobody has created the entry anew, and the entry's version
//! tells whether somebody has written it: the argument of [`store`](super), with the multi in the place of the look.
//! A memory that is out of date costs a failed multi, never a wrong one; so what is known to be out of date is not
//! used.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Mutex, MutexGuard, PoisonError},
};

use discovery::kv::{Guard, Key, Op, Txn};
use zookeeper_client as zk;

use super::{
    multi::Step,
    view::{Node, View},
};
use crate::{path::Stripe, session::revision};

/// How many entries are remembered; with one more, all are forgotten.
const ENTRIES: usize = 4096;

/// The memory of one handle. A cache: written by whoever has committed or looked, read by whoever commits.
#[derive(Debug, Default)]
pub(super) struct Memory(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// The latest version of each stripe that was met.
    stripes: BTreeMap<Stripe, i32>,
    /// Entries, each with the version of its stripe at which it was so.
    entries: HashMap<Key, (Node, i32)>,
}

impl Memory {
    /// A view for a transaction that changes one entry of `owner` which this handle wrote last.
    pub(super) fn recall(&self, txn: &Txn, owner: i64) -> Option<View> {
        let ([Guard::Unmodified(guarded, revision)], [Op::Put { key, .. }]) = (txn.guards(), txn.ops())
        else {
            return None;
        };
        let (state, stripe) = (self.lock(), Stripe::of(key));
        let (node, version) = state.entries.get(key)?;
        let fits = guarded == key && node.modified == *revision && node.owner == owner;
        let is_current = state.stripes.get(&stripe) == Some(version);
        (fits && is_current).then(|| View {
            stripes: [(stripe, *version)].into(),
            nodes: [(key.clone(), *node)].into(),
            ..View::default()
        })
    }

    /// Notes the versions of stripes.
    pub(super) fn note(&self, stripes: &BTreeMap<Stripe, i32>) {
        let mut state = self.lock();
        for (stripe, version) in stripes {
            state.note(*stripe, *version);
        }
    }

    /// Remembers what a multi has done.
    pub(super) fn learn(&self, steps: Vec<Step>, results: &[zk::MultiWriteResult], owner: i64) {
        let stripes: BTreeMap<_, _> = steps.iter().zip(results).filter_map(counted).collect();
        let zxid = zxid(results);
        let mut state = self.lock();
        for (stripe, version) in &stripes {
            state.note(*stripe, *version);
        }
        for (step, result) in steps.into_iter().zip(results) {
            let (key, node) = match (step, result) {
                (Step::Set(key), zk::MultiWriteResult::SetData { stat }) => (key, Some(Node::from(*stat))),
                (Step::Create(key), _) => (key, zxid.map(|zxid| created(zxid, owner))),
                (Step::Delete(key), _) => (key, None),
                _ => continue,
            };
            match (node, stripes.get(&Stripe::of(&key))) {
                (Some(node), Some(version)) => state.remember(key, node, *version),
                _ => drop(state.entries.remove(&key)),
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A cache half-changed by a panic is a cache still.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn note(&mut self, stripe: Stripe, version: i32) {
        let latest = self.stripes.entry(stripe).or_insert(version);
        *latest = version.max(*latest);
    }

    fn remember(&mut self, key: Key, node: Node, version: i32) {
        if self.entries.len() >= ENTRIES {
            self.entries.clear();
        }
        self.entries.insert(key, (node, version));
    }
}

/// The zxid of a multi, if it wrote anything: all its writes have the same.
pub(super) fn zxid(results: &[zk::MultiWriteResult]) -> Option<i64> {
    results.iter().find_map(|result| match result {
        zk::MultiWriteResult::SetData { stat } => Some(stat.mzxid),
        _ => None,
    })
}

/// The version that a stripe has after a multi.
fn counted((step, result): (&Step, &zk::MultiWriteResult)) -> Option<(Stripe, i32)> {
    match (step, result) {
        (Step::Count(stripe), zk::MultiWriteResult::SetData { stat }) => Some((*stripe, stat.version)),
        (Step::CheckCount(stripe, version), _) => Some((*stripe, *version)),
        _ => None,
    }
}

/// A node that a multi has created: servers before 3.9 do not tell its stat.
fn created(zxid: i64, owner: i64) -> Node {
    let zxid = revision(zxid);
    Node { created: zxid, modified: zxid, version: 0, owner, is_entry: true, has_children: false }
}
