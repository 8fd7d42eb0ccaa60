//! A state machine that many move together.

mod life;
mod picture;
mod plan;
mod record;
mod step;
mod table;

use std::{collections::BTreeMap, sync::Arc};

use futures_util::{
    StreamExt,
    stream::{self, BoxStream},
};
use serde::{Deserialize, Serialize};

use self::{picture::Painter, record::Record};
pub use self::{picture::Picture, plan::Plan, table::Table};
use super::{
    known::{Known, corrupt},
    place::Place,
};
use crate::{
    Error, ErrorKind, Result, Revision, ServiceName,
    kv::{Entry, Key, Range, Txn},
    lease::Sessions,
    name::fold_label,
};

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
/// *Nobody sees half a run.* One that does not fit into a transaction is created, and deleted, under a record that is hidden:
/// every change is on condition of the record, and whoever finds a hidden one finds no run.
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
    /// As for [`create_as`](Runs::create_as), and [`Invalid`](ErrorKind::Invalid) for a bad table, a bad task or the same task
    /// twice.
    ///
    /// # Cancel safety
    ///
    /// As for [`create_as`](Runs::create_as).
    pub async fn create<T: Into<String>>(
        &self,
        id: &str,
        table: &Table,
        tasks: impl IntoIterator<Item = T>,
    ) -> Result<Run> {
        self.create_as(id, Plan::new(table, tasks)?).await
    }

    /// Creates a run with more to it than a table and tasks.
    ///
    /// # Errors
    ///
    /// [`Conflict`](ErrorKind::Conflict) if there is such a run; [`Invalid`](ErrorKind::Invalid) for a bad id.
    ///
    /// # Cancel safety
    ///
    /// Not cancel safe: a dropped call may have created the run or not, but never half of it.
    pub async fn create_as(&self, id: &str, plan: Plan) -> Result<Run> {
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
        let top = self.place.top().join(&id)?;
        Ok(Run { place: self.place.clone(), tally: top.join("tally")?, lists: top.join("tasks")?, top, id })
    }

    /// All runs with how they stand, by id, now and whenever that changes. Who is slow misses what was in between, never the
    /// latest. Outages are waited out. A record that cannot be read is left out.
    ///
    /// # Errors
    ///
    /// What the backend refuses before it ever answered; the stream ends behind it.
    ///
    /// # Cancel safety
    ///
    /// Dropping the stream, or the wait for an item, is safe.
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
        let record = Known::<Record>::of(entry).ok().filter(|record| !record.value.hidden)?;
        Some((entry.key.name()?.to_owned(), RunStatus::of(&record)))
    });
    runs.collect()
}

/// One run. Cheap to clone; holds nothing.
#[derive(Clone, Debug)]
pub struct Run {
    place: Place,
    id: String,
    /// Where the [`Record`] is; all else is below.
    top: Key,
    tally: Key,
    lists: Key,
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
    /// Grows with each move, and from one life of the run to the next: who has seen this number has seen this state.
    #[serde(skip)]
    pub version: u64,
    /// The latest moves, the last one last.
    pub moves: Vec<Move>,
}

impl RunStatus {
    fn of(Known { value: record, created, .. }: &Known<Record>) -> Self {
        Self {
            // Each move is a commit and takes a revision at least, so the next life begins beyond.
            version: created.0.wrapping_add(record.round),
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
        Ok(RunStatus::of(&self.record().await?))
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
        let mut seen = None;
        loop {
            // In this order: the lists may be ahead of the record, but then they say so.
            let record = self.record().await?;
            let lists = self.place.scan(&Range::Children(self.lists.clone())).await?;
            if lists.len() == record.value.lists {
                let lists = lists.iter().map(Known::of).collect::<Result<Vec<_>>>()?;
                return Ok(Picture::of(&record, &lists));
            }
            self.check_whole(&mut seen).await?;
        }
    }

    /// How it stands, now and whenever that changes; ends when the run is deleted. Who is slow misses what was in between,
    /// never the latest. Outages are waited out.
    ///
    /// # Errors
    ///
    /// What the backend refuses before it ever answered, and [`Corrupt`](ErrorKind::Corrupt); the stream ends behind it.
    ///
    /// # Cancel safety
    ///
    /// Dropping the stream, or the wait for an item, is safe.
    pub fn statuses(&self) -> BoxStream<'static, Result<RunStatus>> {
        let record = self.place.sight(self.top.clone());
        let statuses = stream::try_unfold((record, None), |(mut record, life)| async move {
            let Some(entry) = record.next().await? else { return Ok(None) };
            let known = Known::<Record>::of(&entry)?;
            let goes_on = !known.value.hidden && life.is_none_or(|life| life == known.created);
            Ok(goes_on.then(|| (RunStatus::of(&known), (record, Some(known.created)))))
        });
        statuses.boxed()
    }

    /// All about it, now and whenever anything changes; ends when the run is deleted. Who is slow misses what was in
    /// between, never the latest. Outages are waited out.
    ///
    /// # Errors
    ///
    /// As for [`statuses`](Run::statuses).
    ///
    /// # Cancel safety
    ///
    /// Dropping the stream, or the wait for an item, is safe.
    pub fn watch(&self) -> BoxStream<'static, Result<Picture>> {
        let painter = Painter::new(&self.place, self.top.clone(), self.lists.clone());
        let pictures = stream::try_unfold(painter, |mut painter| async {
            Ok(painter.next().await?.map(|picture| (picture, painter)))
        });
        pictures.boxed()
    }

    async fn record(&self) -> Result<Known<Record>> {
        match Known::<Record>::read(&self.place, &self.top).await? {
            Some(record) if !record.value.hidden => Ok(record),
            _ => Err(Error::new(
                ErrorKind::NotFound,
                format!("there is no run {}; create it, or list those there are", self.id),
            )),
        }
    }

    /// What to do when something of a run was not there: look again, as it may have been created or deleted just now. Fails
    /// if neither happened since it was `seen` before, or if the run is gone.
    async fn check_whole(&self, seen: &mut Option<Revision>) -> Result<()> {
        let life = self.record().await?.created;
        if seen.replace(life) == Some(life) {
            return Err(corrupt(&self.top, "a part of the run is missing"));
        }
        Ok(())
    }

    fn list(&self, n: usize) -> Result<Key> {
        self.lists.join(&n.to_string())
    }
}
