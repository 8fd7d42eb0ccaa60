//! Several worlds in one store.
#![deny(clippy::missing_trait_methods)]

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use futures_util::StreamExt;

use super::{
    Layer,
    around::{facet, failed},
};
use crate::{
    Backend, Change, Claim, Error, Info, Instance, InstanceKey, Leases, Owner, Registrar, Result, Revision,
    Scope, ServiceName, Snapshot, Update, Updates,
    kv::{Entry, Guard, Key, Kv, KvChange, KvUpdate, KvUpdates, Op, Range, Scan, Txn},
};

/// Moves everything below a name: what the program calls `cart` is `blue/cart` in the store.
///
/// Programs with different prefixes share a store without seeing each other, unless one prefix is under the other.
/// Services, instances, keys and ranges are moved on the way in and back on the way out; revisions, leases and owners
/// pass as they are, and error messages name things as the store does. A name or a key that would grow too long is
/// refused with [`ErrorKind::Invalid`](crate::ErrorKind::Invalid).
///
/// # Example: two tenants
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> discovery::Result<()> {
/// use discovery::{Discovery, Instance, ServiceName, layer::Prefix, mem::Mem};
///
/// let store = Mem::new();
/// let blue = Discovery::new(store.clone()).layer(Prefix::new("blue".parse()?));
/// let green = Discovery::new(store.clone()).layer(Prefix::new("green".parse()?));
///
/// let database: ServiceName = "database".parse()?;
/// let registration = blue.register(Instance::builder(database.clone()).build()?).await?;
/// assert_eq!(blue.lookup(&database).await?.len(), 1);
/// assert_eq!(green.lookup(&database).await?.len(), 0);
/// assert_eq!(Discovery::new(store).lookup(&"blue/database".parse()?).await?.len(), 1);
/// # drop(registration);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct Prefix(ServiceName);

impl Prefix {
    /// Everything below `name`; the root changes nothing.
    pub fn new(name: ServiceName) -> Self {
        Self(name)
    }
}

impl Layer for Prefix {
    fn wrap(&self, inner: Arc<dyn Backend>) -> Arc<dyn Backend> {
        Arc::new(Prefixed { mapping: Mapping(self.0.clone()), inner })
    }
}

/// `inner` as seen from below the prefix.
struct Prefixed {
    mapping: Mapping,
    inner: Arc<dyn Backend>,
}

#[async_trait]
impl Backend for Prefixed {
    fn info(&self) -> &Info {
        self.inner.info()
    }

    async fn fetch(&self, scope: &Scope) -> Result<Snapshot> {
        let snapshot = self.inner.fetch(&self.mapping.scope(scope)?).await?;
        Ok(self.mapping.way_back().snapshot(&snapshot))
    }

    fn watch(&self, scope: &Scope, after: Option<Revision>) -> Updates {
        let scope = match self.mapping.scope(scope) {
            Ok(scope) => scope,
            Err(error) => return failed(error),
        };
        let mut way_back = self.mapping.way_back();
        self.inner.watch(&scope, after).map(move |item| item.map(|update| way_back.update(update))).boxed()
    }

    fn registrar(&self) -> Option<&dyn Registrar> {
        self.inner.registrar().map(|_| self as _)
    }

    fn leases(&self) -> Option<&dyn Leases> {
        self.inner.leases()
    }

    fn kv(&self) -> Option<&dyn Kv> {
        self.inner.kv().map(|_| self as _)
    }
}

#[async_trait]
impl Registrar for Prefixed {
    async fn put(&self, instance: &Instance, claim: &Claim) -> Result<Revision> {
        let moved = instance.in_service(self.mapping.service(instance.service())?);
        facet(self.inner.registrar())?.put(&moved, claim).await
    }

    async fn remove(&self, key: &InstanceKey, owner: Option<&Owner>) -> Result<bool> {
        let moved = InstanceKey::new(self.mapping.service(key.service())?, key.id().clone());
        facet(self.inner.registrar())?.remove(&moved, owner).await
    }
}

#[async_trait]
impl Kv for Prefixed {
    async fn get(&self, key: &Key) -> Result<Option<Entry>> {
        if key.is_root() {
            // Holds no value, whatever the store has where the prefix ends.
            return Ok(None);
        }
        let entry = facet(self.inner.kv())?.get(&self.mapping.key(key)?).await?;
        Ok(entry.map(|entry| Entry { key: key.clone(), ..entry }))
    }

    async fn scan(&self, range: &Range) -> Result<Scan> {
        let scan = facet(self.inner.kv())?.scan(&self.mapping.range(range)?).await?;
        Ok(self.mapping.scan_back(scan))
    }

    async fn commit(&self, txn: Txn) -> Result<Revision> {
        facet(self.inner.kv())?.commit(self.mapping.txn(txn)?).await
    }

    fn watch(&self, range: &Range, after: Option<Revision>) -> KvUpdates {
        let moved = self.mapping.range(range).and_then(|range| Ok((facet(self.inner.kv())?, range)));
        let (inner, range) = match moved {
            Ok(moved) => moved,
            Err(error) => return failed(error),
        };
        let mapping = self.mapping.clone();
        inner.watch(&range, after).map(move |item| item.map(|update| mapping.update_back(update))).boxed()
    }
}

impl fmt::Debug for Prefixed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Prefix({}) over {:?}", self.mapping.0, self.inner)
    }
}

/// Names and keys, there and back.
#[derive(Clone)]
struct Mapping(ServiceName);

impl Mapping {
    fn service(&self, name: &ServiceName) -> Result<ServiceName> {
        ServiceName::from_labels(self.0.labels().chain(name.labels()))
            .map_err(|error| self.too_long(&name, &error))
    }

    fn scope(&self, scope: &Scope) -> Result<Scope> {
        match scope {
            // Would become the service that is called like the prefix, which is none of ours.
            Scope::Service(name) if name.is_root() => Ok(scope.clone()),
            Scope::Service(name) => self.service(name).map(Scope::Service),
            Scope::Subtree(name) => self.service(name).map(Scope::Subtree),
        }
    }

    fn key(&self, key: &Key) -> Result<Key> {
        let top = self.top()?;
        if key.is_root() {
            return Ok(top);
        }
        top.join(key.as_str()).map_err(|error| self.too_long(&key, &error))
    }

    fn range(&self, range: &Range) -> Result<Range> {
        Ok(match range {
            // Would become the key that is called like the prefix, which is none of ours.
            Range::Key(only) if only.is_root() => range.clone(),
            Range::Key(only) => Range::Key(self.key(only)?),
            Range::Children(top) => Range::Children(self.key(top)?),
            Range::Subtree(top) => Range::Subtree(self.key(top)?),
        })
    }

    fn txn(&self, txn: Txn) -> Result<Txn> {
        // Before the keys are moved: what the store would find wrong with the root, it no longer sees.
        txn.check(usize::MAX)?;
        let mut moved = Txn::new();
        for guard in txn.guards() {
            let key = self.key(guard.key())?;
            moved = moved.guard(match guard {
                Guard::Absent(_) => Guard::Absent(key),
                Guard::Unmodified(_, revision) => Guard::Unmodified(key, *revision),
                Guard::Alive(_, revision) => Guard::Alive(key, *revision),
            });
        }
        for op in txn.into_ops() {
            let key = self.key(op.key())?;
            moved = moved.op(match op {
                Op::Put { value, lease, .. } => Op::Put { key, value, lease },
                Op::Delete(_) => Op::Delete(key),
            });
        }
        Ok(moved)
    }

    fn top(&self) -> Result<Key> {
        if self.0.is_root() { Ok(Key::root()) } else { self.0.path().parse() }
    }

    fn too_long(&self, what: &dyn fmt::Display, error: &Error) -> Error {
        Error::invalid(format!("{what} under the prefix {}: {error}", self.0))
    }

    fn way_back(&self) -> WayBack {
        WayBack { mapping: self.clone(), last: None }
    }

    /// `None` for what is not below the prefix.
    fn key_back(&self, key: &Key) -> Option<Key> {
        key.below(&self.top().ok()?)?.parse().ok()
    }

    fn entry_back(&self, entry: Entry) -> Option<Entry> {
        Some(Entry { key: self.key_back(&entry.key)?, ..entry })
    }

    fn scan_back(&self, scan: Scan) -> Scan {
        let entries = scan.entries.into_iter().filter_map(|entry| self.entry_back(entry)).collect();
        Scan { revision: scan.revision, entries }
    }

    fn update_back(&self, update: KvUpdate) -> KvUpdate {
        match update {
            KvUpdate::Reset(scan) => KvUpdate::Reset(self.scan_back(scan)),
            KvUpdate::Delta { revision, changes } => {
                let back = |change| match change {
                    KvChange::Put(entry) => self.entry_back(entry).map(KvChange::Put),
                    KvChange::Delete(key) => self.key_back(&key).map(KvChange::Delete),
                };
                KvUpdate::Delta { revision, changes: changes.into_iter().filter_map(back).collect() }
            }
            KvUpdate::Progress(revision) => KvUpdate::Progress(revision),
        }
    }
}

/// Moves instances back; what is not below the prefix is left out.
struct WayBack {
    mapping: Mapping,
    /// The last service and what it is to us: neighbours mostly share it, and then they share one allocation as well.
    last: Option<(ServiceName, ServiceName)>,
}

impl WayBack {
    fn update(&mut self, update: Update) -> Update {
        match update {
            Update::Reset(snapshot) => Update::Reset(self.snapshot(&snapshot)),
            Update::Delta { revision, changes } => {
                let changes = changes.into_iter().filter_map(|change| self.change(change)).collect();
                Update::Delta { revision, changes }
            }
            Update::Progress(revision) => Update::Progress(revision),
        }
    }

    fn snapshot(&mut self, snapshot: &Snapshot) -> Snapshot {
        Snapshot::new(snapshot.revision(), snapshot.iter().filter_map(|instance| self.instance(instance)))
    }

    fn change(&mut self, change: Change) -> Option<Change> {
        match change {
            Change::Put(instance) => self.instance(&instance).map(Change::Put),
            Change::Remove(key) => {
                let service = self.service(key.service())?;
                Some(Change::Remove(InstanceKey::new(service, key.id().clone())))
            }
        }
    }

    fn instance(&mut self, instance: &Instance) -> Option<Arc<Instance>> {
        let service = self.service(instance.service())?;
        Some(Arc::new(instance.in_service(service)))
    }

    fn service(&mut self, there: &ServiceName) -> Option<ServiceName> {
        if let Some((known, here)) = &self.last
            && known == there
        {
            return Some(here.clone());
        }
        let Mapping(prefix) = &self.mapping;
        // The prefix itself would be the root, which holds no instances.
        if there == prefix || !there.is_under(prefix) {
            return None;
        }
        let here = ServiceName::from_labels(there.labels().skip(prefix.labels().count())).ok()?;
        self.last = Some((there.clone(), here.clone()));
        Some(here)
    }
}
