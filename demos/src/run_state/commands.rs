//! What is done once, from a command line: the words of the original, and then some.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context, bail};
use discovery::{
    ErrorKind,
    recipe::{Completed, Picture, Plan, Run, RunStatus},
};
use futures_util::TryStreamExt;
use tokio::time;

use super::{
    args::{Command, Common, CompleteArgs, CreateArgs, ScaleArgs, WaitArgs},
    machine,
    topology::Machine,
    worker::{Errand, Worker},
};
use crate::{
    backend::Registry,
    console::{BOLD, FAINT, say, write},
};

/// How often the original says that it is still waiting.
const DOT: Duration = Duration::from_secs(1);

/// Does it, if the registry answers in time.
pub(super) async fn run(command: &Command, registry: &Registry, common: &Common) -> anyhow::Result<()> {
    let work = async {
        match command {
            Command::Create(args) => create(registry, args).await,
            Command::List => list(registry).await,
            Command::Walk { run } => walk(&find(registry, run)?).await,
            Command::Complete(args) => complete(registry, args, common.ttl).await,
            Command::Scale(args) => scale(registry, args).await,
            Command::Abort { run, cause } => abort(&find(registry, run)?, cause).await,
            Command::Delete { run } => delete(&find(registry, run)?).await,
            Command::Wait(args) => return wait(registry, args, common.patience).await,
            _ => bail!("this command does not come to an end"),
        }
    };
    // Waiting has no limit but for the first answer.
    if matches!(command, Command::Wait(_)) {
        return work.await;
    }
    within(common.patience, registry, work).await?
}

async fn within<T>(
    patience: Duration,
    registry: &Registry,
    work: impl Future<Output = T>,
) -> anyhow::Result<T> {
    time::timeout(patience, work)
        .await
        .with_context(|| format!("{registry} did not answer within {patience:?}; is it running?"))
}

fn find(registry: &Registry, run: &str) -> anyhow::Result<Run> {
    Ok(machine::runs(registry)?.run(run)?)
}

async fn create(registry: &Registry, args: &CreateArgs) -> anyhow::Result<()> {
    say("Creating nodes...");
    let run = create_run(registry, &args.run, plan(args)?).await?;
    say(format_args!("Done!  {FAINT}{} is in state {}{FAINT:#}", run.id(), run.status().await?.state));
    Ok(())
}

/// What a run begins with; the REST interface has more to add.
pub(super) fn plan(args: &CreateArgs) -> discovery::Result<Plan> {
    let table = if args.states.is_empty() { machine::slipstream() } else { machine::in_a_row(&args.states) };
    let plan = Plan::new(&table, args.topology.machines().map(|machine| machine.to_string()))?;
    match args.limit {
        Some(limit) => plan.limit(limit, machine::TIMED_OUT),
        None => Ok(plan),
    }
}

/// Also what the REST interface does.
pub(super) async fn create_run(registry: &Registry, id: &str, plan: Plan) -> anyhow::Result<Run> {
    match machine::runs(registry)?.create_as(id, plan).await {
        Err(error) if error.kind() == ErrorKind::Conflict => {
            Err(anyhow::Error::new(error).context(format!("Run already exists! ({id})")))
        }
        created => Ok(created?),
    }
}

async fn list(registry: &Registry) -> anyhow::Result<()> {
    let all = machine::runs(registry)?.list().await?;
    if all.is_empty() {
        say("There are no runs; create one");
    }
    let width = all.keys().map(String::len).max().unwrap_or_default();
    for (id, status) in all {
        say(format_args!("{id:<width$}  {}", Line(&status)));
    }
    Ok(())
}

async fn walk(run: &Run) -> anyhow::Result<()> {
    say("Printing run...");
    let picture = run.picture().await?;
    say(format_args!("{BOLD}{}{BOLD:#}  {}", run.id(), Line(&picture.status)));
    for (node, machines) in by_node(&picture) {
        let marks: Vec<_> = machines
            .iter()
            .map(|(index, is_done)| format!("{} {index}", if *is_done { '●' } else { '○' }))
            .collect();
        say(format_args!("  {node}  {}", marks.join("  ")));
    }
    let missing = picture.missing().count();
    let total = picture.tasks.len();
    say(format_args!("  {FAINT}{} of {total} have reported, {missing} have not{FAINT:#}", total - missing));
    for step in &picture.status.moves {
        say(format_args!(
            "  {FAINT}round {}: {} to {} ({}){FAINT:#}",
            step.round, step.from, step.to, step.cause
        ));
    }
    Ok(())
}

fn by_node(picture: &Picture) -> BTreeMap<String, BTreeMap<u32, bool>> {
    let mut nodes = BTreeMap::<_, BTreeMap<_, _>>::new();
    for (task, is_done) in &picture.tasks {
        if let Ok(Machine { node, index }) = task.parse() {
            nodes.entry(node).or_default().insert(index, *is_done);
        }
    }
    nodes
}

/// A run in a line.
struct Line<'a>(&'a RunStatus);

impl std::fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let RunStatus { state, round, heading, .. } = self.0;
        write!(f, "{state}")?;
        if let Some(heading) = heading {
            write!(f, " (then {heading})")?;
        }
        write!(f, "  {FAINT}round {round}{FAINT:#}")
    }
}

async fn complete(registry: &Registry, args: &CompleteArgs, ttl: Duration) -> anyhow::Result<()> {
    say("Completing node state...");
    let machine = Machine::new(&args.node, args.index)?;
    let errand = Errand::new(&args.run, &machine, &args.current, &args.next);
    let (worker, desk) = Worker::new(registry, &format!("complete-{}", std::process::id()), ttl)?;
    let ask = async {
        let completed = desk.complete(errand).await;
        // The last one to go: the worker leaves the circle.
        drop(desk);
        completed
    };
    let (left, completed) = tokio::join!(worker.work(), ask);
    match completed? {
        Completed::Moved => {
            say(format_args!("completed!  {FAINT}{} is now {}{FAINT:#}", args.run, args.next));
        }
        counted => {
            let picture = find(registry, &args.run)?.picture().await?;
            let before = if counted == Completed::Already { ", which it had before" } else { "" };
            let left = if picture.status.state == args.current {
                let missing: Vec<_> = picture.missing().map(str::to_owned).collect();
                format!("missing: {}", Few(&missing))
            } else {
                format!("{} is in {} by now", args.run, picture.status.state)
            };
            say(format_args!("not completed  {FAINT}{machine} has{before}; {left}{FAINT:#}"));
        }
    }
    left?;
    say("Done!");
    Ok(())
}

/// Names, as many as fit a line.
struct Few<'a>(&'a [String]);

impl std::fmt::Display for Few<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        const SHOWN: usize = 5;
        let shown = self.0.iter().take(SHOWN).map(String::as_str).collect::<Vec<_>>().join(", ");
        match self.0.len().saturating_sub(SHOWN) {
            0 => f.write_str(&shown),
            more => write!(f, "{shown} and {more} more"),
        }
    }
}

async fn scale(registry: &Registry, args: &ScaleArgs) -> anyhow::Result<()> {
    let run = find(registry, &args.run)?;
    for machine in &args.add {
        let is_new = run.add(&machine.to_string()).await?;
        say(format_args!("{machine} {}", if is_new { "added" } else { "was there already" }));
    }
    for machine in &args.remove {
        let outcome = match run.remove(&machine.to_string()).await? {
            Some(Completed::Moved) => "removed: all others were done, so the run moved",
            Some(_) => "removed",
            None => "was not there",
        };
        say(format_args!("{machine} {outcome}"));
    }
    say("Done!");
    Ok(())
}

async fn abort(run: &Run, cause: &str) -> anyhow::Result<()> {
    let status = run.force(machine::ABORTED, cause).await?;
    say(format_args!("{} is {}", run.id(), status.state));
    Ok(())
}

async fn delete(run: &Run) -> anyhow::Result<()> {
    let existed = run.delete().await?;
    say(format_args!("{} {}", run.id(), if existed { "is deleted" } else { "did not exist" }));
    Ok(())
}

async fn wait(registry: &Registry, args: &WaitArgs, patience: Duration) -> anyhow::Result<()> {
    let run = find(registry, &args.run)?;
    let first = within(patience, registry, run.status()).await??;
    say(format_args!(
        "Waiting for state change...  {FAINT}{} is in state {}{FAINT:#}",
        run.id(),
        first.state
    ));
    if first.is_over && args.until.is_none() {
        bail!("run {} is over in state {}: it will not change any more", run.id(), first.state);
    }
    let mut statuses = run.statuses();
    let mut dots = time::interval(DOT);
    dots.tick().await;
    let mut dotted = false;
    let mut round = first.round;
    let end = loop {
        tokio::select! {
            status = statuses.try_next() => {
                let Some(status) = status? else { bail!("run {} was deleted", run.id()) };
                let is_there = match &args.until {
                    Some(wanted) => *wanted == status.state || status.is_over,
                    None => status.round != first.round,
                };
                if is_there {
                    break status;
                }
                if status.round != round {
                    round = status.round;
                    say(format_args!("{}State changed to: {}", if dotted { "\n" } else { "" }, status.state));
                    dotted = false;
                }
            }
            _ = dots.tick() => {
                write(".");
                dotted = true;
            }
        }
    };
    say(format_args!("{}State changed to: {}", if dotted { "\n" } else { "" }, end.state));
    if args.until.as_ref().is_some_and(|wanted| *wanted != end.state) {
        bail!("run {} is over in state {}", run.id(), end.state);
    }
    say("Done!");
    Ok(())
}
