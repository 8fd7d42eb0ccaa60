//! Services on top of keys: the only place that knows how instances are laid out in a key-value store.
//!
//! Instance `1f` of service `eu1/prod/cart` is the key `eu1/prod/cart/1f`; its value is the record of `codec`.

use std::{error::Error as _, fmt, sync::Arc};

use async_trait::async_trait;
use futures_util::StreamExt;

use super::{Entry, Guard, Key, Kv, KvChange, KvUpdate, Op, Range, Store, Txn};
use crate::{
    Backend, Change, Claim, Error, ErrorKind, Info, Instance, InstanceKey, Leases, OnConflict, Owner,
    Registrar, Result, Revision, Scope, ServiceName, Snapshot, Update, backend::Updates, codec,
};

/// How often a write starts over because somebody else wrote in between, before it reports the conflict.
const ATTEMPTS: usize = 5;

/// Makes a [`Backend`] with all facets of any [`Store`].
pub struct KvBackend<S> {
    store: Arc<S>,
    info: Info,
}

impl<S: Store> KvBackend<S> {
    /// The backend on `store`, described by `info`.
    pub fn new(store: S, info: Info) -> Self {
        Self { store: Arc::new(store), info }
    }

    /// The store underneath.
    pub fn store(&self) -> &Arc<S> {
        &self.store
    }
}

#[async_trait]
impl<S: Store> Backend for KvBackend<S> {
    fn info(&self) -> &Info {
        &self.info
    }

    async fn fetch(&self, scope: &Scope) -> Result<Snapshot> {
        let scan = self.store.scan(&range(scope)?).await?;
        Ok(Decoder::new(&self.info, scope).snapshot(scan.revision, scan.entries))
    }

    fn watch(&self, scope: &Scope, after: Option<Revision>) -> Updates {
        let range = match range(scope) {
            Ok(range) => range,
            Err(error) => return futures_util::stream::once(async { Err(error) }).boxed(),
        };
        let mut decoder = Decoder::new(&self.info, scope);
        self.store.watch(&range, after).map(move |update| update.map(|update| decoder.update(update))).boxed()
    }

    fn registrar(&self) -> Option<&dyn Registrar> {
        Some(self)
    }

    fn leases(&self) -> Option<&dyn Leases> {
        Some(&*self.store)
    }

    fn kv(&self) -> Option<&dyn Kv> {
        Some(&*self.store)
    }
}

#[async_trait]
impl<S: Store> Registrar for KvBackend<S> {
    async fn put(&self, instance: &Instance, claim: &Claim) -> Result<Revision> {
        let key = entry_key(instance.key())?;
        let value = codec::encode(instance, &claim.owner)?;
        let max = self.info.capabilities().max_record;
        if value.len() > max {
            return Err(Error::invalid(format!(
                "the record of {} has {} bytes; at most {max} are allowed: keep metadata small",
                instance.key(),
                value.len()
            )));
        }
        let op = Op::Put { key: key.clone(), value: value.into(), lease: claim.lease };
        // The first guess costs one round trip and is nearly always right: unchanged since our last write, or new.
        let mut guard = match claim.expected {
            Some(revision) => Guard::Unmodified(key.clone(), revision),
            None => Guard::Absent(key.clone()),
        };
        for _ in 0..ATTEMPTS {
            match self.store.commit(Txn::new().guard(guard).op(op.clone())).await {
                Err(error) if error.kind() == ErrorKind::Conflict => {}
                outcome => return outcome,
            }
            guard = match self.store.get(&key).await? {
                Some(entry) => {
                    let theirs = codec::owner(&entry.value);
                    if theirs.as_ref() != Some(&claim.owner) && claim.on_conflict == OnConflict::Fail {
                        return Err(taken(&key, theirs.as_ref()));
                    }
                    Guard::Unmodified(key.clone(), entry.modified)
                }
                None => Guard::Absent(key.clone()),
            };
        }
        Err(contended(&key))
    }

    async fn remove(&self, key: &InstanceKey, owner: Option<&Owner>) -> Result<bool> {
        let key = entry_key(key)?;
        for _ in 0..ATTEMPTS {
            let Some(entry) = self.store.get(&key).await? else { return Ok(false) };
            if let Some(owner) = owner {
                let theirs = codec::owner(&entry.value);
                if theirs.as_ref() != Some(owner) {
                    return Err(taken(&key, theirs.as_ref()));
                }
            }
            match self.store.commit(Txn::new().unmodified(&entry).delete(&key)).await {
                Err(error) if error.kind() == ErrorKind::Conflict => {}
                outcome => return outcome.map(|_| true),
            }
        }
        Err(contended(&key))
    }
}

impl<S> fmt::Debug for KvBackend<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KvBackend({})", self.info)
    }
}

/// The instance that an entry stands for, for stores that show it in other forms as well, as DNS does in records of its
/// own. `None` for an entry of something else, or one that cannot be read.
pub fn instance(key: &Key, value: &[u8]) -> Option<Arc<Instance>> {
    codec::decode(&instance_key(key)?, value, Revision(0)).ok()
}

/// Turns entries into instances, for one scope.
struct Decoder {
    info: Info,
    scope: Scope,
    /// The service of the last entry: neighbours mostly share it, and then they share one allocation as well.
    service: ServiceName,
}

impl Decoder {
    fn new(info: &Info, scope: &Scope) -> Self {
        Self { info: info.clone(), service: scope.service().clone(), scope: scope.clone() }
    }

    fn update(&mut self, update: KvUpdate) -> Update {
        match update {
            KvUpdate::Reset(scan) => Update::Reset(self.snapshot(scan.revision, scan.entries)),
            KvUpdate::Delta { revision, changes } => {
                let changes = changes.into_iter().filter_map(|change| self.change(change)).collect();
                Update::Delta { revision, changes }
            }
            KvUpdate::Progress(revision) => Update::Progress(revision),
        }
    }

    fn snapshot(&mut self, revision: Revision, entries: Vec<Entry>) -> Snapshot {
        Snapshot::new(revision, entries.into_iter().filter_map(|entry| self.instance(&entry)))
    }

    fn change(&mut self, change: KvChange) -> Option<Change> {
        match change {
            KvChange::Put(entry) => match self.instance(&entry) {
                Some(instance) => Some(Change::Put(instance)),
                // What can no longer be read is not there: a fetch would not list it either.
                None => self.key(&entry.key).map(Change::Remove),
            },
            KvChange::Delete(key) => self.key(&key).map(Change::Remove),
        }
    }

    fn instance(&mut self, entry: &Entry) -> Option<Arc<Instance>> {
        let Some(key) = self.key(&entry.key) else {
            // Others may keep keys of their own above and beside the services.
            tracing::debug!(backend = %self.info, key = %entry.key, "not the key of an instance");
            return None;
        };
        let max = self.info.capabilities().max_record;
        let decoded = if entry.value.len() > max {
            Err(Error::new(
                ErrorKind::Corrupt,
                format!("{} bytes; at most {max} are read", entry.value.len()),
            ))
        } else {
            codec::decode(&key, &entry.value, entry.created)
        };
        decoded
            .inspect_err(|error| {
                let cause = error.source().map(tracing::field::display);
                tracing::warn!(backend = %self.info, key = %entry.key, %error, cause, "skipped a record");
                self.info.count_skipped();
            })
            .ok()
    }

    /// The instance that a key stands for. Another spelling of a name (upper case) is not it: two keys would then be
    /// one instance.
    fn key(&mut self, key: &Key) -> Option<InstanceKey> {
        let (parent, id) = key.as_str().rsplit_once('/')?;
        if parent != self.service.path() {
            self.service = parent.parse().ok()?;
        }
        let instance = InstanceKey::new(self.service.clone(), id.parse().ok()?);
        let canonical = self.service.path() == parent && instance.id().as_str() == id;
        (canonical && self.scope.contains(&self.service)).then_some(instance)
    }
}

/// The instance that a key stands for; another spelling of a name is not it.
fn instance_key(key: &Key) -> Option<InstanceKey> {
    let (parent, id) = key.as_str().rsplit_once('/')?;
    let instance = InstanceKey::new(parent.parse().ok()?, id.parse().ok()?);
    (instance.service().path() == parent && instance.id().as_str() == id).then_some(instance)
}

fn range(scope: &Scope) -> Result<Range> {
    let top = |name: &ServiceName| if name.is_root() { Ok(Key::root()) } else { name.path().parse() };
    match scope {
        Scope::Service(name) if name.is_root() => {
            Err(Error::invalid("the root holds no instances; watch the subtree, or name a service"))
        }
        Scope::Service(name) => top(name).map(Range::Children),
        Scope::Subtree(name) => top(name).map(Range::Subtree),
    }
}

fn entry_key(key: &InstanceKey) -> Result<Key> {
    format!("{}/{}", key.service().path(), key.id()).parse()
}

fn taken(key: &Key, owner: Option<&Owner>) -> Error {
    let owner = owner.map_or("somebody who did not sign".into(), |owner| format!("{:?}", owner.as_str()));
    let advice = "choose another id, wait for the entry to expire, or take over";
    Error::new(ErrorKind::Conflict, format!("{key} belongs to {owner}; {advice}"))
}

fn contended(key: &Key) -> Error {
    // Not a conflict: that would say that another owner has it.
    Error::new(ErrorKind::Unavailable, format!("{key} is being written all the time; try again"))
        .not_applied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_canonical_keys_of_the_scope_are_instances() {
        let info = Info::new("mem", "mem://", crate::Capabilities::default());
        let mut decoder = Decoder::new(&info, &Scope::Subtree("a".parse().unwrap()));
        let mut key = |text: &str| decoder.key(&text.parse().unwrap()).map(|key| key.to_string());
        assert_eq!(key("a/b/1"), Some("a/b/1".into()));
        assert_eq!(key("a/1"), Some("a/1".into()));
        assert_eq!(key("a/B/1"), None, "would alias a/b/1");
        assert_eq!(key("a/b/1F"), None, "would alias a/b/1f");
        assert_eq!(key("x/1"), None);
        assert_eq!(key("a"), None);
        assert_eq!(key("a/b_c/1"), None);
    }
}
