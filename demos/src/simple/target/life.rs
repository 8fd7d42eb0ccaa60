//! Starting a target, and bringing it to an end.

use std::{
    env,
    sync::{Arc, Weak},
    time::Duration,
};

use futures_util::future::join_all;
use rustix::process::Signal as Posix;
use tokio::time;

use super::{BREATH, Context, Target};
use crate::simple::{
    config::SIMPLE,
    machine::{Signal, State},
    process::Process,
};

/// The variable that tells a process which target it was started for.
const MARK: &str = "SIMPLE_TARGET";

/// The variable that tells a process which registry to use.
const BACKEND: &str = "DISCOVERY_BACKEND";

/// How much of a command is logged.
const LINE: usize = 100;

impl Target {
    /// Starts it, if that is for us to do and its time has come.
    pub(in crate::simple) async fn start(self: &Arc<Self>) -> anyhow::Result<()> {
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

    /// Takes over its process from a supervisor that is gone, if we have none.
    pub(super) fn adopt(self: &Arc<Self>) -> bool {
        let mut process = self.process();
        if process.as_ref().is_some_and(Process::is_alive) {
            return false;
        }
        let Some(orphan) = Process::adopt(&self.words(), &self.marks(), self.address.short(), self.ended())
        else {
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

    /// By which its process is known: there may be a target of this name in another registry.
    fn marks(&self) -> Vec<String> {
        let identity = |(name, value): (&str, Option<String>)| match name {
            MARK | BACKEND => value.map(|value| format!("{name}={value}")),
            _ => None,
        };
        self.environment().into_iter().filter_map(identity).collect()
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
            all.push((BACKEND, Some(backend.clone())));
        }
        all
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
