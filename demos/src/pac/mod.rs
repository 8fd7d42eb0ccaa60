//! The Pac sample: ghosts register themselves, and a page shows them come and go.

mod args;
mod assets;
mod ghost;
mod ghost_page;
mod messages;
mod server;
mod socket;

use std::time::Duration;

use discovery::{Coordinate, Endpoint, Instance};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub(crate) use self::args::Args;
use self::{
    args::{AllArgs, GhostArgs, Role, ServerArgs},
    ghost::Ghost,
    server::Server,
};
use crate::{
    backend::{Registry, Sample},
    console::{BOLD, FAINT, say},
    contact,
    presence::{Presence, Stay},
    shutdown,
};

/// The tree is `/cn/<region>/<tag>/<service>/<id>`.
const PAC: Sample = Sample { command: "pac", alone: "pac", root: "cn", zone_port: 5300 };

/// What is suggested to people who have no ghost yet.
const FIRST: &str = "ghost blinky";

const CLASSIC: [&str; 4] = ["blinky", "pinky", "inky", "clyde"];

pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let leaving = shutdown::on_signal()?;
    match args.role {
        None => run_all(args.all, leaving).await,
        Some(Role::Server(args)) => run_server(args, leaving).await,
        Some(Role::Ghost(args)) => run_ghost(args, leaving).await,
    }
}

/// The server and the four ghosts in one process, sharing one connection.
async fn run_all(args: AllArgs, leaving: CancellationToken) -> anyhow::Result<()> {
    let common = args.common;
    let registry = common.backend.choose("mem", PAC)?.connect().await?;
    // The ghosts have left when the server goes: nobody waits for it to drain.
    let stay = Stay { drain: Duration::ZERO, ..common.stay };
    let server = Server::new(
        &registry,
        common.place.coordinate("pacman")?,
        stay,
        common.listen.open(args.port).await?,
    )?;
    say(format_args!("\n  {BOLD}Pac{BOLD:#}  {}  {FAINT}on {registry}{FAINT:#}\n", server.url()));

    let mut ghosts = JoinSet::new();
    for name in CLASSIC {
        let door = common.listen.open(0).await?;
        let ghost = Ghost::new(&registry, common.place.coordinate(name)?, common.stay, door)?;
        say(format_args!("  {name:<8}{}  {FAINT}{}{FAINT:#}", ghost.url(), ghost.coordinate()));
        ghosts.spawn(ghost.run(leaving.child_token()));
    }
    say(format_args!("\n  {FAINT}A ghost's page has a button that ends it; Ctrl-C ends all.{FAINT:#}\n"));

    // The server goes last, so that its page sees the ghosts leave.
    let alone = CancellationToken::new();
    let ghosts = async {
        while let Some(ended) = ghosts.join_next().await {
            ended??;
        }
        leaving.cancelled().await;
        alone.cancel();
        Ok(())
    };
    contact::told_during(&registry, server.view(), async {
        tokio::try_join!(server.run(alone.clone()), ghosts).map(drop)
    })
    .await
}

/// Registers in the background; the coordinate is the whole one, with the id of the instance.
fn register(
    registry: &Registry,
    coordinate: Coordinate,
    endpoints: Vec<Endpoint>,
    stay: Stay,
) -> discovery::Result<(Coordinate, Presence)> {
    let mut builder = Instance::builder(coordinate.service().clone()).endpoints(endpoints);
    if let Some(id) = coordinate.instance() {
        builder = builder.id(id.clone());
    }
    let instance = builder.build()?;
    let coordinate = messages::coordinate(&instance).unwrap_or(coordinate);
    let registration = registry.discovery.register(instance).ttl(stay.ttl).start()?;
    Ok((coordinate.clone(), Presence::new(registry, registration).named(coordinate.to_string())))
}

async fn run_server(args: ServerArgs, leaving: CancellationToken) -> anyhow::Result<()> {
    let common = args.common;
    let registry = common.backend.choose("zk", PAC)?.shared()?.connect().await?;
    let coordinate = args.coordinate.map_or_else(|| common.place.coordinate("pacman"), Ok)?;
    let server = Server::new(&registry, coordinate, common.stay, common.listen.open(args.port).await?)?;
    say(format_args!("\n  {BOLD}Pac{BOLD:#}  {}  {FAINT}on {registry}{FAINT:#}", server.url()));
    let command = registry.command(FIRST).unwrap_or_default();
    say(format_args!("\n  {FAINT}Now a ghost in another terminal: {command}{FAINT:#}\n"));
    contact::told_during(&registry, server.view(), server.run(leaving)).await
}

async fn run_ghost(args: GhostArgs, leaving: CancellationToken) -> anyhow::Result<()> {
    let common = args.common;
    let registry = common.backend.choose("zk", PAC)?.shared()?.connect().await?;
    let coordinate = match (args.coordinate, args.name) {
        (Some(coordinate), _) => coordinate,
        (None, name) => common.place.coordinate(name.as_deref().unwrap_or(CLASSIC[0]))?,
    };
    let name = coordinate.service().labels().next_back().unwrap_or_default().to_owned();
    let ghost = Ghost::new(&registry, coordinate, common.stay, common.listen.open(args.port).await?)?;
    say(format_args!("\n  {BOLD}{name}{BOLD:#}  {}  {FAINT}on {registry}{FAINT:#}\n", ghost.url()));
    contact::told_during(&registry, ghost.view(), ghost.run(leaving)).await
}
