//! All in one: a fleet in the foreground, which takes commands.

use clap::{Parser, error::ErrorKind};
use tokio_util::sync::CancellationToken;

use super::{
    act,
    args::{Common, Prompt, Typed, UpArgs},
    fleet::Fleet,
    input::Input,
    net::Net,
    rpc::RPC,
};
use crate::{
    backend::Registry,
    console::{self, BOLD, FAINT, say},
    contact,
    listen::ListenArgs,
};

pub(super) async fn run(
    args: &UpArgs,
    registry: &Registry,
    common: &Common,
    leaving: &CancellationToken,
) -> anyhow::Result<()> {
    let net = Net::open(common, registry).await?;
    let door = ListenArgs::loopback().open_as(RPC, 0).await?;
    let fleet = Fleet::new(&net, common);
    let view = registry.discovery.view(net.project.nodes()).open();
    let life = async {
        let registration = tokio::select! {
            registered = fleet.register(&door) => registered?,
            () = leaving.cancelled() => return Ok(()),
        };
        greet(&net, args.size);
        let work = async {
            fleet.scale(args.size).await?;
            prompt(&net, leaving).await
        };
        tokio::select! {
            worked = work => worked?,
            () = fleet.clone().serve(door) => {}
            () = leaving.cancelled() => {}
        }
        fleet.scale(0).await?;
        // It ends with its lease in any case.
        let _ = tokio::time::timeout(net.timeout, registration.deregister()).await;
        Ok(())
    };
    contact::told_during(registry, view, Box::pin(life)).await
}

fn greet(net: &Net, size: u32) {
    let (project, registry) = (net.project.name(), &net.registry);
    say(format_args!("\n  {BOLD}{size} nodes{BOLD:#} of {project}  {FAINT}on {registry}{FAINT:#}"));
    let acts = "ping, ping --matrix, attach 2, kill 3, scale 7, partition 1 2, heal, ps, logs, help, quit";
    say(format_args!("\n  {FAINT}Type here: {acts}{FAINT:#}"));
    if let Some(command) = registry.command("ping") {
        say(format_args!("  {FAINT}Or in another terminal: {command}{FAINT:#}"));
    }
    say("");
}

/// Does what is typed, until that is to quit.
async fn prompt(net: &Net, leaving: &CancellationToken) -> anyhow::Result<()> {
    let mut input = Input::open();
    let mut pending = None;
    loop {
        let line = match pending.take() {
            Some(line) => line,
            None => input.command().await,
        };
        if line.is_empty() {
            continue;
        }
        let done = match parse(&line) {
            Ok(Prompt::Quit) => return Ok(()),
            Ok(Prompt::Typed(Typed::Attach { node })) => act::attach(net, &node, &mut input).await,
            Ok(Prompt::Typed(Typed::Act(act))) => tokio::select! {
                done = act::run(net, &act, leaving) => done,
                // What is endless ends when something else is typed.
                line = input.command(), if act.is_endless() => {
                    pending = Some(line);
                    Ok(())
                }
            },
            Err(error) => {
                say(error);
                Ok(())
            }
        };
        if let Err(error) = done {
            console::error(&error);
        }
    }
}

fn parse(line: &str) -> Result<Prompt, clap::Error> {
    let words = shell_words::split(line)
        .map_err(|error| clap::Error::raw(ErrorKind::InvalidValue, format!("{error}\n")))?;
    Prompt::try_parse_from(words)
}
