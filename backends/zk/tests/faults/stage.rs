//! Two clients of one registry: the owner, whom things happen to, and the witness, who watches from elsewhere.

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

use discovery::{
    Backoff, Connectors, Discovery, Instance, InstanceId, Register, Registration, Result, Revision, Scope,
    ServiceName, Snapshot, View,
};
use discovery_testbed::{Proxy, ZooKeeper, ZooKeeperEnsemble};
use futures_util::future::join_all;
use tokio::runtime::Handle;

use crate::history::History;

/// How long a test waits for what must happen, on a loaded machine.
const SOON: Duration = Duration::from_secs(20);

/// The session of somebody whom nothing should happen to, however slow the machine.
pub(crate) const STEADY: Duration = Duration::from_secs(20);

/// The session of somebody whose session is to end; still so long that a slow machine does not end it.
pub(crate) const BRIEF: Duration = Duration::from_millis(2500);

/// Who registers how many instances on a stage.
const EACH: u64 = 3;

pub(crate) fn service() -> ServiceName {
    "eu1/prod/cart".parse().unwrap()
}

/// The first version of an instance.
pub(crate) fn instance(id: u64) -> Instance {
    let builder =
        Instance::builder(service()).id(InstanceId::from_bits(id)).endpoint("http", "10.0.0.7", 8080);
    builder.metadata("version", "1").build().unwrap()
}

/// Which version of an instance it is; a later update has a higher one.
pub(crate) fn version(instance: &Instance) -> u64 {
    instance.metadata("version").and_then(|version| version.parse().ok()).unwrap_or_default()
}

/// The next version of what is registered.
pub(crate) fn next_version(registration: &Registration) -> Instance {
    let instance = registration.instance();
    instance.to_builder().metadata("version", (version(&instance) + 1).to_string()).build().unwrap()
}

/// A process, as far as the registry can tell: sessions of its own, a view, a watch, and registrations.
pub(crate) struct Client {
    pub(crate) discovery: Discovery,
    /// Of the service.
    pub(crate) view: View,
    /// Of everything, and so on another upstream watch than the view.
    pub(crate) history: History,
    pub(crate) registrations: Vec<Registration>,
    ttl: Duration,
}

impl Client {
    /// A client of the servers at `authority`, up or not. Sessions and leases live for `ttl`.
    pub(crate) async fn open(authority: &str, ttl: Duration) -> Self {
        Self::open_with(authority, ttl, "").await
    }

    /// The same with more options in the locator.
    pub(crate) async fn open_with(authority: &str, ttl: Duration, options: &str) -> Self {
        let locator = format!("zk://{authority}/cn?session_timeout={}ms{options}", ttl.as_millis());
        let connectors = Connectors::new().with(discovery_zk::connector());
        // Quicker than users need it, so that the tests wait for the fault and not for the next attempt.
        let backoff = Backoff::new(Duration::from_millis(20), Duration::from_millis(100));
        let discovery = Discovery::connect(&locator, &connectors).await.unwrap().backoff(backoff);
        Self {
            view: discovery.view(service()).open(),
            history: History::record(discovery.watch(Scope::everything())),
            registrations: Vec::new(),
            discovery,
            ttl,
        }
    }

    pub(crate) fn register(&self, id: u64) -> Register<'_> {
        self.discovery.register(instance(id)).ttl(self.ttl)
    }

    /// Registers instances and updates them once, so that there are old data which must not come back.
    pub(crate) async fn populate(&mut self, ids: impl IntoIterator<Item = u64>) {
        let registering = join_all(ids.into_iter().map(|id| self.register(id).into_future()));
        let registered: Result<Vec<_>> = soon("to be registered", registering).await.into_iter().collect();
        self.registrations.extend(registered.unwrap());
        self.update_all().await;
    }

    /// What this client wants to be registered.
    pub(crate) fn wanted(&self) -> impl Iterator<Item = Arc<Instance>> {
        self.registrations.iter().map(Registration::instance)
    }

    /// Replaces what is registered by its next versions, all at once.
    pub(crate) async fn update_all(&self) {
        let updates = self.registrations.iter().map(|r| r.update(next_version(r)));
        for updated in soon("to be updated", join_all(updates)).await {
            updated.unwrap();
        }
    }

    /// Whether the view shows an instance, in whatever version.
    pub(crate) fn sees(&self, instance: &Instance) -> bool {
        self.view.get(instance.key()).is_some()
    }

    /// Whether any of what this client follows is out of reach.
    pub(crate) fn is_stale(&self) -> bool {
        !self.view.freshness().is_live() || self.history.is_stale()
    }

    /// Why this client does not yet know `truth`, if so.
    pub(crate) fn lags_behind(&self, truth: &Snapshot) -> Option<String> {
        if let Some(registration) = self.registrations.iter().find(|r| !r.status().is_active()) {
            return Some(format!("{registration:?}"));
        }
        if self.is_stale() {
            return Some(format!("{:?}", self.view.freshness()));
        }
        let differs = |what: &str, known: Snapshot| {
            (known != *truth).then(|| format!("{what} shows {known:?}, fetched was {truth:?}"))
        };
        differs("view", self.view.snapshot()).or_else(|| differs("history", self.history.snapshot()))
    }
}

/// Owner and witness, each with a few registrations that both of them see.
pub(crate) struct Stage {
    pub(crate) owner: Client,
    pub(crate) witness: Client,
    /// How many outages owner and witness have lived through, as far as the test knows.
    outages: [usize; 2],
    /// How many tasks there were before.
    tasks: usize,
}

impl Stage {
    /// A server, a line to it that can be broken, and a stage whose owner is at the end of that line.
    pub(crate) async fn behind_a_line(ttl: Duration) -> Option<(ZooKeeper, Proxy, Self)> {
        let server = server().await?;
        let proxy = Proxy::start(server.address()).unwrap();
        let stage = Self::set(&proxy.address().to_string(), ttl, &server.connect_string()).await;
        Some((server, proxy, stage))
    }

    /// A server, and a stage on it.
    pub(crate) async fn on_a_server(ttl: Duration) -> Option<(ZooKeeper, Self)> {
        let server = server().await?;
        let address = server.connect_string();
        let stage = Self::set(&address, ttl, &address).await;
        Some((server, stage))
    }

    /// Three servers, and a stage on them.
    pub(crate) async fn on_three_servers(ttl: Duration) -> Option<(ZooKeeperEnsemble, Self)> {
        let ensemble = ZooKeeper::builder().unsynced().start_ensemble_or_skip(3).await?;
        let address = ensemble.connect_string();
        let stage = Self::set(&address, ttl, &address).await;
        Some((ensemble, stage))
    }

    /// The owner, whose sessions live for `ttl`, at `owner`, and the witness at `witness`.
    pub(crate) async fn set(owner: &str, ttl: Duration, witness: &str) -> Self {
        let mut stage = Self::empty(owner, ttl, witness).await;
        stage.owner.populate(0..EACH).await;
        stage.witness.populate(EACH..2 * EACH).await;
        stage.recovered([0, 0]).await;
        stage
    }

    /// The same without registrations; waits for nothing.
    pub(crate) async fn empty(owner: &str, ttl: Duration, witness: &str) -> Self {
        let tasks = alive_tasks();
        let owner = Client::open(owner, ttl).await;
        let witness = Client::open(witness, STEADY).await;
        Self { owner, witness, outages: [0, 0], tasks }
    }

    fn clients(&self) -> [&Client; 2] {
        [&self.owner, &self.witness]
    }

    /// Waits until owner and witness have lived through so many more outages and all is well: exactly what is wanted is
    /// registered, in its latest version and still the same incarnation, and every view and watch shows that. Returns
    /// how long it took.
    pub(crate) async fn recovered(&mut self, outages: [usize; 2]) -> Duration {
        let start = Instant::now();
        self.outages = [self.outages[0] + outages[0], self.outages[1] + outages[1]];
        eventually("all is well", async || self.trouble().await).await;
        let took = start.elapsed();
        self.assert_sound();
        eprintln!("all is well after {took:?}");
        took
    }

    #[track_caller]
    fn assert_sound(&self) {
        for client in self.clients() {
            client.history.assert_sound();
        }
        assert_eq!(self.clients().map(|client| client.history.outages()), self.outages);
    }

    /// What is to be registered.
    pub(crate) fn wanted(&self) -> Snapshot {
        Snapshot::new(Revision(0), self.clients().into_iter().flat_map(Client::wanted))
    }

    /// Nobody saw anybody leave.
    #[track_caller]
    pub(crate) fn assert_nobody_left(&self) {
        assert_eq!(self.clients().map(|client| client.history.departures()), [[], []]);
    }

    /// The witness, which was there, may have seen the owner's registrations leave, as they did, but once each, and
    /// nothing else. The owner, which was away, saw nothing.
    #[track_caller]
    pub(crate) fn assert_owner_left_once(&self) {
        let departures = self.witness.history.departures();
        let owned: BTreeSet<_> = self.owner.registrations.iter().map(|r| r.key().clone()).collect();
        let left: BTreeSet<_> = departures.iter().cloned().collect();
        assert_eq!(left.len(), departures.len(), "{departures:?}");
        assert!(left.is_subset(&owned), "{left:?}");
        assert_eq!(self.owner.history.departures(), []);
    }

    async fn trouble(&self) -> Option<String> {
        let wanted = self.wanted();
        for (client, outages) in self.clients().into_iter().zip(self.outages) {
            if client.history.outages() < outages {
                return Some(format!("{} of {outages} outages are over", client.history.outages()));
            }
            match client.discovery.fetch(Scope::everything()).await {
                Ok(truth) if truth != wanted => return Some(format!("fetched {truth:?}, wanted {wanted:?}")),
                Ok(truth) => {
                    if let Some(trouble) = client.lags_behind(&truth) {
                        return Some(trouble);
                    }
                }
                Err(error) => return Some(error.to_string()),
            }
        }
        None
    }

    /// Drops everything and waits until nothing of it is left: no task here, no session and no watch there.
    pub(crate) async fn cleared(self, servers: &[ZooKeeper]) {
        self.assert_sound();
        let start = Instant::now();
        let tasks = self.tasks;
        drop(self);
        eventually("no task, session or watch is left", async || {
            for server in servers {
                for name in ["zk_global_sessions", "zk_watch_count", "zk_ephemerals_count"] {
                    let left = counter(server, name).await;
                    if left > 0 {
                        return Some(format!("{name} {left}"));
                    }
                }
            }
            let left = alive_tasks();
            (left > tasks).then(|| format!("{left} tasks, {tasks} before"))
        })
        .await;
        eprintln!("cleared after {:?}", start.elapsed());
    }
}

/// A server that does not wait for the disk.
pub(crate) async fn server() -> Option<ZooKeeper> {
    ZooKeeper::builder().unsynced().start_or_skip().await
}

/// The paths that a server lists as bound to sessions, as it says itself.
pub(crate) async fn ephemerals(server: &ZooKeeper) -> BTreeSet<String> {
    let dump = server.four_letter_word("dump").await.unwrap();
    let lines = dump.lines().map(str::trim);
    lines.filter(|line| line.starts_with("/cn/")).map(str::to_owned).collect()
}

/// One of the counters that a server keeps.
pub(crate) async fn counter(server: &ZooKeeper, name: &str) -> u64 {
    let counters = server.four_letter_word("mntr").await.unwrap();
    let mut lines = counters.lines().filter_map(|line| line.split_once('\t'));
    let value = lines.find(|(found, _)| *found == name).map(|(_, value)| value.trim().parse());
    value.unwrap_or_else(|| panic!("no {name} in {counters}")).unwrap()
}

fn alive_tasks() -> usize {
    Handle::current().metrics().num_alive_tasks()
}

/// Waits until there is no trouble any more.
pub(crate) async fn eventually(what: &str, mut trouble: impl AsyncFnMut() -> Option<String>) {
    let end = Instant::now() + SOON;
    while let Some(trouble) = trouble().await {
        assert!(Instant::now() < end, "not within {SOON:?}: {what}: {trouble}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Waits for what must happen soon.
pub(crate) async fn soon<T>(what: &str, future: impl IntoFuture<Output = T>) -> T {
    let waited = tokio::time::timeout(SOON, future.into_future()).await;
    waited.unwrap_or_else(|_| panic!("not within {SOON:?}: {what}"))
}
