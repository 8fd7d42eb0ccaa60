//! Entries and transactions: [`Kv`] and [`Leases`] for etcd.
//!
//! | contract | etcd |
//! |---|---|
//! | entry | key with a value that is not empty |
//! | created, modified | create revision, mod revision |
//! | absent | create revision 0 |
//! | lease | lease |
//! | transaction | transaction |
//!
//! All reads are linearizable, so one handle never goes back in time and sees its own writes, whatever member it is
//! connected to.

mod batch;
mod commit;
mod scan;

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use discovery::{
    Grant, LeaseId, Leases, Result, Revision,
    kv::{Entry, Key, Kv, KvUpdates, Range, Scan, Txn},
};
use etcd_client::KeyValue;

use self::batch::Batches;
use crate::{config::EtcdConfig, connection::Cluster, error::named, lease::LeaseBook, watch};

/// The store behind one handle; its watches share what they need and go on without it.
#[derive(Clone)]
pub(crate) struct Store {
    pub(crate) cluster: Arc<Cluster>,
    pub(crate) leases: Arc<LeaseBook>,
    batches: Arc<Batches>,
}

impl Store {
    pub(crate) fn new(config: EtcdConfig) -> Self {
        let cluster = Arc::new(Cluster::new(config));
        let leases = Arc::new(LeaseBook::new(cluster.history().clone()));
        Self { cluster, leases, batches: Arc::default() }
    }

    /// What etcd has under a key in an era, as an entry. `None` for what is not one: a key of others, or a value of nothing.
    pub(crate) fn entry(&self, era: u64, found: &KeyValue) -> Option<Entry> {
        let key = self.cluster.layout().key(found.key())?;
        if found.value().is_empty() {
            return None;
        }
        let value = Bytes::copy_from_slice(found.value());
        self.cluster.history().witnessed(era, found.key(), &value, found.mod_revision());
        let lease = LeaseId(found.lease().cast_unsigned());
        Some(Entry {
            key,
            value,
            created: revision(found.create_revision()),
            modified: revision(found.mod_revision()),
            lease: self.leases.contains(lease).then_some(lease),
        })
    }
}

#[async_trait]
impl Kv for Store {
    async fn get(&self, key: &Key) -> Result<Option<Entry>> {
        self.read(key).await.map_err(named("get"))
    }

    async fn scan(&self, range: &Range) -> Result<Scan> {
        self.read_all(range, self.cluster.deadline()).await.map_err(named("scan"))
    }

    async fn commit(&self, txn: Txn) -> Result<Revision> {
        self.apply(&txn).await.map_err(named("commit"))
    }

    fn watch(&self, range: &Range, after: Option<Revision>) -> KvUpdates {
        watch::follow(self.clone(), range.clone(), after)
    }
}

#[async_trait]
impl Leases for Store {
    async fn grant(&self, ttl: Duration) -> Result<Grant> {
        self.grant_lease(ttl).await.map_err(named("grant"))
    }

    async fn renew(&self, id: LeaseId) -> Result<Duration> {
        self.renew_lease(id).await.map_err(named("renew"))
    }

    async fn revoke(&self, id: LeaseId) -> Result<()> {
        self.revoke_lease(id).await.map_err(named("revoke"))
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Store({})", self.cluster.config())
    }
}

/// A revision of etcd as one of the contract: the numbers are the same.
pub(crate) fn revision(number: i64) -> Revision {
    Revision(number.cast_unsigned())
}
