//! Everything in one process: the page, a store, and as many of the others as is wanted, which may change.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::mpsc;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    args::{DemoArgs, HasherArgs, RngArgs},
    hasher, rng,
    site::{Part, Site},
    store, webui,
    worker::{Tools, Voice},
};
use crate::{
    console::{BOLD, FAINT, say},
    contact,
    listen::ListenArgs,
};

/// How many of a part there may be.
const MOST: usize = 50;

pub(super) async fn run(args: DemoArgs, site: Site, leaving: CancellationToken) -> anyhow::Result<()> {
    let redis = args.redis()?;
    let door = args.listen.open(args.port).await?;
    say(format_args!(
        "\n  {BOLD}dockercoins{BOLD:#}  {}  {FAINT}on {}{FAINT:#}\n",
        door.url(),
        site.registry()
    ));
    say(format_args!(
        "  {FAINT}The page can have more workers, rngs and hashers; Ctrl-C ends all.{FAINT:#}\n"
    ));
    let (failed, mut failures) = mpsc::unbounded_channel();
    let crew = Arc::new(Crew {
        tools: Tools::new(&site, &args.worker)?,
        site: site.clone(),
        listen: args.listen.clone(),
        rng: args.rng,
        hasher: args.hasher,
        roll: Mutex::default(),
        workers: TaskTracker::new(),
        others: TaskTracker::new(),
        failed,
    });
    for (part, count) in [(Part::Rng, args.rngs), (Part::Hasher, args.hashers), (Part::Worker, args.workers)]
    {
        crew.scale(part, count.into())?;
    }

    // The crew leaves before what it needs.
    let (alone, quiet) = (CancellationToken::new(), CancellationToken::new());
    let store = async {
        match &redis {
            Some(url) => store::introduce(&site, url, quiet.clone()).await,
            None => store::serve(&site, &args.store, args.listen.open(0).await?, quiet.clone()).await,
        }
    };
    let webui = webui::run(&site, door, Some(crew.clone()), alone.clone());
    let crew_life = async {
        let ended = tokio::select! {
            () = leaving.cancelled() => Ok(()),
            Some(error) = failures.recv() => Err(error),
        };
        crew.leave().await;
        alone.cancel();
        quiet.cancel();
        ended
    };
    let life = async { tokio::try_join!(store, webui, crew_life).map(drop) };
    contact::told_during(site.registry(), site.all(), Box::pin(life)).await
}

/// Those of whom there may be several.
#[derive(Debug)]
pub(super) struct Crew {
    site: Site,
    listen: ListenArgs,
    rng: RngArgs,
    hasher: HasherArgs,
    tools: Tools,
    /// Never locked across an `await`.
    roll: Mutex<Roll>,
    workers: TaskTracker,
    others: TaskTracker,
    failed: mpsc::UnboundedSender<anyhow::Error>,
}

/// Who is there.
#[derive(Debug, Default)]
struct Roll {
    /// What ends each of them, those who came last at the end.
    instances: BTreeMap<Part, Vec<CancellationToken>>,
    /// From then on nobody comes any more: whoever did would be waited for, and never told to leave.
    is_leaving: bool,
}

impl Crew {
    /// Sees to it that there are so many of a part, unless all are leaving.
    pub(super) fn scale(&self, part: Part, count: usize) -> anyhow::Result<()> {
        anyhow::ensure!(count <= MOST, "at most {MOST} of a part");
        anyhow::ensure!(
            matches!(part, Part::Rng | Part::Hasher | Part::Worker),
            "there is one {part}, and no use in another"
        );
        let mut roll = self.roll();
        anyhow::ensure!(!roll.is_leaving, "all are leaving");
        let instances = roll.instances.entry(part).or_default();
        while instances.len() < count {
            instances.push(self.start(part));
        }
        for superfluous in instances.drain(count..) {
            superfluous.cancel();
        }
        Ok(())
    }

    /// Starts one; what ends it is returned.
    fn start(&self, part: Part) -> CancellationToken {
        let token = CancellationToken::new();
        let (site, listen, leaving) = (self.site.clone(), self.listen.clone(), token.clone());
        let (rng, hasher, tools) = (self.rng, self.hasher, self.tools.clone());
        let life = async move {
            match part {
                Part::Rng => rng::run(&site, rng, listen.open(0).await?, leaving).await,
                Part::Hasher => hasher::run(&site, hasher, listen.open(0).await?, leaving).await,
                _ => tools.work(Voice::Quiet, leaving).await,
            }
        };
        let failed = self.failed.clone();
        let tracker = if part == Part::Worker { &self.workers } else { &self.others };
        tracker.spawn(async move {
            if let Err(error) = life.await {
                let _ = failed.send(error.context(part));
            }
        });
        token
    }

    /// The workers first, who need the others to finish what they have.
    async fn leave(&self) {
        self.roll().is_leaving = true;
        self.end(&[Part::Worker], &self.workers).await;
        self.end(&[Part::Rng, Part::Hasher], &self.others).await;
    }

    async fn end(&self, parts: &[Part], tracker: &TaskTracker) {
        for part in parts {
            for token in self.roll().instances.remove(part).unwrap_or_default() {
                token.cancel();
            }
        }
        tracker.close();
        tracker.wait().await;
    }

    fn roll(&self) -> MutexGuard<'_, Roll> {
        self.roll.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
