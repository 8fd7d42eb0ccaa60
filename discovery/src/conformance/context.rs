//! What checks are written with: clients, deadlines and small things to register.

use std::{collections::BTreeSet, fmt::Display, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::StreamExt;
use tokio::{
    runtime,
    task::{self, JoinHandle},
    time,
};

use super::{Disrupt, Disruption, Harness, feed::Feed};
use crate::{
    Backend, Backoff, Change, Claim, Discovery, Error, ErrorKind, Event, Grant, Instance, InstanceKey,
    LeaseId, Leases, Owner, Registrar, Result, Revision, Scope, ServiceName, Snapshot, Update,
    kv::{Entry, Key, Kv, KvUpdate, Range, Txn},
};

/// How often a condition that tells nobody when it comes true is looked at.
const LOOK: Duration = Duration::from_millis(5);

/// What a check works on: a store of its own.
pub(super) struct Context {
    harness: Arc<dyn Harness>,
}

impl Context {
    pub(super) fn new(harness: Arc<dyn Harness>) -> Self {
        Self { harness }
    }

    /// Runs what another program does, on a thread of its own; one that blocks is frozen, as by `SIGSTOP`: renewals, timers
    /// and watches stand still with it.
    pub(super) fn program<P, W>(&self, program: P) -> JoinHandle<W::Output>
    where
        P: FnOnce(Self) -> W + Send + 'static,
        W: Future<Output: Send + 'static>,
    {
        let harness = self.harness.clone();
        task::spawn_blocking(move || {
            let runtime = runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime can be had").block_on(program(Self { harness }))
        })
    }

    /// A client out of reach of disruptions.
    pub(super) async fn client(&self) -> Client {
        Client(self.harness.backend().await)
    }

    /// A client that can be cut off.
    pub(super) async fn fragile(&self) -> Client {
        Client(self.disrupt().backend().await)
    }

    pub(super) async fn cut(&self) {
        self.disrupt().cause(Disruption::Cut).await;
    }

    pub(super) async fn heal(&self) {
        self.disrupt().heal().await;
    }

    pub(super) async fn expire(&self) {
        self.disrupt().cause(Disruption::Expire).await;
    }

    pub(super) async fn compact(&self) {
        self.disrupt().cause(Disruption::Compact).await;
    }

    pub(super) async fn plant(&self, key: &str, value: impl Into<Bytes>) {
        self.harness.plant(&self::key(key), value.into()).await;
    }

    pub(super) async fn open_watches(&self) -> usize {
        self.harness.open_watches().await.expect("a check that counts watches needs a harness that does")
    }

    pub(super) fn ttl(&self) -> Duration {
        self.harness.ttl()
    }

    pub(super) fn patience(&self) -> Duration {
        self.harness.patience()
    }

    /// Waits for what must happen.
    pub(super) async fn within<T>(&self, what: impl Display, happens: impl Future<Output = T>) -> T {
        within(self.patience(), what, happens).await
    }

    /// Waits for a condition that has to be looked at.
    pub(super) async fn eventually(&self, what: impl Display, mut condition: impl AsyncFnMut() -> bool) {
        let look = async {
            while !condition().await {
                time::sleep(LOOK).await;
            }
        };
        self.within(what, look).await;
    }

    /// A watch of the backend, opened and past its first item, which must be a `Reset`.
    pub(super) async fn feed(&self, client: &Client, scope: impl Into<Scope>) -> Feed<Update> {
        let mut feed = self.feed_after(client, scope, None);
        let (update, _) = feed.step().await;
        assert!(matches!(update, Update::Reset(_)), "the first item must be a Reset, not {update:?}");
        feed
    }

    /// A watch of the backend behind a revision, not read yet.
    pub(super) fn feed_after(
        &self,
        client: &Client,
        scope: impl Into<Scope>,
        after: Option<Revision>,
    ) -> Feed<Update> {
        Feed::new(client.0.watch(&scope.into(), after), self.patience())
    }

    /// A watch of keys, opened and past its first item, which must be a `Reset`.
    pub(super) async fn kv_feed(&self, client: &Client, range: &Range) -> Feed<KvUpdate> {
        let mut feed = self.kv_feed_after(client, range, None);
        let (update, _) = feed.step().await;
        assert!(matches!(update, KvUpdate::Reset(_)), "the first item must be a Reset, not {update:?}");
        feed
    }

    /// A watch of keys behind a revision, not read yet.
    pub(super) fn kv_feed_after(
        &self,
        client: &Client,
        range: &Range,
        after: Option<Revision>,
    ) -> Feed<KvUpdate> {
        Feed::new(client.kv().watch(range, after), self.patience())
    }

    /// A watch of the library, not read yet.
    pub(super) fn follow(&self, discovery: &Discovery, scope: impl Into<Scope>) -> Feed<Event> {
        Feed::new(discovery.watch(scope).boxed(), self.patience())
    }

    /// A watch of the library, opened and past its first event, which must be a `Reset`.
    pub(super) async fn following(&self, discovery: &Discovery, scope: impl Into<Scope>) -> Feed<Event> {
        let mut follower = self.follow(discovery, scope);
        let (event, _) = follower.step().await;
        assert!(matches!(event, Event::Reset(_)), "the first event must be a Reset, not {event:?}");
        follower
    }

    fn disrupt(&self) -> &dyn Disrupt {
        self.harness.disrupt().expect("a check that disrupts needs a harness that can")
    }
}

/// One client of the store, with shorthands that hold a backend to its word.
#[derive(Clone)]
pub(super) struct Client(pub(super) Arc<dyn Backend>);

impl Client {
    pub(super) fn registrar(&self) -> &dyn Registrar {
        self.0.registrar().expect("the backend has a registrar")
    }

    pub(super) fn leases(&self) -> &dyn Leases {
        self.0.leases().expect("the backend has leases")
    }

    pub(super) fn kv(&self) -> &dyn Kv {
        self.0.kv().expect("the backend has a kv facet")
    }

    /// The library on this client, with a pace that suits tests.
    pub(super) fn discovery(&self) -> Discovery {
        let pace = Backoff::new(Duration::from_millis(10), Duration::from_millis(250));
        Discovery::from_arc(self.0.clone()).backoff(pace)
    }

    /// Writes a permanent entry of the owner that [`me`] is.
    pub(super) async fn put(&self, instance: &Instance) -> Revision {
        self.put_as(instance, &Claim::new(me())).await
    }

    /// Writes an entry of ours under a lease.
    pub(super) async fn put_leased(&self, instance: &Instance, lease: LeaseId) -> Revision {
        self.put_as(instance, &Claim::new(me()).leased(lease)).await
    }

    pub(super) async fn put_as(&self, instance: &Instance, claim: &Claim) -> Revision {
        self.registrar().put(instance, claim).await.expect("the instance can be written")
    }

    /// Removes an entry that must be there.
    pub(super) async fn remove(&self, instance: &Instance) {
        let removed = self.registrar().remove(instance.key(), None).await;
        assert!(removed.expect("the instance can be removed"), "{} was not there", instance.key());
    }

    pub(super) async fn fetch(&self, scope: impl Into<Scope>) -> Snapshot {
        self.0.fetch(&scope.into()).await.expect("the scope can be fetched")
    }

    pub(super) async fn grant(&self, ttl: Duration) -> Grant {
        self.leases().grant(ttl).await.expect("a lease is granted")
    }

    pub(super) async fn get(&self, key: &Key) -> Option<Entry> {
        self.kv().get(key).await.expect("the key can be read")
    }

    pub(super) async fn commit(&self, txn: Txn) -> Revision {
        self.kv().commit(txn).await.expect("the transaction is applied")
    }

    /// The keys of a range.
    pub(super) async fn keys(&self, range: &Range) -> Vec<String> {
        let scan = self.kv().scan(range).await.expect("the range can be read");
        scan.entries.iter().map(|entry| entry.key.as_str().to_owned()).collect()
    }
}

/// The owner that the shorthands of [`Client`] write as.
pub(super) fn me() -> Owner {
    Owner::named("me")
}

pub(super) fn service(name: &str) -> ServiceName {
    name.parse().expect("a service name")
}

pub(super) fn subtree(name: &str) -> Scope {
    Scope::Subtree(service(name))
}

pub(super) fn key(text: &str) -> Key {
    text.parse().expect("a key")
}

/// An instance that says little: tests tell its versions apart by the port.
pub(super) fn instance(service: &str, id: &str, port: u16) -> Instance {
    Instance::builder(self::service(service))
        .id(id.parse().expect("an instance id"))
        .endpoint("http", "127.0.0.1", port)
        .incarnation(1)
        .build()
        .expect("an instance")
}

/// The same instance in another life.
pub(super) fn reborn(instance: &Instance) -> Instance {
    let next = instance.incarnation() + 1;
    instance.to_builder().incarnation(next).build().expect("an instance")
}

/// The port of the endpoint `http`.
pub(super) fn port(instance: &Instance) -> u16 {
    instance.endpoint("http").expect("an endpoint named http").port()
}

/// The ports that these changes showed of one instance, in order.
pub(super) fn ports(changes: &[Change], of: &InstanceKey) -> Vec<u16> {
    let puts = changes.iter().filter_map(|change| match change {
        Change::Put(instance) if instance.key() == of => Some(port(instance)),
        _ => None,
    });
    puts.collect()
}

/// Who these changes said to be gone; once or several times.
pub(super) fn removals(changes: &[Change]) -> BTreeSet<&InstanceKey> {
    let removals = changes.iter().filter_map(|change| match change {
        Change::Remove(key) => Some(key),
        Change::Put(_) => None,
    });
    removals.collect()
}

pub(super) fn shows(known: &Snapshot, instance: &Instance) -> bool {
    known.get(instance.key()).is_some_and(|found| **found == *instance)
}

/// The instances of a snapshot as `service/id`.
pub(super) fn keys(snapshot: &Snapshot) -> Vec<String> {
    snapshot.iter().map(|instance| instance.key().to_string()).collect()
}

/// Holds an outcome to be an error of this kind.
#[track_caller]
pub(super) fn refused<T: std::fmt::Debug>(outcome: Result<T>, kind: ErrorKind) -> Error {
    let error = outcome.expect_err("this must be refused");
    assert_eq!(error.kind(), kind, "{error}");
    error
}

pub(super) async fn within<T>(patience: Duration, what: impl Display, happens: impl Future<Output = T>) -> T {
    let outcome = time::timeout(patience, happens).await;
    outcome.unwrap_or_else(|_| panic!("waited {patience:?} in vain for {what}"))
}
