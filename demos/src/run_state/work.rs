//! A worker in a process of its own: errands come in on standard input, and what comes of them goes to standard output.

use std::{pin::pin, time::Duration};

use discovery::recipe::Completed;
use futures_util::{StreamExt, stream::FuturesUnordered};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, BufReader};

use super::worker::{Desk, Errand, Worker};
use crate::{backend::Registry, console::say};

/// What comes of an errand, as a line: first that it is accepted, and later how it went.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Reply {
    pub(super) run: String,
    pub(super) task: String,
    pub(super) outcome: Outcome,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Outcome {
    /// It will be done, whoever dies.
    Accepted,
    Moved,
    Counted,
    Already,
    Failed(String),
}

impl Outcome {
    pub(super) fn of(completed: discovery::Result<Completed>) -> Self {
        match completed {
            Ok(Completed::Moved) => Self::Moved,
            Ok(Completed::Counted) => Self::Counted,
            Ok(Completed::Already) => Self::Already,
            Err(error) => Self::Failed(error.to_string()),
        }
    }
}

/// Works until the input ends, and then leaves the circle.
pub(super) async fn run(registry: &Registry, label: &str, ttl: Duration) -> anyhow::Result<()> {
    let (worker, desk) = Worker::new(registry, label, ttl)?;
    let serve = async {
        let served = serve(&desk).await;
        drop(desk);
        served
    };
    let mut work = pin!(worker.work());
    tokio::select! {
        // A worker that gives up does so for good.
        gave_up = &mut work => Ok(gave_up?),
        served = serve => {
            // Also if the input cannot be read: not without leaving.
            work.await?;
            served
        }
    }
}

async fn serve(desk: &Desk) -> anyhow::Result<()> {
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    let mut under_way = FuturesUnordered::new();
    loop {
        tokio::select! {
            line = lines.next_line() => {
                let Some(line) = line? else { break };
                match serde_json::from_str::<Errand>(&line) {
                    Ok(errand) => under_way.push(answer(desk, errand)),
                    // Whoever sends the next one may know better.
                    Err(error) => tracing::warn!("{line:?} is no errand: {error}; see --help for what one is"),
                }
            }
            Some(()) = under_way.next() => {}
        }
    }
    while under_way.next().await.is_some() {}
    Ok(())
}

async fn answer(desk: &Desk, errand: Errand) {
    let Errand { run, task, .. } = errand.clone();
    let reply = |outcome| {
        let reply = Reply { run: run.clone(), task: task.clone(), outcome };
        // Fails only for maps whose keys are no text.
        say(serde_json::to_string(&reply).unwrap_or_default());
    };
    let outcome = desk.entrust(errand, || reply(Outcome::Accepted)).await;
    reply(Outcome::of(outcome));
}
