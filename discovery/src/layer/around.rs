//! The four traits of a backend, forwarded once, so that a layer is nothing but its idea.
//!
//! A layer that treats all calls alike says what it does [`Around`] one call and around one watch; [`Layered`] is the
//! backend that sends everything through it. `Prefix` changes the arguments themselves, and stands alone.
#![deny(clippy::missing_trait_methods)]

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use futures_util::stream::BoxStream;

use crate::{
    Backend, Claim, Error, ErrorKind, Grant, Info, Instance, InstanceKey, LeaseId, Leases, Owner, Registrar,
    Result, Revision, Scope, Snapshot, Updates,
    kv::{Entry, Key, Kv, KvUpdates, Range, Scan, Txn},
};

/// What a layer does around every call and every watch of the backend it wraps.
pub(super) trait Around: fmt::Debug + Send + Sync + 'static {
    /// Answers `request` to `backend`. Each call of `attempt` makes it once; none, one and several are all fine.
    fn call<T, F>(
        &self,
        backend: &dyn Backend,
        request: Request<'_>,
        attempt: impl Fn() -> F + Send + Sync,
    ) -> impl Future<Output = Result<T>> + Send
    where
        T: Send,
        F: Future<Output = Result<T>> + Send;

    /// Answers the watch `request` to `backend`, which `open` opens.
    fn stream<T: Send + 'static>(
        &self,
        backend: &dyn Backend,
        request: Request<'_>,
        open: impl FnOnce() -> BoxStream<'static, Result<T>>,
    ) -> BoxStream<'static, Result<T>>;
}

/// One call to a backend, as a layer sees it: enough to decide on and to tell of, without the values.
#[derive(Clone, Copy, Debug)]
pub(super) enum Request<'a> {
    Fetch(&'a Scope),
    Watch(&'a Scope),
    Put(&'a InstanceKey),
    Remove(&'a InstanceKey),
    Grant(Duration),
    Renew(LeaseId),
    Revoke(LeaseId),
    Get(&'a Key),
    Scan(&'a Range),
    Commit(&'a Txn),
    WatchKeys(&'a Range),
}

impl Request<'_> {
    /// The name of the operation, as errors have it.
    pub(super) fn operation(self) -> &'static str {
        match self {
            Self::Fetch(_) => "fetch",
            Self::Watch(_) => "watch",
            Self::Put(_) => "put",
            Self::Remove(_) => "remove",
            Self::Grant(_) => "grant",
            Self::Renew(_) => "renew",
            Self::Revoke(_) => "revoke",
            Self::Get(_) => "get",
            Self::Scan(_) => "scan",
            Self::Commit(_) => "commit",
            Self::WatchKeys(_) => "watch keys",
        }
    }

    /// Whether doing it twice comes to the same as doing it once. A second grant is a second lease; a second commit
    /// is what guards are there to tell from the first.
    pub(super) fn is_idempotent(self) -> bool {
        !matches!(self, Self::Grant(_) | Self::Commit(_))
    }

    /// Whether it changes entries.
    pub(super) fn is_write(self) -> bool {
        matches!(self, Self::Put(_) | Self::Remove(_) | Self::Commit(_))
    }
}

/// What it is about.
impl fmt::Display for Request<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fetch(scope) | Self::Watch(scope) => scope.fmt(f),
            Self::Put(key) | Self::Remove(key) => key.fmt(f),
            Self::Grant(ttl) => write!(f, "a lease of {ttl:?}"),
            Self::Renew(lease) | Self::Revoke(lease) => write!(f, "lease {lease}"),
            Self::Get(key) => key.fmt(f),
            Self::Scan(range) | Self::WatchKeys(range) => match range {
                Range::Key(only) => write!(f, "{only}"),
                Range::Children(top) => write!(f, "the keys one level below {top}"),
                Range::Subtree(top) => write!(f, "the keys below {top}"),
            },
            Self::Commit(txn) => match txn.ops() {
                [] => f.write_str("nothing"),
                [one] => one.key().fmt(f),
                [first, rest @ ..] => write!(f, "{} and {} more", first.key(), rest.len()),
            },
        }
    }
}

/// `inner` with `around` around everything it does. Has the facets that `inner` has.
pub(super) struct Layered<A> {
    around: A,
    inner: Arc<dyn Backend>,
}

impl<A: Around> Layered<A> {
    pub(super) fn wrap(inner: Arc<dyn Backend>, around: A) -> Arc<dyn Backend> {
        Arc::new(Self { around, inner })
    }
}

#[async_trait]
impl<A: Around> Backend for Layered<A> {
    fn info(&self) -> &Info {
        self.inner.info()
    }

    async fn fetch(&self, scope: &Scope) -> Result<Snapshot> {
        self.around.call(&*self.inner, Request::Fetch(scope), || self.inner.fetch(scope)).await
    }

    fn watch(&self, scope: &Scope, after: Option<Revision>) -> Updates {
        self.around.stream(&*self.inner, Request::Watch(scope), || self.inner.watch(scope, after))
    }

    fn registrar(&self) -> Option<&dyn Registrar> {
        self.inner.registrar().map(|_| self as _)
    }

    fn leases(&self) -> Option<&dyn Leases> {
        self.inner.leases().map(|_| self as _)
    }

    fn kv(&self) -> Option<&dyn Kv> {
        self.inner.kv().map(|_| self as _)
    }
}

#[async_trait]
impl<A: Around> Registrar for Layered<A> {
    async fn put(&self, instance: &Instance, claim: &Claim) -> Result<Revision> {
        let inner = facet(self.inner.registrar())?;
        self.around.call(&*self.inner, Request::Put(instance.key()), || inner.put(instance, claim)).await
    }

    async fn remove(&self, key: &InstanceKey, owner: Option<&Owner>) -> Result<bool> {
        let inner = facet(self.inner.registrar())?;
        self.around.call(&*self.inner, Request::Remove(key), || inner.remove(key, owner)).await
    }
}

#[async_trait]
impl<A: Around> Leases for Layered<A> {
    async fn grant(&self, ttl: Duration) -> Result<Grant> {
        let inner = facet(self.inner.leases())?;
        self.around.call(&*self.inner, Request::Grant(ttl), || inner.grant(ttl)).await
    }

    async fn renew(&self, id: LeaseId) -> Result<Duration> {
        let inner = facet(self.inner.leases())?;
        self.around.call(&*self.inner, Request::Renew(id), || inner.renew(id)).await
    }

    async fn revoke(&self, id: LeaseId) -> Result<()> {
        let inner = facet(self.inner.leases())?;
        self.around.call(&*self.inner, Request::Revoke(id), || inner.revoke(id)).await
    }
}

#[async_trait]
impl<A: Around> Kv for Layered<A> {
    async fn get(&self, key: &Key) -> Result<Option<Entry>> {
        let inner = facet(self.inner.kv())?;
        self.around.call(&*self.inner, Request::Get(key), || inner.get(key)).await
    }

    async fn scan(&self, range: &Range) -> Result<Scan> {
        let inner = facet(self.inner.kv())?;
        self.around.call(&*self.inner, Request::Scan(range), || inner.scan(range)).await
    }

    async fn commit(&self, txn: Txn) -> Result<Revision> {
        let inner = facet(self.inner.kv())?;
        self.around.call(&*self.inner, Request::Commit(&txn), || inner.commit(txn.clone())).await
    }

    fn watch(&self, range: &Range, after: Option<Revision>) -> KvUpdates {
        match facet(self.inner.kv()) {
            Ok(inner) => {
                self.around.stream(&*self.inner, Request::WatchKeys(range), || inner.watch(range, after))
            }
            Err(error) => failed(error),
        }
    }
}

impl<A: Around> fmt::Debug for Layered<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} over {:?}", self.around, self.inner)
    }
}

/// A facet of the inner backend; it was there when ours was handed out, and facets do not come and go.
pub(super) fn facet<T: ?Sized>(facet: Option<&T>) -> Result<&T> {
    facet.ok_or_else(|| Error::new(ErrorKind::Unsupported, "the backend lost a facet that it had"))
}

/// A watch that never was.
pub(super) fn failed<T: Send + 'static>(error: Error) -> BoxStream<'static, Result<T>> {
    Box::pin(futures_util::stream::once(std::future::ready(Err(error))))
}
