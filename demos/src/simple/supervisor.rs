//! All targets of a server, and their order.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::Context as _;
use discovery::ServiceName;
use futures_util::future::join_all;
use tokio::{sync::watch, task::JoinSet, time};
use tokio_util::sync::CancellationToken;

use super::{
    args::ServeArgs,
    config::{Address, Config},
    fsm::Clock,
    machine::{Machines, State, TICK, machine},
    target::{Context, Report, Target},
};
use crate::backend::Registry;

/// How long the registry may take to let us resign.
const FAREWELL: Duration = Duration::from_secs(2);

/// Looks after targets, once it [stands](Self::stand) for election, from [`start`](Self::start) on. Dropping it leaves them alone.
#[derive(Debug)]
pub(super) struct Supervisor {
    context: Arc<Context>,
    /// In an order in which they can be started.
    targets: Vec<Arc<Target>>,
    machines: Machines,
    /// Who keeps it going: written at the start and at the end; never locked across an `await`.
    work: Mutex<Work>,
}

#[derive(Debug)]
struct Work {
    clock: Clock,
    tasks: JoinSet<()>,
    candidacies: JoinSet<()>,
}

impl Supervisor {
    /// Does nothing yet.
    pub(super) fn new(config: Config, registry: &Registry, args: &ServeArgs) -> anyhow::Result<Self> {
        let ServeArgs { common, tethers, .. } = args;
        // A question each time: who answers on an old connection may not take a new one.
        let http = reqwest::Client::builder().no_proxy().pool_max_idle_per_host(0).build()?;
        let context = Arc::new(Context {
            http,
            registry: registry.clone(),
            backend: common.backend.text().map(str::to_owned),
            pace: common.pace,
            stop_limit: common.pace.stop_limit / config.depth(),
            ttl: common.ttl,
            tethers: *tethers,
            label: format!("process {}", std::process::id()),
            leaving: CancellationToken::new(),
            bell: watch::Sender::new(()),
        });
        let machines = Machines::new(machine(common.pace.limits())?);
        let mut targets: Vec<Arc<Target>> = Vec::new();
        for (address, order) in config.targets {
            let first = targets.iter().filter(|target| order.after.contains(&target.address));
            let first = first.cloned().collect();
            let target = Arc::new(Target::new(address, order, &context, first));
            target.live(machines.add_with(State::Unknown, target.clone())?);
            targets.push(target);
        }
        let clock = Clock::wall(&machines, TICK);
        let work = Mutex::new(Work { clock, tasks: JoinSet::new(), candidacies: JoinSet::new() });
        Ok(Self { context, targets, machines, work })
    }

    /// Stands for election.
    pub(super) fn stand(&self) {
        let mut work = self.work();
        for target in &self.targets {
            let target = target.clone();
            work.candidacies.spawn(async move {
                let address = target.address.clone();
                if let Err(error) = target.lead().await {
                    tracing::warn!("cannot stand for election to look after {address}: {error}");
                }
            });
        }
    }

    /// Begins to ask, and to act upon the answers.
    pub(super) fn start(&self) {
        let mut work = self.work();
        work.clock.start();
        for target in &self.targets {
            work.tasks.spawn(target.clone().ask());
            work.tasks.spawn(target.clone().follow());
        }
    }

    /// Whether all targets run, and are to run.
    pub(super) fn is_well(&self) -> bool {
        !self.context.leaving.is_cancelled()
            && self.targets.iter().all(|target| target.state() == State::Running)
    }

    /// How all targets are, sorted by address.
    pub(super) fn reports(&self) -> Vec<Report> {
        self.sorted().iter().map(|target| target.report()).collect()
    }

    /// All targets, sorted by address.
    pub(super) fn sorted(&self) -> Vec<Arc<Target>> {
        let mut targets = self.targets.clone();
        targets.sort_by_key(|target| target.address.to_string());
        targets
    }

    /// The target with this address.
    pub(super) fn find(&self, address: &str) -> anyhow::Result<&Arc<Target>> {
        let address = address.trim_end_matches('/');
        let known = |target: &&Arc<Target>| target.address.to_string() == address;
        self.targets.iter().find(known).with_context(|| format!("{address} is no target of this server"))
    }

    pub(super) fn http(&self) -> &reqwest::Client {
        &self.context.http
    }

    pub(super) fn registry(&self) -> &Registry {
        &self.context.registry
    }

    /// Rings when something has changed.
    pub(super) fn bell(&self) -> watch::Receiver<()> {
        self.context.bell.subscribe()
    }

    /// The services that it watches.
    pub(super) fn services(&self) -> impl Iterator<Item = &ServiceName> {
        self.targets.iter().filter_map(|target| target.address.service())
    }

    /// Ends all targets, those first that nobody comes after.
    pub(super) async fn stop(&self) {
        self.rest();
        let mut left = self.targets.clone();
        while !left.is_empty() {
            let is_needed = |address: &Address| left.iter().any(|other| other.is_after(address));
            let (needed, free): (Vec<_>, Vec<_>) =
                left.iter().cloned().partition(|target| is_needed(&target.address));
            join_all(free.iter().map(Target::stop)).await;
            // Never: the configuration has no circle.
            if free.is_empty() {
                break;
            }
            left = needed;
        }
        self.leave().await;
    }

    /// Leaves the targets alone, and lets others look after them.
    pub(super) async fn leave(&self) {
        self.rest();
        let mut candidacies = std::mem::take(&mut self.work().candidacies);
        let resigned = async { while candidacies.join_next().await.is_some() {} };
        if time::timeout(FAREWELL, resigned).await.is_err() {
            tracing::warn!(
                "{} does not answer; others can be elected when our lease has ended",
                self.registry()
            );
        }
        self.machines.close();
    }

    /// Asks and starts no more.
    fn rest(&self) {
        self.context.leaving.cancel();
        let mut work = self.work();
        work.clock.stop();
        work.tasks.abort_all();
    }

    fn work(&self) -> MutexGuard<'_, Work> {
        self.work.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
