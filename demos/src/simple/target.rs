//! A target: asked how it is, started, and brought to an end.

use std::{
    env,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak},
    time::{Duration, SystemTime},
};

use discovery::{ServiceName, View};
use futures_util::future::join_all;
use rustix::process::Signal as Posix;
use serde::Serialize;
use tokio::{sync::watch, time};
use tokio_util::sync::CancellationToken;

use super::{
    args::Pace,
    config::{Address, Order, SIMPLE},
    machine::{Instance, Signal, State},
    orphan::MARK,
    process::Process,
};
use crate::{backend::Registry, listen::HTTP};

/// How long an answer may take, whatever the interval.
const ANSWER: [Duration; 2] = [Duration::from_millis(500), Duration::from_secs(2)];

/// How many times as often a target is asked that is not running.
const EAGER: u32 = 10;

/// The least pause between two questions.
const BREATH: Duration = Duration::from_millis(10);

/// How long to wait before standing for election again, behind a refusal.
const NEXT_CAMPAIGN: Duration = Duration::from_secs(1);

/// What all targets of a supervisor share.
#[derive(Debug)]
pub(super) struct Context {
    pub(super) http: reqwest::Client,
    pub(super) registry: Registry,
    /// For the processes that are started.
    pub(super) backend: Option<String>,
    pub(super) pace: Pace,
    pub(super) ttl: Duration,
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
    /// Written when its state changes or something goes wrong, read by reports; never locked across an `await`.
    known: Mutex<Known>,
    /// Written by who starts or adopts, read by who ends it; never locked across an `await`.
    process: Mutex<Option<Process>>,
}

#[derive(Debug)]
struct Known {
    state: State,
    since: SystemTime,
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

/// What came of asking it.
#[derive(Debug)]
enum Answer {
    Well,
    NotReady,
    Unwell(String),
    Absent(String),
}

impl Target {
    pub(super) fn new(address: Address, order: Order, context: &Arc<Context>, after: Vec<Arc<Self>>) -> Self {
        let view = address.service().map(|service| context.registry.discovery.view(service).open());
        let known = Known { state: State::Unknown, since: SystemTime::now(), error: None, starts: 0 };
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
        }
    }

    /// Gives it its life, once.
    pub(super) fn live(&self, instance: Instance) {
        // A second one is no other.
        let _ = self.instance.set(instance);
    }

    pub(super) fn state(&self) -> State {
        self.known().state
    }

    /// Whether it comes after another one.
    pub(super) fn is_after(&self, other: &Address) -> bool {
        self.after.iter().any(|first| first.address == *other)
    }

    pub(super) fn report(&self) -> Report {
        let known = self.known();
        let error = |(what, at): &(String, SystemTime)| Trouble { what: what.clone(), at: stamp(*at) };
        let waits_for = (known.state == State::Waiting).then(|| self.obstacle()).flatten();
        Report {
            target: self.address.to_string(),
            state: known.state.to_string(),
            since: stamp(known.since),
            last_error: known.error.as_ref().map(error),
            restarts: known.starts.saturating_sub(1),
            pid: self.process().as_ref().filter(|process| process.is_alive()).map(Process::pid),
            elected: *self.leads.borrow(),
            waits_for,
            after: self.order.after.iter().map(ToString::to_string).collect(),
        }
    }

    /// Starts it, if that is for us to do and its time has come.
    pub(super) async fn start(self: &Arc<Self>) -> anyhow::Result<()> {
        if let Some(obstacle) = self.obstacle() {
            anyhow::bail!("{obstacle}");
        }
        if self.adopt() {
            return Ok(());
        }
        // One that hangs would keep the port.
        let before = self.process().take().filter(Process::is_alive);
        if let Some(process) = before {
            process.signal(Posix::KILL)?;
            process.ended().await;
        }
        let words = self.words();
        tracing::info!("{}: starting {}", self.address, words.join(" "));
        let started = Process::start(&words, &self.environment(), self.address.short(), self.ended());
        self.known().starts += 1;
        match started {
            Ok(process) => *self.process() = Some(process),
            // As if it had ended at once: what comes next is the same.
            Err(error) => self.ended()(format!("could not be started: {error:#}")),
        }
        Ok(())
    }

    /// Tells it to end: as the original does, or else by signal.
    pub(super) async fn end(&self) -> anyhow::Result<()> {
        anyhow::ensure!(*self.leads.borrow(), "another supervisor looks after it");
        let urls: Vec<_> = self.urls().iter().map(|url| format!("{url}/kill")).collect();
        if join_all(urls.iter().map(|url| self.get(url))).await.iter().any(Result::is_ok) {
            return Ok(());
        }
        match &*self.process() {
            Some(process) => process.signal(Posix::TERM),
            None => anyhow::bail!("it does not take /kill, and is no process of ours"),
        }
    }

    /// Kills it.
    pub(super) fn crush(&self) -> anyhow::Result<()> {
        match &*self.process() {
            Some(process) if process.is_alive() => process.signal(Posix::KILL),
            _ => anyhow::bail!("it is no process of ours"),
        }
    }

    /// Starts it by order of a person: what was before does not count.
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

    /// Ends it in order: it is asked, then it is made to.
    pub(super) async fn stop(self: &Arc<Self>) {
        // It may be that nobody has looked for it yet.
        if *self.leads.borrow() {
            self.adopt();
        }
        let ended = {
            let process = self.process();
            let Some(process) = process.as_ref().filter(|process| process.is_alive()) else { return };
            if let Err(error) = process.signal(Posix::TERM) {
                tracing::warn!("{}: {error:#}", self.address);
            }
            process.ended()
        };
        let limit = self.context.pace.stop_limit;
        if time::timeout(limit, ended).await.is_err() {
            tracing::warn!("{} has not ended within {limit:?}; killing it", self.address);
            if let Err(error) = self.crush() {
                tracing::warn!("{}: {error:#}", self.address);
            }
            let ended = self.process().as_ref().map(Process::ended);
            if let Some(ended) = ended {
                ended.await;
            }
        }
    }

    /// Asks it how it is, again and again.
    pub(super) async fn ask(self: Arc<Self>) {
        let Some(instance) = self.instance.get() else { return };
        let Ok(mut standing) = instance.follow() else { return };
        let mut places = self.view.clone();
        // Whether it has been looked for among the orphans since it was absent.
        let mut looked = false;
        loop {
            let answer = self.answer().await;
            if matches!(answer, Answer::Absent(_)) {
                looked = false;
            } else if !looked && *self.leads.borrow() {
                looked = true;
                self.adopt();
            }
            self.tell(instance, answer);
            let interval = self.context.pace.poll_interval;
            let pause = if self.state() == State::Running { interval } else { interval / EAGER };
            let moved = async {
                let changed = match &mut places {
                    Some(view) => view.changed().await.is_ok(),
                    None => false,
                };
                if !changed {
                    std::future::pending::<()>().await;
                }
            };
            tokio::select! {
                () = time::sleep(pause) => {}
                changed = standing.changed() => if changed.is_err() { return },
                () = moved => {}
            }
            time::sleep(BREATH).await;
        }
    }

    /// Tells of its states.
    pub(super) async fn follow(self: Arc<Self>) {
        let Some(Ok(mut standing)) = self.instance.get().map(Instance::follow) else { return };
        while standing.changed().await.is_ok() {
            let state = standing.borrow_and_update().state;
            self.enter(state);
        }
    }

    /// Stands for election, again and again, and resigns at the end.
    pub(super) async fn lead(self: Arc<Self>) -> discovery::Result<()> {
        let Context { registry, ttl, label, leaving, .. } = &*self.context;
        let election = registry.discovery.election(&self.seat()?)?.ttl(*ttl);
        loop {
            let campaign = tokio::select! {
                campaign = election.campaign(label.clone()) => campaign,
                () = leaving.cancelled() => return Ok(()),
            };
            let leadership = match campaign {
                Ok(leadership) => leadership,
                Err(error) => {
                    tracing::warn!("nobody can be elected to look after {}: {error}", self.address);
                    time::sleep(NEXT_CAMPAIGN).await;
                    continue;
                }
            };
            self.leads.send_replace(true);
            self.context.bell.send_replace(());
            let lost = tokio::select! {
                why = leadership.fence().lost() => why,
                () = leaving.cancelled() => return leadership.resign().await,
            };
            self.leads.send_replace(false);
            tracing::warn!("no longer elected to look after {}: {lost}", self.address);
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

    /// Takes over its process from a supervisor that is gone, if we have none.
    fn adopt(self: &Arc<Self>) -> bool {
        let mut process = self.process();
        if process.as_ref().is_some_and(Process::is_alive) {
            return false;
        }
        let mark = self.address.to_string();
        let Some(orphan) = Process::adopt(&self.words(), &mark, self.address.short(), self.ended()) else {
            return false;
        };
        tracing::info!("{}: adopted process {}", self.address, orphan.pid());
        *process = Some(orphan);
        drop(process);
        let mut known = self.known();
        known.starts = known.starts.max(1);
        true
    }

    /// What is to be done at the end of its process.
    fn ended(self: &Arc<Self>) -> impl FnOnce(String) + Send + use<> {
        let target: Weak<Self> = Arc::downgrade(self);
        move |reason| {
            let Some(target) = target.upgrade() else { return };
            let (state, leaving) = (target.state(), target.context.leaving.is_cancelled());
            if leaving {
                return tracing::info!("{} {reason}", target.address);
            }
            tracing::warn!("{} {reason}", target.address);
            if state != State::Stopping {
                target.note(format!("it {reason}"));
            }
            if let Some(instance) = target.instance.get() {
                // All may be over.
                let _ = instance.signal(Signal::Exited);
            }
        }
    }

    /// Signals what came of asking.
    fn tell(&self, instance: &Instance, answer: Answer) {
        // Old news by the time that its action has ended.
        if instance.is_acting() {
            return;
        }
        let lives = self.process().as_ref().is_some_and(Process::is_alive);
        let (signal, trouble) = match answer {
            Answer::Well => (Signal::Running, None),
            Answer::NotReady => (Signal::Pending, None),
            Answer::Unwell(why) => (Signal::Error, Some(why)),
            Answer::Absent(why) if !lives => (Signal::Down, Some(why)),
            // It does not listen, but it is there; while it starts or ends that is as it should be.
            Answer::Absent(why) => match self.state() {
                State::Running | State::Pending => (Signal::Error, Some(why)),
                _ => return,
            },
        };
        if let Some(trouble) = trouble
            && instance.can_receive(signal)
        {
            self.note(trouble);
        }
        // All may be over.
        let _ = instance.signal(signal);
    }

    async fn answer(&self) -> Answer {
        let urls = self.urls();
        let answers = join_all(urls.iter().map(|url| self.answer_of(url))).await;
        // A registration outlives its process for a while: the best one counts.
        let rank = |answer: &Answer| match answer {
            Answer::Well => 0,
            Answer::NotReady => 1,
            Answer::Unwell(_) => 2,
            Answer::Absent(_) => 3,
        };
        let best = answers.into_iter().min_by_key(rank);
        best.unwrap_or_else(|| Answer::Absent("nobody is registered".into()))
    }

    async fn answer_of(&self, url: &str) -> Answer {
        let [least, most] = ANSWER;
        let limit = self.context.pace.poll_interval.clamp(least, most);
        match self.context.http.get(url).timeout(limit).send().await {
            Ok(response) => match response.status().as_u16() {
                200 => Answer::Well,
                503 => Answer::NotReady,
                status => Answer::Unwell(format!("it answers with status {status}")),
            },
            Err(error) if error.is_timeout() => {
                Answer::Unwell(format!("it does not answer within {limit:?}"))
            }
            Err(error) if error.is_connect() => Answer::Absent("it cannot be connected to".into()),
            Err(_) => Answer::Absent("it broke off the connection".into()),
        }
    }

    async fn get(&self, url: &str) -> anyhow::Result<()> {
        let [_, limit] = ANSWER;
        self.context.http.get(url).timeout(limit).send().await?.error_for_status()?;
        Ok(())
    }

    fn enter(&self, state: State) {
        let mut known = self.known();
        let before = known.state;
        if before == state {
            return;
        }
        (known.state, known.since) = (state, SystemTime::now());
        let why = known.error.as_ref().map(|(why, _)| why.clone()).unwrap_or_default();
        drop(known);
        match state {
            State::Error | State::Down if before != State::Unknown => {
                tracing::warn!("{} is {state}: {why}", self.address);
            }
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

    /// The command, where the name of the original means this program.
    fn words(&self) -> Vec<String> {
        let words = &self.order.words;
        match (words.first(), env::current_exe()) {
            (Some(first), Ok(program)) if first == SIMPLE => {
                let program = [program.to_string_lossy().into_owned(), "simple".to_owned()];
                program.into_iter().chain(words[1..].iter().cloned()).collect()
            }
            _ => words.clone(),
        }
    }

    /// What its process is told, for the case that it is one like us.
    fn environment(&self) -> Vec<(&'static str, Option<String>)> {
        let Context { pace, ttl, backend, .. } = &*self.context;
        let go = |time: Duration| Some(format!("{}us", time.as_micros()));
        let mut all = vec![
            (MARK, Some(self.address.to_string())),
            ("SIMPLE_NAME", self.address.service().map(ToString::to_string)),
            ("SIMPLE_START_DELAY", go(pace.start_delay)),
            ("SIMPLE_POLL_INTERVAL", go(pace.poll_interval)),
            ("SIMPLE_STOP_LIMIT", go((pace.stop_limit * 2 / 3).max(BREATH))),
            ("SIMPLE_STARTS", Some(pace.starts.to_string())),
            ("SIMPLE_TTL", Some(format!("{}ms", ttl.as_millis()))),
        ];
        if let Some(backend) = backend {
            all.push(("DISCOVERY_BACKEND", Some(backend.clone())));
        }
        all
    }

    /// Where its supervisors are elected.
    fn seat(&self) -> discovery::Result<ServiceName> {
        let labels = match &self.address {
            Address::Service(name) => {
                ["simple", "service"].into_iter().chain(name.labels()).map(str::to_owned).collect()
            }
            Address::Url(url) => {
                let text = url.trim_start_matches("http://").to_ascii_lowercase();
                let label: String =
                    text.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).take(60).collect();
                vec!["simple".to_owned(), "url".to_owned(), label.trim_matches('-').to_owned()]
            }
        };
        ServiceName::from_labels(labels)
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
