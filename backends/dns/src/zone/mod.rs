//! Entries, leases and transactions in a zone of a stock DNS server: [`Kv`] and [`Leases`] on dynamic updates.
//!
//! | contract | DNS |
//! |---|---|
//! | entry | TXT record, see `entry` |
//! | created, modified | numbers of the log, in the record |
//! | transaction | one update message (RFC 2136) on the head of the log, see `log` |
//! | read | a question for the serial, and what is new by transfer (RFC 1995), see `replica` and `mirror` |
//! | revision of reads and watches | the serial of the zone |
//! | lease | a record with a beat, see `lease` |
//! | watch | NOTIFY (RFC 1996) and polling, see `eye` and `watch` |
//!
//! What others see, addresses, SRV and DNS-SD, is a `projection` of the entries.

mod config;
mod entry;
mod eye;
mod lease;
mod log;
mod message;
mod mirror;
mod notify;
mod plan;
mod projection;
mod replica;
mod server;
mod standby;
mod transfer;
mod watch;

use std::{
    collections::BTreeSet,
    fmt,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use async_trait::async_trait;
use discovery::{
    Backend, Capabilities, Delivery, Grant, Info, LeaseId, Leases, Registrar, Result, Resume, Revision,
    Scope, Snapshot, Updates,
    kv::{Entry, Key, Kv, KvBackend, KvChange, KvUpdate, KvUpdates, Op, Range, Scan, Txn},
};
use futures_util::{StreamExt, stream};
use tokio::{
    sync::{Notify as Bell, OnceCell},
    time::Instant,
};

pub use self::config::{DnsZoneConfig, DnsZoneConfigBuilder, Notify};
use self::{
    eye::Eye,
    lease::LeaseBook,
    log::{Log, is_in_doubt},
    plan::Work,
    projection::Projection,
    replica::Replica,
    server::Server,
    standby::Standby,
};
use crate::error::named;

/// The scheme of its locators.
pub(crate) const SCHEME: &str = "dns+zone";

/// A zone of a DNS server as a [`Backend`]. Clones share its connection, and its copy of the zone.
///
/// # Example: a configuration in code
///
/// ```no_run
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> discovery::Result<()> {
/// use discovery::Discovery;
/// use discovery_dns::{DnsZone, DnsZoneConfig, TsigKey};
///
/// let key = TsigKey::new("disco-key", "c2VjcmV0IHNlY3JldCBzZWNyZXQ=")?;
/// let config = DnsZoneConfig::builder().server("ns1.example", 53).zone("disco.example").key(key);
/// let discovery = Discovery::new(DnsZone::new(config.build()?));
/// # drop(discovery);
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct DnsZone(Arc<KvBackend<Store>>);

impl DnsZone {
    /// The backend that `config` describes. Nothing is sent before it is first used.
    pub fn new(config: DnsZoneConfig) -> Self {
        let mut capabilities = Capabilities::default();
        // An automatic port is known to an authority of this crate only, and there is one for certain if we serve.
        let is_told = matches!(config.notify(), Notify::At(_))
            || (config.serve().is_some() && config.notify() != Notify::Off);
        capabilities.delivery = if is_told { Delivery::Push } else { Delivery::Poll };
        capabilities.resume = Resume::Bounded;
        capabilities.max_record = config.max_record();
        capabilities.detects_silence_within = config.silence_timeout() + config.poll_interval().mul_f64(1.1);
        let info = Info::new(SCHEME, config.to_string(), capabilities);
        Self(Arc::new(KvBackend::new(Store::new(config), info)))
    }

    /// Ends the leases of others that fell silent, from now on until the last clone is dropped.
    pub(crate) fn attend(&self) {
        self.0.store().attend();
    }
}

impl fmt::Debug for DnsZone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DnsZone({})", self.0.info())
    }
}

#[async_trait]
impl Backend for DnsZone {
    fn info(&self) -> &Info {
        self.0.info()
    }

    async fn fetch(&self, scope: &Scope) -> Result<Snapshot> {
        self.0.fetch(scope).await
    }

    fn watch(&self, scope: &Scope, after: Option<Revision>) -> Updates {
        self.0.watch(scope, after)
    }

    fn registrar(&self) -> Option<&dyn Registrar> {
        self.0.registrar()
    }

    fn leases(&self) -> Option<&dyn Leases> {
        self.0.leases()
    }

    fn kv(&self) -> Option<&dyn Kv> {
        self.0.kv()
    }
}

/// The store behind one handle; its watches share what they need and go on without it.
struct Store {
    shared: Arc<Shared>,
    /// Whoever holds leases sees to it that those of others end.
    eye: Mutex<Option<Arc<Eye>>>,
    standby: Arc<OnceCell<Standby>>,
}

/// What the parts of a store have in common.
#[derive(Debug)]
struct Shared {
    config: DnsZoneConfig,
    replica: Arc<Replica>,
    leases: Arc<LeaseBook>,
    log: Log,
    eye: Mutex<Weak<Eye>>,
    /// Rung when there is something to look at.
    bell: Bell,
}

impl Store {
    fn new(config: DnsZoneConfig) -> Self {
        let server = Arc::new(Server::new(config.server().to_owned(), config.key().cloned()));
        let replica = Arc::new(Replica::new(config.origin().clone(), server, config.poll_interval()));
        let shared = Shared {
            leases: Arc::new(LeaseBook::new(replica.clone())),
            log: Log::new(),
            replica,
            config,
            eye: Mutex::default(),
            bell: Bell::new(),
        };
        Self { shared: Arc::new(shared), eye: Mutex::default(), standby: Arc::default() }
    }

    fn attend(&self) {
        *self.eye.lock().unwrap_or_else(PoisonError::into_inner) = Some(self.shared.eye());
    }

    /// The parts, once the zone is served if that is up to us.
    async fn ready(&self) -> &Arc<Shared> {
        if let Some(address) = self.shared.config.serve() {
            Standby::ready(&self.standby, &self.shared, address).await;
        }
        &self.shared
    }
}

impl Shared {
    /// When an operation that begins now has to be over.
    fn deadline(&self) -> Instant {
        Instant::now() + self.config.call_timeout()
    }

    fn projection(&self) -> Projection {
        Projection::new(&self.replica.origin, self.config.record_ttl())
    }

    /// The eye of this handle; opened if it is closed.
    fn eye(self: &Arc<Self>) -> Arc<Eye> {
        let mut known = self.eye.lock().unwrap_or_else(PoisonError::into_inner);
        known.upgrade().filter(|eye| eye.is_open()).unwrap_or_else(|| {
            let eye = Arc::new(Eye::open(self.clone()));
            *known = Arc::downgrade(&eye);
            eye
        })
    }

    /// Has the eye look.
    fn look_now(&self) {
        self.bell.notify_one();
    }

    /// Leases mean something only to the handle that granted them.
    fn with_own_lease(&self, mut entry: Entry) -> Entry {
        entry.lease = entry.lease.filter(|id| self.leases.contains(*id));
        entry
    }

    fn with_own_leases(&self, update: KvUpdate) -> KvUpdate {
        match update {
            KvUpdate::Reset(scan) => KvUpdate::Reset(self.scan_with_own_leases(scan)),
            KvUpdate::Delta { revision, changes } => {
                let own = |change| match change {
                    KvChange::Put(entry) => KvChange::Put(self.with_own_lease(entry)),
                    KvChange::Delete(key) => KvChange::Delete(key),
                };
                KvUpdate::Delta { revision, changes: changes.into_iter().map(own).collect() }
            }
            KvUpdate::Progress(revision) => KvUpdate::Progress(revision),
        }
    }

    fn scan_with_own_leases(&self, scan: Scan) -> Scan {
        let entries = scan.entries.into_iter().map(|entry| self.with_own_lease(entry)).collect();
        Scan { revision: scan.revision, entries }
    }
}

#[async_trait]
impl Kv for Store {
    async fn get(&self, key: &Key) -> Result<Option<Entry>> {
        let shared = self.ready().await;
        let found = shared.replica.read(shared.deadline(), |mirror| mirror.get(key)).await;
        found.map(|entry| entry.map(|entry| shared.with_own_lease(entry))).map_err(named("get"))
    }

    async fn scan(&self, range: &Range) -> Result<Scan> {
        let shared = self.ready().await;
        let scan = shared.replica.read(shared.deadline(), |mirror| mirror.scan(range)).await;
        scan.map(|scan| shared.scan_with_own_leases(scan)).map_err(named("scan"))
    }

    async fn commit(&self, txn: Txn) -> Result<Revision> {
        let commit = async {
            txn.check(self.shared.config.max_record())?;
            let leases: BTreeSet<_> = txn.ops().iter().filter_map(lease_of).collect();
            let mut pledge = self.shared.leases.pledge(leases)?;
            let outcome = self.ready().await.write(Work::Txn(txn)).await;
            if !is_in_doubt(&outcome) {
                pledge.settle();
            }
            outcome
        };
        commit.await.map_err(named("commit"))
    }

    fn watch(&self, range: &Range, after: Option<Revision>) -> KvUpdates {
        let updates = watch::follow(self.shared.clone(), range.clone(), after);
        let Some(address) = self.shared.config.serve() else { return updates };
        // The zone is served for as long as somebody watches it.
        let (standby, shared) = (self.standby.clone(), self.shared.clone());
        let served = async move {
            Standby::ready(&standby, &shared, address).await;
            updates.map(move |update| {
                let _ = &standby;
                update
            })
        };
        stream::once(served).flatten().boxed()
    }
}

#[async_trait]
impl Leases for Store {
    async fn grant(&self, ttl: Duration) -> Result<Grant> {
        let grant = self.ready().await.grant(ttl).await.map_err(named("grant"))?;
        self.attend();
        Ok(grant)
    }

    async fn renew(&self, id: LeaseId) -> Result<Duration> {
        self.ready().await.renew(id).await.map_err(named("renew"))
    }

    async fn revoke(&self, id: LeaseId) -> Result<()> {
        self.ready().await.revoke(id).await.map_err(named("revoke"))
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Store({})", self.shared.config)
    }
}

fn lease_of(op: &Op) -> Option<LeaseId> {
    match op {
        Op::Put { lease, .. } => *lease,
        Op::Delete(_) => None,
    }
}
