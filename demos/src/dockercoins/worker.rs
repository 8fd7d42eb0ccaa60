//! The worker: takes units from the store, and brings back hashes.

use std::{
    pin::pin,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::http::header::CONTENT_TYPE;
use data_encoding::HEXLOWER;
use tokio::time::{self, Instant};
use tokio_util::sync::CancellationToken;

use super::{
    args::WorkerArgs,
    call::{self, Caller},
    hasher::hash_of,
    retry::until_done,
    site::{Part, Site},
    store::{Done, Store, Verdict},
};
use crate::presence::Presence;

/// How many random bytes a unit takes.
const BYTES: usize = 32;

/// How often to say how it goes.
const REPORT: Duration = Duration::from_secs(1);

/// How long not to repeat that units take too long.
const REMINDER: Duration = Duration::from_secs(30);

/// How long the store may take at the end to answer: what it has not heard of will be overdue.
const FAREWELL: Duration = Duration::from_secs(1);

/// Whether a worker is alone in its process, and may say how it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Voice {
    Loud,
    Quiet,
}

/// What workers work with. Those of one process share it, and so spread their calls best.
#[derive(Clone, Debug)]
pub(super) struct Tools {
    site: Site,
    args: WorkerArgs,
    rng: Caller,
    hasher: Caller,
    store: Store,
    /// When it was last said that units take too long, by any of those who share this. Never locked across an `await`.
    warned: Arc<Mutex<Option<Instant>>>,
}

impl Tools {
    pub(super) fn new(site: &Site, args: &WorkerArgs) -> anyhow::Result<Self> {
        let client = call::client(args.timeout)?;
        Ok(Self {
            site: site.clone(),
            args: args.clone(),
            rng: Caller::new(site, Part::Rng, client.clone()),
            hasher: Caller::new(site, Part::Hasher, client.clone()),
            store: Store::new(site, client),
            warned: Arc::default(),
        })
    }

    /// Says that a unit took longer than it was its worker's own, but not of each.
    fn warn_if_late(&self, unit: u64, took: Duration) {
        let hold = self.args.hold;
        let mut warned = self.warned.lock().unwrap_or_else(PoisonError::into_inner);
        if took <= hold || warned.is_some_and(|at| at.elapsed() < REMINDER) {
            return;
        }
        *warned = Some(Instant::now());
        let took = took.as_secs_f64();
        tracing::warn!(
            "unit {unit} took {took:.1} s; behind --hold {} others do such a unit as well, in vain",
            humantime::format_duration(hold)
        );
    }

    /// A worker: registered, and at work until `leaving`; then it finishes its unit, or gives it back.
    pub(super) async fn work(self, voice: Voice, leaving: CancellationToken) -> anyhow::Result<()> {
        let mut presence = self.site.register(self.site.instance(Part::Worker).build()?)?;
        let site = self.site.clone();
        let mut worker = Worker::new(self, &presence, voice);
        let ended = tokio::select! {
            refused = site.follow(&mut presence) => Err(refused),
            () = worker.run(&leaving) => Ok(()),
        };
        // Nobody calls a worker, so nobody has to be drained.
        presence.leave(Duration::ZERO).await;
        ended
    }
}

struct Worker {
    tools: Tools,
    id: String,
    voice: Voice,
    /// Units since the last report, and when that was.
    units: u32,
    reported: Option<Instant>,
}

impl Worker {
    fn new(tools: Tools, presence: &Presence, voice: Voice) -> Self {
        Self { tools, id: presence.key().id().to_string(), voice, units: 0, reported: None }
    }

    async fn run(&mut self, leaving: &CancellationToken) {
        let store = self.tools.store.clone();
        let hold = self.tools.args.hold;
        loop {
            self.report();
            let mut taken = pin!(until_done("taking a unit", || store.take(hold)));
            let unit = match leaving.run_until_cancelled(&mut taken).await {
                Some(unit) => unit,
                // It may have been given one already.
                None => match time::timeout(FAREWELL, taken).await {
                    Ok(unit) => unit,
                    Err(_) => return,
                },
            };
            if !self.finish(unit, leaving).await {
                return;
            }
        }
    }

    /// Does a unit, and says whether to go on.
    async fn finish(&mut self, unit: u64, leaving: &CancellationToken) -> bool {
        let Tools { args, store, .. } = self.tools.clone();
        let overtime = async {
            leaving.cancelled().await;
            time::sleep(args.grace).await;
        };
        let began = Instant::now();
        tokio::select! {
            // Also if it is another's as well by now: as long as nobody was faster, it counts.
            () = self.do_unit(unit) => self.tools.warn_if_late(unit, began.elapsed()),
            () = overtime => {
                let back = until_done("giving a unit back", || store.give_back(unit));
                let is_back = time::timeout(FAREWELL, back).await.is_ok();
                let what = if is_back { "is given back" } else { "will be overdue, and another's" };
                tracing::info!("unit {unit} {what}");
            }
        }
        !leaving.is_cancelled()
    }

    async fn do_unit(&mut self, unit: u64) {
        let Tools { args, rng, hasher, store, .. } = &self.tools;
        tracing::debug!("Doing one unit of work");
        time::sleep(args.delay).await;
        let (bytes, rng) = until_done("rng", || {
            rng.call(
                |client, url| client.get(format!("{url}/{BYTES}")),
                |bytes| {
                    anyhow::ensure!(bytes.len() == BYTES, "{} bytes instead of {BYTES}", bytes.len());
                    Ok(bytes)
                },
            )
        })
        .await;
        let (hash, hasher) = until_done("hasher", || {
            hasher.call(
                |client, url| {
                    client.post(url).header(CONTENT_TYPE, "application/octet-stream").body(bytes.clone())
                },
                |hash| checked(&bytes, &hash),
            )
        })
        .await;
        let done = Done { unit, worker: self.id.clone(), bytes: HEXLOWER.encode(&bytes), hash, rng, hasher };
        let verdict = until_done("counting a unit", || store.bring(&done)).await;
        self.told(&done, verdict);
    }

    fn told(&mut self, done: &Done, verdict: Verdict) {
        match verdict {
            Verdict::Plain => tracing::debug!("No coin found"),
            Verdict::Coin if self.voice == Voice::Loud => {
                tracing::info!("Coin found: {}...", done.hash.get(..8).unwrap_or(&done.hash));
            }
            Verdict::Coin => tracing::debug!("Coin found: {}...", done.hash),
            Verdict::OldCoin => tracing::info!("We already had that coin"),
            Verdict::Known => {
                tracing::info!("unit {} was counted before", done.unit);
                return;
            }
        }
        self.units += 1;
    }

    /// Says how it goes, in the words of the original; here, each unit is counted by itself.
    fn report(&mut self) {
        if self.voice == Voice::Quiet || self.reported.is_some_and(|at| at.elapsed() <= REPORT) {
            return;
        }
        tracing::info!("{} units of work done, updating hash counter", self.units);
        self.units = 0;
        self.reported = Some(Instant::now());
    }
}

/// A hash that the store will take.
fn checked(bytes: &[u8], hash: &[u8]) -> anyhow::Result<String> {
    let right = hash_of(bytes);
    anyhow::ensure!(hash == right.as_bytes(), "a hash that is none");
    Ok(right)
}
