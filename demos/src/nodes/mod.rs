//! The nodes sample: N nodes that find and call each other by name, and what can happen to them.

mod act;
mod args;
mod fleet;
mod index;
mod input;
mod journal;
mod net;
mod node;
mod ping;
mod project;
mod rpc;
mod up;
mod wire;

use std::time::Duration;

use anyhow::{Context, bail};
use tokio_util::sync::CancellationToken;

pub(crate) use self::args::Args;
use self::{
    args::{Command, Common, ServeArgs, Typed},
    input::Input,
    net::Net,
    node::{Node, Role},
    rpc::RPC,
};
use crate::{
    backend::{Registry, Sample},
    console::say,
    shutdown,
};

/// The tree is `/nodes`.
const NODES: Sample =
    Sample { command: "nodes", alone: "nodes up --backend mem", root: "nodes", zone_port: 5302 };

/// Processes that need no server.
const DEFAULT: &str = "dns";

/// How long Docker may take to give a container its name.
const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let leaving = shutdown::on_signal()?;
    let Args { command, common } = args;
    match command {
        Command::Up(args) => {
            let registry = common.backend.choose(DEFAULT, NODES)?.connect().await?;
            up::run(&args, &registry, &common, &leaving).await
        }
        Command::Serve(args) => {
            let registry = common.backend.choose_any(DEFAULT, NODES)?.shared()?.connect().await?;
            serve(&args, &registry, &common, leaving).await
        }
        Command::Health { port } => ping::health(port, common.timeout).await,
        Command::Typed(typed) => {
            let choice = common.backend.choose_any(DEFAULT, NODES)?.shared()?.briefly()?;
            let registry = choice.connect().await?;
            tokio::select! {
                done = typed_once(&typed, &registry, &common, &leaving) => done,
                () = leaving.cancelled(), if !typed.tells_when_it_leaves() => Ok(()),
            }
        }
    }
}

/// As a command of its own.
async fn typed_once(
    typed: &Typed,
    registry: &Registry,
    common: &Common,
    leaving: &CancellationToken,
) -> anyhow::Result<()> {
    let net = Net::open(common, registry).await?;
    match typed {
        Typed::Attach { node } => act::attach(&net, node, &mut Input::open()).await,
        Typed::Act(act) => act::run(&net, act, leaving).await,
    }
}

/// One node, until it is told to leave.
async fn serve(
    args: &ServeArgs,
    registry: &Registry,
    common: &Common,
    leaving: CancellationToken,
) -> anyhow::Result<()> {
    let (project, index) = match args.index {
        Some(index) => (Net::open(common, registry).await?.project, index),
        None if registry.is_writable() => bail!("--index: say which node this is, such as --index 1"),
        None => {
            let here = net::container(registry, PATIENCE).await?;
            let (project, index) =
                here.context("this container is no node by its name; name it with --project and --index")?;
            (common.named_project()?.unwrap_or(project), index)
        }
    };
    let island = args.island.iter().copied().collect();
    let role = Role { project, index, ttl: common.ttl, incarnation: args.tethered, island };
    let door = args.listen.open_as(RPC, args.port).await?;
    let node = Node::new(registry, &role, door, Box::new(|text| say(text)))?;
    let tether = async {
        if args.tethered.is_some() {
            Input::open().end().await;
            leaving.cancel();
        }
        std::future::pending().await
    };
    tokio::select! {
        ran = node.run(leaving.clone()) => ran,
        never = tether => never,
    }
}
