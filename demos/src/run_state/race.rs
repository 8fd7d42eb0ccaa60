//! The proof: workers complete the last machines of a run at the same moment, round after round, and some are killed.
//!
//! The original loses this race in 176 of 200 rounds, and one worker that dies in the middle blocks a run for ever.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    time::Duration,
};

use discovery::{
    kv::{Key, Range},
    recipe::{Run, Runs},
};
use futures_util::{StreamExt, TryStreamExt};
use tokio::time::{self, Instant};

use super::{
    args::{Common, RaceArgs},
    machine,
    pool::{Event, Pool, RACER},
    work::Outcome,
    worker::{Errand, Worker},
};
use crate::{
    backend::Registry,
    console::{BOLD, FAINT, say},
};

/// How long a round may take beyond the life of a dead worker before the run counts as stuck.
const PATIENCE: Duration = Duration::from_secs(30);

/// The most machines that have reported before.
const EARLIER: usize = 5;

const FROM: &str = machine::INIT;
const TO: &str = "provisioning";

pub(super) async fn run(args: &RaceArgs, registry: &Registry, common: &Common) -> anyhow::Result<()> {
    let seed = args.seed.unwrap_or_else(|| fastrand::u64(..1_000_000));
    let mut random = fastrand::Rng::with_seed(seed);
    let RaceArgs { rounds, workers, kill, .. } = args;
    say(format_args!("\n  {BOLD}{rounds} rounds{BOLD:#} of 2 to {workers} workers on {registry}"));
    say(format_args!("  {FAINT}seed {seed}, a worker is killed in {kill} of a hundred rounds{FAINT:#}\n"));
    let runs = machine::runs(registry)?;
    // If somebody has to serve a zone, it is this process, which nobody kills: what only a server has that is killed is
    // lost with it.
    let before = marks(registry).await?;
    let mut race = Race {
        name: format!("race-{:08x}", fastrand::u32(..)),
        runs,
        pool: Pool::start(registry, common, usize::from(*workers))?,
        patience: PATIENCE + 3 * common.ttl,
        tally: Tally::default(),
        times: Vec::new(),
    };
    for round in 1..=*rounds {
        let victim = random.u8(0..100) < *kill;
        race.round(round, usize::from(*workers), victim, &mut random).await?;
        if round % (rounds / 10).max(1) == 0 {
            say(format_args!("  {FAINT}{round:>6}{FAINT:#}  {}", race.tally));
        }
    }
    let Race { pool, mut tally, times, .. } = race;
    pool.leave().await?;
    tally.left_over += left_over(registry, &before, common.ttl).await?;
    say(format_args!("\n{}{}", Report(&tally), Times(times)));
    anyhow::ensure!(
        tally.is_clean(*rounds),
        "not every round was moved once, without errors and without leftovers"
    );
    Ok(())
}

/// What was counted.
#[derive(Debug, Default)]
struct Tally {
    moved_once: u32,
    moved_twice: u32,
    stuck: u32,
    errors: u32,
    left_over: usize,
    killed: u32,
    /// Killed with something in hand that the circle knew of, and that was done by a buddy.
    covered: u32,
    /// Killed before the circle knew: somebody else was asked.
    asked_again: u32,
}

impl Tally {
    fn is_clean(&self, rounds: u32) -> bool {
        self.moved_once == rounds
            && (self.moved_twice, self.stuck, self.errors, self.left_over) == (0, 0, 0, 0)
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { moved_once, moved_twice, stuck, errors, killed, .. } = self;
        write!(
            f,
            "moved once {moved_once}, twice {moved_twice}, stuck {stuck}, errors {errors}, killed {killed}"
        )
    }
}

struct Report<'a>(&'a Tally);

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Tally { moved_once, moved_twice, stuck, errors, left_over, killed, covered, asked_again } =
            self.0;
        writeln!(f, "  moved by exactly one   {moved_once:>6}")?;
        writeln!(f, "  moved more than once   {moved_twice:>6}")?;
        writeln!(f, "  stuck                  {stuck:>6}")?;
        writeln!(f, "  errors                 {errors:>6}")?;
        writeln!(f, "  marks left over        {left_over:>6}")?;
        writeln!(
            f,
            "  workers killed         {killed:>6}  {FAINT}covered by a buddy {covered}, asked again {asked_again}{FAINT:#}"
        )
    }
}

struct Times(Vec<Duration>);

impl fmt::Display for Times {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut times = self.0.clone();
        times.sort_unstable();
        let at = |percent: usize| times.get(times.len() * percent / 100).copied().unwrap_or_default();
        writeln!(
            f,
            "  a round without deaths {:>6.1?}  {FAINT}median; {:.1?} in 99 of 100{FAINT:#}",
            at(50),
            at(99)
        )
    }
}

struct Race {
    /// What the ids of its runs begin with: others may have runs there, too.
    name: String,
    runs: Runs,
    pool: Pool,
    patience: Duration,
    tally: Tally,
    /// Of rounds in which nobody was killed.
    times: Vec<Duration>,
}

/// What is known of an errand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Sent,
    Accepted,
    Done,
}

impl Race {
    async fn round(
        &mut self,
        number: u32,
        most: usize,
        victim: bool,
        random: &mut fastrand::Rng,
    ) -> anyhow::Result<()> {
        let workers = random.usize(2..=most);
        let tasks: Vec<_> = (0..workers + random.usize(0..=EARLIER)).map(|n| format!("node/{n}")).collect();
        let run = self
            .runs
            .create(&format!("{}-{number}", self.name), &machine::slipstream(), tasks.clone())
            .await?;
        let (last, earlier) = tasks.split_at(workers);
        for task in earlier {
            run.complete(task, FROM, TO).await?;
        }
        let began = Instant::now();
        let chosen = self.pool.choose(workers, random);
        let mut fates = BTreeMap::new();
        for (worker, task) in chosen.iter().zip(last) {
            self.pool.send(*worker, errand(&run, task)).await;
            fates.insert(task.clone(), (*worker, Fate::Sent));
        }
        let victim = victim.then(|| chosen[random.usize(..chosen.len())]);
        if let Some(victim) = victim {
            // At any moment of a round, or a little later.
            time::sleep(self.usual_time().mul_f64(1.5 * random.f64())).await;
            self.pool.kill(victim);
            self.tally.killed += 1;
        }
        let told = self.settle(&run, &mut fates, began).await?;
        if victim.is_none() {
            self.times.push(began.elapsed());
        }
        self.judge(&run, told).await?;
        run.delete().await?;
        self.pool.revive()
    }

    /// Waits until everybody has answered or died, and the run has moved; says how many told that they had moved it.
    async fn settle(
        &mut self,
        run: &Run,
        fates: &mut BTreeMap<String, (usize, Fate)>,
        began: Instant,
    ) -> anyhow::Result<u32> {
        let deadline = began + self.patience;
        let mut told = 0;
        while fates.values().any(|(_, fate)| *fate != Fate::Done) {
            let Ok(event) = time::timeout_at(deadline, self.pool.next()).await else { return Ok(told) };
            match event {
                Event::Reply(reply) if reply.run == run.id() => {
                    let Some((_, fate)) = fates.get_mut(&reply.task) else { continue };
                    *fate = match (&reply.outcome, *fate) {
                        (Outcome::Accepted, Fate::Sent | Fate::Accepted) => Fate::Accepted,
                        // Or accepted by one that is dead, and done by somebody else before that was heard.
                        _ => Fate::Done,
                    };
                    match reply.outcome {
                        Outcome::Moved => told += 1,
                        Outcome::Failed(error) => {
                            tracing::warn!("{}: {error}", reply.task);
                            self.tally.errors += 1;
                        }
                        Outcome::Accepted | Outcome::Counted | Outcome::Already => {}
                    }
                }
                // Of an earlier round.
                Event::Reply(_) => {}
                Event::Died(worker) => {
                    if self.pool.bury(worker) {
                        tracing::warn!("worker {worker} has ended by itself");
                        self.tally.errors += 1;
                    }
                    for (task, (whose, fate)) in fates.iter_mut().filter(|(_, (whose, _))| *whose == worker) {
                        match fate {
                            Fate::Done => {}
                            // Whoever covers does it.
                            Fate::Accepted => {
                                self.tally.covered += 1;
                                *fate = Fate::Done;
                            }
                            // As a machine would that got no answer.
                            Fate::Sent => {
                                self.tally.asked_again += 1;
                                *whose = self.pool.anybody();
                                self.pool.send(*whose, errand(run, task)).await;
                            }
                        }
                    }
                }
            }
        }
        let mut statuses = run.statuses();
        let moved = async {
            while let Some(status) = statuses.try_next().await? {
                if status.round > 1 {
                    break;
                }
            }
            Ok(())
        };
        match time::timeout_at(deadline, moved).await {
            Ok(moved) => moved.map(|()| told),
            Err(_) => Ok(told),
        }
    }

    /// How long a round has taken lately.
    fn usual_time(&self) -> Duration {
        let mut latest: Vec<_> = self.times.iter().rev().take(15).copied().collect();
        latest.sort_unstable();
        latest.get(latest.len() / 2).copied().unwrap_or(Duration::from_millis(2))
    }

    async fn judge(&mut self, run: &Run, told: u32) -> anyhow::Result<()> {
        let picture = run.picture().await?;
        let status = &picture.status;
        let moves = status.moves.len();
        match (moves, told) {
            (0, _) => self.tally.stuck += 1,
            // Whoever moved it may be dead, or was taken for dead and covered for; then nobody tells.
            (1, 0 | 1) => self.tally.moved_once += 1,
            _ => self.tally.moved_twice += 1,
        }
        if moves == 1 && (status.state != TO || picture.missing().count() != picture.tasks.len()) {
            self.tally.left_over += 1;
        }
        Ok(())
    }
}

fn errand(run: &Run, task: &str) -> Errand {
    Errand { run: run.id().to_owned(), task: task.to_owned(), from: FROM.into(), to: TO.into(), round: None }
}

/// What recipes have written.
async fn marks(registry: &Registry) -> anyhow::Result<BTreeSet<Key>> {
    // Not a scan: that would fail where the registry is out of reach for a moment.
    let mut all = registry.discovery.kv()?.view(Range::Subtree(Key::root()));
    all.changed().await?;
    Ok(all.entries().keys().filter(|key| key.as_str().starts_with('_')).cloned().collect())
}

/// What is left that was not there `before`, when all runs are deleted and all workers have left, or were covered for.
async fn left_over(registry: &Registry, before: &BTreeSet<Key>, ttl: Duration) -> anyhow::Result<usize> {
    let circle = registry.discovery.group(&machine::name())?.ttl(ttl);
    // Somebody has to cover for the last ones who died.
    let (worker, desk) = Worker::new(registry, "referee", ttl)?;
    let settled = async {
        let mut circles = circle.watch();
        while let Some(Ok(seats)) = circles.next().await {
            if !seats.iter().any(|seat| seat.label.starts_with(RACER)) {
                break;
            }
        }
        drop(desk);
    };
    // Who is not covered for by then is counted.
    let settled = async { drop(time::timeout(3 * ttl + PATIENCE, settled).await) };
    let (left, ()) = tokio::join!(worker.work(), settled);
    left?;
    let mut rest = marks(registry).await?;
    rest.retain(|key| !before.contains(key));
    // Others may have joined meanwhile.
    let others: Vec<_> =
        circle.seats().await?.into_iter().filter(|seat| !seat.label.starts_with(RACER)).collect();
    rest.retain(|key| {
        !others.iter().any(|seat| key.name() == Some(&seat.id) || key.name() == Some("circle"))
    });
    for key in &rest {
        tracing::warn!("left over: {key}");
    }
    Ok(rest.len())
}
