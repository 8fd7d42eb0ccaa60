//! All about a run, as it changes.

use std::collections::{BTreeMap, HashMap};

use serde::Serialize;

use super::{
    RunStatus,
    record::{List, Record},
    table::Table,
};
use crate::{
    KeyView, Result,
    kv::{Key, KvChange, Range},
    recipe::{known::Known, place::Place},
};

/// All about a run at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Picture {
    /// How it stands.
    #[serde(flatten)]
    pub status: RunStatus,
    /// Its states, and which may follow which.
    pub table: Table,
    /// Its tasks, by name, and whether they have completed the present state.
    pub tasks: BTreeMap<String, bool>,
    /// Grows with each change of any of this: as long as the run is there, the same number is the same picture.
    #[serde(skip)]
    pub version: u64,
}

impl Picture {
    pub(super) fn of<'a>(record: &Known<Record>, lists: impl IntoIterator<Item = &'a Known<List>>) -> Self {
        let mut tasks = BTreeMap::new();
        // Record and lists may be seen out of step, so the latest revision of all would not tell two pictures apart. The sum
        // does: each part only grows, and what there is at last is later in some part than whatever was seen before.
        let mut version = record.modified.0;
        for Known { value: list, modified, .. } in lists {
            version = version.wrapping_add(modified.0);
            // The list may be from a later round than the record that was read before it: then nothing is known of this.
            let list = list.clone().in_round(record.value.round);
            tasks.extend(list.tasks.into_iter().map(|task| {
                let is_done = list.done.contains(&task);
                (task, is_done)
            }));
        }
        Self { status: RunStatus::of(record), table: record.value.table.clone(), tasks, version }
    }

    /// The tasks that have not completed the present state.
    pub fn missing(&self) -> impl Iterator<Item = &str> {
        self.tasks.iter().filter(|(_, is_done)| !**is_done).map(|(task, _)| task.as_str())
    }
}

/// Follows the record and the lists of a run. They come by two watches, and out of step; but each list says which round it
/// is about.
pub(super) struct Painter {
    record: KeyView,
    known: Option<Known<Record>>,
    lists: KeyView,
    parsed: HashMap<Key, Known<List>>,
    /// The last one that was told.
    told: Option<Picture>,
}

impl Painter {
    pub(super) fn new(place: &Place, top: Key, lists: Key) -> Self {
        let record = place.view(Range::Key(top));
        Self {
            record,
            known: None,
            lists: place.view(Range::Children(lists)),
            parsed: HashMap::new(),
            told: None,
        }
    }

    /// The next picture; `None` once the run is deleted. Cancel safe.
    pub(super) async fn next(&mut self) -> Result<Option<Picture>> {
        loop {
            tokio::select! {
                changed = self.record.changed() => {
                    changed?;
                    let Some(entry) = self.record.entries().values().next() else { return Ok(None) };
                    let record = Known::<Record>::of(entry)?;
                    let life = self.known.as_ref().map(|known| known.created);
                    if record.value.hidden || life.is_some_and(|life| life != record.created) {
                        return Ok(None);
                    }
                    self.known = Some(record);
                }
                changes = self.lists.changed() => self.take(changes?)?,
            }
            let Some(record) = self.known.as_ref().filter(|record| self.is_whole(record)) else {
                continue;
            };
            let picture = Picture::of(record, self.parsed.values());
            if self.told.as_ref() != Some(&picture) {
                self.told = Some(picture.clone());
                return Ok(Some(picture));
            }
        }
    }

    /// Whether all lists are there and none is ahead: a move, or another life of the run, comes with its record, which is on
    /// its way then.
    fn is_whole(&self, record: &Known<Record>) -> bool {
        let fits = |list: &Known<List>| {
            !list.value.is_ahead_of(record.value.round) && list.created <= record.modified
        };
        self.parsed.len() == record.value.lists && self.parsed.values().all(fits)
    }

    fn take(&mut self, changes: Vec<KvChange>) -> Result<()> {
        for change in changes {
            match change {
                KvChange::Put(entry) => self.parsed.insert(entry.key.clone(), Known::of(&entry)?),
                KvChange::Delete(key) => self.parsed.remove(&key),
            };
        }
        Ok(())
    }
}
