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
        known::{Known, json},
        place::random_id,
    },
};

/// How many keys are written or deleted in one transaction.
const STEP_KEYS: usize = 90;

/// How many bytes are written in one transaction, unless one value has more: a message of DNS carries 64 KiB.
const STEP_BYTES: usize = 40 * 1024;

/// What a key costs in a transaction, beside its value.
const KEY_OVERHEAD: usize = 100;

/// How long to leave a hidden run to whoever hid it.
const HIDDEN: Duration = Duration::from_secs(2);

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
            let outcome = if record.hidden {
                self.sweep(guard).await
            } else if marked.is_some_and(|marked| marked != created) {
                // Another one, that was created as soon as ours was gone.
                return Ok(true);
            } else {
                marked = Some(created);
                let hidden = Record { hidden: true, ..record };
                let txn = Txn::new().guard(guard).put(&self.top, json(&hidden));
                self.place.kv()?.commit(txn).await.map(drop)
            };
            if let Err(error) = outcome {
                pace.after(error).await.map_err(|error| error.during("delete"))?;
            }
        }
        Ok(marked.is_some())
    }

    /// Takes away what there is of a hidden run, the record last.
    async fn sweep(&self, guard: Guard) -> Result<()> {
        let rest = self.place.scan(&Range::Subtree(self.top.clone())).await?;
        for some in rest.chunks(STEP_KEYS) {
            let txn = some.iter().fold(Txn::new(), |txn, entry| txn.delete(&entry.key));
            self.place.kv()?.commit(txn.guard(guard.clone())).await?;
        }
        self.place.kv()?.commit(Txn::new().guard(guard).delete(&self.top)).await.map(drop)
    }

    pub(super) async fn begin(&self, plan: Plan) -> Result<()> {
        let attempt = random_id();
        let record = Record { created_by: attempt.clone(), ..plan.record.clone() };
        let steps = self.steps(&plan)?;
        let mut pace = self.place.pace();
        loop {
            match self.build(&record, &steps).await {
                Ok(()) => return Ok(()),
                Err(error) => pace.after(error).await?,
            }
            match Known::<Record>::read(&self.place, &self.top).await? {
                Some(known) if known.value.hidden => {
                    // What nobody works on is in the way; what we hid ourselves is begun anew.
                    let is_settled = known.value.created_by != attempt && self.is_settled(&known).await?;
                    if !is_settled && let Err(error) = self.sweep(known.guard).await {
                        pace.after(error).await?;
                    }
                }
                Some(known) if known.value.created_by == attempt => return Ok(()),
                Some(_) => {
                    let message = format!("run {} already exists; delete it, or choose another id", self.id);
                    return Err(Error::new(ErrorKind::Conflict, message));
                }
                None => {}
            }
        }
    }

    /// Writes everything, so that it is seen at once. Fails if there is a record already.
    async fn build(&self, record: &Record, steps: &[Step]) -> Result<()> {
        let kv = self.place.kv()?;
        let mut guard = Guard::Absent(self.top.clone());
        let (last, before) =
            steps.split_last().map_or((&[][..], steps), |(last, before)| (&last[..], before));
        if !before.is_empty() {
            let hidden = Record { hidden: true, ..record.clone() };
            let revision = kv.commit(Txn::new().guard(guard).put(&self.top, json(&hidden))).await?;
            guard = Guard::Unmodified(self.top.clone(), revision);
        }
        for step in before {
            kv.commit(written(step).guard(guard.clone())).await?;
        }
        kv.commit(written(last).guard(guard).put(&self.top, json(record))).await.map(drop)
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
        let mut steps = Vec::new();
        // The record goes with the last one.
        let (mut step, mut bytes) = (Step::new(), json(&plan.record).len());
        for (key, value) in all {
            let more = value.len() + KEY_OVERHEAD;
            if !step.is_empty() && (step.len() == STEP_KEYS || bytes + more > STEP_BYTES) {
                steps.push(mem::take(&mut step));
                bytes = 0;
            }
            bytes += more;
            step.push((key, value));
        }
        steps.push(step);
        // If there are several, it goes alone: what the last one has room for is not known before.
        if steps.len() > 1 {
            steps.push(Step::new());
        }
        Ok(steps)
    }
}

/// What is written in one transaction.
type Step = Vec<(Key, Bytes)>;

fn written(step: &[(Key, Bytes)]) -> Txn {
    step.iter().fold(Txn::new(), |txn, (key, value)| txn.put(key, value.clone()))
}
