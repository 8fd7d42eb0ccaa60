//! The `simple` sample: a tree of servers that keeps itself alive.

mod args;
mod assets;
mod config;
mod demo;
mod fsm;
mod machine;
mod orphan;
mod output;
mod process;
mod server;
mod supervisor;
mod target;
mod tree;

use std::{net::IpAddr, sync::Arc, time::Duration};

use anyhow::Context;
use discovery::{Endpoint, Instance};
use tokio::time;
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

pub(crate) use self::args::Args;
use self::{
    args::{Command, Common, ServeArgs},
    config::Config,
    server::Server,
    supervisor::Supervisor,
};
use crate::{
    backend::{Registry, Sample},
    console::{BOLD, FAINT, say, write},
    contact,
    listen::Door,
    presence::Presence,
    shutdown, web,
};

/// The tree is `/simple`.
const SIMPLE: Sample =
    Sample { command: "simple demo", alone: "simple demo", root: "simple", zone_port: 5304 };

/// How often who is tethered looks for its supervisor.
const LOOK: Duration = Duration::from_millis(200);

pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let leaving = shutdown::on_signal()?;
    match args.command {
        Some(Command::Demo(args)) => {
            let registry = args.common.backend.choose("mem", SIMPLE)?.connect().await?;
            demo::run(args, &registry, leaving).await
        }
        Some(Command::Diagram(args)) => {
            write(machine::diagram(args.pace.limits(), args.format)?);
            Ok(())
        }
        None => {
            let choice = args.serve.common.backend.choose("mem", SIMPLE)?;
            let by_name = args.serve.name.is_some() || has_services(&args.serve)?;
            let choice = if by_name { choice.shared()? } else { choice };
            serve(args.serve, &choice.connect().await?, leaving).await
        }
    }
}

fn has_services(args: &ServeArgs) -> anyhow::Result<bool> {
    let config = config(args)?;
    Ok(config.targets.iter().any(|(address, _)| address.service().is_some()))
}

fn config(args: &ServeArgs) -> anyhow::Result<Config> {
    Config::read(args.config.as_deref().context("CONFIG_FILE is missing")?)
}

/// One server, until `leaving`, or until it is told to end.
async fn serve(args: ServeArgs, registry: &Registry, leaving: CancellationToken) -> anyhow::Result<()> {
    let config = config(&args)?;
    let urls: Vec<_> = config.targets.iter().map(|(address, _)| address.to_string()).collect();
    let supervisor = Supervisor::new(config, registry, &args)?;
    let ServeArgs { listen, name, common, tethered, .. } = args;
    let listen = listen.context("LISTEN_PORT is missing")?;
    let Common { door, pace, ttl, .. } = common;
    let _tether = tethered.then(|| AbortOnDropHandle::new(tokio::spawn(follow_supervisor(leaving.clone()))));
    tracing::info!("looking after {} targets, in {:?}", urls.len(), pace.start_delay);
    supervisor.stand();
    tokio::select! {
        () = time::sleep(pace.start_delay) => {}
        () = leaving.cancelled() => {
            // There may be some from before.
            supervisor.stop().await;
            return Ok(());
        }
    }
    let door = match listen.addr {
        Some(addr) => door.on(addr),
        None => door,
    };
    let door =
        door.open(listen.port).await.context("LISTEN_PORT: another one, or :0 for a free one, would do")?;
    if let Some(url) = urls.iter().find(|url| door.endpoints.iter().any(|here| is_at(url, here))) {
        anyhow::bail!("{url} is a target, and where this server listens itself; choose another LISTEN_PORT");
    }
    let label = name.as_ref().map_or_else(|| format!("port {}", door.port()), ToString::to_string);
    say(format_args!("  {BOLD}{label}{BOLD:#}  {}  {FAINT}on {registry}{FAINT:#}", door.url()));
    let presence = match name {
        None => None,
        Some(name) => {
            let instance = Instance::builder(name).endpoints(door.endpoints.clone()).build()?;
            let registration = registry.discovery.register(instance).ttl(ttl).start()?;
            Some(Presence::new(registry, registration).quiet())
        }
    };
    supervisor.start();
    let server = Arc::new(Server::new(supervisor, label, leaving));
    let view = server.supervisor.services().next().map(|service| registry.discovery.view(service).open());
    let life = live(server, door, presence);
    match view {
        Some(view) => contact::told_during(registry, view, life).await,
        None => life.await,
    }
}

/// Leaves when the supervisor that has started us is gone.
async fn follow_supervisor(leaving: CancellationToken) {
    while !orphan::are_we_alone() {
        time::sleep(LOOK).await;
    }
    tracing::info!("the supervisor is gone, and nobody will come after it");
    leaving.cancel();
}

/// Whether a URL is where an endpoint of this machine is.
fn is_at(url: &str, here: &Endpoint) -> bool {
    let Ok(url) = reqwest::Url::parse(url) else { return false };
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    let is_loopback =
        |host: &str| host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
    let is_here = host == here.host() || is_loopback(host);
    is_here && url.port_or_known_default() == Some(here.port())
}

/// From listening to the end.
async fn live(server: Arc<Server>, door: Door, mut presence: Option<Presence>) -> anyhow::Result<()> {
    let Server { supervisor, killed, leaving, closing, .. } = &*server;
    let web = async { Ok(web::serve(door.listener, server::router(server.clone()), closing.clone()).await?) };
    let end = async {
        let follow = async {
            match &mut presence {
                Some(presence) => presence.follow().await,
                None => std::future::pending().await,
            }
        };
        let leave = async |presence: Option<Presence>| {
            if let Some(presence) = presence {
                presence.leave(Duration::ZERO).await;
            }
        };
        tokio::select! {
            () = follow => {}
            () = killed.cancelled() => {
                tracing::info!("ending at once; the targets are left alone");
                closing.cancel();
                tokio::join!(supervisor.leave(), leave(presence));
            }
            () = leaving.cancelled() => {
                // In this order: whoever is above sees us while those below end.
                supervisor.stop().await;
                leave(presence).await;
                closing.cancel();
            }
        }
        anyhow::Ok(())
    };
    tokio::try_join!(web, end)?;
    tracing::info!("stopped");
    Ok(())
}
