//! Who is there, who is not, and who cannot reach whom.

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
    args::{CLASSIC, PingArgs},
    index::Index,
    net::{Net, in_time},
    project::listed,
    rpc::{self, Failure, Reach, Stage},
};
use crate::console::{BOLD, FAINT, say};

/// What came of a message.
struct Echo {
    /// Where the node is registered, if it is.
    instance: Option<Arc<Instance>>,
    /// The answer and how long it took.
    outcome: Result<(i32, Duration), Failure>,
}

/// Pings once, or until `leaving`; fails if anybody was missing.
pub(super) async fn run(net: &Net, args: &PingArgs, leaving: &CancellationToken) -> anyhow::Result<()> {
    let Some(pause) = args.every else { return round(net, args).await };
    let (mut rounds, mut bad) = (0, 0);
    while !leaving.is_cancelled() {
        rounds += 1;
        if let Err(error) = round(net, args).await {
            bad += 1;
            say(format_args!("{error:#}"));
        }
        // Cut short by leaving.
        let _ = time::timeout(pause, leaving.cancelled()).await;
    }
    if bad > 0 {
        bail!("somebody was missing in {bad} of {rounds} rounds");
    }
    say(format_args!("{rounds} rounds, and all answered in each"));
    Ok(())
}

async fn round(net: &Net, args: &PingArgs) -> anyhow::Result<()> {
    let found = net.nodes().await?;
    let wanted = wanted(net, args, &found).await?;
    if wanted.is_empty() {
        let up = net.registry.command("up").filter(|_| net.registry.is_writable());
        let advice = up.map(|up| format!("; start some with `{up}`")).unwrap_or_default();
        bail!("no node of {} is on {}{advice}", net.project.name(), net.registry);
    }
    if args.classic {
        say("Running as client...");
    }
    let echoes = wanted.iter().map(async |index| {
        let instance = found.get(index).cloned();
        let outcome = ping(net, *index, instance.as_deref(), &args.message).await;
        (*index, Echo { instance, outcome })
    });
    let mut echoes: BTreeMap<Index, Echo> = join_all(echoes).await.into_iter().collect();
    let mut reached = if args.classic { BTreeMap::new() } else { reach(net, &echoes).await };
    let is_lost = |reach: &Reach| reach.values().any(|reached| reached.outcome.is_err());
    if echoes.values().any(|echo| echo.outcome.is_err()) || reached.values().any(is_lost) {
        // Who has left in the meantime is not missing.
        let wanted = self::wanted(net, args, &net.nodes().await?).await?;
        echoes.retain(|index, _| wanted.contains(index));
        reached.retain(|index, _| wanted.contains(index));
    }
    if args.classic {
        tell_classic(net, &echoes);
        return judge(net, &echoes, false);
    }
    tell(net, &echoes);
    if args.matrix {
        tell_matrix(&echoes, &reached);
    }
    tell_strangers(&reached);
    judge(net, &echoes, tell_partitions(&echoes, &reached))
}

/// Those who should be there: who was named or counted, or else who is registered, and who was started but is not.
async fn wanted(
    net: &Net,
    args: &PingArgs,
    found: &BTreeMap<Index, Arc<Instance>>,
) -> anyhow::Result<BTreeSet<Index>> {
    let count = args.count.or(args.classic.then_some(CLASSIC));
    if !args.nodes.is_empty() {
        return args.nodes.iter().map(|text| net.project.index(text)).collect();
    }
    if let Some(count) = count {
        return Ok(Index::first(count).collect());
    }
    let crew = match net.fleet().await? {
        // It may have died since.
        Some(fleet) => fleet.crew(rpc::within(net.timeout)).await.ok(),
        None => None,
    };
    let Some(crew) = crew else {
        // Numbers have no gaps: who is missing in between has been there.
        let last = found.keys().last().map_or(0, |last| last.get());
        return Ok(Index::first(last).collect());
    };
    let started = crew.into_iter().filter(|(_, stage)| *stage != Stage::Starting).map(|(index, _)| index);
    Ok(started.chain(found.keys().copied()).collect())
}

async fn ping(
    net: &Net,
    index: Index,
    instance: Option<&Instance>,
    message: &str,
) -> Result<(i32, Duration), Failure> {
    let instance = instance.ok_or_else(|| Failure::new("not there"))?;
    let begin = Instant::now();
    let call = async {
        let node = rpc::node(instance).await?;
        let answer = node.say_something(rpc::within(net.timeout), message.to_owned()).await?;
        net.project.is(index, &answer.name)?;
        Ok(answer.code)
    };
    let code = in_time(net.timeout, call).await?;
    Ok((code, begin.elapsed()))
}

/// Whom each of those who have answered can reach. Who knows only an earlier life of a node does not know it yet.
async fn reach(net: &Net, echoes: &BTreeMap<Index, Echo>) -> BTreeMap<Index, Reach> {
    // It tries the others for as long as the time-out, and that takes its own time.
    let patience = net.timeout * 2;
    let there = echoes.iter().filter(|(_, echo)| echo.outcome.is_ok());
    let reached = there.map(async |(index, echo)| {
        let instance = echo.instance.as_ref()?;
        let call = async { Ok(rpc::node(instance).await?.reach(rpc::within(patience), net.timeout).await?) };
        let mut reach = in_time(patience, call).await.ok()?;
        reach.retain(|to, reached| {
            let known = echoes.get(to).and_then(|echo| echo.instance.as_ref());
            known.is_none_or(|instance| instance.incarnation() == reached.incarnation)
        });
        Some((*index, reach))
    });
    join_all(reached).await.into_iter().flatten().collect()
}

/// The exact lines of the original.
fn tell_classic(net: &Net, echoes: &BTreeMap<Index, Echo>) {
    for (index, echo) in echoes {
        let name = net.project.node(*index).underscored();
        match &echo.outcome {
            Ok((code, _)) => say(format_args!("Ping {name}\t\t\tGot return code {code}")),
            Err(_) => say(format_args!("Ping {name}\t\t\t{name} not responding")),
        }
    }
}

fn tell(net: &Net, echoes: &BTreeMap<Index, Echo>) {
    let [project, registry] = [net.project.name(), &net.registry.to_string()];
    say(format_args!("\n  {BOLD}{project}{BOLD:#}  {FAINT}on {registry}{FAINT:#}"));
    for (index, Echo { instance, outcome }) in echoes {
        let name = net.project.node(*index).to_string();
        let place = instance.as_ref().and_then(|instance| instance.endpoint(rpc::RPC));
        let place = place.map(|endpoint| format!("  {FAINT}{endpoint}{FAINT:#}")).unwrap_or_default();
        match outcome {
            Ok((code, took)) => say(format_args!("  {name}  answers {code} in {}{place}", millis(*took))),
            Err(why) => say(format_args!("  {name}  {BOLD}does not answer{BOLD:#}: {why}{place}")),
        }
    }
    let mut took: Vec<_> = echoes.values().filter_map(|echo| Some(echo.outcome.as_ref().ok()?.1)).collect();
    took.sort();
    let mut summary = format!("{} of {} answer", took.len(), echoes.len());
    if let (Some(first), Some(last)) = (took.first(), took.last()) {
        let median = took[took.len() / 2];
        let [first, median, last] = [*first, median, *last].map(millis);
        summary = format!("{summary}; fastest {first}, median {median}, slowest {last}");
    }
    say(format_args!("  {summary}"));
}

/// A row for each that looks, a column for each that is looked at.
fn tell_matrix(echoes: &BTreeMap<Index, Echo>, reached: &BTreeMap<Index, Reach>) {
    let width = echoes.keys().last().map_or(1, |last| last.to_string().len());
    let row = |head: &str, cells: Vec<String>| {
        let cells: Vec<_> = cells.iter().map(|cell| format!("{cell:>width$}")).collect();
        say(format_args!("  {head:>width$} {}", cells.join(" ")));
    };
    say("\n  who (row) reaches whom (column): + yes, x no, ? does not know it, - did not say");
    row("", echoes.keys().map(ToString::to_string).collect());
    for from in echoes.keys() {
        let cell = |to: &Index| match reached.get(from).map(|reach| reach.get(to)) {
            _ if from == to => "·",
            None => "-",
            Some(None) => "?",
            Some(Some(reached)) if reached.outcome.is_ok() => "+",
            Some(Some(_)) => "x",
        };
        row(&from.to_string(), echoes.keys().map(|to| cell(to).to_owned()).collect());
    }
}

/// Names those who are not known everywhere. It takes a moment until all have heard of somebody new, so nobody is
/// missing for that.
fn tell_strangers(reached: &BTreeMap<Index, Reach>) {
    for to in reached.keys() {
        let without = reached.iter().filter(|(from, reach)| *from != to && !reach.contains_key(to));
        let without: Vec<Index> = without.map(|(from, _)| *from).collect();
        if !without.is_empty() {
            say(format_args!("  {} is unknown to {} yet", listed([to]), listed(&without)));
        }
    }
}

/// Names those who answer but do not reach each other. Says whether there are any.
fn tell_partitions(echoes: &BTreeMap<Index, Echo>, reached: &BTreeMap<Index, Reach>) -> bool {
    let mut parted: BTreeMap<Vec<Index>, Vec<Index>> = BTreeMap::new();
    for (from, reach) in reached {
        let answers = |to: &Index| echoes.get(to).is_some_and(|echo| echo.outcome.is_ok());
        let lost = reach.iter().filter(|(to, reached)| reached.outcome.is_err() && answers(to));
        let lost: Vec<Index> = lost.map(|(to, _)| *to).collect();
        if !lost.is_empty() {
            parted.entry(lost).or_default().push(*from);
        }
    }
    for (to, from) in &parted {
        say(format_args!("  {BOLD}{} cannot reach {}{BOLD:#}", listed(from), listed(to)));
    }
    !parted.is_empty()
}

fn judge(net: &Net, echoes: &BTreeMap<Index, Echo>, are_parted: bool) -> anyhow::Result<()> {
    let missing = echoes.iter().filter(|(_, echo)| echo.outcome.is_err());
    let missing: Vec<_> = missing.map(|(index, _)| *index).collect();
    let project = net.project.name();
    if !missing.is_empty() {
        bail!("no answer from {} of {project}", listed(&missing));
    }
    if are_parted {
        bail!("all nodes of {project} answer, but not all reach each other");
    }
    Ok(())
}

pub(super) fn millis(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1000.0)
}

/// Whether the node on this machine answers.
pub(super) async fn health(port: u16, patience: Duration) -> anyhow::Result<()> {
    // Whatever it is called: what matters is where it is.
    let here = Instance::builder("health/node".parse()?).endpoint(rpc::RPC, "127.0.0.1", port).build()?;
    let call = async { Ok(rpc::node(&here).await?.report(rpc::within(patience)).await?) };
    let report = in_time(patience, call).await.with_context(|| format!("the node on port {port}"))?;
    say(format_args!("{} is up", report.name));
    Ok(())
}
