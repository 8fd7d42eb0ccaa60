//! Starting a target, and bringing it to an end.

use std::{
    env,
    os::fd::OwnedFd,
    sync::{Arc, Weak},
    time::Duration,
};

use futures_util::future::join_all;
use rustix::process::{Pid, Signal as Posix};
use tokio::{
    task,
    time::{self, Instant},
};

use super::{BREATH, Context, Target};
use crate::simple::{
    config::SIMPLE,
    machine::{Instance, Signal, State},
    orphan,
    process::Process,
};

/// The variable that tells a process which target it was started for.
const TARGET: &str = "SIMPLE_TARGET";

/// The variable that tells a process which targets are above it, the top one first.
const ABOVE: &str = "SIMPLE_ABOVE";

/// The variable that tells a process which registry to use.
const BACKEND: &str = "DISCOVERY_BACKEND";

/// How much of a command is logged.
const LINE: usize = 100;

/// Which processes belong to a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kin {
    /// Its process, and what that has started.
    Own,
    /// And all that is below it.
    Branch,
}

impl Target {
    /// Starts it, if that is for us to do and its time has come.
    pub(in crate::simple) async fn start(self: &Arc<Self>) -> anyhow::Result<()> {
        if let Some(obstacle) = self.obstacle() {
            anyhow::bail!("{obstacle}");
        }
        if self.adopt().await {
            return Ok(());
        }
        // One that hangs would keep the port, and so would what it has started.
        let before = self.process().take().filter(Process::is_alive);
        if let Some(process) = before {
            process.signal(Posix::KILL)?;
            process.ended().await;
        }
        finish(&self.kin(Kin::Own).await, Instant::now()).await;
        let words = self.words();
        tracing::info!("{}: starting {}", self.address, clip(&words.join(" ")));
        let started = Process::start(&words, &self.environment(), self.address.short(), self.ended());
        self.known().starts += 1;
        match started {
            Ok(process) => {
                // Whoever ends all may have looked already.
                if self.context.leaving.is_cancelled() {
                    process.signal(Posix::TERM)?;
                }
                *self.process() = Some(process);
            }
            // As if it had ended at once: what comes next is the same.
            Err(error) => self.ended()(format!("could not be started: {error:#}")),
        }
        Ok(())
    }

    /// Tells it to end: as the original does, or else by signal.
    pub(in crate::simple) async fn end(&self) -> anyhow::Result<()> {
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
    pub(in crate::simple) fn crush(&self) -> anyhow::Result<()> {
        match &*self.process() {
            Some(process) if process.is_alive() => process.signal(Posix::KILL),
            _ => anyhow::bail!("it is no process of ours"),
        }
    }

    /// Ends it in order: it is asked, then it is made to.
    pub(in crate::simple) async fn stop(self: &Arc<Self>) {
        let leads = *self.leads.borrow();
        // It may be that nobody has looked for it yet.
        if leads {
            self.adopt().await;
        }
        let limit = self.context.stop_limit;
        let is_there = matches!(self.state(), State::Running | State::Pending | State::Error);
        if let Some(ended) = self.terminate() {
            if time::timeout(limit, ended).await.is_err() {
                tracing::warn!("{} has not ended within {limit:?}; killing it", self.address);
                self.finish().await;
            }
        } else if leads && is_there {
            tracing::warn!("{} is left running: it is no process of ours", self.address);
        }
        if leads {
            let left = self.kin(Kin::Branch).await;
            if !left.is_empty() {
                tracing::info!("{}: ending what it has left behind, {} processes", self.address, left.len());
            }
            finish(&left, Instant::now() + limit / 3).await;
        }
    }

    /// Asks its process to end, if there is one; returns what waits for that.
    fn terminate(&self) -> Option<impl Future<Output = ()> + use<>> {
        let process = self.process();
        let process = process.as_ref().filter(|process| process.is_alive())?;
        if let Err(error) = process.signal(Posix::TERM) {
            tracing::warn!("{}: {error:#}", self.address);
        }
        Some(process.ended())
    }

    /// Kills its process, and waits for its end.
    async fn finish(&self) {
        if let Err(error) = self.crush() {
            tracing::warn!("{}: {error:#}", self.address);
        }
        let ended = self.process().as_ref().map(Process::ended);
        if let Some(ended) = ended {
            ended.await;
        }
    }

    /// Takes over its process from a supervisor that is gone, if we have none.
    pub(super) async fn adopt(self: &Arc<Self>) -> bool {
        if self.has_process() {
            return false;
        }
        let kin = self.kin(Kin::Own).await;
        let Some(orphan) = kin.into_iter().find(|(pid, _)| orphan::is_first(*pid)) else { return false };
        let mut process = self.process();
        // It may have been started in the meantime.
        if process.as_ref().is_some_and(Process::is_alive) {
            return false;
        }
        let orphan = Process::adopt(orphan, self.address.short(), self.ended());
        tracing::info!("{}: adopted process {}", self.address, orphan.pid());
        *process = Some(orphan);
        drop(process);
        let mut known = self.known();
        known.starts = known.starts.max(1);
        true
    }

    pub(super) fn has_process(&self) -> bool {
        self.process().as_ref().is_some_and(Process::is_alive)
    }

    /// Processes of its own, or of its whole branch, that nobody else looks after.
    async fn kin(&self, which: Kin) -> Vec<(Pid, OwnedFd)> {
        let address = self.address.to_string();
        let target = format!("{TARGET}={address}");
        // There may be a target of this name in another registry.
        let backend = self.context.backend.as_ref().map(|backend| format!("{BACKEND}={backend}"));
        let find = move || {
            orphan::find(|env| {
                let is_below = || {
                    let mut above = env.iter().filter_map(|word| word.strip_prefix(ABOVE)?.strip_prefix('='));
                    above.any(|above| above.split(' ').any(|above| above == address))
                };
                let is_kin = env.contains(&target) || (which == Kin::Branch && is_below());
                is_kin && backend.as_ref().is_none_or(|backend| env.contains(backend))
            })
        };
        task::spawn_blocking(find).await.unwrap_or_default()
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
            // Where we end it, why we do is what counts.
            let acts = target.instance.get().is_some_and(Instance::is_acting);
            if state != State::Stopping && !(state == State::Error && acts) {
                target.note(format!("it {reason}"));
            }
            if let Some(instance) = target.instance.get() {
                // All may be over.
                let _ = instance.signal(Signal::Exited);
            }
        }
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
        let Context { pace, stop_limit, ttl, backend, .. } = &*self.context;
        let go = |time: Duration| Some(format!("{}us", time.as_micros()));
        let mut all = vec![
            (orphan::SUPERVISOR, Some(orphan::ourselves())),
            (TARGET, Some(self.address.to_string())),
            (ABOVE, above()),
            ("SIMPLE_TETHERED", self.context.tethers.then(|| "1".into())),
            ("SIMPLE_NAME", self.address.service().map(ToString::to_string)),
            ("SIMPLE_START_DELAY", go(pace.start_delay)),
            ("SIMPLE_POLL_INTERVAL", go(pace.poll_interval)),
            ("SIMPLE_STOP_LIMIT", go((*stop_limit * 2 / 3).max(BREATH))),
            ("SIMPLE_STARTS", Some(pace.starts.to_string())),
            ("SIMPLE_TTL", Some(format!("{}ms", ttl.as_millis()))),
        ];
        if let Some(backend) = backend {
            all.push((BACKEND, Some(backend.clone())));
        }
        all
    }
}

/// Those above our targets: us, if we are a target, and those above us.
fn above() -> Option<String> {
    let [above, target] = [ABOVE, TARGET].map(|name| env::var(name).ok());
    let all: Vec<_> = above.into_iter().chain(target).collect();
    (!all.is_empty()).then(|| all.join(" "))
}

/// Asks processes to end, and kills those that live at the deadline.
async fn finish(processes: &[(Pid, OwnedFd)], deadline: Instant) {
    let signal = |signal| {
        for (_, handle) in processes {
            // What has ended need not be told.
            let _ = orphan::signal(handle, signal);
        }
    };
    let all_gone = || processes.iter().all(|(_, handle)| orphan::is_gone(handle));
    signal(Posix::TERM);
    while !all_gone() && Instant::now() < deadline {
        time::sleep(BREATH).await;
    }
    signal(Posix::KILL);
    while !all_gone() {
        time::sleep(BREATH).await;
    }
}

/// As much of a command as is worth reading.
fn clip(line: &str) -> String {
    let mut clipped: String = line.chars().take(LINE).collect();
    if clipped.len() < line.len() {
        clipped.push('…');
    }
    clipped
}
