//! How a run comes to be, and how it goes, with everything that belongs to it.
//!
//! What does not fit into one transaction takes several, under a record that is hidden: as long as it is, there is no such
//! run for anybody.

use std::{mem, time::Duration};

use bytes::Bytes;
use tokio::time;

use super::{Plan, Run, record::Record};
use crate::{
    Error, ErrorKind, Result,
    kv::{Guard, Key, Range, Txn},
    recipe::{
        known::{Known, json, parse},
        place::random_id,
    },
};

/// How many keys are written or deleted in one transaction.
const STEP_KEYS: usize = 90;

/// How many bytes are written in one transaction, unless one value has more: a message of DNS carries 64 KiB.
const STEP_BYTES: usize = 40 * 1024;

/// What a key costs in a transaction, beside its text and its value.
const KEY_OVERHEAD: usize = 50;

/// How long nothing may happen to a hidden run before it counts as left behind.
const HIDDEN: Duration = Duration::from_secs(2);

impl Run {
    /// Deletes it, with everything that belongs to it, also if its record cannot be read. Returns whether there was such a
    /// run.
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
        let attempt = random_id();
        let mut pace = self.place.pace();
        let mut existed = false;
        // Which life of the run we want gone.
        let mut life = None;
        while let Some(entry) = self.place.read(&self.top).await? {
            if *life.get_or_insert(entry.created) != entry.created {
                // Another one, that was created as soon as ours was gone.
                break;
            }
            // One that cannot be read is a run all the same.
            existed |= parse::<Record>(&entry).map_or(true, |record| !record.hidden);
            if let Err(error) =
                self.sweep(Guard::Unmodified(self.top.clone(), entry.modified), &attempt).await
            {
                pace.after(error).await.map_err(|error| error.during("delete"))?;
            }
        }
        Ok(existed)
    }

    /// Hides a run, or takes a hidden one over from whoever is at it, and takes all away, the record last.
    async fn sweep(&self, guard: Guard, attempt: &str) -> Result<()> {
        // Every step of whoever else is at it is on condition of the record as it was, and fails from here on, however late
        // it comes.
        let guard = self.hide(Txn::new(), guard, &Record::gone(attempt)).await?;
        let rest = self.place.scan(&Range::Subtree(self.top.clone())).await?;
        let kv = self.place.kv()?;
        for some in rest.chunks(STEP_KEYS) {
            let txn = some.iter().fold(Txn::new(), |txn, entry| txn.delete(&entry.key));
            kv.commit(txn.guard(guard.clone())).await?;
        }
        kv.commit(Txn::new().guard(guard).delete(&self.top)).await.map(drop)
    }

    /// Writes a hidden record, in one step with something else; returns the condition that nobody else has done so since.
    async fn hide(&self, txn: Txn, guard: Guard, record: &Record) -> Result<Guard> {
        let hidden = Record { hidden: true, ..record.clone() };
        let revision = self.place.kv()?.commit(txn.guard(guard).put(&self.top, json(&hidden))).await?;
        Ok(Guard::Unmodified(self.top.clone(), revision))
    }

    pub(super) async fn begin(&self, plan: Plan) -> Result<()> {
        let attempt = random_id();
        let max = self.place.max_record();
        plan.lists.iter().try_for_each(|list| list.check(max))?;
        let record = Record { created_by: attempt.clone(), ..plan.record.clone() };
        let steps = self.steps(&plan)?;
        let mut pace = self.place.pace();
        loop {
            let refused = match self.build(&record, &steps).await {
                Ok(()) => return Ok(()),
                Err(error) => pace.after(error).await.err(),
            };
            let found = Known::<Record>::read(&self.place, &self.top).await?;
            let is_ours = found.as_ref().is_some_and(|known| known.value.created_by == attempt);
            match found {
                // Of ours, nothing must be left behind.
                Some(known) if known.value.hidden && (is_ours || refused.is_none()) => {
                    let is_settled = !is_ours && self.is_settled(&known).await?;
                    if !is_settled && let Err(error) = self.sweep(known.guard, &attempt).await {
                        pace.after(error).await?;
                    }
                }
                Some(known) if is_ours && !known.value.hidden => return Ok(()),
                Some(_) if refused.is_none() => {
                    let message = format!("run {} already exists; delete it, or choose another id", self.id);
                    return Err(Error::new(ErrorKind::Conflict, message));
                }
                _ => {}
            }
            if let Some(refused) = refused {
                return Err(refused);
            }
        }
    }

    /// Writes everything, so that it is seen at once. Fails if there is a record already, or somebody takes ours away.
    async fn build(&self, record: &Record, steps: &[Step]) -> Result<()> {
        let mut guard = Guard::Absent(self.top.clone());
        let (last, before) =
            steps.split_last().map_or((&[][..], steps), |(last, before)| (&last[..], before));
        for step in before {
            guard = self.hide(written(step), guard, record).await?;
        }
        self.place.kv()?.commit(written(last).guard(guard).put(&self.top, json(record))).await.map(drop)
    }

    /// Waits for what becomes of a hidden run; says whether anything did.
    async fn is_settled(&self, known: &Known<Record>) -> Result<bool> {
        let mut sight = self.place.sight(self.top.clone());
        let settled = async {
            while sight.next().await?.is_some_and(|entry| entry.modified == known.modified) {}
            Ok(true)
        };
        time::timeout(HIDDEN, settled).await.unwrap_or(Ok(false))
    }

    /// All that is written beside the record, in as many transactions as it needs.
    fn steps(&self, plan: &Plan) -> Result<Vec<Step>> {
        let mut all = vec![(self.tally.clone(), json(&plan.tally))];
        for (n, list) in plan.lists.iter().enumerate() {
            all.push((self.list(n)?, json(list)));
        }
        for (below, value) in &plan.data {
            all.push((self.data_key(below.as_str())?, value.clone()));
        }
        // Each step has the record, too.
        let record = self.top.as_str().len() + KEY_OVERHEAD + json(&plan.record).len();
        let mut steps = Vec::new();
        let (mut step, mut bytes) = (Step::new(), record);
        for (key, value) in all {
            let more = key.as_str().len() + KEY_OVERHEAD + value.len();
            if !step.is_empty() && (step.len() == STEP_KEYS || bytes + more > STEP_BYTES) {
                steps.push(mem::take(&mut step));
                bytes = record;
            }
            bytes += more;
            step.push((key, value));
        }
        steps.push(step);
        Ok(steps)
    }
}

/// What is written in one transaction.
type Step = Vec<(Key, Bytes)>;

fn written(step: &[(Key, Bytes)]) -> Txn {
    step.iter().fold(Txn::new(), |txn, (key, value)| txn.put(key, value.clone()))
}
