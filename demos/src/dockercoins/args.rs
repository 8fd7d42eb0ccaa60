//! The command line of the dockercoins sample.

use std::{path::PathBuf, time::Duration};

use clap::Subcommand;

use super::store::RedisUrl;
use crate::{
    backend::{BackendArgs, parse_delay, parse_label, parse_ttl, usage},
    listen::{Door, ListenArgs},
    presence::Stay,
};

/// The project of those who do not say.
pub(super) const DEFAULT_PROJECT: &str = "dockercoins";

/// Miners of worthless coins, who find all that they need by name.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(super) command: Command,

    #[command(flatten)]
    pub(super) common: Common,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Everything in one process: rng, hasher, worker, store and the page, which can start more of them
    Demo(DemoArgs),
    /// Gives random bytes, to one client at a time
    Rng(RngCommand),
    /// Hashes what it is sent
    Hasher(HasherCommand),
    /// Takes units of work from the store, and brings back hashes
    Worker(WorkerArgs),
    /// The page
    Webui(ServeArgs),
    /// The store that needs nothing installed
    Store(StoreCommand),
    /// Registers a Redis as the store, for as long as it answers
    Redis(RedisArgs),
}

/// What all parts of a project have to agree on, and how each of them is registered.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Common {
    #[command(flatten)]
    pub(super) backend: BackendArgs,

    /// Which project this is a part of: parts of another one are not seen
    #[arg(long, global = true, env = "DOCKERCOINS_PROJECT", default_value = DEFAULT_PROJECT, value_parser = parse_label)]
    pub(super) project: String,

    #[command(flatten)]
    pub(super) stay: Stay,
}

#[derive(Debug, clap::Args)]
pub(super) struct ServeArgs {
    /// The port; 0 takes a free one [default: that of the original, or a free one if that is taken]
    #[arg(long)]
    port: Option<u16>,

    #[command(flatten)]
    listen: ListenArgs,
}

impl ServeArgs {
    /// Takes the port that was asked for; or else the usual one, or else, for there may be several here, a free one.
    pub(super) async fn open(&self, usual: u16) -> anyhow::Result<Door> {
        match self.port {
            Some(port) => self.listen.open(port).await,
            None => match self.listen.open(usual).await {
                Ok(door) => Ok(door),
                Err(_) => self.listen.open(0).await,
            },
        }
    }
}

#[derive(Debug, clap::Args)]
pub(super) struct RngCommand {
    #[command(flatten)]
    pub(super) serve: ServeArgs,

    #[command(flatten)]
    pub(super) rng: RngArgs,
}

#[derive(Clone, Copy, Debug, clap::Args)]
pub(super) struct RngArgs {
    /// How long an rng takes for each answer
    #[arg(id = "rng-delay", long, value_name = "TIME", default_value = "100ms", value_parser = parse_delay)]
    pub(super) delay: Duration,

    /// How many an rng serves at a time
    #[arg(long, value_name = "COUNT", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    pub(super) parallel: u16,
}

#[derive(Debug, clap::Args)]
pub(super) struct HasherCommand {
    #[command(flatten)]
    pub(super) serve: ServeArgs,

    #[command(flatten)]
    pub(super) hasher: HasherArgs,
}

#[derive(Clone, Copy, Debug, clap::Args)]
pub(super) struct HasherArgs {
    /// How long a hasher takes for each answer
    #[arg(id = "hasher-delay", long, value_name = "TIME", default_value = "100ms", value_parser = parse_delay)]
    pub(super) delay: Duration,
}

#[derive(Clone, Debug, clap::Args)]
pub(super) struct WorkerArgs {
    /// How long a worker works on a unit, besides waiting for others
    #[arg(id = "worker-delay", long, value_name = "TIME", default_value = "100ms", value_parser = parse_delay)]
    pub(super) delay: Duration,

    /// How long others may take to answer
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = parse_ttl)]
    pub(super) timeout: Duration,

    /// How long a unit is a worker's own, which should be longer than a unit takes; then others may have it as well, and
    /// the first hash counts
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = parse_ttl)]
    pub(super) hold: Duration,

    /// How long to finish a unit when it is time to leave; then it is given back
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = parse_delay)]
    pub(super) grace: Duration,
}

#[derive(Debug, clap::Args)]
pub(super) struct StoreCommand {
    #[command(flatten)]
    pub(super) serve: ServeArgs,

    #[command(flatten)]
    pub(super) store: StoreArgs,
}

#[derive(Clone, Debug, clap::Args)]
pub(super) struct StoreArgs {
    /// A file that the store writes all down in, and goes on from; without one it keeps all in memory
    #[arg(long, value_name = "FILE")]
    pub(super) journal: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
pub(super) struct RedisArgs {
    // Text, not a parsed value: clap would repeat a value that it refuses, and with it the password in it.
    /// Where it is, as others can reach it: `redis://host:port/database`, or just host and port
    #[arg(
        long,
        visible_alias = "address",
        env = "REDIS_URL",
        hide_env_values = true,
        default_value = "redis://127.0.0.1:6379"
    )]
    url: String,
}

impl RedisArgs {
    pub(super) fn url(&self) -> anyhow::Result<RedisUrl> {
        parse_url("--url", &self.url)
    }
}

#[derive(Debug, clap::Args)]
pub(super) struct DemoArgs {
    /// The port of the page; 0 takes a free one. All others take free ones
    #[arg(long, default_value_t = 8000)]
    pub(super) port: u16,

    #[command(flatten)]
    pub(super) listen: ListenArgs,

    /// With how many workers to begin
    #[arg(long, value_name = "COUNT", default_value_t = 1)]
    pub(super) workers: u16,

    /// With how many rngs to begin
    #[arg(long, value_name = "COUNT", default_value_t = 1)]
    pub(super) rngs: u16,

    /// With how many hashers to begin
    #[arg(long, value_name = "COUNT", default_value_t = 1)]
    pub(super) hashers: u16,

    #[command(flatten)]
    pub(super) rng: RngArgs,

    #[command(flatten)]
    pub(super) hasher: HasherArgs,

    #[command(flatten)]
    pub(super) worker: WorkerArgs,

    #[command(flatten)]
    pub(super) store: StoreArgs,

    /// A Redis to use instead of a store of its own
    #[arg(long, value_name = "URL", conflicts_with = "journal")]
    redis: Option<String>,
}

impl DemoArgs {
    pub(super) fn redis(&self) -> anyhow::Result<Option<RedisUrl>> {
        self.redis.as_deref().map(|url| parse_url("--redis", url)).transpose()
    }
}

fn parse_url(flag: &str, text: &str) -> anyhow::Result<RedisUrl> {
    text.parse().map_err(|error| usage(format_args!("{flag}: {error}")))
}
