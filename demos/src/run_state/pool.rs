//! The workers of a race: processes of their own, or tasks where the registry ends at the border of the process.

use std::{process::Stdio, time::Duration};

use anyhow::Context;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    process::{Child, ChildStdin, Command},
    sync::mpsc,
    task::{AbortHandle, JoinSet},
    time,
};

use super::{
    args::Common,
    work::{Outcome, Reply},
    worker::{Desk, Errand, Worker},
};
use crate::backend::Registry;

/// What the labels of the workers of a race begin with.
pub(super) const RACER: &str = "racer-";

/// How long a worker may take to leave in order.
const FAREWELL: Duration = Duration::from_secs(20);

/// What is heard of workers.
#[derive(Debug)]
pub(super) enum Event {
    Reply(Reply),
    /// A worker is dead, and nothing more will be heard of it.
    Died(usize),
}

/// Workers, by number; the dead are revived under another one.
pub(super) struct Pool {
    registry: Registry,
    common: Common,
    size: usize,
    workers: Vec<Option<Body>>,
    events: mpsc::UnboundedReceiver<Event>,
    tell: mpsc::UnboundedSender<Event>,
    /// Those who listen to processes, and the workers that are tasks.
    tasks: JoinSet<()>,
}

enum Body {
    Process { child: Box<Child>, input: ChildStdin },
    Task { desk: Desk, handle: AbortHandle },
}

impl Pool {
    pub(super) fn start(registry: &Registry, common: &Common, size: usize) -> anyhow::Result<Self> {
        let (tell, events) = mpsc::unbounded_channel();
        let (registry, common) = (registry.clone(), common.clone());
        let mut pool =
            Self { registry, common, size, workers: Vec::new(), events, tell, tasks: JoinSet::new() };
        pool.revive()?;
        Ok(pool)
    }

    /// Starts as many workers as are missing.
    pub(super) fn revive(&mut self) -> anyhow::Result<()> {
        for _ in self.workers.iter().flatten().count()..self.size {
            let number = self.workers.len();
            let body = if self.registry.is_shared() {
                self.spawn_process(number)?
            } else {
                self.spawn_task(number)?
            };
            self.workers.push(Some(body));
        }
        Ok(())
    }

    fn spawn_process(&mut self, number: usize) -> anyhow::Result<Body> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["run-state", "work", "--label", &format!("{RACER}{number}")]);
        command.args(["--ttl", &humantime::format_duration(self.common.ttl).to_string()]);
        // Not as an argument: there may be a secret in it, and others see arguments.
        command.envs(self.common.backend.text().map(|text| ("DISCOVERY_BACKEND", text)));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().context("cannot start a worker")?;
        let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            anyhow::bail!("a worker without pipes");
        };
        let tell = self.tell.clone();
        self.tasks.spawn(async move {
            let mut lines = BufReader::new(output).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                match serde_json::from_str(&line) {
                    Ok(reply) => drop(tell.send(Event::Reply(reply))),
                    // A line that a kill has cut off.
                    Err(error) => tracing::debug!("{line}: {error}"),
                }
            }
            let _ = tell.send(Event::Died(number));
        });
        Ok(Body::Process { child: Box::new(child), input })
    }

    fn spawn_task(&mut self, number: usize) -> anyhow::Result<Body> {
        let (worker, desk) = Worker::new(&self.registry, &format!("{RACER}{number}"), self.common.ttl)?;
        let tell = self.tell.clone();
        let handle = self.tasks.spawn(async move {
            if let Err(error) = worker.work().await {
                tracing::warn!("a worker gave up: {error}");
            }
            let _ = tell.send(Event::Died(number));
        });
        Ok(Body::Task { desk, handle })
    }

    /// So many of the living.
    pub(super) fn choose(&self, count: usize, random: &mut fastrand::Rng) -> Vec<usize> {
        let alive = self.workers.iter().enumerate().filter(|(_, body)| body.is_some()).map(|(n, _)| n);
        random.choose_multiple(alive, count)
    }

    /// One of the living.
    pub(super) fn anybody(&self) -> usize {
        self.workers.iter().rposition(Option::is_some).unwrap_or_default()
    }

    /// Asks a worker; one that is dead does not answer.
    pub(super) async fn send(&mut self, worker: usize, errand: Errand) {
        match self.workers.get_mut(worker).and_then(Option::as_mut) {
            Some(Body::Process { input, .. }) => {
                let mut line = serde_json::to_vec(&errand).unwrap_or_default();
                line.push(b'\n');
                // If it has just died, that will be heard.
                let _ = input.write_all(&line).await;
            }
            Some(Body::Task { desk, .. }) => {
                let (desk, tell) = (desk.clone(), self.tell.clone());
                self.tasks.spawn(async move {
                    let (run, task) = (errand.run.clone(), errand.task.clone());
                    let reply = |outcome| {
                        let reply = Reply { run: run.clone(), task: task.clone(), outcome };
                        let _ = tell.send(Event::Reply(reply));
                    };
                    match desk.entrust(errand, || reply(Outcome::Accepted)).await {
                        // It was killed, which is heard as well.
                        Err(error) if error.kind() == discovery::ErrorKind::Closed => {}
                        completed => reply(Outcome::of(completed)),
                    }
                });
            }
            None => {}
        }
    }

    /// Kills a worker, with `SIGKILL` if it is a process.
    pub(super) fn kill(&mut self, worker: usize) {
        match self.workers.get_mut(worker).and_then(Option::take) {
            Some(Body::Process { mut child, .. }) => {
                let _ = child.start_kill();
                // Reaped by whoever waits for it; its end is heard from its output.
                self.tasks.spawn(async move { drop(child.wait().await) });
            }
            Some(Body::Task { handle, .. }) => {
                handle.abort();
                let _ = self.tell.send(Event::Died(worker));
            }
            None => {}
        }
    }

    /// Counts a dead worker out; says whether it had died by itself.
    pub(super) fn bury(&mut self, worker: usize) -> bool {
        self.workers.get_mut(worker).and_then(Option::take).is_some()
    }

    /// What is heard next. Cancel safe.
    pub(super) async fn next(&mut self) -> Event {
        match self.events.recv().await {
            Some(event) => event,
            // We hold a sender ourselves.
            None => std::future::pending().await,
        }
    }

    /// Lets all leave in order.
    pub(super) async fn leave(mut self) -> anyhow::Result<()> {
        let mut leaving = JoinSet::new();
        for body in self.workers.drain(..).flatten() {
            match body {
                Body::Process { mut child, input } => {
                    drop(input);
                    leaving.spawn(async move { child.wait().await.map(drop) });
                }
                Body::Task { desk, .. } => drop(desk),
            }
        }
        let all = async {
            while let Some(left) = leaving.join_next().await {
                left??;
            }
            while self.tasks.join_next().await.is_some() {}
            Ok(())
        };
        time::timeout(FAREWELL, all).await.context("workers do not leave")?
    }
}
