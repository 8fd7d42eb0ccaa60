//! A state machine that many move together.

mod picture;
mod record;
mod table;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures_util::{
    StreamExt,
    future::try_join,
    stream::{self, BoxStream},
};
use serde::{Deserialize, Serialize};
use tokio::time;

use self::{
    picture::Painter,
    record::{List, Record, Tally},
    table::check_name,
};
pub use self::{picture::Picture, table::Table};
use super::{
    known::{Known, corrupt, json, parse},
    place::{Place, Sight, random_id},
};
use crate::{
    Error, ErrorKind, Result, Revision, ServiceName,
    kv::{Entry, Guard, Key, Range, Txn},
    lease::Sessions,
    name::fold_label,
};

/// How many keys are deleted in one transaction.
const SWEEP: usize = 90;

/// Runs that are kept together.
///
/// A run is a state machine with many tasks: it goes from one state to the next when *all* tasks have completed the first.
/// Whoever completes the last one moves the machine, whoever that is and however many do so at the same time.
///
/// # Example: two tasks, one of which is the last
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> discovery::Result<()> {
/// use discovery::{Discovery, mem::Mem, recipe::{Completed, Table}};
///
/// let discovery = Discovery::new(Mem::new());
/// let runs = discovery.runs(&"batch".parse()?)?;
/// let table = Table::new("init").step("init", "running").step("running", "done").exit("aborted");
/// let run = runs.create("run-1235", &table, ["node1/1", "node1/2"]).await?;
///
/// assert_eq!(run.complete("node1/1", "init", "running").await?, Completed::Counted);
/// assert_eq!(run.complete("node1/1", "init", "running").await?, Completed::Already);
/// assert_eq!(run.missing().await?, ["node1/2"]);
/// assert_eq!(run.complete("node1/2", "init", "running").await?, Completed::Moved);
/// assert_eq!(run.status().await?.state, "running");
/// # Ok(()) }
/// ```
///
/// # Safety argument
///
/// *Exactly one moves the machine.* Every change is one commit on condition that all records it is based on are unchanged.
/// A completion is based on the record of the run, on the list that its task is in and, if it is the last of its list, on
/// the tally of lists that are not done. Of two commits based on the same record of a thing that both write, one fails and
/// looks again. So the tally is right at any time, and the commit that brings it to nothing is the move itself: there is
/// no moment between the last completion and the move at which anybody could die.
///
/// *Nothing is left over.* Lists and tally say which round they are about, and mean "nothing done" in every later one; so
/// a move writes one key, and there are no marks to be made anew.
///
/// *Completing is idempotent.* A task that is done stays done, also when the run has just moved because of it. A reply that
/// was lost is made up for by looking: the record names the attempt that moved the machine.
///
/// *Cost*: three reads and one commit a completion, however many tasks there are. Those who complete tasks of different
/// lists do not get in each other's way, but for once a list.
#[derive(Clone, Debug)]
pub struct Runs {
    place: Place,
}

impl Runs {
    pub(crate) fn new(sessions: &Arc<Sessions>, name: &ServiceName) -> Result<Self> {
        Ok(Self { place: Place::new(sessions, "runs", name)? })
    }

    /// Creates a run in the first state of its table. `id` is a label, by the rules of [`ServiceName`].
    ///
    /// # Errors
    ///
    /// [`Conflict`](ErrorKind::Conflict) if there is such a run; [`Invalid`](ErrorKind::Invalid) for a bad id, a bad table, a
    /// bad task or the same task twice.
    ///
    /// # Cancel safety
    ///
    /// Not cancel safe: a dropped call may have created the run or not.
    pub async fn create<T: Into<String>>(
        &self,
        id: &str,
        table: &Table,
        tasks: impl IntoIterator<Item = T>,
    ) -> Result<Run> {
        let plan = Plan::new(table, tasks)?;
        let run = self.run(id)?;
        run.begin(plan).await.map_err(|error| error.during("create"))?;
        Ok(run)
    }

    /// The run of this id, which may exist or not.
    ///
    /// # Errors
    ///
    /// [`Invalid`](ErrorKind::Invalid) for a bad id.
    pub fn run(&self, id: &str) -> Result<Run> {
        let id = fold_label(id).map_err(|error| Error::invalid(format!("run {id:?}: {error}")))?;
        Ok(Run { top: self.place.top().join(&id)?, place: self.place.clone(), id })
    }

    /// All runs with how they stand, by id, now and whenever that changes. Who is slow misses what was in between, never the
    /// latest. Outages are waited out.
    pub fn watch(&self) -> BoxStream<'static, Result<BTreeMap<String, RunStatus>>> {
        let view = self.place.view(Range::Children(self.place.top().clone()));
        let lists = stream::try_unfold(view, |mut view| async {
            view.changed().await?;
            Ok(Some((listed(view.entries().values()), view)))
        });
        lists.boxed()
    }

    /// All runs with how they stand, by id.
    ///
    /// # Errors
    ///
    /// What the backend refuses. A record that cannot be read is left out.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn list(&self) -> Result<BTreeMap<String, RunStatus>> {
        let all = self.place.scan(&Range::Children(self.place.top().clone())).await?;
        Ok(listed(&all))
    }
}

fn listed<'a>(entries: impl IntoIterator<Item = &'a Entry>) -> BTreeMap<String, RunStatus> {
    let runs = entries.into_iter().filter_map(|entry| {
        let record = parse::<Record>(entry).ok().filter(|record| !record.deleted)?;
        Some((entry.key.name()?.to_owned(), RunStatus::of(&record, entry.modified)))
    });
    runs.collect()
}

/// One run. Cheap to clone; holds nothing.
#[derive(Clone, Debug)]
pub struct Run {
    place: Place,
    top: Key,
    id: String,
}

/// How a run stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct RunStatus {
    /// The state it is in.
    pub state: String,
    /// Grows with each move; the first is 1.
    pub round: u64,
    /// Which state will follow, where the table leaves a choice and a task has decided.
    pub heading: Option<String>,
    /// Whether this is the end.
    pub is_over: bool,
    /// When the record of the run was last written: at the last move, mostly.
    #[serde(skip)]
    pub revision: Revision,
    /// The latest moves, the last one last.
    pub moves: Vec<Move>,
}

impl RunStatus {
    fn of(record: &Record, revision: Revision) -> Self {
        Self {
            revision,
            state: record.state.clone(),
            round: record.round,
            heading: record.heading.clone(),
            is_over: record.table.is_end(&record.state),
            moves: record.moves.clone(),
        }
    }
}

/// A move that a run made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Move {
    /// The round that it ended.
    pub round: u64,
    /// The state before.
    pub from: String,
    /// The state behind.
    pub to: String,
    /// Why: the task that was the last one, or what whoever forced it said.
    pub cause: String,
    /// Names the attempt that made it.
    by: String,
}

/// What came of a completion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Completed {
    /// It was counted; others are missing.
    Counted,
    /// It had been counted before.
    Already,
    /// It was the last one: it moved the machine.
    Moved,
}

impl Run {
    /// Its id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// A key that belongs to the run, for what else there is to say about it: deleted with it.
    ///
    /// # Errors
    ///
    /// [`Invalid`](ErrorKind::Invalid) if the whole is not a key.
    pub fn data_key(&self, below: &str) -> Result<Key> {
        self.top.join("data")?.join(below)
    }

    /// Commits a transaction if the run is there, in one step: what is written below a [`data_key`](Run::data_key) this way
    /// is never left behind.
    ///
    /// # Errors
    ///
    /// [`NotFound`](ErrorKind::NotFound) if there is no such run; [`Conflict`](ErrorKind::Conflict) if a guard of `txn` does
    /// not hold; otherwise as for [`Kv::commit`](crate::kv::Kv::commit).
    ///
    /// # Cancel safety
    ///
    /// Not cancel safe: a dropped commit may take effect or not.
    pub async fn commit(&self, txn: Txn) -> Result<Revision> {
        let mut record = self.record().await?;
        let mut pace = self.place.pace();
        loop {
            match self.place.kv()?.commit(txn.clone().guard(record.guard)).await {
                Err(error) if error.kind() == ErrorKind::Conflict => {
                    let before = record.modified;
                    record = self.record().await?;
                    // The run has not moved, so it was a guard of the caller's.
                    if record.modified == before {
                        return Err(error);
                    }
                    pace.after(error).await?;
                }
                outcome => return outcome,
            }
        }
    }

    /// How it stands.
    ///
    /// # Errors
    ///
    /// [`NotFound`](ErrorKind::NotFound) if there is no such run; what the backend refuses. A store that is out of reach is
    /// waited for, here and in all other methods.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn status(&self) -> Result<RunStatus> {
        let record = self.record().await?;
        Ok(RunStatus::of(&record.value, record.modified))
    }

    /// The tasks that have not completed the state yet, by name. Reads all tasks.
    ///
    /// # Errors
    ///
    /// As for [`status`](Run::status).
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn missing(&self) -> Result<Vec<String>> {
        Ok(self.picture().await?.missing().map(str::to_owned).collect())
    }

    /// All about it. Reads all tasks.
    ///
    /// # Errors
    ///
    /// As for [`status`](Run::status).
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn picture(&self) -> Result<Picture> {
        // In this order: the lists may be ahead of the record, but then they say so.
        let record = self.record().await?;
        let lists = self.place.scan(&Range::Children(self.lists()?)).await?;
        let revision = lists.iter().map(|list| list.modified).fold(record.modified, Revision::max);
        let lists = lists.iter().map(parse).collect::<Result<Vec<List>>>()?;
        Ok(Picture::of(RunStatus::of(&record.value, record.modified), &record.value, lists, revision))
    }

    /// Says that a task has completed state `from`, and that `to` is to follow.
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
        self.completed(task, from, to).await.map_err(|error| error.during("complete"))
    }

    async fn completed(&self, task: &str, from: &str, to: &str) -> Result<Completed> {
        let attempt = random_id();
        let mut pace = self.place.pace();
        loop {
            let (record, tally) = try_join(self.record(), self.tally()).await?;
            if record.value.moves.last().is_some_and(|last| last.by == attempt) {
                return Ok(Completed::Moved);
            }
            let key = self.list(record.value.list_of(task))?;
            let list = self.read::<List>(&key).await?;
            let mut now = list.value.in_round(record.value.round);
            if !now.tasks.contains(task) {
                let message = format!("run {} has no task {task:?}; ask for the missing ones", self.id);
                return Err(Error::new(ErrorKind::NotFound, message));
            }
            if record.value.has_just_gone(from, to) {
                // Not without this task.
                return Ok(Completed::Already);
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
                    txn = txn.put(&self.tally_key()?, json(&tally_now));
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

    /// Leaves alone what is not in round `only`.
    async fn forced(&self, to: &str, cause: &str, only: Option<u64>) -> Result<RunStatus> {
        let attempt = random_id();
        let mut pace = self.place.pace();
        loop {
            let record = self.record().await?;
            let Record { state, round, table, .. } = &record.value;
            if state == to || only.is_some_and(|only| only != *round) {
                return Ok(RunStatus::of(&record.value, record.modified));
            }
            table.check_exit(to)?;
            if table.is_end(state) {
                let message = format!("run {} is over: it is in state {state:?}", self.id);
                return Err(Error::new(ErrorKind::Conflict, message));
            }
            let next = record.value.moved(to, cause, &attempt);
            match self.place.kv()?.commit(Txn::new().guard(record.guard).put(&self.top, json(&next))).await {
                Ok(revision) => return Ok(RunStatus::of(&next, revision)),
                Err(error) => pace.after(error).await?,
            }
        }
    }

    /// Adds a task while the run goes on. It has to complete the present state as the others have.
    ///
    /// # Errors
    ///
    /// [`NotFound`](ErrorKind::NotFound) if there is no such run; [`Conflict`](ErrorKind::Conflict) if it is over;
    /// [`Invalid`](ErrorKind::Invalid) for a bad name. Returns whether it is new.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future is safe: add it again.
    pub async fn add(&self, task: &str) -> Result<bool> {
        check_name("task", task)?;
        let added = self.rescale(task, |list| list.tasks.insert(task.to_owned())).await;
        added.map(|(changed, _)| changed).map_err(|error| error.during("add"))
    }

    /// Removes a task while the run goes on. If all others have completed the state, this moves the machine. Returns
    /// whether there was such a task, and whether the machine was moved.
    ///
    /// # Errors
    ///
    /// As for [`add`](Run::add).
    ///
    /// # Cancel safety
    ///
    /// Dropping the future is safe: remove it again.
    pub async fn remove(&self, task: &str) -> Result<(bool, Completed)> {
        let removed = self.rescale(task, |list| {
            list.done.remove(task);
            list.tasks.remove(task)
        });
        let (changed, moved) = removed.await.map_err(|error| error.during("remove"))?;
        Ok((changed, if moved { Completed::Moved } else { Completed::Counted }))
    }

    /// Changes the list of a task; says whether that changed anything, and whether it moved the machine.
    async fn rescale(&self, task: &str, mut change: impl FnMut(&mut List) -> bool) -> Result<(bool, bool)> {
        let attempt = random_id();
        let mut pace = self.place.pace();
        loop {
            let (record, tally) = try_join(self.record(), self.tally()).await?;
            let Record { state, round, table, heading, .. } = &record.value;
            if record.value.moves.last().is_some_and(|last| last.by == attempt) {
                return Ok((true, true));
            }
            if table.is_end(state) {
                let message = format!("run {} is over: it is in state {state:?}", self.id);
                return Err(Error::new(ErrorKind::Conflict, message));
            }
            let key = self.list(record.value.list_of(task))?;
            let list = self.read::<List>(&key).await?;
            let before = list.value.in_round(*round);
            let mut after = before.clone();
            if !change(&mut after) {
                return Ok((false, false));
            }
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
                .put(&self.tally_key()?, json(&now));
            let moves = is_last.then_some(to).flatten();
            if let Some(to) = moves {
                txn = txn.put(&self.top, json(&record.value.moved(to, &format!("{task} removed"), &attempt)));
            }
            let moves = moves.is_some();
            match self.place.kv()?.commit(txn).await {
                Ok(_) => return Ok((true, moves)),
                Err(error) => pace.after(error).await?,
            }
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
            let next = Record { limit: Some(record::Limit::new(limit, to)), ..record.value };
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
        let mut record = Sight::new(self.place.sessions(), self.top.clone());
        let mut seen: Option<(u64, time::Instant)> = None;
        let mut known = record.next().await?;
        loop {
            let Some(entry) = known else { return Ok(()) };
            let Record { round, limit, table, state, deleted, .. } = parse(&entry)?;
            if deleted || table.is_end(&state) {
                return Ok(());
            }
            let since = match seen {
                Some((same, since)) if same == round => since,
                _ => time::Instant::now(),
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

    /// How it stands, now and whenever that changes; ends when the run is deleted. Who is slow misses what was in between,
    /// never the latest. Outages are waited out.
    pub fn statuses(&self) -> BoxStream<'static, Result<RunStatus>> {
        let record = Sight::new(self.place.sessions(), self.top.clone());
        let statuses = stream::try_unfold(record, |mut record| async {
            let Some(entry) = record.next().await? else { return Ok(None) };
            let known: Record = parse(&entry)?;
            Ok((!known.deleted).then(|| (RunStatus::of(&known, entry.modified), record)))
        });
        statuses.boxed()
    }

    /// All about it, now and whenever anything changes; ends when the run is deleted. Who is slow misses what was in
    /// between, never the latest. Outages are waited out.
    ///
    /// # Errors
    ///
    /// None in practice: the keys have their form.
    pub fn watch(&self) -> Result<BoxStream<'static, Result<Picture>>> {
        let painter = Painter::new(&self.place, self.top.clone(), self.lists()?);
        let pictures = stream::try_unfold(painter, |mut painter| async {
            Ok(painter.next().await?.map(|picture| (picture, painter)))
        });
        Ok(pictures.boxed())
    }

    /// Deletes it, with everything that belongs to it. Returns whether there was such a run.
    ///
    /// # Errors
    ///
    /// What the backend refuses.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future may leave a run that nobody sees any more; the next to delete it, or to create one of that id,
    /// takes it away.
    pub async fn delete(&self) -> Result<bool> {
        let mut pace = self.place.pace();
        let mut found = false;
        while let Some(Known { value: record, guard, .. }) =
            Known::<Record>::read(&self.place, &self.top).await?
        {
            let outcome = match record.deleted {
                true => self.sweep(guard).await,
                // Another one, that was created as soon as ours was gone.
                false if found => return Ok(true),
                false => {
                    found = true;
                    let deleted = Record { deleted: true, ..record };
                    let txn = Txn::new().guard(guard).put(&self.top, json(&deleted));
                    self.place.kv()?.commit(txn).await.map(drop)
                }
            };
            if let Err(error) = outcome {
                pace.after(error).await.map_err(|error| error.during("delete"))?;
            }
        }
        Ok(found)
    }

    /// Takes away what is left of a run that is being deleted, the record last.
    async fn sweep(&self, guard: Guard) -> Result<()> {
        let rest = self.place.scan(&Range::Subtree(self.top.clone())).await?;
        for some in rest.chunks(SWEEP) {
            let txn = some.iter().fold(Txn::new(), |txn, entry| txn.delete(&entry.key));
            self.place.kv()?.commit(txn.guard(guard.clone())).await?;
        }
        self.place.kv()?.commit(Txn::new().guard(guard).delete(&self.top)).await.map(drop)
    }

    async fn begin(&self, Plan { record, lists, tally }: Plan) -> Result<()> {
        let attempt = random_id();
        let record = Record { created_by: attempt.clone(), ..record };
        let mut txn =
            Txn::new().absent(&self.top).put(&self.top, json(&record)).put(&self.tally_key()?, json(&tally));
        for (n, list) in lists.iter().enumerate() {
            txn = txn.put(&self.list(n)?, json(list));
        }
        let mut pace = self.place.pace();
        loop {
            match self.place.kv()?.commit(txn.clone()).await {
                Ok(_) => return Ok(()),
                Err(error) => pace.after(error).await?,
            }
            match Known::<Record>::read(&self.place, &self.top).await? {
                Some(known) if known.value.created_by == attempt => return Ok(()),
                Some(known) if !known.value.deleted => {
                    let message = format!("run {} already exists; delete it, or choose another id", self.id);
                    return Err(Error::new(ErrorKind::Conflict, message));
                }
                // Somebody began to delete it, and may not be there any more to end that.
                Some(known) => {
                    if let Err(error) = self.sweep(known.guard).await {
                        pace.after(error).await?;
                    }
                }
                None => {}
            }
        }
    }

    async fn record(&self) -> Result<Known<Record>> {
        match Known::<Record>::read(&self.place, &self.top).await? {
            Some(record) if !record.value.deleted => Ok(record),
            _ => Err(Error::new(
                ErrorKind::NotFound,
                format!("there is no run {}; create it, or list those there are", self.id),
            )),
        }
    }

    async fn tally(&self) -> Result<Known<Tally>> {
        self.read(&self.tally_key()?).await
    }

    async fn read<T: serde::de::DeserializeOwned>(&self, key: &Key) -> Result<Known<T>> {
        Known::read(&self.place, key).await?.ok_or_else(|| corrupt(key, "it is missing"))
    }

    fn tally_key(&self) -> Result<Key> {
        self.top.join("tally")
    }

    fn lists(&self) -> Result<Key> {
        self.top.join("tasks")
    }

    fn list(&self, n: usize) -> Result<Key> {
        self.lists()?.join(&n.to_string())
    }
}

/// What a run begins with.
struct Plan {
    record: Record,
    lists: Vec<List>,
    tally: Tally,
}

impl Plan {
    fn new<T: Into<String>>(table: &Table, tasks: impl IntoIterator<Item = T>) -> Result<Self> {
        table.check()?;
        let tasks: Vec<String> = tasks.into_iter().map(Into::into).collect();
        let record = Record::new(table.clone(), tasks.len());
        let mut lists = vec![List::default().in_round(record.round); record.lists];
        for task in tasks {
            check_name("task", &task)?;
            let list = &mut lists[record.list_of(&task)];
            if let Some(twice) = list.tasks.replace(task) {
                return Err(Error::invalid(format!("task {twice:?} is named twice")));
            }
        }
        let filled = lists.iter().filter(|list| !list.tasks.is_empty()).count();
        let tally = Tally::new(record.round, filled);
        Ok(Self { record, lists, tally })
    }
}
