//! The run-state sample: machines report, whoever is the last moves the run, and a circle of buddies covers for the dead.

mod args;
mod commands;
mod crew;
mod demo;
mod follow;
mod machine;
mod params;
mod pool;
mod race;
mod serve;
mod topology;
mod work;
mod worker;

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

pub(crate) use self::args::Args;
use self::{
    args::{Command, Common, ServeArgs},
    crew::{Crew, Fate},
    serve::Service,
};
use crate::{
    backend::{Registry, Sample},
    console::{BOLD, FAINT, say},
    contact, shutdown,
};

/// What is suggested to people who have no run yet.
const FIRST: &str = r#"create run-1235 '{"node1": [1,2,4], "node2": [2]}'"#;

/// The tree is `/run-state`.
const RUN_STATE: Sample =
    Sample { command: "run-state", alone: "run-state demo", root: "run-state", zone_port: 5301 };

pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let leaving = shutdown::on_signal()?;
    let Args { command, common } = args;
    match command {
        Command::Demo(args) => {
            let registry = common.backend.choose("mem", RUN_STATE)?.connect().await?;
            demo::run(args, &registry, &common, leaving).await
        }
        Command::Serve(args) => {
            let registry = common.backend.choose("zk", RUN_STATE)?.shared()?.connect().await?;
            run_server(args, &registry, &common, leaving).await
        }
        Command::Race(args) => {
            let registry = common.backend.choose("mem", RUN_STATE)?.connect().await?;
            or_leave(leaving, race::run(&args, &registry, &common)).await
        }
        Command::Follow(args) => or_leave(leaving, follow::run(&args)).await,
        Command::Work { label } => {
            let registry = common.backend.choose("zk", RUN_STATE)?.shared()?.connect().await?;
            or_leave(leaving, work::run(&registry, &label, common.ttl)).await
        }
        command => {
            let choice = common.backend.choose("zk", RUN_STATE)?.shared()?.briefly()?;
            let registry = choice.connect().await?;
            or_leave(leaving, Box::pin(commands::run(&command, &registry, &common))).await
        }
    }
}

async fn run_server(
    args: ServeArgs,
    registry: &Registry,
    common: &Common,
    leaving: CancellationToken,
) -> anyhow::Result<()> {
    let door = args.listen.open(args.port).await?;
    say(format_args!("\n  {BOLD}Run state{BOLD:#}  {}  {FAINT}on {registry}{FAINT:#}", door.url()));
    let command = registry.command(FIRST).unwrap_or_default();
    say(format_args!("\n  {FAINT}Now a run in another terminal: {command}{FAINT:#}\n"));
    let label = format!("serve-{}", std::process::id());
    let crew = Arc::new(Crew::new(registry, &[&label], common.ttl, Fate::Spared));
    let service = Service::new(registry, crew.clone())?;
    contact::told_during(registry, service.view(), async {
        tokio::try_join!(service.serve(door, leaving.clone()), crew.run(&leaving)).map(drop)
    })
    .await
}

/// Breaks off when it is time to leave.
async fn or_leave(
    leaving: CancellationToken,
    work: impl Future<Output = anyhow::Result<()>>,
) -> anyhow::Result<()> {
    tokio::select! {
        done = work => done,
        () = leaving.cancelled() => Ok(()),
    }
}
