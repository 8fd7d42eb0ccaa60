//! Five well-known samples re-created on the discovery crate: one binary, a subcommand a demo.

mod backend;
mod check;
mod console;
mod contact;
mod dockercoins;
mod init;
mod listen;
mod nodes;
mod pac;
mod presence;
mod registry;
mod run_state;
mod shutdown;
mod simple;
mod web;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Well-known samples of service discovery, on whatever registry is at hand.
#[derive(Debug, Parser)]
#[command(name = "demos", version, arg_required_else_help = true, max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    demo: Demo,
}

#[derive(Debug, Subcommand)]
enum Demo {
    /// Nodes that find each other by name, and what happens when some die or are cut off
    Nodes(Box<nodes::Args>),
    /// Ghosts that register themselves, and a page on which they come and go
    Pac(Box<pac::Args>),
    /// Runs that many machines move from state to state together, and a page on which they go
    RunState(Box<run_state::Args>),
    /// Miners who find all that they need by name, and a page that shows what holds them up
    Dockercoins(Box<dockercoins::Args>),
    /// A tree of servers that keeps itself alive, and a page that shows it
    Simple(Box<simple::Args>),
    /// Serves the DNS zone that --backend names to other machines, for where there is no other registry
    Registry(registry::Args),
    /// Prints what a web server answers, and fails if it does not answer well; for where there is no curl. Or does so for
    /// a registry
    Check(check::Args),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    console::init();
    // The others have no children.
    let ended = match &cli.demo {
        Demo::Simple(_) if init::is_needed() => init::run(),
        _ => run(cli).map(|()| ExitCode::SUCCESS),
    };
    match ended {
        Ok(code) => code,
        Err(error) => match error.downcast::<clap::Error>() {
            // A flag that could only be judged together with others: the same words and exit code as for any flag.
            Ok(usage) => usage.exit(),
            Err(error) => {
                console::error(&error);
                ExitCode::FAILURE
            }
        },
    }
}

#[tokio::main]
async fn run(cli: Cli) -> anyhow::Result<()> {
    match cli.demo {
        Demo::Nodes(args) => Box::pin(nodes::run(*args)).await,
        Demo::Pac(args) => pac::run(*args).await,
        Demo::RunState(args) => Box::pin(run_state::run(*args)).await,
        Demo::Dockercoins(args) => Box::pin(dockercoins::run(*args)).await,
        Demo::Simple(args) => Box::pin(simple::run(*args)).await,
        Demo::Registry(args) => registry::run(args).await,
        Demo::Check(args) => check::run(args).await,
    }
}
