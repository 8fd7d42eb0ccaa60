//! How a run moves: by its tasks, from outside, and when its time is over.

use std::time::Duration;

use futures_util::future::try_join;
use tokio::time::{self, Instant};

use super::{
    Completed, Run, RunStatus,
    record::{Limit, List, Record, Tally},
    table::check_name,
};
use crate::{
    Error, ErrorKind, Outcome, Result, Revision,
    kv::{Key, Txn},
    recipe::{
        known::{Known, json},
        place::random_id,
    },
};

impl Run {
    /// Says that a task has completed state `from`, and that `to` is to follow.
    ///
    /// It counts for the round that is found first, and for no later one. To say it again for certain about the same round,
    /// name that: [`complete_round`](Run::complete_round).
    ///
    /// # Errors
    ///
    /// [`NotFound`](ErrorKind::NotFound) if there is no such run or task; [`Conflict`](ErrorKind::Conflict) if the run is in
    /// another state, or heading for another one; [`Invalid`](ErrorKind::Invalid) if the table does not allow the step.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future is safe: complete the task again.
    pub async fn complete(&self, task: &str, from: &str, to: &str) -> Result<Completed> {
        self.completed(task, from, to, None).await.map_err(|error| error.during("complete"))
    }

    /// The same for one [round](RunStatus::round) only, however late and however often it is said: a table may lead back to
    /// the same state.
    ///
    /// # Errors
    ///
    /// As for [`complete`](Run::complete), and [`Conflict`](ErrorKind::Conflict) if the round is over and did not end this
    /// way.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future is safe: complete the task again.
    pub async fn complete_round(&self, round: u64, task: &str, from: &str, to: &str) -> Result<Completed> {
        self.completed(task, from, to, Some(round)).await.map_err(|error| error.during("complete"))
    }

    async fn completed(&self, task: &str, from: &str, to: &str, mut round: Option<u64>) -> Result<Completed> {
        let attempt = random_id();
        let mut pace = self.place.pace();
        loop {
            let Look { record, tally, key, list } = self.look(task).await?;
            record.value.table.check_step(from, to)?;
            let mut now = list.value.in_round(record.value.round);
            if !now.tasks.contains(task) {
                let message = format!("run {} has no task {task:?}; ask for the missing ones", self.id);
                return Err(Error::new(ErrorKind::NotFound, message));
            }
            if round.is_none() && record.value.state != from {
                // Perhaps it has just gone, and not without this task.
                round = record.value.round.checked_sub(1);
            }
            let round = *round.get_or_insert(record.value.round);
            if round != record.value.round {
                return self.completed_before(&record.value, round, from, to, &attempt);
            }
            self.check_completion(&record.value, from, to)?;
            if !now.done.insert(task.to_owned()) {
                return Ok(Completed::Already);
            }
            let mut tally_now = tally.value.in_round(record.value.round);
            let mut txn = Txn::new().guard(record.guard).guard(list.guard);
            if !now.is_open() {
                tally_now.open = tally_now.open.saturating_sub(1);
                txn = txn.guard(tally.guard);
            }
            let is_last = !now.is_open() && tally_now.open == 0;
            if is_last {
                txn = txn.put(&self.top, json(&record.value.moved(to, task, &attempt)));
            } else {
                if !now.is_open() {
                    txn = txn.put(&self.tally, json(&tally_now));
                }
                txn = txn.put(&key, json(&now));
                if record.value.heading.is_none() && record.value.table.steps(from).len() > 1 {
                    let headed = Record { heading: Some(to.to_owned()), ..record.value };
                    txn = txn.put(&self.top, json(&headed));
                }
            }
            match self.place.kv()?.commit(txn).await {
                Ok(_) if is_last => return Ok(Completed::Moved),
                Ok(_) => return Ok(Completed::Counted),
                Err(error) => pace.after(error).await?,
            }
        }
    }

    /// What has come of a completion for a round that is over.
    fn completed_before(
        &self,
        record: &Record,
        round: u64,
        from: &str,
        to: &str,
        attempt: &str,
    ) -> Result<Completed> {
        match record.moves.iter().find(|past| past.round == round) {
            Some(past) if past.by == attempt => Ok(Completed::Moved),
            Some(past) if past.from == from && past.to == to => Ok(Completed::Already),
            _ => {
                let state = &record.state;
                let message = format!("run {} is in state {state:?}, not in {from:?}", self.id);
                Err(Error::new(ErrorKind::Conflict, message))
            }
        }
    }

    fn check_completion(&self, record: &Record, from: &str, to: &str) -> Result<()> {
        let Record { state, heading, table, .. } = record;
        if state != from {
            let message = format!("run {} is in state {state:?}, not in {from:?}", self.id);
            return Err(Error::new(ErrorKind::Conflict, message));
        }
        table.check_step(from, to)?;
        match heading {
            Some(heading) if heading != to => {
                let message = format!("run {} is heading for {heading:?}, not for {to:?}", self.id);
                Err(Error::new(ErrorKind::Conflict, message))
            }
            _ => Ok(()),
        }
    }

    /// Ends the state from outside, in one of the table's exits, and says why. A run that is there already stays there.
    ///
    /// # Errors
    ///
    /// [`NotFound`](ErrorKind::NotFound) if there is no such run; [`Invalid`](ErrorKind::Invalid) if `to` is no exit;
    /// [`Conflict`](ErrorKind::Conflict) if the run is over already.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future is safe: force it again.
    pub async fn force(&self, to: &str, cause: &str) -> Result<RunStatus> {
        self.forced(to, cause, None).await.map_err(|error| error.during("force"))
    }

    /// Leaves alone what is not in this life and round.
    async fn forced(&self, to: &str, cause: &str, only: Option<(Revision, u64)>) -> Result<RunStatus> {
        let attempt = random_id();
        let mut pace = self.place.pace();
        loop {
            let record = self.record().await?;
            let Record { state, round, table, .. } = &record.value;
            if state == to || only.is_some_and(|only| only != (record.created, *round)) {
                return Ok(RunStatus::of(&record));
            }
            table.check_exit(to)?;
            if table.is_end(state) {
                let message = format!("run {} is over: it is in state {state:?}", self.id);
                return Err(Error::new(ErrorKind::Conflict, message));
            }
            let next = record.value.moved(to, cause, &attempt);
            let txn = Txn::new().guard(record.guard.clone()).put(&self.top, json(&next));
            match self.place.kv()?.commit(txn).await {
                Ok(modified) => return Ok(RunStatus::of(&Known { value: next, modified, ..record })),
                Err(error) => pace.after(error).await?,
            }
        }
    }

    /// Adds a task while the run goes on. It has to complete the present state as the others have. Returns whether it is new.
    ///
    /// # Errors
    ///
    /// [`NotFound`](ErrorKind::NotFound) if there is no such run; [`Conflict`](ErrorKind::Conflict) if it is over;
    /// [`Invalid`](ErrorKind::Invalid) for a bad name.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future is safe: add it again.
    pub async fn add(&self, task: &str) -> Result<bool> {
        check_name("task", task)?;
        let added = self.rescale(task, |list| list.tasks.insert(task.to_owned())).await;
        added.map(|added| added.is_some()).map_err(|error| error.during("add"))
    }

    /// Removes a task while the run goes on. If all others have completed the state, this moves the machine. Returns what
    /// came of it; `None` if there was no such task.
    ///
    /// # Errors
    ///
    /// As for [`add`](Run::add).
    ///
    /// # Cancel safety
    ///
    /// Dropping the future is safe: remove it again.
    pub async fn remove(&self, task: &str) -> Result<Option<Completed>> {
        let removed = self.rescale(task, |list| {
            list.done.remove(task);
            list.tasks.remove(task)
        });
        removed.await.map_err(|error| error.during("remove"))
    }

    /// Changes the list of a task; says what came of it, if that changed anything.
    async fn rescale(
        &self,
        task: &str,
        mut change: impl FnMut(&mut List) -> bool,
    ) -> Result<Option<Completed>> {
        let attempt = random_id();
        let mut pace = self.place.pace();
        // Whether an earlier attempt may have done it all the same.
        let mut in_doubt = false;
        loop {
            let Look { record, tally, key, list } = self.look(task).await?;
            let Record { state, round, table, heading, .. } = &record.value;
            if record.value.moves.iter().any(|past| past.by == attempt) {
                return Ok(Some(Completed::Moved));
            }
            if table.is_end(state) {
                let message = format!("run {} is over: it is in state {state:?}", self.id);
                return Err(Error::new(ErrorKind::Conflict, message));
            }
            let before = list.value.in_round(*round);
            let mut after = before.clone();
            if !change(&mut after) {
                return Ok(in_doubt.then_some(Completed::Counted));
            }
            after.check(self.place.max_record())?;
            let was = tally.value.in_round(*round);
            let now = was.with(&before, &after);
            let to =
                heading.as_ref().or(table.steps(state).first().filter(|_| table.steps(state).len() == 1));
            let is_last = was.open > 0 && now.open == 0 && now.filled > 0;
            let mut txn = Txn::new()
                .guard(record.guard)
                .guard(list.guard)
                .guard(tally.guard)
                .put(&key, json(&after))
                .put(&self.tally, json(&now));
            let mut outcome = Completed::Counted;
            if let Some(to) = to.filter(|_| is_last) {
                txn = txn.put(&self.top, json(&record.value.moved(to, &format!("{task} removed"), &attempt)));
                outcome = Completed::Moved;
            }
            match self.place.kv()?.commit(txn).await {
                Ok(_) => return Ok(Some(outcome)),
                Err(error) => {
                    in_doubt |= error.outcome() == Outcome::Unknown;
                    pace.after(error).await?;
                }
            }
        }
    }

    /// Looks at all that a change of a task is based on.
    async fn look(&self, task: &str) -> Result<Look> {
        let mut seen = None;
        loop {
            let (record, tally) = try_join(self.record(), Known::read(&self.place, &self.tally)).await?;
            let key = self.list(record.value.list_of(task))?;
            let list = Known::read(&self.place, &key).await?;
            if let (Some(tally), Some(list)) = (tally, list) {
                return Ok(Look { record, tally, key, list });
            }
            self.check_whole(&mut seen).await?;
        }
    }

    /// Limits how long a round may take: one that takes longer is ended in the exit `to` by whoever
    /// [supervises](Run::supervise) the run.
    ///
    /// # Errors
    ///
    /// As for [`force`](Run::force).
    ///
    /// # Cancel safety
    ///
    /// Dropping the future is safe: limit it again.
    pub async fn limit(&self, limit: Duration, to: &str) -> Result<()> {
        let mut pace = self.place.pace();
        loop {
            let record = self.record().await?;
            record.value.table.check_exit(to)?;
            let next = Record { limit: Some(Limit::new(limit, to)), ..record.value };
            match self.place.kv()?.commit(Txn::new().guard(record.guard).put(&self.top, json(&next))).await {
                Ok(_) => return Ok(()),
                Err(error) => pace.after(error).await?,
            }
        }
    }

    /// Ends rounds that take longer than the run's [limit](Run::limit), until the run is over or deleted. Any number of
    /// processes may do so at the same time: each measures by its own clock how long it has seen the round go on, and the
    /// round is ended once.
    ///
    /// # Errors
    ///
    /// What the backend refuses.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future stops supervising; who begins anew measures anew.
    pub async fn supervise(&self) -> Result<()> {
        let mut record = self.place.sight(self.top.clone());
        let mut seen: Option<((Revision, u64), Instant)> = None;
        let mut known = record.next().await?;
        loop {
            let Some(entry) = known else { return Ok(()) };
            let Known { value, created, .. } = Known::<Record>::of(&entry)?;
            let Record { round, limit, table, state, hidden, .. } = value;
            if hidden || table.is_end(&state) {
                return Ok(());
            }
            let round = (created, round);
            let since = match seen {
                Some((same, since)) if same == round => since,
                _ => Instant::now(),
            };
            seen = Some((round, since));
            let overdue = async {
                match &limit {
                    Some(limit) => time::sleep_until(since + limit.after()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                next = record.next() => {
                    known = next?;
                    continue;
                }
                () = overdue => {}
            }
            if let Some(limit) = limit {
                let cause = format!("{state} took longer than {:?}", limit.after());
                match self.forced(&limit.to, &cause, Some(round)).await {
                    // Somebody was faster.
                    Err(error) if matches!(error.kind(), ErrorKind::Conflict | ErrorKind::NotFound) => {}
                    ended => drop(ended?),
                }
            }
            known = record.next().await?;
        }
    }
}

/// What a change of a task is based on.
struct Look {
    record: Known<Record>,
    tally: Known<Tally>,
    /// Where the list is.
    key: Key,
    /// The one that the task is in.
    list: Known<List>,
}
