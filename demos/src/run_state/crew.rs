//! Several workers in one process, who can be killed.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use discovery::{Error, ErrorKind, recipe::Completed};
use futures_util::future::try_join_all;
use tokio::{
    task::{AbortHandle, JoinSet},
    time,
};
use tokio_util::sync::CancellationToken;

use super::{
    serve::Log,
    worker::{Desk, Errand, Word, Worker},
};
use crate::backend::Registry;

/// How long workers may take to leave.
const FAREWELL: Duration = Duration::from_secs(5);

/// How long a worker that was killed stays dead.
const DEAD: Duration = Duration::from_secs(5);

/// Whether workers may be killed by whoever sees the page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Mortal,
    Spared,
}

/// Workers of the same process. Errands go to one of them by chance.
pub(super) struct Crew {
    registry: Registry,
    ttl: Duration,
    log: Arc<Log>,
    labels: Vec<String>,
    fate: Fate,
    /// Those who are at work. Written by whoever starts and kills them, never locked across an `await`.
    at_work: Mutex<BTreeMap<String, (Desk, AbortHandle)>>,
}

impl Crew {
    pub(super) fn new(registry: &Registry, labels: &[&str], ttl: Duration, fate: Fate) -> Self {
        Self {
            registry: registry.clone(),
            ttl,
            log: Arc::default(),
            labels: labels.iter().map(|label| (*label).to_owned()).collect(),
            fate,
            at_work: Mutex::default(),
        }
    }

    /// What they say.
    pub(super) fn log(&self) -> &Arc<Log> {
        &self.log
    }

    /// Who may be killed.
    pub(super) fn mortals(&self) -> &[String] {
        match self.fate {
            Fate::Mortal => &self.labels,
            Fate::Spared => &[],
        }
    }

    /// Has all of them work, and starts those again that were killed, until `leaving`; then they leave the circle.
    pub(super) async fn run(&self, leaving: &CancellationToken) -> anyhow::Result<()> {
        let lives = try_join_all(self.labels.iter().map(|label| self.live(label, leaving)));
        let leave = async {
            leaving.cancelled().await;
            // A worker whose desk is gone ends what it has in hand and leaves.
            self.at_work().clear();
        };
        let overdue = async {
            leaving.cancelled().await;
            time::sleep(FAREWELL).await;
        };
        tokio::select! {
            (lives, ()) = async { tokio::join!(lives, leave) } => lives.map(drop),
            // Without the registry nobody can leave in order; then they are covered for.
            () = overdue => Ok(()),
        }
    }

    async fn live(&self, label: &str, leaving: &CancellationToken) -> anyhow::Result<()> {
        while !leaving.is_cancelled() {
            let (worker, desk) = Worker::new(&self.registry, label, self.ttl)?;
            let words = desk.words();
            let mut task = JoinSet::new();
            let handle = task.spawn(worker.work());
            self.at_work().insert(label.to_owned(), (desk, handle));
            let life = async {
                let ended = task.join_next().await;
                // Also its desk: as long as there is one, the words have not ended.
                self.at_work().remove(label);
                ended
            };
            let (ended, ()) = tokio::join!(life, self.log.listen(words));
            if let Some(Ok(ended)) = ended {
                return Ok(ended?);
            }
            // It was killed.
            tokio::select! {
                () = leaving.cancelled() => {}
                () = time::sleep(DEAD) => {}
            }
        }
        Ok(())
    }

    /// Ends a worker without a word, as a crash would; it is back in a few seconds. Says whether there was one.
    pub(super) fn kill(&self, label: &str) -> bool {
        let victim = self.mortals().iter().find(|mortal| *mortal == label);
        let Some((_, task)) = victim.and_then(|label| self.at_work().remove(label)) else { return false };
        task.abort();
        self.log.push(Word { worker: label.to_owned(), text: "killed".into() });
        true
    }

    /// Has any of them do it, or another one if that one dies.
    pub(super) async fn complete(&self, errand: Errand) -> discovery::Result<Completed> {
        let desk = {
            let at_work = self.at_work();
            let chosen = fastrand::usize(..at_work.len().max(1));
            at_work.values().nth(chosen).map(|(desk, _)| desk.clone())
        };
        match desk {
            Some(desk) => desk.complete(errand).await,
            None => Err(Error::new(ErrorKind::Closed, "nobody is at work; try again")),
        }
    }

    fn at_work(&self) -> MutexGuard<'_, BTreeMap<String, (Desk, AbortHandle)>> {
        self.at_work.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
