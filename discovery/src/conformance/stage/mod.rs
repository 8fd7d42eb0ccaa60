//! Fault tests: two clients of one registry, and what must be true of them after every fault.
//!
//! A [`Stage`] has an *owner*, whom things happen to, and a *witness*, who watches from elsewhere. Both are
//! [`Client`]s: a handle with registrations, a view, and a recorded [`History`] of a watch. A test sets the stage,
//! breaks its own server or the line to it, and lets the stage [recover](Stage::recovered), which checks the same
//! after every fault: exactly what is wanted is registered, with its latest data and in the same life; every view
//! and watch shows that; each outage was told of once; and no history broke a rule on the way.
//!
//! Tests of a store below that have a [`Follower`], which reads the watch of a range step by step.
//!
//! In the end [`Stage::cleared`] sees that every watch is still alive, drops everything, and waits until nothing is
//! left, here or on the server.
//!
//! Time is that of tokio, so a stage on [`mem`](crate::mem) runs under the paused clock.

mod client;
mod follower;
mod history;
mod wait;

use std::time::Duration;

use tokio::{runtime::Handle, time::Instant};

pub use self::{
    client::{Client, instance, next_version, service, version},
    follower::Follower,
    history::History,
    wait::{PATIENCE, eventually, soon},
};
use crate::{Discovery, Registration, Revision, Scope, Snapshot};

/// The ttl of somebody whom nothing should happen to, however slow the machine. No shorter than [`PATIENCE`]: what
/// would end only with such a lease is missed.
pub const STEADY: Duration = Duration::from_secs(20);

/// The ttl of somebody whose lease is to end; still so long that a slow machine does not end it.
pub const BRIEF: Duration = Duration::from_millis(2500);

/// Who registers how many instances on a stage that is [set](StageBuilder::set).
const EACH: u64 = 3;

/// Owner and witness, and what is expected of them.
///
/// The two must be on the same registry, must share no connection that the test breaks, and must be alone: everything
/// there is in the registry is expected to be theirs.
///
/// # Example: nobody leaves in a partition
///
/// ```
/// # #[tokio::main(flavor = "current_thread", start_paused = true)] async fn main() {
/// use std::time::Duration;
///
/// use discovery::{
///     Backoff, Discovery,
///     conformance::stage::{STEADY, Stage},
///     layer::Fault,
///     mem::Mem,
/// };
///
/// let (mem, line) = (Mem::new(), Fault::new());
/// let pace = Backoff::new(Duration::from_millis(20), Duration::from_millis(100));
/// let discovery = Discovery::new(mem.clone()).backoff(pace);
/// let mut stage = Stage::builder()
///     .owner(discovery.clone().layer(line.clone()), STEADY)
///     .witness(discovery, STEADY)
///     .set()
///     .await;
///
/// line.partition();
/// tokio::time::sleep(Duration::from_secs(5)).await;
/// line.heal();
///
/// stage.recovered([1, 0]).await; // One outage for the owner, none for the witness.
/// stage.assert_nobody_left();
/// stage.cleared(async || Some(mem.open_watches()).filter(|n| *n > 0).map(|n| format!("{n} watches"))).await;
/// # }
/// ```
#[derive(Debug)]
pub struct Stage {
    owner: Client,
    witness: Client,
    /// How many outages owner and witness have lived through, as far as the test knows.
    outages: [usize; 2],
    /// How many tasks there were before.
    tasks: usize,
}

impl Stage {
    /// Begins a stage. Make its handles only then: every task that is spawned from here on is expected to be gone when
    /// the stage has been [cleared](Stage::cleared).
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    pub fn builder() -> StageBuilder {
        StageBuilder { owner: None, witness: None, tasks: alive_tasks() }
    }

    /// The client whom things happen to.
    pub fn owner(&self) -> &Client {
        &self.owner
    }

    /// The owner, to change what it has registered.
    pub fn owner_mut(&mut self) -> &mut Client {
        &mut self.owner
    }

    /// The client who watches from elsewhere.
    pub fn witness(&self) -> &Client {
        &self.witness
    }

    /// The witness, to change what it has registered.
    pub fn witness_mut(&mut self) -> &mut Client {
        &mut self.witness
    }

    /// Owner and witness.
    pub fn clients(&self) -> [&Client; 2] {
        [&self.owner, &self.witness]
    }

    /// What owner and witness want to be registered.
    pub fn wanted(&self) -> Snapshot {
        Snapshot::new(Revision(0), self.clients().into_iter().flat_map(Client::wanted))
    }

    /// Waits until owner and witness have lived through so many more outages and all is well: exactly what is wanted is
    /// registered, in its latest version and still the same incarnation, and every view and watch shows that. Returns
    /// how long it took.
    ///
    /// # Panics
    ///
    /// When that does not come within [`PATIENCE`], when there were more outages, and when a
    /// [history is not sound](History::assert_sound).
    ///
    /// # Cancel safety
    ///
    /// Cancel safe, but the outages are expected from the first poll on: do not name them again.
    pub async fn recovered(&mut self, outages: [usize; 2]) -> Duration {
        let start = Instant::now();
        self.outages = [self.outages[0] + outages[0], self.outages[1] + outages[1]];
        eventually("all is well", async || self.trouble().await).await;
        self.assert_sound();
        start.elapsed()
    }

    /// Checks that nobody saw anybody leave.
    ///
    /// # Panics
    ///
    /// When somebody did.
    #[track_caller]
    pub fn assert_nobody_left(&self) {
        for client in self.clients() {
            client.history().assert_only_left([]);
        }
    }

    /// Checks what is seen when the leases of an owner end who is away. The witness, which was there, may have seen the
    /// owner's registrations leave, as they did, but once each, and nothing else. The owner saw nothing.
    ///
    /// # Panics
    ///
    /// When they saw anything else.
    #[track_caller]
    pub fn assert_owner_left_once(&self) {
        let owned = self.owner.registrations().iter().map(Registration::key);
        self.witness.history().assert_only_left(owned);
        self.owner.history().assert_only_left([]);
    }

    /// Ends the stage. Sees that every watch still tells of a last change, for one that has died in silence shows only
    /// then; drops everything; and waits until nothing of it is left: no task in this runtime, and nothing on the server,
    /// which only the caller can ask. `left` says what is still there, and `None` once that is nothing.
    ///
    /// # Panics
    ///
    /// When the last change is not seen, or something is left, within [`PATIENCE`]; and when a history is not sound or
    /// tells of an outage that nobody [expected](Stage::recovered).
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: everything is dropped sooner or later.
    pub async fn cleared(self, mut left: impl AsyncFnMut() -> Option<String>) {
        for client in self.clients() {
            client.update_all().await;
        }
        eventually("a last change is seen", async || self.trouble().await).await;
        self.assert_sound();
        let tasks = self.tasks;
        drop(self);
        eventually("nothing is left", async || {
            if let Some(left) = left().await {
                return Some(left);
            }
            let alive = alive_tasks();
            (alive > tasks).then(|| format!("{alive} tasks, {tasks} before"))
        })
        .await;
    }

    #[track_caller]
    fn assert_sound(&self) {
        for client in self.clients() {
            client.history().assert_sound();
        }
        let told = self.clients().map(|client| client.history().outages());
        assert_eq!(told, self.outages, "outages of owner and witness, told and expected");
    }

    async fn trouble(&self) -> Option<String> {
        let wanted = self.wanted();
        let both = ["owner", "witness"].into_iter().zip(self.clients()).zip(self.outages);
        for ((who, client), outages) in both {
            if let Some(trouble) = trouble_of(client, outages, &wanted).await {
                return Some(format!("{who}: {trouble}"));
            }
        }
        None
    }
}

/// Makes a [`Stage`].
#[derive(Debug)]
#[must_use = "a builder does nothing until the stage is set or left empty"]
pub struct StageBuilder {
    owner: Option<Client>,
    witness: Option<Client>,
    tasks: usize,
}

impl StageBuilder {
    /// The handle of the owner, and the ttl of what it registers. The handle's own back-off paces its attempts: make
    /// it quick, so that the test waits for the fault and not for the next attempt.
    pub fn owner(self, discovery: Discovery, ttl: Duration) -> Self {
        Self { owner: Some(Client::open(discovery, ttl)), ..self }
    }

    /// The same for the witness, whose ttl is mostly [`STEADY`].
    pub fn witness(self, discovery: Discovery, ttl: Duration) -> Self {
        Self { witness: Some(Client::open(discovery, ttl)), ..self }
    }

    /// A stage on which nobody has registered anything; waits for nothing, so the registry may be down.
    ///
    /// # Panics
    ///
    /// Without an owner or a witness.
    pub fn empty(self) -> Stage {
        let (owner, witness) = (self.owner.expect("a stage has an owner"), self.witness);
        let witness = witness.expect("a stage has a witness");
        Stage { owner, witness, outages: [0, 0], tasks: self.tasks }
    }

    /// A stage on which the owner has [registered](Client::populate) the instances 0 to 2 and the witness 3 to 5, and
    /// where all is well.
    ///
    /// # Panics
    ///
    /// Without an owner or a witness, and when all is not well within [`PATIENCE`] and without an outage.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: a stage that was not yet set is dropped.
    pub async fn set(self) -> Stage {
        let mut stage = self.empty();
        stage.owner.populate(0..EACH).await;
        stage.witness.populate(EACH..2 * EACH).await;
        stage.recovered([0, 0]).await;
        stage
    }
}

/// Why all is not yet well with a client, if so.
async fn trouble_of(client: &Client, outages: usize, wanted: &Snapshot) -> Option<String> {
    let over = client.history().outages();
    if over < outages {
        return Some(format!("{over} of {outages} outages are over"));
    }
    match client.discovery().fetch(Scope::everything()).await {
        Ok(truth) if truth != *wanted => Some(format!("fetched {truth:?}, wanted {wanted:?}")),
        Ok(truth) => client.lags_behind(&truth),
        Err(error) => Some(error.to_string()),
    }
}

fn alive_tasks() -> usize {
    Handle::current().metrics().num_alive_tasks()
}
