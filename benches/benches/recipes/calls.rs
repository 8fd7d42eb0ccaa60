//! What is asked of a backend, counted.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use discovery::{
    Backend, Grant, Info, LeaseId, Leases, Registrar, Result, Revision, Scope, Snapshot, Updates,
    kv::{Entry, Key, Kv, KvUpdates, Range, Scan, Txn},
    layer::Layer,
};
use futures_util::StreamExt;

/// How often what was asked; clones count together. What watches deliver counts as `item`. Renewals do not count: they come
/// with time.
#[derive(Clone, Debug, Default)]
pub(crate) struct Calls(Arc<Mutex<Counts>>);

type Counts = BTreeMap<&'static str, usize>;

impl Calls {
    /// Everything since the last time.
    pub(crate) fn take(&self) -> Counts {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// How many reads and writes that are by now, without what watches do.
    pub(crate) fn reads_and_writes(&self) -> usize {
        let counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        counts
            .iter()
            .filter(|(operation, _)| !["item", "watch"].contains(operation))
            .map(|(_, count)| count)
            .sum()
    }

    fn count(&self, operation: &'static str) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(operation).or_default() += 1;
    }
}

/// What single rounds took.
#[derive(Debug, Default)]
pub(crate) struct Costs(Vec<Counts>);

impl Costs {
    pub(crate) fn add(&mut self, round: Counts) {
        self.0.push(round);
    }
}

/// The median of the rounds, and the worst if that is another.
impl fmt::Display for Costs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let operations: BTreeSet<_> = self.0.iter().flat_map(BTreeMap::keys).collect();
        operations.into_iter().try_for_each(|operation| {
            let counts = self.0.iter().map(|round| round.get(operation).copied().unwrap_or_default());
            let mut counts: Vec<_> = counts.collect();
            counts.sort_unstable();
            let (median, most) = (counts[counts.len() / 2], counts[counts.len() - 1]);
            write!(f, " {operation} {median}")?;
            if most == median { Ok(()) } else { write!(f, " (once {most})") }
        })
    }
}

impl Layer for Calls {
    fn wrap(&self, inner: Arc<dyn Backend>) -> Arc<dyn Backend> {
        Arc::new(Counted { inner, calls: self.clone() })
    }
}

#[derive(Debug)]
struct Counted {
    inner: Arc<dyn Backend>,
    calls: Calls,
}

impl Counted {
    fn inner_kv(&self) -> &dyn Kv {
        self.inner.kv().expect("a store with keys")
    }

    fn inner_leases(&self) -> &dyn Leases {
        self.inner.leases().expect("a store with leases")
    }
}

#[async_trait]
impl Backend for Counted {
    fn info(&self) -> &Info {
        self.inner.info()
    }

    async fn fetch(&self, scope: &Scope) -> Result<Snapshot> {
        self.inner.fetch(scope).await
    }

    fn watch(&self, scope: &Scope, after: Option<Revision>) -> Updates {
        self.inner.watch(scope, after)
    }

    fn registrar(&self) -> Option<&dyn Registrar> {
        self.inner.registrar()
    }

    fn leases(&self) -> Option<&dyn Leases> {
        Some(self)
    }

    fn kv(&self) -> Option<&dyn Kv> {
        Some(self)
    }
}

#[async_trait]
impl Leases for Counted {
    async fn grant(&self, ttl: Duration) -> Result<Grant> {
        self.calls.count("grant");
        self.inner_leases().grant(ttl).await
    }

    async fn renew(&self, id: LeaseId) -> Result<Duration> {
        self.inner_leases().renew(id).await
    }

    async fn revoke(&self, id: LeaseId) -> Result<()> {
        self.calls.count("revoke");
        self.inner_leases().revoke(id).await
    }
}

#[async_trait]
impl Kv for Counted {
    async fn get(&self, key: &Key) -> Result<Option<Entry>> {
        self.calls.count("get");
        self.inner_kv().get(key).await
    }

    async fn scan(&self, range: &Range) -> Result<Scan> {
        self.calls.count("scan");
        self.inner_kv().scan(range).await
    }

    async fn commit(&self, txn: Txn) -> Result<Revision> {
        self.calls.count("commit");
        self.inner_kv().commit(txn).await
    }

    fn watch(&self, range: &Range, after: Option<Revision>) -> KvUpdates {
        self.calls.count("watch");
        let calls = self.calls.clone();
        self.inner_kv().watch(range, after).inspect(move |_| calls.count("item")).boxed()
    }
}
