//! The command line of the nodes sample.

use std::{num::NonZeroU64, time::Duration};

use clap::{Parser, Subcommand, builder::RangedI64ValueParser, value_parser};

use super::{
    index::{Index, MOST},
    project::Project,
    rpc::{MESSAGE, PATIENCE},
};
use crate::{
    backend::{BackendArgs, parse_ttl},
    listen::ListenArgs,
};

/// Nodes that find each other by name and talk to each other; kill them, cut them off, start more.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(super) command: Command,

    #[command(flatten)]
    pub(super) common: Common,
}

#[derive(Clone, Debug, clap::Args)]
pub(super) struct Common {
    #[command(flatten)]
    pub(super) backend: BackendArgs,

    /// What the nodes belong to [default: the name of this folder; in a container, that of its project]
    #[arg(long, global = true, env = "COMPOSE_PROJECT_NAME", value_name = "NAME")]
    pub(super) project: Option<String>,

    /// How long a node that died counts as there; the registry may round it up
    #[arg(long, global = true, value_name = "TIME", default_value = "3s", value_parser = parse_ttl)]
    pub(super) ttl: Duration,

    /// How long a node may take to answer
    #[arg(long, global = true, value_name = "TIME", default_value = "2s", value_parser = parse_patience)]
    pub(super) timeout: Duration,
}

impl Common {
    /// The project that was asked for. An empty name is none: Compose v1 sets such a one where a file hands it on.
    pub(super) fn named_project(&self) -> anyhow::Result<Option<Project>> {
        self.project.as_deref().filter(|name| !name.is_empty()).map(Project::new).transpose()
    }
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Starts nodes, each a process of its own, and takes commands; Ctrl-C ends all
    Up(UpArgs),
    /// One node
    Serve(ServeArgs),
    /// Whether the node on this machine answers: the health check of a container
    Health {
        /// Its port
        #[arg(long, default_value_t = PORT)]
        port: u16,
    },
    #[command(flatten)]
    Typed(Typed),
}

/// What is done with nodes that run: on the command line, or as a line of `up`.
#[derive(Debug, Subcommand)]
pub(super) enum Typed {
    /// Follows a node; each line that is typed is a message to it. Ctrl-D or an empty line leaves
    Attach {
        /// The node: 2, or its name in either spelling
        node: String,
    },
    #[command(flatten)]
    Act(Act),
}

impl Typed {
    /// Whether it says something at the end when it is told to leave, and need not be broken off.
    pub(super) fn tells_when_it_leaves(&self) -> bool {
        matches!(self, Self::Act(Act::Ping(PingArgs { every: Some(_), .. })))
    }
}

/// What needs no one to type more.
#[derive(Debug, Subcommand)]
pub(super) enum Act {
    /// Says hello to all nodes at once: who answers, how fast, who does not, and who cannot reach whom
    Ping(PingArgs),
    /// What the nodes have said
    Logs {
        /// Only these nodes
        nodes: Vec<String>,

        /// Goes on with what they will say
        #[arg(long, short)]
        follow: bool,
    },
    /// All nodes, dead ones too
    Ps,
    /// Ends a node with SIGKILL; it stays dead until the next `scale`
    Kill {
        /// The node
        node: String,
    },
    /// Cuts these nodes off from all others; the last partition counts
    Partition {
        /// The nodes on the one side
        #[arg(required = true)]
        nodes: Vec<String>,
    },
    /// Ends the partition
    Heal,
    /// Starts nodes, or lets the last ones leave, until there are so many; also revives dead ones
    Scale {
        /// How many
        #[arg(value_parser = size())]
        size: u32,
    },
}

impl Act {
    /// Whether it goes on until somebody ends it.
    pub(super) fn is_endless(&self) -> bool {
        matches!(self, Self::Logs { follow: true, .. } | Self::Ping(PingArgs { every: Some(_), .. }))
    }
}

/// The port of the original.
pub(super) const PORT: u16 = 1234;

/// How many nodes the original calls, however many there are.
pub(super) const CLASSIC: u32 = 10;

#[derive(Debug, clap::Args)]
pub(super) struct UpArgs {
    /// How many nodes
    #[arg(default_value_t = 5, value_parser = size())]
    pub(super) size: u32,
}

#[derive(Debug, clap::Args)]
pub(super) struct ServeArgs {
    /// Which node it is, from 1; in a container its name says so
    #[arg(long)]
    pub(super) index: Option<Index>,

    /// The port; 0 takes a free one
    #[arg(long, default_value_t = PORT)]
    pub(super) port: u16,

    #[command(flatten)]
    pub(super) listen: ListenArgs,

    /// Belongs to an `up`, which knows it by this incarnation: replaces an earlier node of this index, and leaves when
    /// its standard input ends
    #[arg(long, hide = true, value_name = "INCARNATION")]
    pub(super) tethered: Option<NonZeroU64>,

    /// Those on the one side of the partition that there is
    #[arg(long, hide = true)]
    pub(super) island: Vec<Index>,
}

#[derive(Debug, clap::Args)]
pub(super) struct PingArgs {
    /// Only these nodes, each as 2 or by its name in either spelling
    pub(super) nodes: Vec<String>,

    /// Nodes 1 to COUNT, whoever else is there
    #[arg(long, conflicts_with = "nodes", value_parser = size())]
    pub(super) count: Option<u32>,

    /// The lines of the original, which calls nodes 1 to 10
    #[arg(long)]
    pub(super) classic: bool,

    /// Shows for each pair of nodes whether the one reaches the other
    #[arg(long, conflicts_with_all = ["classic", "nodes"])]
    pub(super) matrix: bool,

    /// Again and again with this pause, until Ctrl-C
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    pub(super) every: Option<Duration>,

    /// What is said
    #[arg(long, default_value = "Hello, World!", value_parser = parse_message)]
    pub(super) message: String,
}

/// A line that is typed while `up` runs.
#[derive(Debug, Parser)]
#[command(
    multicall = true,
    disable_help_flag = true,
    override_usage = "COMMAND, such as `ping --matrix`",
    help_template = "{subcommands}\n\n`help COMMAND` says more. Quotes hold words together, as in a shell."
)]
pub(super) enum Prompt {
    #[command(flatten)]
    Typed(Typed),
    /// Ends all nodes, and this; so does Ctrl-C
    Quit,
}

/// How many nodes there can be.
fn size() -> RangedI64ValueParser<u32> {
    value_parser!(u32).range(..=i64::from(MOST))
}

fn parse_message(text: &str) -> anyhow::Result<String> {
    anyhow::ensure!(text.len() <= MESSAGE, "a message has {MESSAGE} bytes at most");
    Ok(text.to_owned())
}

fn parse_patience(text: &str) -> anyhow::Result<Duration> {
    let patience = humantime::parse_duration(text)?;
    let allowed = Duration::from_millis(1)..=PATIENCE;
    anyhow::ensure!(allowed.contains(&patience), "allowed are 1ms to 1m");
    Ok(patience)
}
