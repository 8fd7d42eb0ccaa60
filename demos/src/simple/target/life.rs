//! Starting a target, and noticing its end.

use std::{
    env,
    sync::{Arc, Weak, atomic::Ordering},
    time::Duration,
};

use rustix::process::Signal as Posix;
use tokio::time::{self, Instant};

use super::{
    BREATH, Context, MOMENT, Target,
    kin::{Kin, end_all},
};
use crate::simple::{
    config::SIMPLE,
    machine::{Instance, Signal, State},
    orphan::{self, Relative},
    process::Process,
};

/// The variable that tells a process which target it was started for.
pub(super) const TARGET: &str = "SIMPLE_TARGET";

/// The variable that tells a process which targets are above it, the top one first.
pub(super) const ABOVE: &str = "SIMPLE_ABOVE";

/// The variable that tells a process which registry to use.
pub(super) const BACKEND: &str = "DISCOVERY_BACKEND";

/// How much of a command is logged.
const LINE: usize = 100;

impl Target {
    /// Starts it, if that is for us to do and its time has come.
    pub(in crate::simple) async fn start(self: &Arc<Self>) -> anyhow::Result<()> {
        if let Some(obstacle) = self.obstacle() {
            anyhow::bail!("{obstacle}");
        }
        if !self.has_process() {
            self.adopt().await;
            // By us, or by who asks how it is.
            if self.has_process() {
                return Ok(());
            }
        }
        self.make_room().await?;
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

    /// Ends whatever keeps its place: one that hangs, and what it has started.
    async fn make_room(&self) -> anyhow::Result<()> {
        let before = self.process().take().filter(Process::is_alive);
        if let Some(process) = before {
            // Its end is none of the next one.
            self.turn.fetch_add(1, Ordering::Relaxed);
            process.signal(Posix::KILL)?;
            let ended = time::timeout(MOMENT, process.ended()).await;
            anyhow::ensure!(ended.is_ok(), "process {} cannot be killed, and is in the way", process.pid());
        }
        let left = end_all(self.kin(Kin::Own).await, Instant::now()).await;
        anyhow::ensure!(left.is_empty(), "processes {left:?} cannot be ended, and are in the way");
        Ok(())
    }

    /// Takes over its process from a supervisor that is gone, if we have none.
    pub(super) async fn adopt(self: &Arc<Self>) {
        if self.has_process() {
            return;
        }
        let kin = self.kin(Kin::Own).await;
        // What it has started is younger.
        let orphan = kin
            .into_iter()
            .filter(Relative::is_adoptable)
            .min_by_key(|process| process.begin().unwrap_or(u64::MAX));
        let Some(orphan) = orphan else { return };
        let mut process = self.process();
        // It may have been started in the meantime.
        if process.as_ref().is_some_and(Process::is_alive) {
            return;
        }
        let orphan = Process::adopt(orphan, self.address.short(), self.ended());
        tracing::info!("{}: adopted process {}", self.address, orphan.pid());
        *process = Some(orphan);
        drop(process);
        let mut known = self.known();
        known.starts = known.starts.max(1);
    }

    pub(super) fn has_process(&self) -> bool {
        self.process().as_ref().is_some_and(Process::is_alive)
    }

    /// What is to be done at the end of its next process.
    fn ended(self: &Arc<Self>) -> impl FnOnce(String) + Send + use<> {
        let target: Weak<Self> = Arc::downgrade(self);
        let turn = self.turn.fetch_add(1, Ordering::Relaxed) + 1;
        move |reason| {
            let Some(target) = target.upgrade() else { return };
            if target.turn.load(Ordering::Relaxed) != turn {
                return tracing::info!("{}: the one before {reason}", target.address);
            }
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

/// As much of a command as is worth reading.
fn clip(line: &str) -> String {
    let mut clipped: String = line.chars().take(LINE).collect();
    if clipped.len() < line.len() {
        clipped.push('…');
    }
    clipped
}
