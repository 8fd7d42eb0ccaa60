//! How a run comes to be, and how it goes, with everything that belongs to it.

use super::{
    Run,
    record::{List, Record, Tally},
    table::{Table, check_name},
};
use crate::{
    Error, ErrorKind, Result,
    kv::{Guard, Range, Txn},
    recipe::{
        known::{Known, json},
        place::random_id,
    },
};

/// How many keys are deleted in one transaction.
const SWEEP: usize = 90;

impl Run {
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
        // Which life of the run we want gone.
        let mut marked = None;
        while let Some(known) = Known::<Record>::read(&self.place, &self.top).await? {
            let Known { value: record, guard, created, .. } = known;
            let outcome = if record.deleted {
                self.sweep(guard).await
            } else if marked.is_some_and(|marked| marked != created) {
                // Another one, that was created as soon as ours was gone.
                return Ok(true);
            } else {
                marked = Some(created);
                let deleted = Record { deleted: true, ..record };
                let txn = Txn::new().guard(guard).put(&self.top, json(&deleted));
                self.place.kv()?.commit(txn).await.map(drop)
            };
            if let Err(error) = outcome {
                pace.after(error).await.map_err(|error| error.during("delete"))?;
            }
        }
        Ok(marked.is_some())
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

    pub(super) async fn begin(&self, Plan { record, lists, tally }: Plan) -> Result<()> {
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
}

/// What a run begins with.
pub(super) struct Plan {
    record: Record,
    lists: Vec<List>,
    tally: Tally,
}

impl Plan {
    pub(super) fn new<T: Into<String>>(table: &Table, tasks: impl IntoIterator<Item = T>) -> Result<Self> {
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
        lists.iter().try_for_each(List::check)?;
        let filled = lists.iter().filter(|list| !list.tasks.is_empty()).count();
        let tally = Tally::new(record.round, filled);
        Ok(Self { record, lists, tally })
    }
}
