//! Clients that can be troubled each on its own, and what is asked of all of them.

use std::{
    collections::BTreeMap,
    fmt::Debug,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use discovery::{
    Backend, Backoff, Discovery, Error, ErrorKind, Grant, Info, LeaseId, Leases, Registrar, Result, Revision,
    Scope, ServiceName, Snapshot, Updates,
    kv::{Entry, Key, Kv, KvUpdates, Range, Scan, Txn},
    layer::{Fault, Layer},
    mem::Mem,
    recipe::{Barrier, Election, Group, Lock},
};
use futures_util::StreamExt;
use tokio::{
    runtime::Handle,
    sync::watch,
    time::{self, Instant},
};

pub(crate) const TTL: Duration = Duration::from_secs(9);
pub(crate) const MOMENT: Duration = Duration::from_millis(10);

pub(crate) fn name() -> ServiceName {
    "eu1/prod/thing".parse().unwrap()
}

pub(crate) fn key(text: &str) -> Key {
    text.parse().unwrap()
}

/// A process: a handle of its own on a shared store, with trouble and a count of its own.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    pub(crate) fault: Fault,
    pub(crate) calls: Calls,
    pub(crate) discovery: Discovery,
}

impl Client {
    pub(crate) fn new(mem: &Mem) -> Self {
        Self::seeded(mem, fastrand::u64(..))
    }

    pub(crate) fn seeded(mem: &Mem, seed: u64) -> Self {
        let (fault, calls) = (Fault::seeded(seed), Calls::default());
        let pace = Backoff::new(Duration::from_millis(50), Duration::from_secs(2)).with_seed(seed);
        let discovery = Discovery::new(mem.clone()).backoff(pace).layer(calls.clone()).layer(fault.clone());
        Self { fault, calls, discovery }
    }

    pub(crate) fn lock(&self) -> Lock {
        self.discovery.lock(&name()).unwrap().ttl(TTL)
    }

    pub(crate) fn election(&self) -> Election {
        self.discovery.election(&name()).unwrap().ttl(TTL)
    }

    pub(crate) fn group(&self) -> Group {
        self.discovery.group(&name()).unwrap().ttl(TTL)
    }

    pub(crate) fn barrier(&self, parties: usize) -> Barrier {
        self.discovery.barrier(&name(), parties).unwrap().ttl(TTL)
    }
}

/// What is in the store.
pub(crate) async fn entries(mem: &Mem) -> Vec<Entry> {
    mem.kv().unwrap().scan(&Range::Subtree(Key::root())).await.unwrap().entries
}

pub(crate) async fn value(mem: &Mem, key: &Key) -> Option<String> {
    let entry = mem.kv().unwrap().get(key).await.unwrap();
    entry.map(|entry| String::from_utf8(entry.value.to_vec()).unwrap())
}

/// Waits until there are so many entries below `top`.
pub(crate) async fn filled(mem: &Mem, top: &str, count: usize) {
    let below = async || {
        let all = entries(mem).await;
        all.iter().filter(|entry| entry.key.as_str().starts_with(top)).count()
    };
    eventually(&format!("{count} entries below {top}"), async || below().await == count).await;
}

/// Waits until nothing is left of anything: no entry, no watch, no task. All handles must have been dropped.
pub(crate) async fn nothing_left(mem: &Mem) {
    eventually("no task", async || Handle::current().metrics().num_alive_tasks() == 0).await;
    assert_eq!(mem.open_watches(), 0, "watches");
    let left: Vec<_> = entries(mem).await.into_iter().map(|entry| entry.key).collect();
    assert!(left.is_empty(), "left in the store: {left:?}");
}

/// Waits for a condition, for as long as any outage or lease may take.
pub(crate) async fn eventually(what: &str, condition: impl AsyncFn() -> bool) {
    let deadline = Instant::now() + 10 * TTL;
    while !condition().await {
        assert!(Instant::now() < deadline, "in vain: {what}");
        time::sleep(MOMENT).await;
    }
}

/// Asserts that this takes no longer than `limit`.
pub(crate) async fn within<T>(limit: Duration, what: &str, future: impl Future<Output = T>) -> T {
    time::timeout(limit, future).await.unwrap_or_else(|_| panic!("not within {limit:?}: {what}"))
}

/// Asserts that this is not ready for as long as nothing else happens.
pub(crate) async fn pending<T: Debug>(what: &str, future: impl Future<Output = T>) {
    if let Ok(early) = time::timeout(Duration::from_millis(500), future).await {
        panic!("{what}: {early:?}");
    }
}

/// Runs `work` as a process that does nothing at all while the switch is on.
pub(crate) async fn freezable<T>(mut frozen: watch::Receiver<bool>, work: impl Future<Output = T>) -> T {
    let mut work = std::pin::pin!(work);
    loop {
        tokio::select! {
            biased;
            _ = frozen.wait_for(|frozen| *frozen) => {}
            done = &mut work => return done,
        }
        if frozen.wait_for(|frozen| !*frozen).await.is_err() {
            return work.await;
        }
    }
}

/// Runs a scenario for each seed, on a clock of its own.
pub(crate) fn for_seeds<F: Future<Output = ()>>(count: u64, scenario: impl Fn(u64) -> F) {
    for seed in 0..count {
        // Names and jitter are drawn from the generator of the thread.
        fastrand::seed(seed);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        runtime.unwrap().block_on(scenario(seed));
    }
}

/// How often what was asked of the backend; clones count together. The items of watches count as `item`.
#[derive(Clone, Debug, Default)]
pub(crate) struct Calls(Arc<Mutex<Counts>>);

#[derive(Debug, Default)]
struct Counts {
    by_operation: BTreeMap<&'static str, usize>,
    lateness: Duration,
    to_strand: Vec<Duration>,
    /// When the last stranded write arrives.
    arrival: Option<Instant>,
}

impl Calls {
    pub(crate) fn of(&self, operation: &str) -> usize {
        self.0.lock().unwrap().by_operation.get(operation).copied().unwrap_or(0)
    }

    /// Everything since the last time, but for renewals, which come with time.
    pub(crate) fn take(&self) -> BTreeMap<&'static str, usize> {
        let mut all = std::mem::take(&mut self.0.lock().unwrap().by_operation);
        all.remove("renew");
        all
    }

    /// Has answers come so much later than what they are about: where [`Fault::delay`] delays requests. Who does not
    /// wait for the answer has had the effect all the same.
    pub(crate) fn answer_late(&self, lateness: Duration) {
        self.0.lock().unwrap().lateness = lateness;
    }

    /// Has the next commit fail at once, and arrive at the store so much later all the same. Renewals come behind it, as
    /// the contract demands.
    pub(crate) fn strand_next(&self, delay: Duration) {
        self.0.lock().unwrap().to_strand.push(delay);
    }

    /// How late this commit arrives, if it is to be stranded.
    fn strand(&self) -> Option<Duration> {
        let mut counts = self.0.lock().unwrap();
        let delay = counts.to_strand.pop()?;
        counts.arrival = counts.arrival.max(Some(Instant::now() + delay));
        Some(delay)
    }

    async fn arrived(&self) {
        let arrival = self.0.lock().unwrap().arrival;
        if let Some(arrival) = arrival {
            // What was stranded has the delay of the line still before it.
            time::sleep_until(arrival + MOMENT + Duration::from_millis(1)).await;
        }
    }

    fn count(&self, operation: &'static str) {
        *self.0.lock().unwrap().by_operation.entry(operation).or_default() += 1;
    }

    async fn counted<T>(&self, operation: &'static str, answer: impl Future<Output = T>) -> T {
        self.count(operation);
        let answer = answer.await;
        let lateness = self.0.lock().unwrap().lateness;
        if !lateness.is_zero() {
            time::sleep(lateness).await;
        }
        answer
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
        self.inner.kv().unwrap()
    }

    fn inner_leases(&self) -> &dyn Leases {
        self.inner.leases().unwrap()
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
        self.calls.counted("grant", self.inner_leases().grant(ttl)).await
    }

    async fn renew(&self, id: LeaseId) -> Result<Duration> {
        self.calls.arrived().await;
        self.calls.counted("renew", self.inner_leases().renew(id)).await
    }

    async fn revoke(&self, id: LeaseId) -> Result<()> {
        self.calls.counted("revoke", self.inner_leases().revoke(id)).await
    }
}

#[async_trait]
impl Kv for Counted {
    async fn get(&self, key: &Key) -> Result<Option<Entry>> {
        self.calls.counted("get", self.inner_kv().get(key)).await
    }

    async fn scan(&self, range: &Range) -> Result<Scan> {
        self.calls.counted("scan", self.inner_kv().scan(range)).await
    }

    async fn commit(&self, txn: Txn) -> Result<Revision> {
        if let Some(delay) = self.calls.strand() {
            let inner = self.inner.clone();
            tokio::spawn(async move {
                time::sleep(delay).await;
                let _ = inner.kv().unwrap().commit(txn).await;
            });
            return Err(Error::new(ErrorKind::Unavailable, "no answer yet"));
        }
        self.calls.counted("commit", self.inner_kv().commit(txn)).await
    }

    fn watch(&self, range: &Range, after: Option<Revision>) -> KvUpdates {
        self.calls.count("watch");
        let calls = self.calls.clone();
        self.inner_kv().watch(range, after).inspect(move |_| calls.count("item")).boxed()
    }
}
