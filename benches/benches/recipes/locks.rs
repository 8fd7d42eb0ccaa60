//! A lock that nobody else wants, and one that eight wait for.
//!
//! The raw side is what comes with the client: `Client::lock` of `zookeeper-client`, a queue of ephemeral nodes; etcd's
//! own lock service, where the server waits. Neither hands out what others can check on each write (a fence), or tells its
//! holder when it is lost. With DNS it is one record that must not be there yet, without a lease.

use std::time::{Duration, Instant};

use discovery::{
    Discovery,
    kv::{Key, Range},
    recipe::Lock,
};
use discovery_benches::turns::{OURS, Turns, is_wanted};
use etcd_client as etcd;
use futures_util::future::join_all;
use tokio::{runtime::Runtime, time::sleep};
use zookeeper_client as zk;

use crate::{
    raw::Raw,
    registry::{Kind, Registry, name, permanent, raw_etcd, raw_zk},
};

const WAITERS: u32 = 8;
const TIME: Duration = Duration::from_secs(8);
/// How long those in the queue get to begin watching the one before them.
const SETTLE: Duration = Duration::from_millis(30);
/// So long that nobody has to keep a lease of the raw side alive.
const TTL: i64 = 3600;

pub(crate) fn bench(kind: Kind) {
    let (alone, handover) =
        (format!("{}_lock_alone", kind.label()), format!("{}_lock_handover_{WAITERS}", kind.label()));
    // BIND has to be told whom to notify, of as many processes as there are.
    let has_handover = kind != Kind::DnsBind;
    let runtime = Runtime::new().expect("a runtime");
    runtime.block_on(async {
        if is_wanted(&alone)
            && let Some(registry) = Registry::start(kind).await
        {
            uncontended(&registry, alone).await;
        }
        if has_handover
            && is_wanted(&handover)
            && let Some(registry) = Registry::start(kind).await
        {
            handovers(&registry, handover).await;
        }
    });
}

/// Acquires and releases a lock that nobody else wants.
async fn uncontended(registry: &Registry, group: String) {
    let mut raw = RawLock::prepare(registry).await;
    let record = match registry {
        Registry::Dns(server) => Some(Raw::connect(server).await),
        _ => None,
    };
    let lock = registry.process().await.lock(&name()).expect("a store with leases");
    lock.acquire().await.expect("the server is up").release().await.expect("it is held");

    let mut turns = Turns::new(group, TIME);
    while turns.go_on() {
        if let Some(raw) = &mut raw {
            let began = Instant::now();
            raw.acquire().await;
            raw.release().await;
            turns.add("raw", began.elapsed());
        }
        if let Some(record) = &record {
            let began = Instant::now();
            record.create(0).await;
            record.remove(0).await;
            turns.add("raw", began.elapsed());
        }
        let began = Instant::now();
        lock.acquire().await.expect("the server is up").release().await.expect("it is held");
        turns.add(OURS, began.elapsed());
    }
    turns.finish(OURS);
}

/// How long it takes on the average that the next one has it, when eight wait.
async fn handovers(registry: &Registry, group: String) {
    let observer = registry.process().await;
    let (mut locks, mut raws) = (Vec::new(), Vec::new());
    for _ in 0..=WAITERS {
        let lock = registry.process().await.lock(&name()).expect("a store with leases");
        lock.acquire().await.expect("the server is up").release().await.expect("it is held");
        locks.push(lock);
        raws.extend(RawLock::prepare(registry).await);
    }

    let mut turns = Turns::new(group, TIME);
    while turns.go_on() {
        if !raws.is_empty() {
            turns.add("raw", pass_raw(&mut raws).await);
        }
        turns.add(OURS, pass(&locks, &observer).await);
    }
    turns.finish(OURS);
}

async fn pass(locks: &[Lock], observer: &Discovery) -> Duration {
    let held = locks[0].acquire().await.expect("the server is up");
    let waiters = locks[1..].iter().cloned().map(|lock| {
        tokio::spawn(async move {
            let held = lock.acquire().await.expect("the server is up");
            let acquired = Instant::now();
            held.release().await.expect("it is held");
            acquired
        })
    });
    let waiters: Vec<_> = waiters.collect();
    let kv = observer.kv().expect("a store with keys");
    let all = Range::Subtree("_locks".parse::<Key>().expect("a key"));
    while kv.scan(&all).await.expect("the server is up").entries.len() < locks.len() {
        sleep(SETTLE).await;
    }
    sleep(SETTLE).await;
    let began = Instant::now();
    held.release().await.expect("it is held");
    last(waiters).await.duration_since(began) / WAITERS
}

async fn pass_raw(raws: &mut Vec<RawLock>) -> Duration {
    let mut holder = raws.remove(0);
    holder.acquire().await;
    let waiters = raws.drain(..).map(|mut raw| {
        tokio::spawn(async move {
            raw.acquire().await;
            let acquired = Instant::now();
            raw.release().await;
            (acquired, raw)
        })
    });
    let waiters: Vec<_> = waiters.collect();
    while holder.queue().await <= WAITERS as usize {
        sleep(SETTLE).await;
    }
    sleep(SETTLE).await;
    let began = Instant::now();
    holder.release().await;
    raws.push(holder);
    let mut until = began;
    for waiter in waiters {
        let (acquired, raw) = waiter.await.expect("it does not panic");
        until = until.max(acquired);
        raws.push(raw);
    }
    until.duration_since(began) / WAITERS
}

/// When the last one had it.
async fn last(waiters: Vec<tokio::task::JoinHandle<Instant>>) -> Instant {
    let acquired = join_all(waiters).await.into_iter().map(|waiter| waiter.expect("it does not panic"));
    acquired.max().expect("somebody waited")
}

/// A lock of the raw client, by a process of its own.
#[allow(clippy::large_enum_variant, reason = "there are nine of them")]
enum RawLock {
    Zk { client: zk::Client, held: Option<zk::OwnedLockClient> },
    Etcd { client: etcd::Client, lease: i64, held: Vec<u8> },
}

impl RawLock {
    /// `None` where the raw client has no locks.
    async fn prepare(registry: &Registry) -> Option<Self> {
        match registry {
            Registry::Zk(server) => {
                let client = raw_zk(server).await;
                client.mkdir("/raw", &permanent()).await.expect("the server is up");
                Some(Self::Zk { client, held: None })
            }
            Registry::Etcd(server) => {
                let client = raw_etcd(server).await;
                let lease = client.lease_client().grant(TTL, None).await.expect("the server is up").id();
                Some(Self::Etcd { client, lease, held: Vec::new() })
            }
            Registry::Mem(_) | Registry::Dns(_) => None,
        }
    }

    async fn acquire(&mut self) {
        match self {
            Self::Zk { client, held } => {
                let prefix = zk::LockPrefix::new_curator("/raw", "lock-").expect("a path");
                let lock = client.lock(prefix, b"me", zk::Acls::anyone_all()).await;
                *held = Some(lock.expect("the server is up").into_owned());
            }
            Self::Etcd { client, lease, held } => {
                let options = etcd::LockOptions::new().with_lease(*lease);
                let lock = client.lock_client().lock("/raw", Some(options)).await;
                *held = lock.expect("the server is up").key().to_vec();
            }
        }
    }

    async fn release(&mut self) {
        match self {
            Self::Zk { client, held } => {
                let lock = held.take().expect("it is held");
                client.delete(lock.lock_path(), None).await.expect("it is held");
                // Dropped, it would be deleted once more, in the background.
                std::mem::forget(lock);
            }
            Self::Etcd { client, held, .. } => {
                client.lock_client().unlock(std::mem::take(held)).await.expect("it is held");
            }
        }
    }

    /// How many have it or wait for it.
    async fn queue(&mut self) -> usize {
        match self {
            Self::Zk { client, .. } => client.list_children("/raw").await.expect("the server is up").len(),
            Self::Etcd { client, .. } => {
                let options = etcd::GetOptions::new().with_prefix().with_count_only();
                let found = client.kv_client().get("/raw/", Some(options)).await.expect("the server is up");
                usize::try_from(found.count()).unwrap_or_default()
            }
        }
    }
}
