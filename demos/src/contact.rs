//! Saying whether the registry can be reached: once when that changes, and now and then while it cannot.

use std::time::Duration;

use discovery::{Error, View};
use tokio::time;

use crate::backend::Registry;

/// How long a registry may take to answer before that is worth a word, and then between the words.
const REMINDERS: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(30)];

/// Tells how `view` fares while `life` goes on; a registry that refuses for good ends it.
pub(crate) async fn told_during(
    registry: &Registry,
    view: View,
    life: impl Future<Output = anyhow::Result<()>>,
) -> anyhow::Result<()> {
    tokio::select! {
        ended = life => ended,
        refusal = tell(registry, view) => {
            Err(anyhow::Error::new(refusal).context(format!("{registry} lets nobody watch")))
        }
    }
}

/// Returns only when there will never be an answer again.
async fn tell(registry: &Registry, mut view: View) -> Error {
    let mut yet = " yet";
    loop {
        if let Err(refusal) = tell_of_outage(registry, &mut view, yet).await {
            return refusal;
        }
        yet = "";
    }
}

/// From the one time the registry is there to the next time it is not.
async fn tell_of_outage(registry: &Registry, view: &mut View, yet: &str) -> discovery::Result<()> {
    if remind_until_live(registry, view, yet).await? {
        tracing::info!("{registry} is {}", if yet.is_empty() { "back" } else { "there" });
    }
    view.wait_for(|_, freshness| !freshness.is_live()).await?;
    Ok(())
}

/// Says whether there was anything to remind of.
async fn remind_until_live(registry: &Registry, view: &mut View, yet: &str) -> discovery::Result<bool> {
    // A reason is worth a word at once, silence is not.
    let known = view.wait_for(|_, freshness| freshness.is_live() || freshness.cause().is_some());
    if let Ok(known) = time::timeout(REMINDERS[0], known).await {
        known?;
    }
    let mut pause = REMINDERS[0];
    let mut reminded = false;
    while !view.freshness().is_live() {
        let freshness = view.freshness();
        let why = freshness.cause().map_or("no answer".into(), ToString::to_string);
        let seconds = freshness.since().elapsed().as_secs();
        if reminded {
            tracing::warn!("{registry} is not reachable{yet}, after {seconds} s; trying again");
        } else {
            tracing::warn!("{registry} is not reachable{yet}; trying again ({why})");
        }
        reminded = true;
        if let Ok(live) = time::timeout(pause, view.wait_for(|_, freshness| freshness.is_live())).await {
            live?;
        }
        pause = (pause * 2).min(REMINDERS[1]);
    }
    Ok(reminded)
}
