//! The tree of the sample: one server that looks after two, which look after three and five.

use std::net::TcpListener;

use anyhow::Context;
use serde_json::{Map, Value, json};
use tokio_util::sync::CancellationToken;

use super::{
    args::{DemoArgs, Listen, ServeArgs},
    config::SIMPLE,
    serve,
};
use crate::{
    backend::{Registry, usage},
    console::{BOLD, FAINT, say},
};

/// The ports of the sample: the middle, and the leaves of each.
const TREE: [(u16, &[u16]); 2] = [(8080, &[8081, 8082, 8083]), (9090, &[9091, 9092, 9093, 9094, 9095])];

/// How many ports are tried until one is free.
const ATTEMPTS: usize = 200;

/// Below which services register.
const NAMES: &str = "simple/tree";

/// Runs the top, which starts all others.
pub(super) async fn run(
    args: DemoArgs,
    registry: &Registry,
    leaving: CancellationToken,
) -> anyhow::Result<()> {
    let DemoArgs { port, free_ports, common } = args;
    let way = match (registry.is_shared(), free_ports) {
        (true, _) => Way::Names,
        (false, true) => Way::Free,
        (false, false) => Way::Fixed,
    };
    if let (Way::Fixed, true) = (way, ports().any(|taken| taken == port)) {
        return Err(usage(format!(
            "--port: {port} is that of a server below; choose another, or --free-ports"
        )));
    }
    let config = Some(config(way)?);
    say(format_args!(
        "\n  {BOLD}Simple{BOLD:#}  {FAINT}eleven servers, three levels, on {registry}{FAINT:#}"
    ));
    say(format_args!(
        "  {FAINT}Kill one on the page, or by its process: the one above starts it again. Ctrl-C ends all.{FAINT:#}\n"
    ));
    let listen = Listen { addr: None, port };
    // The next one would have other ports, and could not adopt those below.
    let tethers = matches!(way, Way::Free);
    let args = ServeArgs { config, listen: Some(listen), name: None, common, tethered: false, tethers };
    serve(args, registry, leaving).await
}

/// The ports of all below the top.
fn ports() -> impl Iterator<Item = u16> {
    TREE.iter().flat_map(|(middle, leaves)| std::iter::once(*middle).chain(leaves.iter().copied()))
}

/// How those above find those below.
#[derive(Clone, Copy, Debug)]
enum Way {
    /// By the ports of the sample.
    Fixed,
    /// By ports that were free a moment ago.
    Free,
    /// By name, wherever they are.
    Names,
}

/// The configuration of the top, in which those of the middle are: not in files, so that the next demo starts the same
/// commands, and knows its orphans by them.
fn config(way: Way) -> anyhow::Result<String> {
    // All are taken until all have been chosen, so that each is another one.
    let mut taken = Vec::new();
    let mut target = |port: u16, config: &str| -> anyhow::Result<(String, Value)> {
        let (address, listen) = match way {
            Way::Fixed => (format!("http://localhost:{port}"), port),
            Way::Free => {
                let listener = free()?;
                let port = listener.local_addr()?.port();
                taken.push(listener);
                (format!("http://127.0.0.1:{port}"), port)
            }
            Way::Names => (format!("{NAMES}/{port}"), 0),
        };
        Ok((address, json!([SIMPLE, config, format!(":{listen}")])))
    };
    let mut top = Map::new();
    for (middle, leaves) in TREE {
        let below: Map<_, _> = leaves.iter().map(|leaf| target(*leaf, "-")).collect::<anyhow::Result<_>>()?;
        top.extend([target(middle, &Value::from(below).to_string())?]);
    }
    Ok(Value::from(top).to_string())
}

/// Takes a port that is free, below those that the system gives to outgoing connections: whoever asks a server of those
/// before it listens may be given the same port, and keep it.
fn free() -> anyhow::Result<TcpListener> {
    let ports = std::iter::repeat_with(|| fastrand::u16(10_000..32_000)).take(ATTEMPTS);
    let mut free = ports.filter_map(|port| TcpListener::bind(("127.0.0.1", port)).ok());
    free.next().context("no port is free")
}
