//! What is known of a scope at one moment, and how it changes.

use std::{fmt, sync::Arc};

use imbl::{OrdMap, ordmap::DiffItem};

use crate::{Instance, InstanceId, InstanceKey, ServiceName};

/// A point in the history of a backend: ordered within one watch, without meaning outside it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(pub u64);

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Which services a fetch or a watch is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// The instances of this very service.
    Service(ServiceName),
    /// The instances of this service and of every service below it.
    Subtree(ServiceName),
}

impl Scope {
    /// Every service there is.
    pub fn everything() -> Self {
        Self::Subtree(ServiceName::root())
    }

    /// The service at the top.
    pub fn service(&self) -> &ServiceName {
        match self {
            Self::Service(name) | Self::Subtree(name) => name,
        }
    }

    /// Whether instances of `service` belong to this scope.
    pub fn contains(&self, service: &ServiceName) -> bool {
        match self {
            Self::Service(name) => service == name,
            Self::Subtree(name) => service.is_under(name),
        }
    }
}

impl From<ServiceName> for Scope {
    fn from(name: ServiceName) -> Self {
        Self::Service(name)
    }
}

impl From<&ServiceName> for Scope {
    fn from(name: &ServiceName) -> Self {
        Self::Service(name.clone())
    }
}

/// The name of the service; with `/**` behind it for a subtree.
impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Service(name) => name.fmt(f),
            Self::Subtree(name) if name.is_root() => f.write_str("/**"),
            Self::Subtree(name) => write!(f, "{name}/**"),
        }
    }
}

/// One step in the history of a scope. Idempotent: a step that is already contained may come again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// The instance is there, and this is what it looks like now.
    Put(Arc<Instance>),
    /// The instance is not there any more.
    Remove(InstanceKey),
}

impl Change {
    /// The instance it is about.
    pub fn key(&self) -> &InstanceKey {
        match self {
            Self::Put(instance) => instance.key(),
            Self::Remove(key) => key,
        }
    }
}

/// What a backend's watch yields.
#[derive(Clone, Debug)]
pub enum Update {
    /// The whole scope as of now; whatever was known before is void.
    Reset(Snapshot),
    /// What happened since the last item, each step observed by the backend.
    Delta {
        /// The revision after the changes.
        revision: Revision,
        /// In commit order for each instance.
        changes: Vec<Change>,
    },
    /// Nothing happened up to this revision: proof that the backend is still there.
    Progress(Revision),
}

/// The instances of a scope at one revision, sorted by service and id.
///
/// A persistent map: a clone is O(1), a change of one of n instances O(log n) in time and memory, and snapshots share
/// what they have in common.
#[derive(Clone, Default)]
pub struct Snapshot {
    revision: Revision,
    instances: OrdMap<InstanceKey, Arc<Instance>>,
}

impl Snapshot {
    /// These instances, as of `revision`; of several with one key the last one counts.
    pub fn new(revision: Revision, instances: impl IntoIterator<Item = Arc<Instance>>) -> Self {
        let instances = instances.into_iter().map(|instance| (instance.key().clone(), instance)).collect();
        Self { revision, instances }
    }

    /// As of when.
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// How many instances there are.
    pub fn len(&self) -> usize {
        self.instances.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.instances.is_empty()
    }

    /// One instance.
    pub fn get(&self, key: &InstanceKey) -> Option<&Arc<Instance>> {
        self.instances.get(key)
    }

    /// All instances, sorted by service and id.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Instance>> {
        self.instances.values()
    }

    /// The instances of one service, sorted by id.
    pub fn of(&self, service: &ServiceName) -> impl Iterator<Item = &Arc<Instance>> {
        let first = InstanceKey::new(service.clone(), InstanceId::lowest());
        self.instances
            .range(first..)
            .take_while({
                let service = service.clone();
                move |(key, _)| *key.service() == service
            })
            .map(|(_, instance)| instance)
    }

    /// Takes the changes in, in order.
    pub fn apply(&mut self, revision: Revision, changes: &[Change]) {
        self.revision = revision;
        for change in changes {
            match change {
                Change::Put(instance) => {
                    self.instances.insert(instance.key().clone(), instance.clone());
                }
                Change::Remove(key) => {
                    self.instances.remove(key);
                }
            }
        }
    }

    /// The changes that lead from here to `newer`, sorted by key. Identity is the key *and* the incarnation, so an
    /// instance that was deleted and created anew in between comes out as a [`Change::Put`].
    ///
    /// Costs one pass over the parts that the two do not share.
    pub fn diff(&self, newer: &Self) -> Vec<Change> {
        self.instances
            .diff(&newer.instances)
            .map(|item| match item {
                DiffItem::Add(_, instance) | DiffItem::Update { new: (_, instance), .. } => {
                    Change::Put(instance.clone())
                }
                DiffItem::Remove(key, _) => Change::Remove(key.clone()),
            })
            .collect()
    }

    /// Moves on to `newer` by way of the difference, which is returned: what did not change stays shared with older
    /// clones of this snapshot instead of being held twice.
    pub fn advance(&mut self, newer: &Self) -> Vec<Change> {
        let changes = self.diff(newer);
        self.apply(newer.revision, &changes);
        changes
    }
}

/// Compares the instances; the revision, which has meaning only within one watch, does not count.
impl PartialEq for Snapshot {
    fn eq(&self, other: &Self) -> bool {
        self.instances == other.instances
    }
}

impl Eq for Snapshot {}

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Snapshot(at {}) ", self.revision)?;
        f.debug_set().entries(self.instances.keys().map(ToString::to_string)).finish()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn instance(service: &str, id: u64, weight: u32, incarnation: u64) -> Arc<Instance> {
        Instance::builder(service.parse().unwrap())
            .id(InstanceId::from_bits(id))
            .weight(weight)
            .incarnation(incarnation)
            .build()
            .map(Arc::new)
            .unwrap()
    }

    fn snapshots() -> impl Strategy<Value = Snapshot> {
        let one = (0..3_usize, 0..20_u64, 0..3_u32, 0..2_u64)
            .prop_map(|(s, id, weight, life)| instance(["a", "a-b", "a/b"][s], id, weight, life));
        prop::collection::vec(one, 0..40).prop_map(|all| Snapshot::new(Revision(1), all))
    }

    proptest! {
        #[test]
        fn applying_the_difference_leads_to_the_newer(old in snapshots(), new in snapshots()) {
            let mut moved = old.clone();
            let changes = moved.advance(&new);
            prop_assert_eq!(&moved, &new);
            moved.apply(new.revision(), &changes);
            prop_assert_eq!(moved, new, "changes are idempotent");
        }

        #[test]
        fn of_lists_one_service_only(all in snapshots()) {
            let service: ServiceName = "a".parse().unwrap();
            let expected: Vec<_> = all.iter().filter(|i| *i.service() == service).cloned().collect();
            prop_assert_eq!(all.of(&service).cloned().collect::<Vec<_>>(), expected);
        }
    }

    #[test]
    fn another_incarnation_is_a_change() {
        let old = Snapshot::new(Revision(1), [instance("a", 1, 1, 1)]);
        let new = Snapshot::new(Revision(2), [instance("a", 1, 1, 2)]);
        assert_eq!(old.diff(&new).len(), 1);
    }

    #[test]
    fn a_subtree_contains_its_top_and_what_is_below() {
        let scope = Scope::Subtree("a/b".parse().unwrap());
        assert!(scope.contains(&"a/b".parse().unwrap()));
        assert!(scope.contains(&"a/b/c".parse().unwrap()));
        assert!(!scope.contains(&"a".parse().unwrap()));
        assert!(Scope::everything().contains(&"a".parse().unwrap()));
    }
}
