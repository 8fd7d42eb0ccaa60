//! Everything in one process: the page, three workers, and a run whose machines work for a while on each state.

use std::{sync::Arc, time::Duration};

use anyhow::Context;
use discovery::{ErrorKind, recipe::Run};
use futures_util::TryStreamExt;
use tokio::{task::JoinSet, time};
use tokio_util::sync::CancellationToken;

use super::{
    args::{Common, CreateArgs, DemoArgs},
    commands::{create_run, plan},
    crew::{Crew, Fate},
    machine,
    serve::Service,
    topology::Machine,
    worker::Errand,
};
use crate::{
    backend::Registry,
    console::{BOLD, FAINT, say},
    contact,
};

/// What the run is called.
const RUN: &str = "run-1235";

/// Who works for it.
const WORKERS: [&str; 3] = ["ada", "grace", "edsger"];

/// How long a state may take, as a multiple of what it takes on average.
const LIMIT: u32 = 40;

pub(super) async fn run(
    args: DemoArgs,
    registry: &Registry,
    common: &Common,
    leaving: CancellationToken,
) -> anyhow::Result<()> {
    let DemoArgs { serve, pace, topology } = args;
    let door = serve.listen.open(serve.port).await?;
    say(format_args!("\n  {BOLD}Run state{BOLD:#}  {}  {FAINT}on {registry}{FAINT:#}\n", door.url()));
    let crew = Arc::new(Crew::new(registry, &WORKERS, common.ttl, Fate::Mortal));
    let service = Service::new(registry, crew.clone())?;

    let order = CreateArgs { run: RUN.into(), topology, states: Vec::new(), limit: Some(pace * LIMIT) };
    let run = match create_run(registry, &order.run, plan(&order)?).await {
        Err(error) if is_conflict(&error) => machine::runs(registry)?.run(RUN)?,
        created => created?,
    };
    say(format_args!(
        "  {FAINT}The machines of {RUN} work for {pace:?} on each state; whoever is the last moves the run.\n  \
         Kill a worker on the page: its buddy covers for it. Ctrl-C ends all.{FAINT:#}\n"
    ));
    let machines = async {
        tokio::select! {
            played = play(&run, &crew, pace) => played,
            () = leaving.cancelled() => Ok(()),
        }
    };
    contact::told_during(registry, service.view(), async {
        tokio::try_join!(service.serve(door, leaving.clone()), crew.run(&leaving), machines).map(drop)
    })
    .await
}

fn is_conflict(error: &anyhow::Error) -> bool {
    error.downcast_ref::<discovery::Error>().is_some_and(|error| error.kind() == ErrorKind::Conflict)
}

/// Plays the machines of a run, round by round, until the run is over, and then goes on for as long as it is polled.
async fn play(run: &Run, crew: &Arc<Crew>, pace: Duration) -> anyhow::Result<()> {
    let mut pictures = run.watch();
    let mut machines = JoinSet::new();
    let mut playing = None;
    while let Some(picture) = pictures.try_next().await? {
        let status = &picture.status;
        // Of those that came later, the first look at the round that follows is soon enough; but all of a round.
        if playing != Some((status.round, picture.tasks.len())) {
            playing = Some((status.round, picture.tasks.len()));
            machines.abort_all();
            let Some(next) = next_state(&picture) else { continue };
            for task in picture.missing() {
                let machine: Machine = task.parse().context("a machine of the run")?;
                let errand = Errand::new(run.id(), &machine, &status.state, &next);
                machines.spawn(work(errand, crew.clone(), pace));
            }
        }
    }
    std::future::pending().await
}

/// Round and round, as the original does.
fn next_state(picture: &discovery::recipe::Picture) -> Option<String> {
    let status = &picture.status;
    status.heading.clone().or_else(|| machine::slipstream().steps(&status.state).first().cloned())
}

/// One machine on one state: works, and reports until it is heard.
async fn work(errand: Errand, crew: Arc<Crew>, pace: Duration) {
    time::sleep(pace.mul_f64(0.3 + 1.4 * fastrand::f64())).await;
    while let Err(error) = crew.complete(errand.clone()).await {
        if error.kind() != ErrorKind::Closed && !error.is_transient() {
            // The run is elsewhere by now.
            tracing::debug!("{errand:?}: {error}");
            return;
        }
        time::sleep(pace / 10).await;
    }
}
