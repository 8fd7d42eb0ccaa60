//! A target: asked how it is, started, and brought to an end.

mod ask;
mod end;
mod kin;
mod lead;
mod life;

use std::{
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, atomic::AtomicU64},
    time::{Duration, SystemTime},
};

use discovery::View;
use serde::Serialize;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{
    args::Pace,
    config::{Address, Order},
    machine::{Instance, Signal, State, until_start},
    process::Process,
};
use crate::{backend::Registry, listen::HTTP};

/// How long an answer may take, whatever the interval: a busy machine is no reason to start a server anew.
const ANSWER: [Duration; 2] = [Duration::from_secs(2), Duration::from_secs(5)];

/// How long who hangs may take to end.
const MOMENT: Duration = Duration::from_secs(1);

/// The least pause between two questions.
const BREATH: Duration = Duration::from_millis(10);

/// What all targets of a supervisor share.
#[derive(Debug)]
pub(super) struct Context {
    pub(super) http: reqwest::Client,
    pub(super) registry: Registry,
    /// For the processes that are started.
    pub(super) backend: Option<String>,
    pub(super) pace: Pace,
    /// How long each target may take to end.
    pub(super) stop_limit: Duration,
    pub(super) ttl: Duration,
    /// Whether targets leave by themselves when we are gone: nobody could adopt them.
    pub(super) tethers: bool,
    /// As whom we stand for election.
    pub(super) label: String,
    /// Once this is cancelled nothing is started any more.
    pub(super) leaving: CancellationToken,
    /// Rings when something has changed.
    pub(super) bell: watch::Sender<()>,
}

#[derive(Debug)]
pub(super) struct Target {
    pub(super) address: Address,
    order: Order,
    context: Arc<Context>,
    /// Those that are to run first.
    after: Vec<Arc<Target>>,
    /// Where the service is, if it is one.
    view: Option<View>,
    instance: OnceLock<Instance>,
    /// Whether we are the one who looks after it.
    leads: watch::Sender<bool>,
    /// Written when it is seen that its state has changed, or something goes wrong; read by reports. Never locked across an
    /// `await`, and never while the machine is: its state is read under this lock.
    known: Mutex<Known>,
    /// Written by who starts or adopts, read by who ends it; never locked across an `await`.
    process: Mutex<Option<Process>>,
    /// Counts its processes, so that the end of one is not taken for that of the next.
    turn: AtomicU64,
}

/// What is to be told of it.
#[derive(Debug)]
struct Known {
    /// The state that was told of last; whoever decides asks the machine.
    told: State,
    since: SystemTime,
    /// When it is to be started, while it is down.
    start: Option<SystemTime>,
    error: Option<(String, SystemTime)>,
    starts: u32,
}

/// How a target is, for people and programs.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Report {
    pub(super) target: String,
    pub(super) state: String,
    since: String,
    last_error: Option<Trouble>,
    /// How often it was started again.
    restarts: u32,
    /// When it is to be started again, if it waits for that.
    next_start: Option<String>,
    /// The process, if it is one of ours.
    pid: Option<i32>,
    /// Whether we are the one who looks after it.
    elected: bool,
    /// What it waits for, if it does.
    waits_for: Option<String>,
    after: Vec<String>,
}

#[derive(Clone, Debug, Serialize)]
struct Trouble {
    what: String,
    at: String,
}

impl Target {
    pub(super) fn new(address: Address, order: Order, context: &Arc<Context>, after: Vec<Arc<Self>>) -> Self {
        let view = address.service().map(|service| context.registry.discovery.view(service).open());
        let known =
            Known { told: State::Unknown, since: SystemTime::now(), start: None, error: None, starts: 0 };
        Self {
            address,
            order,
            context: context.clone(),
            after,
            view,
            instance: OnceLock::new(),
            leads: watch::Sender::new(false),
            known: Mutex::new(known),
            process: Mutex::new(None),
            turn: AtomicU64::new(0),
        }
    }

    /// Gives it its life, once.
    pub(super) fn live(&self, instance: Instance) {
        // A second one is no other.
        let _ = self.instance.set(instance);
    }

    /// How it is now; at the end, how it was.
    pub(super) fn state(&self) -> State {
        let now = self.instance.get().and_then(|instance| instance.state().ok());
        now.unwrap_or_else(|| self.known().told)
    }

    /// Whether it comes after another one.
    pub(super) fn is_after(&self, other: &Address) -> bool {
        self.after.iter().any(|first| first.address == *other)
    }

    pub(super) fn report(&self) -> Report {
        self.look();
        let obstacle = self.obstacle();
        let (ending, pid) = match &*self.process() {
            Some(process) if process.is_alive() => (Some(State::Stopping), Some(process.pid())),
            // Nobody asks any more.
            Some(_) => (Some(State::Down), None),
            None => (None, None),
        };
        let ending = ending.filter(|_| self.context.leaving.is_cancelled());
        let error = |(what, at): &(String, SystemTime)| Trouble { what: what.clone(), at: stamp(*at) };
        let known = self.known();
        Report {
            target: self.address.to_string(),
            state: ending.unwrap_or(known.told).to_string(),
            since: stamp(known.since),
            last_error: known.error.as_ref().map(error),
            restarts: known.starts.saturating_sub(1),
            next_start: known.start.map(stamp),
            pid,
            elected: *self.leads.borrow(),
            waits_for: obstacle.filter(|_| known.told == State::Waiting),
            after: self.order.after.iter().map(ToString::to_string).collect(),
        }
    }

    /// Has it started if it is down: what was before does not count.
    pub(super) fn provision(&self) {
        if let Some(instance) = self.instance.get() {
            instance.forget();
            // Whoever is there already, is not started.
            let _ = instance.signal(Signal::Provision);
        }
    }

    /// Asks it to do something of its own, `kill` or `httpStatus?code=500`.
    pub(super) async fn command(&self, what: &str) -> anyhow::Result<()> {
        let urls = self.urls();
        anyhow::ensure!(!urls.is_empty(), "{} is nowhere", self.address);
        for url in urls {
            self.get(&format!("{url}/{what}")).await?;
        }
        Ok(())
    }

    /// Tells of its states.
    pub(super) async fn follow(self: Arc<Self>) {
        let Some(Ok(mut standing)) = self.instance.get().map(Instance::follow) else { return };
        while standing.changed().await.is_ok() {
            self.look();
        }
    }

    /// Where it is now, without a slash at the end.
    pub(super) fn urls(&self) -> Vec<String> {
        match (&self.address, &self.view) {
            (Address::Url(url), _) => vec![url.clone()],
            (_, Some(view)) => view.read(|snapshot, _| {
                let endpoints = snapshot.iter().filter_map(|instance| instance.endpoint(HTTP));
                endpoints.map(|endpoint| format!("http://{endpoint}")).collect()
            }),
            (_, None) => Vec::new(),
        }
    }

    /// Keeps what became of an action, if that is nothing good. What is new is logged: at once, or with the state that comes of
    /// it.
    pub(super) fn noted(&self, outcome: anyhow::Result<()>) -> anyhow::Result<()> {
        outcome.inspect_err(|error| {
            let (why, state) = (format!("{error:#}"), self.state());
            let is_new = self.known().error.as_ref().is_none_or(|(known, _)| *known != why);
            if is_new && state == State::Stuck {
                tracing::warn!("{} is still {state}: {why}", self.address);
            }
            self.note(why);
        })
    }

    /// What keeps it from being started.
    fn obstacle(&self) -> Option<String> {
        if self.context.leaving.is_cancelled() {
            return Some("the supervisor is leaving".into());
        }
        if !*self.leads.borrow() {
            return Some("being elected: another supervisor looks after it".into());
        }
        let first = self.after.iter().find(|first| first.state() != State::Running)?;
        Some(first.address.to_string())
    }

    async fn get(&self, url: &str) -> anyhow::Result<()> {
        let [limit, _] = ANSWER;
        self.context.http.get(url).timeout(limit).send().await?.error_for_status()?;
        Ok(())
    }

    /// Tells of its state, if that has changed.
    fn look(&self) {
        let Some(instance) = self.instance.get() else { return };
        let mut known = self.known();
        // At the end there is none.
        let Ok(state) = instance.state() else { return };
        let (before, now) = (known.told, SystemTime::now());
        // It may have been elsewhere and back meanwhile.
        if before != state || known.start.is_none_or(|start| start <= now) {
            known.start = until_start(instance).and_then(|pause| now.checked_add(pause));
        }
        if before == state {
            return;
        }
        (known.told, known.since) = (state, now);
        let why = known.error.as_ref().map(|(why, _)| why.clone()).unwrap_or_default();
        drop(known);
        match state {
            State::Error | State::Stuck => tracing::warn!("{} is {state}: {why}", self.address),
            State::Down if before != State::Unknown => tracing::warn!("{} is {state}: {why}", self.address),
            State::Failed => tracing::error!(
                "{} is {state}: it was started too often, and is left alone until /provision is asked ({why})",
                self.address
            ),
            _ => tracing::info!("{} is {state}", self.address),
        }
        self.context.bell.send_replace(());
    }

    fn note(&self, trouble: String) {
        self.known().error = Some((trouble, SystemTime::now()));
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn process(&self) -> MutexGuard<'_, Option<Process>> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn stamp(time: SystemTime) -> String {
    humantime::format_rfc3339_millis(time).to_string()
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::{ask::Answer, *};
    use crate::simple::{SIMPLE, args::ServeArgs, config::Config, supervisor::Supervisor};

    #[derive(Debug, Parser)]
    struct Cli {
        #[command(flatten)]
        args: ServeArgs,
    }

    const NOBODY: &str = "http://127.0.0.1:1";

    /// One that has nothing going on by itself, and its only target.
    async fn one() -> (Supervisor, Arc<Target>) {
        let args = Cli::parse_from(["simple", "-", ":0"]).args;
        let registry = args.common.backend.choose("mem", SIMPLE).unwrap().connect().await.unwrap();
        let config = Config::read(&serde_json::json!({ NOBODY: "no/such/program" }).to_string()).unwrap();
        let supervisor = Supervisor::new(config, &registry, &args).unwrap();
        let target = supervisor.find(NOBODY).unwrap().clone();
        (supervisor, target)
    }

    #[tokio::test]
    async fn what_the_machine_says_counts_at_once() {
        let (supervisor, target) = one().await;
        assert!(!supervisor.is_well());
        // Nobody follows.
        let before = target.report();
        target.instance.get().unwrap().signal(Signal::Running).unwrap();
        assert!(supervisor.is_well());
        let after = target.report();
        assert_eq!((before.state.as_str(), after.state.as_str()), ("UNKNOWN", "RUNNING"));
        assert!(after.since >= before.since);
        supervisor.leave().await;
        assert_eq!(target.state(), State::Running, "as it was");
    }

    /// The states that a target goes through, as it answers.
    fn through(target: &Target, answers: impl IntoIterator<Item = Answer>) -> Vec<State> {
        let instance = target.instance.get().unwrap();
        let told = answers.into_iter().map(|answer| {
            target.tell(instance, answer);
            target.state()
        });
        told.collect()
    }

    #[tokio::test]
    async fn one_bad_answer_stops_nobody_and_two_in_a_row_do() {
        use Answer::{NotReady, Silent, Unwell, Well};
        let (_supervisor, target) = one().await;
        let instance = target.instance.get().unwrap();
        let bad = || Unwell("it answers with status 500".into());
        let silent = Silent("it does not answer".into());
        let states = through(&target, [Well, bad(), Well, silent, NotReady, bad(), Well]);
        let [error, running, pending] = [State::Error, State::Running, State::Pending];
        assert_eq!(states, [running, error, running, error, pending, error, running]);
        // Not before we are elected.
        assert_eq!(through(&target, [bad(), bad(), bad()]), [error; 3]);
        assert!(!instance.is_acting());
        target.leads.send_replace(true);
        through(&target, [bad()]);
        assert!(instance.is_acting(), "it is being stopped");
    }

    #[tokio::test]
    async fn a_report_says_when_the_next_start_is_due() {
        let (_supervisor, target) = one().await;
        through(&target, [Answer::Well]);
        assert_eq!(target.report().next_start, None);
        through(&target, [Answer::Absent("nobody is there".into())]);
        let report = serde_json::to_value(target.report()).unwrap();
        assert_eq!(report["state"], "DOWN");
        assert!(report["nextStart"].as_str() > report["since"].as_str(), "{report}");
        through(&target, [Answer::Well]);
        assert_eq!(target.report().next_start, None);
    }

    #[tokio::test]
    async fn who_hangs_is_not_asked_to_end() {
        let (_supervisor, target) = one().await;
        target.leads.send_replace(true);
        let silence = || "it does not answer".to_owned();
        through(&target, [Answer::Silent(silence()), Answer::Hung(silence())]);
        // There is no process that could be ended.
        assert_eq!(target.instance.get().unwrap().settled().await, Ok(State::Stuck));
        let report = target.report();
        let error = report.last_error.unwrap().what;
        assert_eq!((report.state.as_str(), error.as_str()), ("STUCK", "it hangs, and is no process of ours"));
    }
}
