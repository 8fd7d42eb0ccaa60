//! The command line of the run-state sample.

use std::time::Duration;

use clap::Subcommand;

use super::topology::{Machine, Topology};
use crate::{
    backend::{BackendArgs, parse_ttl},
    listen::ListenArgs,
};

/// Runs that many machines move from state to state together; whoever is the last moves them.
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

    /// How long to wait for the registry
    #[arg(long, global = true, value_name = "TIME", default_value = "10s", value_parser = humantime::parse_duration)]
    pub(super) patience: Duration,

    /// How long a worker that died counts as alive; the registry may round it up
    #[arg(long, global = true, value_name = "TIME", default_value = "10s", value_parser = parse_ttl)]
    pub(super) ttl: Duration,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Everything in one process: a run, its machines, three workers and the page
    Demo(DemoArgs),
    /// The page, the REST interface and the push service; also a worker
    Serve(ServeArgs),
    /// Creates a run
    Create(CreateArgs),
    /// Lists all runs
    List,
    /// Shows a run: its state, its nodes, who has reported and who has not
    Walk {
        /// The run
        run: String,
    },
    /// Says that a machine has completed a state; the last one moves the run
    Complete(CompleteArgs),
    /// Waits for a run to move, and says where to
    Wait(WaitArgs),
    /// Adds machines to a run, or removes some, while it goes on
    Scale(ScaleArgs),
    /// Ends a run
    Abort {
        /// The run
        run: String,
        /// Why
        #[arg(default_value = "aborted by hand")]
        cause: String,
    },
    /// Deletes a run, with its parameters
    Delete {
        /// The run
        run: String,
    },
    /// A worker of the circle; what it is to complete comes as JSON lines on standard input:
    /// {"run": "run-1235", "task": "node1/1", "from": "init", "to": "provisioning"}
    Work {
        /// What it is called
        #[arg(long, default_value_t = format!("worker-{}", std::process::id()))]
        label: String,
    },
    /// Follows a value of the push service and prints it whenever it changes
    Follow(FollowArgs),
    /// Lets workers complete the last machines at the same moment, again and again, and counts who moves the run
    Race(RaceArgs),
}

#[derive(Debug, clap::Args)]
pub(super) struct CreateArgs {
    /// What to call it
    pub(super) run: String,

    // Not a doc comment, which would take the brackets for links.
    #[arg(
        help = r#"Its nodes with the indices of their machines, as EDN or JSON: '{"node1": [1,2,4], "node2": [2]}'"#
    )]
    pub(super) topology: Topology,

    /// Its states, one after the other, instead of those of the original: init,running,done
    #[arg(long, value_delimiter = ',', value_name = "STATES")]
    pub(super) states: Vec<String>,

    /// How long a state may take before the run has timed out, such as 10m
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    pub(super) limit: Option<Duration>,
}

#[derive(Debug, clap::Args)]
pub(super) struct CompleteArgs {
    /// The run
    pub(super) run: String,

    /// The node of the machine
    pub(super) node: String,

    /// The index of the machine
    pub(super) index: u32,

    /// The state that it has completed
    pub(super) current: String,

    /// The state that is to follow
    pub(super) next: String,
}

#[derive(Debug, clap::Args)]
pub(super) struct WaitArgs {
    /// The run
    pub(super) run: String,

    /// Until it is in this state, or over, instead of the next one whatever it is
    #[arg(long, value_name = "STATE")]
    pub(super) until: Option<String>,
}

#[derive(Debug, clap::Args)]
pub(super) struct ScaleArgs {
    /// The run
    pub(super) run: String,

    /// Machines to add, as node1/3
    #[arg(long, value_name = "MACHINE", num_args = 1.., required_unless_present = "remove")]
    pub(super) add: Vec<Machine>,

    /// Machines to remove, as node1/3
    #[arg(long, value_name = "MACHINE", num_args = 1..)]
    pub(super) remove: Vec<Machine>,
}

#[derive(Debug, clap::Args)]
pub(super) struct ServeArgs {
    /// The port; 0 takes a free one
    #[arg(long, default_value_t = 30_001)]
    pub(super) port: u16,

    #[command(flatten)]
    pub(super) listen: ListenArgs,
}

#[derive(Debug, clap::Args)]
pub(super) struct DemoArgs {
    #[command(flatten)]
    pub(super) serve: ServeArgs,

    /// How long a machine works on a state, on average
    #[arg(long, value_name = "TIME", default_value = "3s", value_parser = humantime::parse_duration)]
    pub(super) pace: Duration,

    /// Its nodes with the indices of their machines
    #[arg(long, default_value = r#"{"db": [1,2], "web": [1,2,3,4,5,6], "worker": [1,2,3,4]}"#)]
    pub(super) topology: Topology,
}

#[derive(Debug, clap::Args)]
pub(super) struct FollowArgs {
    /// What to follow: runs/run-1235/state, or a whole address
    pub(super) what: String,

    /// Ends when the value is this
    #[arg(long, value_name = "VALUE")]
    pub(super) until: Option<String>,

    /// Only values that are newer than the one with this number
    #[arg(long, value_name = "NUMBER")]
    pub(super) after: Option<u64>,

    /// Where the push service is
    #[arg(long, value_name = "ADDRESS", default_value = "http://127.0.0.1:30001")]
    pub(super) server: String,
}

#[derive(Clone, Debug, clap::Args)]
pub(super) struct RaceArgs {
    /// How many rounds
    #[arg(long, default_value_t = 200)]
    pub(super) rounds: u32,

    /// How many workers at most; at least two
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(2..=64))]
    pub(super) workers: u16,

    /// In how many of a hundred rounds a worker is killed
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=100))]
    pub(super) kill: u8,

    /// Makes the choices of chance repeatable
    #[arg(long)]
    pub(super) seed: Option<u64>,
}
