//! Somebody who completes states for others, in a circle of such.
//!
//! A worker first entrusts the circle with what it is about to do and only then does it, so that whoever covers for it
//! knows what was under way when it died. Completing is idempotent: what was done already is not done again.

use std::{collections::BTreeMap, time::Duration};

use discovery::{
    Error, ErrorKind,
    kv::Txn,
    recipe::{Completed, Departure, Group, Membership, News, Runs},
};
use futures_util::future::join_all;
use serde::{Deserialize, Serialize};
use tokio::{
    sync::{broadcast, mpsc, oneshot},
    task::JoinSet,
    time,
};

use super::{machine, topology::Machine};
use crate::backend::Registry;

/// How many words of a worker one may lag behind.
const WORDS: usize = 64;

/// How long to wait before a registry that is out of reach is told again.
const AGAIN: Duration = Duration::from_millis(100);

/// How many completions one worker has in hand at most; others wait.
const HANDS: usize = 24;

/// The most bytes of a name, so that what is in hand fits into a record of any registry.
const NAME_MAX: usize = 100;

/// A completion that is asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Errand {
    pub(super) run: String,
    pub(super) task: String,
    pub(super) from: String,
    pub(super) to: String,
    /// Which round it is about: whoever does it again, later, must not do it for another one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) round: Option<u64>,
}

impl Errand {
    pub(super) fn new(run: &str, machine: &Machine, from: &str, to: &str) -> Self {
        Self {
            run: run.to_owned(),
            task: machine.to_string(),
            from: from.to_owned(),
            to: to.to_owned(),
            round: None,
        }
    }

    /// Names the round, and refuses what no run could take, so that the circle is entrusted with nothing impossible.
    async fn prepare(&mut self, runs: &Runs) -> discovery::Result<()> {
        for text in [&self.run, &self.task, &self.from, &self.to] {
            if text.len() > NAME_MAX {
                let message = format!("{} bytes for a name; at most {NAME_MAX} are allowed", text.len());
                return Err(Error::invalid(message));
            }
            // One takes six bytes in JSON.
            if text.contains(char::is_control) {
                return Err(Error::invalid(format!("{text:?}: no control characters in names")));
            }
        }
        let status = runs.run(&self.run)?.status().await?;
        if self.round.is_none() {
            // If it is in another state, it may just have gone there, and not without this task.
            let is_there = status.state == self.from;
            self.round = Some(if is_there { status.round } else { status.round.saturating_sub(1) });
        }
        Ok(())
    }

    async fn run(&self, runs: &Runs) -> discovery::Result<Completed> {
        let run = runs.run(&self.run)?;
        match self.round {
            Some(round) => run.complete_round(round, &self.task, &self.from, &self.to).await,
            None => run.complete(&self.task, &self.from, &self.to).await,
        }
    }
}

/// Where to send errands. Clones send to the same worker.
#[derive(Clone, Debug)]
pub(super) struct Desk {
    errands: mpsc::Sender<Order>,
    words: broadcast::Sender<Word>,
}

/// An errand, and who wants to know what comes of it.
#[derive(Debug)]
struct Order {
    errand: Errand,
    /// Told once the circle is entrusted with it: from then on it will be done, whoever dies.
    accepted: oneshot::Sender<()>,
    done: oneshot::Sender<discovery::Result<Completed>>,
}

impl Desk {
    /// Has it done, by this worker or by whoever covers for it.
    ///
    /// # Errors
    ///
    /// As for [`Run::complete`](discovery::recipe::Run::complete); [`Closed`](ErrorKind::Closed) if the worker is gone: then
    /// somebody else does it, or nobody ever heard of it.
    pub(super) async fn complete(&self, errand: Errand) -> discovery::Result<Completed> {
        self.entrust(errand, || {}).await
    }

    /// The same; says when it is accepted.
    pub(super) async fn entrust(
        &self,
        errand: Errand,
        accepted: impl FnOnce(),
    ) -> discovery::Result<Completed> {
        let gone = || Error::new(ErrorKind::Closed, "the worker is gone; ask another one").maybe_applied();
        let (accept, is_accepted) = oneshot::channel();
        let (done, is_done) = oneshot::channel();
        let order = Order { errand, accepted: accept, done };
        self.errands.send(order).await.map_err(|_| gone())?;
        if self.answer(is_accepted).await.is_some() {
            accepted();
        }
        self.answer(is_done).await.unwrap_or_else(|| Err(gone()))
    }

    /// What the worker answers; `None` if it is gone.
    ///
    /// What is sent just as it dies may lie in the channel for as long as somebody can send, and we can: so its death is
    /// waited for as well.
    async fn answer<T>(&self, mut answer: oneshot::Receiver<T>) -> Option<T> {
        tokio::select! {
            answer = &mut answer => answer.ok(),
            // Its last answer counts.
            () = self.errands.closed() => answer.try_recv().ok(),
        }
    }

    /// What the worker has to say from now on.
    pub(super) fn words(&self) -> broadcast::Receiver<Word> {
        self.words.subscribe()
    }
}

/// What a worker tells of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Word {
    pub(super) worker: String,
    pub(super) text: String,
}

/// One of the circle.
pub(super) struct Worker {
    runs: Runs,
    group: Group,
    label: String,
    errands: mpsc::Receiver<Order>,
    words: broadcast::Sender<Word>,
    /// What was entrusted to the circle, by number.
    hands: BTreeMap<u64, Errand>,
    last: u64,
    /// Tasks, so that they go on while the worker waits for something else.
    under_way: JoinSet<u64>,
}

impl Worker {
    pub(super) fn new(registry: &Registry, label: &str, ttl: Duration) -> discovery::Result<(Self, Desk)> {
        let (send, errands) = mpsc::channel(HANDS);
        let words = broadcast::Sender::new(WORDS);
        let desk = Desk { errands: send, words: words.clone() };
        let worker = Self {
            runs: machine::runs(registry)?,
            group: registry.discovery.group(&machine::name())?.ttl(ttl),
            label: label.to_owned(),
            errands,
            words,
            hands: BTreeMap::new(),
            last: 0,
            under_way: JoinSet::new(),
        };
        Ok((worker, desk))
    }

    /// Works until nobody has the desk any more and everything is done, and then leaves the circle.
    pub(super) async fn work(mut self) -> discovery::Result<()> {
        loop {
            let mut place = self.group.join(&self.label).await?;
            self.say("I am in the circle");
            match self.work_at(&mut place).await {
                Ok(()) => return place.leave().await,
                // Or the circle is another one than it was, as in a registry that was restored from a backup.
                Err(error) if matches!(error.kind(), ErrorKind::LeaseLost | ErrorKind::Corrupt) => {
                    self.say(format_args!("out of the circle ({error}); joining again"));
                    time::sleep(AGAIN).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    async fn work_at(&mut self, place: &mut Membership) -> discovery::Result<()> {
        // What was in hand before is in hand again: whoever covered for us has done it, or does it now, as we do.
        self.entrust(place).await?;
        loop {
            let room = HANDS - self.hands.len().min(HANDS);
            let mut orders = Vec::new();
            tokio::select! {
                news = place.next() => match news? {
                    News::Buddy(Some(buddy)) => self.say(format_args!("my buddy is {}", buddy.label)),
                    News::Buddy(None) => self.say("I am alone: I have no buddy (yet)"),
                    News::Departed(gone) => self.cover(&gone).await?,
                },
                count = self.errands.recv_many(&mut orders, room), if room > 0 => {
                    if count == 0 {
                        break;
                    }
                    self.take(place, orders).await?;
                }
                Some(Ok(done)) = self.under_way.join_next() => self.is_done(place, done).await?,
            }
        }
        while let Some(Ok(done)) = self.under_way.join_next().await {
            self.is_done(place, done).await?;
        }
        Ok(())
    }

    /// Entrusts the circle with new errands, and then begins with them.
    async fn take(&mut self, place: &Membership, orders: Vec<Order>) -> discovery::Result<()> {
        let runs = &self.runs;
        let prepared = join_all(orders.into_iter().map(async |mut order: Order| {
            match order.errand.prepare(runs).await {
                Ok(()) => Some(order),
                Err(error) => {
                    // Whoever does not wait any more does not need to know, here and below.
                    let _ = order.done.send(Err(error));
                    None
                }
            }
        }));
        let orders: Vec<Order> = prepared.await.into_iter().flatten().collect();
        if orders.is_empty() {
            return Ok(());
        }
        let first = self.last + 1;
        for Order { errand, .. } in &orders {
            self.last += 1;
            self.hands.insert(self.last, errand.clone());
        }
        let entrusted = self.entrust(place).await;
        if let Err(error) = &entrusted
            && error.kind() == ErrorKind::Invalid
        {
            // They ask for what cannot be; that is nothing to the others.
            self.hands.split_off(&first);
            for Order { done, .. } in orders {
                let _ = done.send(Err(error.clone()));
            }
            return Ok(());
        }
        // Also if that failed: those who wait want an answer.
        for (number, Order { errand, accepted, done }) in (first..).zip(orders) {
            if entrusted.is_ok() {
                let _ = accepted.send(());
            }
            let runs = self.runs.clone();
            self.under_way.spawn(async move {
                let _ = done.send(errand.run(&runs).await);
                number
            });
        }
        entrusted
    }

    async fn is_done(&mut self, place: &Membership, number: u64) -> discovery::Result<()> {
        self.hands.remove(&number);
        // While others are under way they will say so, or the next ones.
        if self.under_way.is_empty() { self.entrust(place).await } else { Ok(()) }
    }

    /// Tells the circle what is in hand, however often that takes; for as long as this worker counts as alive.
    async fn entrust(&mut self, place: &Membership) -> discovery::Result<()> {
        loop {
            let told = if self.hands.is_empty() {
                place.relieve().await
            } else {
                let errands: Vec<_> = self.hands.values().collect();
                // Fails only for maps whose keys are no text, which errands do not have.
                place.entrust(serde_json::to_vec(&errands).unwrap_or_default()).await
            };
            match told {
                Err(error) if error.is_transient() => time::sleep(AGAIN).await,
                told => return told,
            }
        }
    }

    /// Does what somebody else had in hand when it was gone.
    async fn cover(&mut self, gone: &Departure) -> discovery::Result<()> {
        let errands: Vec<Errand> = match gone.duties().map(|duties| serde_json::from_slice(duties)) {
            None => Vec::new(),
            Some(Ok(errands)) => errands,
            Some(Err(error)) => {
                tracing::warn!("what {} had in hand cannot be read, and is lost: {error}", gone.label());
                Vec::new()
            }
        };
        let mut moved = 0;
        for errand in &errands {
            match errand.run(&self.runs).await {
                Ok(Completed::Moved) => moved += 1,
                Ok(Completed::Counted | Completed::Already) => {}
                // It was done before, or makes no sense any more.
                Err(error) if !error.is_transient() => tracing::debug!("{errand:?}: {error}"),
                Err(error) => return Err(error),
            }
        }
        match gone.settle(Txn::new()).await {
            Ok(()) => {}
            // Somebody joined in between, and has it for a buddy now.
            Err(error) if error.kind() == ErrorKind::Conflict => return Ok(()),
            Err(error) => return Err(error),
        }
        let what = match (errands.len(), moved) {
            (0, _) => "it had nothing in hand".to_owned(),
            (count, 0) => format!("{count} in hand"),
            (count, _) => format!("{count} in hand, and that moved a run"),
        };
        self.say(format_args!("covering for my buddy {}, which is gone: {what}", gone.label()));
        Ok(())
    }

    fn say(&self, text: impl std::fmt::Display) {
        tracing::debug!("{}: {text}", self.label);
        // Nobody may be listening.
        let _ = self.words.send(Word { worker: self.label.clone(), text: text.to_string() });
    }
}

#[cfg(test)]
mod tests {
    use discovery::Outcome;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_asks_a_worker_that_dies_is_told() {
        let (errands, mut inbox) = mpsc::channel(HANDS);
        let desk = Desk { errands, words: broadcast::Sender::new(WORDS) };
        let machine: Machine = Machine::new("node", 1).unwrap();
        let errand = Errand::new("run", &machine, "init", "provisioning");
        let asking = tokio::spawn(async move { desk.complete(errand).await });
        while inbox.is_empty() {
            tokio::task::yield_now().await;
        }
        // As an errand that comes while the worker drops its inbox: there, but never to be read.
        inbox.close();
        let told = time::timeout(Duration::from_secs(1), asking).await.unwrap().unwrap();
        let error = told.unwrap_err();
        assert_eq!((error.kind(), error.outcome()), (ErrorKind::Closed, Outcome::Unknown));
    }
}
