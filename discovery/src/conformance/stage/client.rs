//! One client of a registry, and what it registers.

use std::{sync::Arc, time::Duration};

use futures_util::future::join_all;

use super::{history::History, wait::soon};
use crate::{
    Discovery, Instance, InstanceId, InstanceKey, Register, Registration, Result, Scope, ServiceName,
    Snapshot, View,
};

/// How many instances come and go by [`Client::change`], and the id of the first.
const CHANGING: (u64, u64) = (40, 100);

/// A process, as far as the registry can tell: registrations, a view and a watch, on a handle of its own.
///
/// # Example: a bystander
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// use discovery::{
///     Discovery,
///     conformance::stage::{Client, STEADY, eventually},
///     mem::Mem,
/// };
///
/// let mem = Mem::new();
/// let mut somebody = Client::open(Discovery::new(mem.clone()), STEADY);
/// let bystander = Client::open(Discovery::new(mem), STEADY);
/// somebody.populate(0..3).await;
/// eventually("it is known", async || {
///     let there = somebody.registrations().iter().filter(|one| bystander.sees(one.key())).count();
///     (there < 3).then(|| format!("{there} are"))
/// })
/// .await;
/// # }
/// ```
#[derive(Debug)]
pub struct Client {
    discovery: Discovery,
    /// Of the service.
    view: View,
    /// Of everything, and so on another watch of the backend than the view.
    history: History,
    registrations: Vec<Registration>,
    ttl: Duration,
}

impl Client {
    /// A client on `discovery`, whose backend may be out of reach. What it registers lives for `ttl`.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    pub fn open(discovery: Discovery, ttl: Duration) -> Self {
        Self {
            view: discovery.view(service()).open(),
            history: History::record(discovery.watch(Scope::everything())),
            registrations: Vec::new(),
            discovery,
            ttl,
        }
    }

    /// The handle it is on.
    pub fn discovery(&self) -> &Discovery {
        &self.discovery
    }

    /// The view that it keeps of the [service].
    pub fn view(&self) -> &View {
        &self.view
    }

    /// What its watch of everything has told so far.
    pub fn history(&self) -> &History {
        &self.history
    }

    /// What it has registered, in the order of registration.
    pub fn registrations(&self) -> &[Registration] {
        &self.registrations
    }

    /// What it wants to be registered.
    pub fn wanted(&self) -> impl Iterator<Item = Arc<Instance>> {
        self.registrations.iter().map(Registration::instance)
    }

    /// Begins to register the first version of an [instance]; hand what comes of it to [`hold`](Client::hold).
    pub fn register(&self, id: u64) -> Register<'_> {
        self.discovery.register(instance(id)).ttl(self.ttl)
    }

    /// Makes a registration one of this client's: from now on it is wanted.
    pub fn hold(&mut self, registration: Registration) {
        self.registrations.push(registration);
    }

    /// Gives a registration out of hand, to be dropped or deregistered: from now on it is not wanted.
    ///
    /// # Panics
    ///
    /// When this client has not registered the instance.
    pub fn release(&mut self, id: u64) -> Registration {
        let at = self.position(id).unwrap_or_else(|| panic!("{} is not registered", key(id)));
        self.registrations.remove(at)
    }

    /// Registers instances, and updates all there are once, so that there are old data which must not come back.
    ///
    /// # Panics
    ///
    /// When that is refused, or not done within [`PATIENCE`](super::PATIENCE).
    ///
    /// # Cancel safety
    ///
    /// Not cancel safe: some may be registered and updated, and others not.
    pub async fn populate(&mut self, ids: impl IntoIterator<Item = u64>) {
        let registering = join_all(ids.into_iter().map(|id| self.register(id).into_future()));
        let registered: Result<Vec<_>> = soon("to be registered", registering).await.into_iter().collect();
        self.registrations.extend(registered.expect("nobody else has registered this"));
        self.update_all().await;
    }

    /// Replaces all that is registered by its [next version](next_version), at once.
    ///
    /// # Panics
    ///
    /// When that is refused, or not done within [`PATIENCE`](super::PATIENCE).
    ///
    /// # Cancel safety
    ///
    /// Not cancel safe: the next versions are wanted from the first poll on.
    pub async fn update_all(&self) {
        let updates = self.registrations.iter().map(|r| r.update(next_version(r)));
        for updated in soon("to be updated", join_all(updates)).await {
            updated.expect("an update is not refused");
        }
    }

    /// Makes the `n`th of a row of comings, updates and goings of forty instances, with ids from 100 on. The row is the
    /// same in every run.
    ///
    /// # Panics
    ///
    /// When that is refused, or not done within [`PATIENCE`](super::PATIENCE).
    ///
    /// # Cancel safety
    ///
    /// Not cancel safe: the change may be made or not.
    pub async fn change(&mut self, n: u64) {
        let (count, first) = CHANGING;
        // Neither seven nor three has a factor in common with the count: every instance has its turn with everything.
        let id = first + n * 7 % count;
        let changed = match self.position(id) {
            None => match soon("to be registered", self.register(id)).await {
                Ok(registration) => {
                    self.hold(registration);
                    Ok(())
                }
                Err(error) => Err(error),
            },
            Some(_) if n.is_multiple_of(3) => soon("to be deregistered", self.release(id).deregister()).await,
            Some(at) => {
                let registration = &self.registrations[at];
                soon("to be updated", registration.update(next_version(registration))).await.map(drop)
            }
        };
        changed.expect("a change is not refused");
    }

    /// Whether the view shows an instance, in whatever version.
    pub fn sees(&self, key: &InstanceKey) -> bool {
        self.view.get(key).is_some()
    }

    /// Whether any of what this client follows is out of reach.
    pub fn is_stale(&self) -> bool {
        !self.view.freshness().is_live() || self.history.is_stale()
    }

    /// Why this client does not yet know `truth`, if so: a registration is not active, something is stale, or the view or
    /// the watch shows something else. For [`eventually`](super::eventually).
    pub fn lags_behind(&self, truth: &Snapshot) -> Option<String> {
        if let Some(registration) = self.registrations.iter().find(|r| !r.status().is_active()) {
            return Some(format!("{registration:?}"));
        }
        if self.is_stale() {
            return Some(format!("{:?}, {:?}", self.view.freshness(), self.history));
        }
        let differs = |what: &str, known: Snapshot| {
            (known != *truth).then(|| format!("{what} shows {known:?}, fetched was {truth:?}"))
        };
        differs("view", self.view.snapshot()).or_else(|| differs("history", self.history.snapshot()))
    }

    fn position(&self, id: u64) -> Option<usize> {
        let key = key(id);
        self.registrations.iter().position(|registration| *registration.key() == key)
    }
}

/// The service that all instances on a stage are of.
///
/// # Panics
///
/// Never: the name is a constant.
pub fn service() -> ServiceName {
    "eu1/prod/cart".parse().expect("a service name")
}

/// The first version of an instance on a stage.
///
/// # Panics
///
/// Never: the parts are constants.
pub fn instance(id: u64) -> Instance {
    let builder =
        Instance::builder(service()).id(InstanceId::from_bits(id)).endpoint("http", "10.0.0.7", 8080);
    builder.metadata("version", "1").build().expect("an instance")
}

/// Which version of an instance it is; a later one is higher. Zero for an instance that is not from a stage.
pub fn version(instance: &Instance) -> u64 {
    instance.metadata("version").and_then(|version| version.parse().ok()).unwrap_or_default()
}

/// The next version of what is registered.
///
/// # Panics
///
/// Never: a number makes no instance invalid.
pub fn next_version(registration: &Registration) -> Instance {
    let instance = registration.instance();
    let next = (version(&instance) + 1).to_string();
    instance.to_builder().metadata("version", next).build().expect("an instance")
}

fn key(id: u64) -> InstanceKey {
    InstanceKey::new(service(), InstanceId::from_bits(id))
}
