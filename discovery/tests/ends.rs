//! What stands behind a handle ends before it, by a panic or with its runtime: nobody is left in the belief that all is well.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should panic")]

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use discovery::{
    Backend, Discovery, ErrorKind, Info, Instance, InstanceId, Leases, Phase, Registrar, Result, Revision,
    Scope, ServiceName, Snapshot, Updates,
    kv::{Entry, Key, Kv, KvUpdates, Range, Scan, Txn},
    layer::{Fault, Layer},
    mem::Mem,
};
use futures_util::StreamExt;
use tokio::{
    runtime::{Builder, Runtime},
    time::{self, Instant},
};

const LONG: Duration = Duration::from_secs(3600);
/// On a clock that is not ours to turn.
const SHORT: Duration = Duration::from_secs(1);
const DEADLINE: Duration = Duration::from_secs(20);

fn cart() -> ServiceName {
    "cart".parse().unwrap()
}

fn instance() -> Instance {
    let builder = Instance::builder(cart()).id(InstanceId::from_bits(1));
    builder.endpoint("http", "127.0.0.1", 80).build().unwrap()
}

/// Panics in the next watch, when it is opened or read.
#[derive(Clone, Debug, Default)]
struct Panics {
    opened: Arc<AtomicBool>,
    read: Arc<AtomicBool>,
}

fn panic_once(armed: &AtomicBool) {
    assert!(!armed.swap(false, Ordering::SeqCst), "this panic is part of the test");
}

impl Layer for Panics {
    fn wrap(&self, inner: Arc<dyn Backend>) -> Arc<dyn Backend> {
        Arc::new(Panicking { inner, panics: self.clone() })
    }
}

#[derive(Debug)]
struct Panicking {
    inner: Arc<dyn Backend>,
    panics: Panics,
}

impl Panicking {
    fn inner_kv(&self) -> &dyn Kv {
        self.inner.kv().unwrap()
    }
}

#[async_trait]
impl Backend for Panicking {
    fn info(&self) -> &Info {
        self.inner.info()
    }

    async fn fetch(&self, scope: &Scope) -> Result<Snapshot> {
        self.inner.fetch(scope).await
    }

    fn watch(&self, scope: &Scope, after: Option<Revision>) -> Updates {
        panic_once(&self.panics.opened);
        self.inner.watch(scope, after)
    }

    fn registrar(&self) -> Option<&dyn Registrar> {
        self.inner.registrar()
    }

    fn leases(&self) -> Option<&dyn Leases> {
        self.inner.leases()
    }

    fn kv(&self) -> Option<&dyn Kv> {
        Some(self)
    }
}

#[async_trait]
impl Kv for Panicking {
    async fn get(&self, key: &Key) -> Result<Option<Entry>> {
        self.inner_kv().get(key).await
    }

    async fn scan(&self, range: &Range) -> Result<Scan> {
        self.inner_kv().scan(range).await
    }

    async fn commit(&self, txn: Txn) -> Result<Revision> {
        self.inner_kv().commit(txn).await
    }

    fn watch(&self, range: &Range, after: Option<Revision>) -> KvUpdates {
        panic_once(&self.panics.opened);
        let read = self.panics.read.clone();
        self.inner_kv().watch(range, after).inspect(move |_| panic_once(&read)).boxed()
    }
}

fn panicking() -> (Discovery, Panics, Fault) {
    let (panics, fault) = (Panics::default(), Fault::new());
    (Discovery::new(Mem::new()).layer(panics.clone()).layer(fault.clone()), panics, fault)
}

#[tokio::test(start_paused = true)]
async fn a_backend_that_panics_when_it_is_asked_to_watch_is_asked_again() {
    let (discovery, panics, fault) = panicking();
    let mut view = discovery.view(cart()).await.unwrap();
    panics.opened.store(true, Ordering::SeqCst);
    fault.cut();
    let _held = discovery.register(instance()).await.unwrap();
    let seen = time::timeout(LONG, view.wait_for(|snapshot, _| snapshot.len() == 1)).await;
    seen.expect("the view goes on").unwrap();
    assert!(!panics.opened.load(Ordering::SeqCst), "it has panicked");
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_panics_costs_no_lock() {
    for armed in [|panics: &Panics| panics.opened.clone(), |panics: &Panics| panics.read.clone()] {
        let (discovery, panics, fault) = panicking();
        let held = discovery.lock(&cart()).unwrap().acquire().await.unwrap();
        time::sleep(SHORT).await;
        let armed = armed(&panics);
        armed.store(true, Ordering::SeqCst);
        fault.cut();
        let lost = time::timeout(LONG, held.fence().lost()).await;
        assert!(lost.is_err(), "the lease is renewed all the time, and the entry is there: {lost:?}");
        assert!(!armed.load(Ordering::SeqCst), "it has panicked");
    }
}

fn runtimes() -> [Runtime; 2] {
    [(), ()].map(|()| Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap())
}

#[test]
fn who_shares_a_watch_with_a_runtime_that_ends_is_told() {
    let [ending, lasting] = runtimes();
    let discovery = Discovery::new(Mem::new());
    let first = ending.block_on(async { discovery.view(cart()).await.unwrap() });
    let mut second = lasting.block_on(async { discovery.view(cart()).await.unwrap() });
    let mut watch = lasting.block_on(async { discovery.watch(cart()) });
    lasting.block_on(async { watch.next().await.unwrap().unwrap() });
    drop((ending, first));
    lasting.block_on(async {
        let told = async {
            while let Some(event) = watch.next().await {
                if let Err(error) = event {
                    return Some(error.kind());
                }
            }
            None
        };
        assert_eq!(time::timeout(DEADLINE, told).await, Ok(Some(ErrorKind::Closed)));
        let seen = second.wait_for(|snapshot, _| snapshot.len() == 1);
        let seen = time::timeout(DEADLINE, seen).await.expect("the view is told as well");
        assert_eq!(seen.unwrap_err().kind(), ErrorKind::Closed);
        assert!(!second.freshness().is_live());
        let anew = time::timeout(DEADLINE, discovery.view(cart())).await;
        anew.expect("another one is fed").unwrap();
    });
}

#[test]
fn a_view_that_nobody_feeds_is_not_live() {
    let [ending, lasting] = runtimes();
    let discovery = Discovery::new(Mem::new());
    let mut view = ending.block_on(async { discovery.view(cart()).await.unwrap() });
    drop(ending);
    lasting.block_on(async {
        let ended = view.wait_for(|snapshot, _| !snapshot.is_empty()).await;
        assert_eq!(ended.unwrap_err().kind(), ErrorKind::Closed);
        assert!(!view.freshness().is_live(), "nobody tells of changes any more");
    });
}

#[test]
fn a_registration_that_nobody_keeps_is_lost() {
    let [ending, lasting] = runtimes();
    let discovery = Discovery::new(Mem::new());
    let mut registration =
        ending.block_on(async { discovery.register(instance()).ttl(SHORT).await.unwrap() });
    drop(ending);
    lasting.block_on(async {
        let lost = registration.wait_for(|status| status.phase == Phase::Lost);
        let lost = time::timeout(DEADLINE, lost).await.expect("it is told");
        assert_eq!(lost.cause.unwrap().kind(), ErrorKind::Closed);
    });
}

#[test]
fn a_lease_that_nobody_renews_is_given_to_nobody() {
    let [ending, lasting] = runtimes();
    let discovery = Discovery::new(Mem::new());
    let ttl = Duration::from_secs(60);
    let lock = discovery.lock(&cart()).unwrap().ttl(ttl);
    let election = discovery.election(&cart()).unwrap().ttl(ttl);
    ending.block_on(async { lock.acquire().await.unwrap().release().await.unwrap() });
    drop(ending);
    lasting.block_on(async {
        let began = Instant::now();
        let held = time::timeout(DEADLINE, lock.acquire()).await.expect("nobody else has it").unwrap();
        let led = time::timeout(DEADLINE, election.campaign("us")).await.expect("nobody else leads").unwrap();
        assert!(held.fence().is_valid() && led.fence().is_valid());
        assert!(began.elapsed() < ttl / 6, "a renewal is not yet due");
        let lost = time::timeout(SHORT, held.fence().lost()).await;
        assert!(lost.is_err(), "{lost:?}");
    });
}
