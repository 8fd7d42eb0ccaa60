//! What the author of a backend brings along.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;

use crate::{
    Backend,
    kv::{Key, Txn},
};

/// One store, empty and shared with nobody: a new server, or a root of its own on a server that other checks use.
///
/// Every check gets a harness of its own.
#[async_trait]
pub trait Harness: Send + Sync + 'static {
    /// A new client of the store, independent of all others and out of reach of any [disruption](Disrupt).
    async fn backend(&self) -> Arc<dyn Backend>;

    /// How to make trouble; checks that need it do not apply without.
    fn disrupt(&self) -> Option<&dyn Disrupt> {
        None
    }

    /// Writes an entry as another program would, which knows nothing of this crate. By default through the
    /// [`Kv`](crate::kv::Kv) facet; checks of foreign records do not apply without that.
    ///
    /// # Panics
    ///
    /// When it cannot be written.
    async fn plant(&self, key: &Key, value: Bytes) {
        let backend = self.backend().await;
        let kv = backend.kv().expect("a check that plants entries needs a kv facet");
        kv.commit(Txn::new().put(key, value)).await.expect("the entry can be written");
    }

    /// Whether [`plant`](Harness::plant) gets past the limits of the backend: one that does can bring a record of
    /// 1 MiB into the store.
    fn plants_without_limit(&self) -> bool {
        false
    }

    /// How many watches are open on the store, where it can tell: proof that a dropped one was released.
    async fn open_watches(&self) -> Option<usize> {
        None
    }

    /// How long to wait for what must come before it counts as missing. Nothing that goes well takes this long.
    fn patience(&self) -> Duration {
        Duration::from_secs(20)
    }

    /// A short lease, but long enough to be renewed in time on a busy machine; checks wait for it to end.
    fn ttl(&self) -> Duration {
        Duration::from_secs(2)
    }
}

/// Makes trouble between a store and some of its clients.
#[async_trait]
pub trait Disrupt: Send + Sync {
    /// Whether it can do this.
    fn can(&self, disruption: Disruption) -> bool;

    /// A new client within reach of the disruptions. It may be asked for while the line is cut.
    async fn backend(&self) -> Arc<dyn Backend>;

    /// Does it; returns when it is done.
    async fn cause(&self, disruption: Disruption);

    /// Ends a [cut](Disruption::Cut): connections can be made again when this returns.
    async fn heal(&self);
}

/// What may befall a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Disruption {
    /// The connections of the clients from [`Disrupt::backend`] drop, and cannot come back before
    /// [`Disrupt::heal`].
    Cut,
    /// The leases of the clients from [`Disrupt::backend`] end, as if their holders had died; nobody tells those.
    Expire,
    /// The store forgets its history: a watch can no longer resume from what was true before.
    Compact,
}

/// A harness, or `None` where it cannot be had: the check is then skipped. What
/// [`conformance_tests!`](crate::conformance_tests) takes.
pub trait IntoHarness {
    /// The kind of harness.
    type Harness: Harness;

    /// The harness, if there is one.
    fn into_harness(self) -> Option<Self::Harness>;
}

impl<H: Harness> IntoHarness for H {
    type Harness = H;

    fn into_harness(self) -> Option<H> {
        Some(self)
    }
}

impl<H: Harness> IntoHarness for Option<H> {
    type Harness = H;

    fn into_harness(self) -> Self {
        self
    }
}
