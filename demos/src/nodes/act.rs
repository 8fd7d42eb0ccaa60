//! What is done with nodes that run.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, bail};
use discovery::Instance;
use futures_util::future::join_all;
use tokio::time::{self, Instant};
use tokio_util::sync::CancellationToken;

use super::{
    args::Act,
    index::Index,
    input::Input,
    journal::{Line, Page, WAIT},
    net::{Net, by_index, in_time},
    ping::{self, millis},
    project::listed,
    rpc::{self, Failure, FleetRpcClient, NodeRpcClient, Stage},
};
use crate::console::{BOLD, FAINT, say};

/// How long nodes may take to come and go when their number changes.
const CHANGE: Duration = Duration::from_secs(20);

/// Who has been asked, where it is about the fleet.
const FLEET: &str = "whoever started the nodes";

pub(super) async fn run(net: &Net, act: &Act, leaving: &CancellationToken) -> anyhow::Result<()> {
    match act {
        Act::Ping(args) => ping::run(net, args, leaving).await,
        Act::Logs { nodes, follow } => logs(net, nodes, *follow).await,
        Act::Ps => ps(net).await,
        Act::Kill { node } => kill(net, node).await,
        Act::Partition { nodes } => {
            let island: BTreeSet<Index> = net.some(nodes).await?.into_keys().collect();
            part(net, island).await
        }
        Act::Heal => part(net, BTreeSet::new()).await,
        Act::Scale { size } => scale(net, *size).await,
    }
}

/// Each line is a message, until there is an empty one or no more.
pub(super) async fn attach(net: &Net, node: &str, input: &mut Input) -> anyhow::Result<()> {
    let index = net.project.index(node)?;
    let client = net.node(index).await?;
    let name = net.project.node(index);
    say(format_args!("{FAINT}{name}: type a message; an empty line or Ctrl-D leaves{FAINT:#}"));
    let follow = async {
        let mut seen = 0;
        loop {
            for line in news(net, &client, seen).await?.lines {
                seen = line.number;
                line.tell();
            }
        }
    };
    let talk = async {
        while let Some(message) = input.line().await.filter(|line| !line.is_empty()) {
            if message.len() > rpc::MESSAGE {
                say(format_args!("a message has {} bytes at most", rpc::MESSAGE));
                continue;
            }
            let begin = Instant::now();
            let call = async { Ok(client.say_something(rpc::within(net.timeout), message).await?) };
            let answer = in_time(net.timeout, call).await?;
            say(format_args!("Got return code {} in {}", answer.code, millis(begin.elapsed())));
        }
        anyhow::Ok(())
    };
    tokio::select! {
        talked = talk => talked,
        broken = follow => broken,
    }
    .with_context(|| name.to_string())
}

async fn news(net: &Net, client: &NodeRpcClient, seen: u64) -> Result<Page, Failure> {
    let patience = WAIT + net.timeout;
    in_time(patience, async { Ok(client.log(rpc::within(patience), seen).await?) }).await
}

/// From whoever runs them, who has also heard the dead; or else from each of the nodes.
async fn logs(net: &Net, nodes: &[String], follow: bool) -> anyhow::Result<()> {
    if let Some(fleet) = net.fleet().await? {
        let only: BTreeSet<Index> =
            nodes.iter().map(|text| net.project.index(text)).collect::<anyhow::Result<_>>()?;
        return logs_of_fleet(net, &fleet, &only, follow).await;
    }
    let nodes = net.some(nodes).await?;
    let silent = nodes.iter().map(async |(index, instance)| {
        let why = logs_of_node(net, instance, follow).await.err()?;
        tracing::warn!("{}: {why:#}", net.project.node(*index));
        Some(*index)
    });
    let silent: BTreeSet<Index> = join_all(silent).await.into_iter().flatten().collect();
    if !silent.is_empty() {
        bail!("no answer from {} of {}", listed(&silent), net.project.name());
    }
    Ok(())
}

async fn logs_of_fleet(
    net: &Net,
    fleet: &FleetRpcClient,
    only: &BTreeSet<Index>,
    follow: bool,
) -> anyhow::Result<()> {
    let mut seen = 0;
    loop {
        let patience = WAIT + net.timeout;
        let call = async { Ok(fleet.log(rpc::within(patience), seen).await?) };
        let Page { lines, has_next } = in_time(patience, call).await.context(FLEET)?;
        seen = lines.last().map_or(seen, |line| line.number);
        lines.iter().filter(|line| only.is_empty() || only.contains(&line.node)).for_each(Line::tell);
        if !follow && !has_next {
            return Ok(());
        }
    }
}

async fn logs_of_node(net: &Net, instance: &Instance, follow: bool) -> Result<(), Failure> {
    let client = in_time(net.timeout, rpc::node(instance)).await?;
    let mut seen = 0;
    loop {
        let Page { lines, has_next } = news(net, &client, seen).await?;
        seen = lines.last().map_or(seen, |line| line.number);
        lines.iter().for_each(Line::tell);
        if !follow && !has_next {
            return Ok(());
        }
    }
}

async fn ps(net: &Net) -> anyhow::Result<()> {
    let found = net.nodes().await?;
    let reports = found.iter().map(async |(index, instance)| {
        let call = async { Ok(rpc::node(instance).await?.report(rpc::within(net.timeout)).await?) };
        (*index, in_time(net.timeout, call).await)
    });
    let reports = join_all(reports).await;
    let crew = match net.fleet().await? {
        Some(fleet) => {
            let call = async { Ok(fleet.crew(rpc::within(net.timeout)).await?) };
            in_time(net.timeout, call).await
        }
        None => Ok(BTreeMap::new()),
    };
    for (index, report) in &reports {
        let name = net.project.node(*index);
        let place = found[index].endpoint(rpc::RPC).map(ToString::to_string).unwrap_or_default();
        match report {
            Ok(report) => {
                let up = Duration::from_secs(report.up.as_secs());
                let island = if report.island.is_empty() { "" } else { ", a partition is known" };
                say(format_args!(
                    "{name}  {BOLD}up{BOLD:#} {}, {} received{island}  {FAINT}{place}, process {}{FAINT:#}",
                    humantime::format_duration(up),
                    report.heard,
                    report.pid
                ));
            }
            Err(why) => say(format_args!("{name}  registered, but: {why}  {FAINT}{place}{FAINT:#}")),
        }
    }
    for (index, stage) in crew.iter().flatten().filter(|(index, _)| !found.contains_key(index)) {
        let how = match stage {
            Stage::Starting => "starting".into(),
            Stage::Running => "runs, but is not registered".into(),
            Stage::Ended(how) => format!("dead ({how})"),
        };
        say(format_args!("{}  {how}", net.project.node(*index)));
    }
    crew.map(drop).context(FLEET)
}

async fn kill(net: &Net, node: &str) -> anyhow::Result<()> {
    let index = net.project.index(node)?;
    let fleet = net.need_fleet().await?;
    if !fleet.kill(rpc::within(net.timeout), index).await.map_err(Failure::from)? {
        bail!("{} does not run; `ps` says who does", net.project.node(index));
    }
    say(format_args!("{} is dead", net.project.node(index)));
    Ok(())
}

/// Tells all nodes who is on the island, and whoever starts more of them.
async fn part(net: &Net, island: BTreeSet<Index>) -> anyhow::Result<()> {
    if let Some(fleet) = net.fleet().await? {
        match fleet.part(rpc::within(CHANGE), island.clone()).await.map_err(Failure::from) {
            Ok(roster) => {
                // Those who have only just been started know of the last partition, and can be told when they are here.
                let mut view = net.registry.discovery.view(net.project.nodes()).await?;
                let here = view.wait_for(|snapshot, _| roster.is_here(&by_index(snapshot)));
                if time::timeout(CHANGE, here).await.is_err() {
                    tracing::warn!(
                        "not all that were started are here; who is late knows only of the last partition"
                    );
                }
            }
            Err(why) => tracing::warn!("{FLEET}: {why}"),
        }
    }
    let nodes = net.nodes().await?;
    let told = nodes.iter().map(async |(index, instance): (&Index, &Arc<Instance>)| {
        let call =
            async { Ok(rpc::node(instance).await?.part(rpc::within(net.timeout), island.clone()).await?) };
        in_time(net.timeout, call).await.with_context(|| net.project.node(*index).to_string())
    });
    // Those who cannot be told are dead, or cut off for good: the others keep away from them just as well.
    for error in join_all(told).await.into_iter().filter_map(Result::err) {
        tracing::warn!("{error:#}");
    }
    if island.is_empty() {
        say("all nodes can reach each other again");
    } else {
        say(format_args!("{} and the others cannot reach each other", listed(&island)));
    }
    Ok(())
}

/// Changes how many there are, and waits until everybody can see it.
async fn scale(net: &Net, size: u32) -> anyhow::Result<()> {
    let fleet = net.need_fleet().await?;
    let roster = fleet
        .scale(rpc::within(CHANGE), size)
        .await
        .map_err(Failure::from)?
        .map_err(|error| anyhow::anyhow!(error))?;
    let mut view = net.registry.discovery.view(net.project.nodes()).await?;
    let all = view.wait_for(|snapshot, _| roster.is_met_by(&by_index(snapshot)));
    time::timeout(CHANGE, all).await.context("not all have come or gone yet; `ps` says who is there")??;
    say(format_args!("{size} nodes are up"));
    Ok(())
}
