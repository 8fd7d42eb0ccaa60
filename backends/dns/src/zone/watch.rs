//! Following a range: what the mirror takes in, told step by step.

use std::sync::Arc;

use discovery::{
    Error, ErrorKind, Result, Revision,
    kv::{KvUpdate, KvUpdates, Range},
};
use futures_util::{StreamExt, TryStreamExt, stream};
use tokio::sync::watch;

use super::{Shared, eye::Eye, mirror::Mirror, replica::Pulse};
use crate::error::named;

/// Follows a range until there is trouble.
pub(super) fn follow(shared: Arc<Shared>, range: Range, after: Option<Revision>) -> KvUpdates {
    let updates = stream::try_unfold(Phase::New(shared, range, after), |phase| async {
        let (update, watch) = match phase {
            Phase::New(shared, range, after) => Watch::open(shared, range, after).await?,
            Phase::Open(mut watch) => (watch.next().await?, watch),
        };
        Ok(Some((update, Phase::Open(watch))))
    });
    updates.map_err(named("watch")).boxed()
}

enum Phase {
    New(Arc<Shared>, Range, Option<Revision>),
    Open(Watch),
}

struct Watch {
    shared: Arc<Shared>,
    range: Range,
    pulse: watch::Receiver<Pulse>,
    /// How often the server had been lost when the watch began.
    losses: u64,
    /// The revision up to which everything was reported.
    reported: Revision,
    /// Kept for its drop: the last one closes the eye.
    _eye: Arc<Eye>,
}

impl Watch {
    /// Continues behind `after` if that can be done without a gap, and else begins with the whole range.
    async fn open(shared: Arc<Shared>, range: Range, after: Option<Revision>) -> Result<(KvUpdate, Self)> {
        let mut pulse = shared.replica.pulse();
        let update = shared.replica.read(shared.deadline(), |mirror| news(mirror, after, &range)).await?;
        let update = shared.with_own_leases(update);
        let reported = revision(&update);
        // Losses that were told while this was waited for are over.
        let losses = pulse.borrow_and_update().losses;
        // Not before: one that is lost while this waits is lost to it unheard.
        let eye = shared.eye();
        // It may be at rest, with nobody to look for.
        shared.look_now();
        Ok((update, Self { shared, range, pulse, losses, reported, _eye: eye }))
    }

    async fn next(&mut self) -> Result<KvUpdate> {
        loop {
            let pulse = self.pulse.borrow_and_update().clone();
            if pulse.losses != self.losses {
                return Err(pulse.error.unwrap_or_else(|| {
                    Error::new(ErrorKind::Unavailable, "the server does not answer").not_applied()
                }));
            }
            // The mirror may be ahead of what was told of it.
            if pulse.revision > self.reported {
                let news = |mirror: &Mirror| news(mirror, Some(self.reported), &self.range);
                if let Some(update) = self.shared.replica.look(news) {
                    self.reported = revision(&update);
                    return Ok(self.shared.with_own_leases(update));
                }
            }
            // It never ends: what it comes from is here as well.
            let _ = self.pulse.changed().await;
            let quiet = {
                let pulse = self.pulse.borrow();
                pulse.losses == self.losses && pulse.revision <= self.reported
            };
            if quiet {
                // The server answered, and nothing has happened.
                return Ok(KvUpdate::Progress(self.reported));
            }
        }
    }
}

/// What a range is told that knows everything up to `after`.
fn news(mirror: &Mirror, after: Option<Revision>, range: &Range) -> KvUpdate {
    let revision = mirror.revision();
    match after.and_then(|after| mirror.since(after, range)) {
        Some(changes) if changes.is_empty() => KvUpdate::Progress(revision),
        Some(changes) => KvUpdate::Delta { revision, changes },
        None => KvUpdate::Reset(mirror.scan(range)),
    }
}

fn revision(update: &KvUpdate) -> Revision {
    match update {
        KvUpdate::Reset(scan) => scan.revision,
        KvUpdate::Delta { revision, .. } | KvUpdate::Progress(revision) => *revision,
    }
}
