//! Who may be picked, and what came of it.

use std::{
    fmt,
    ops::Deref,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering},
    },
};

use tokio::sync::mpsc;

use crate::Instance;

/// An instance that may be picked, with the calls it has.
#[derive(Debug)]
pub struct Candidate {
    instance: Arc<Instance>,
    load: Arc<Load>,
    /// As [`Candidate::weight`] says. Kept here so that a pick that weighs candidates up need not visit instances.
    weight: u32,
}

impl Candidate {
    /// A candidate without load; for tests of tables.
    pub fn new(instance: Arc<Instance>) -> Self {
        Self::with_load(instance, Arc::default())
    }

    /// A candidate whose failures are reported.
    pub(super) fn reporting(instance: Arc<Instance>, reports: Reports) -> Self {
        let load = Load { reports: Some(reports), ..Load::default() };
        Self::with_load(instance, Arc::new(load))
    }

    /// The same candidate with newer data. The load goes on.
    pub(super) fn renewed(&self, instance: Arc<Instance>) -> Self {
        Self::with_load(instance, self.load.clone())
    }

    fn with_load(instance: Arc<Instance>, load: Arc<Load>) -> Self {
        Self { weight: instance.weight().max(1), instance, load }
    }

    /// The instance.
    pub fn instance(&self) -> &Arc<Instance> {
        &self.instance
    }

    /// The share of traffic it is to get, relative to its siblings: at least 1, for whoever is a candidate gets some.
    pub fn weight(&self) -> u32 {
        self.weight
    }

    /// How many picks of it are under way, here in this balancer.
    pub fn load(&self) -> usize {
        self.load.under_way.load(Ordering::Relaxed)
    }

    /// Forgives all failures.
    pub(super) fn pardon(&self) {
        self.load.failures.store(0, Ordering::Relaxed);
        self.load.reported.store(false, Ordering::Relaxed);
    }
}

/// What an instance is busy with. Outlives every change of the tables and of the instance's data.
///
/// Written by picks, read by tables and by the balancer's task. All of it is statistics that nothing else hangs on,
/// so relaxed ordering will do.
#[derive(Debug, Default)]
struct Load {
    under_way: AtomicUsize,
    /// Failures in a row.
    failures: AtomicU32,
    /// Whether the task has been told and has not decided yet: it is told once, however fast failures come.
    reported: AtomicBool,
    reports: Option<Reports>,
}

/// Where to report instances that fail too often.
#[derive(Clone, Debug)]
pub(super) struct Reports {
    /// How many failures in a row are too often.
    pub(super) after: u32,
    pub(super) to: mpsc::UnboundedSender<Arc<Instance>>,
}

/// An instance that was picked. Hold it for as long as the call takes: while you do, it counts as load.
///
/// Dropping it says that the call went well; [`failed`](Pick::failed) says that it did not.
///
/// # Example: call, and tell what came of it
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> discovery::Result<()> {
/// use discovery::{Discovery, Instance, balance::LeastLoaded, mem::Mem};
/// # async fn call(_: &discovery::Endpoint) -> std::io::Result<()> { Ok(()) }
///
/// let discovery = Discovery::new(Mem::new());
/// let cart = Instance::builder("cart".parse()?).endpoint("http", "10.0.0.7", 8080).build()?;
/// let registration = discovery.register(cart).await?;
/// let balancer = discovery.view(registration.key().service()).await?.balance(LeastLoaded::new());
///
/// let pick = balancer.pick()?;
/// if let Some(endpoint) = pick.endpoint("http")
///     && call(endpoint).await.is_err()
/// {
///     pick.failed();
/// }
/// # Ok(()) }
/// ```
#[must_use = "a pick that is dropped counts as a call that went well"]
pub struct Pick {
    candidate: Arc<Candidate>,
    failed: bool,
}

impl Pick {
    pub(super) fn new(candidate: Arc<Candidate>) -> Self {
        candidate.load.under_way.fetch_add(1, Ordering::Relaxed);
        Self { candidate, failed: false }
    }

    /// The instance.
    pub fn instance(&self) -> &Arc<Instance> {
        &self.candidate.instance
    }

    /// Ends the call and says that the instance failed it. Too many failures in a row
    /// [eject](super::Ejection) the instance.
    ///
    /// Meant for what is the instance's fault: it refused the connection, timed out, or answered that it cannot. An
    /// answer that the caller does not like is none.
    pub fn failed(mut self) {
        self.failed = true;
    }
}

impl Deref for Pick {
    type Target = Instance;

    fn deref(&self) -> &Instance {
        &self.candidate.instance
    }
}

impl Drop for Pick {
    fn drop(&mut self) {
        let load = &self.candidate.load;
        load.under_way.fetch_sub(1, Ordering::Relaxed);
        if !self.failed {
            // Look before writing: nearly always there is nothing to forgive, and the line stays shared.
            if load.failures.load(Ordering::Relaxed) != 0 {
                load.failures.store(0, Ordering::Relaxed);
            }
            return;
        }
        let failures = load.failures.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        if let Some(reports) = &load.reports
            && failures >= reports.after
            && !load.reported.swap(true, Ordering::Relaxed)
        {
            // Nobody there to hear it means that the balancer is gone, and its tables with it.
            let _ = reports.to.send(self.candidate.instance.clone());
        }
    }
}

impl fmt::Debug for Pick {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pick({})", self.candidate.instance.key())
    }
}
