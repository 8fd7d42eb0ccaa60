//! All about a run, as it changes.

use std::collections::{BTreeMap, HashMap};

use serde::Serialize;

use super::{
    RunStatus,
    record::{List, Record},
    table::Table,
};
use crate::{
    KeyView, Result, Revision,
    kv::{Key, KvChange, Range},
    recipe::{known::parse, place::Place},
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
    /// When anything of this was last written.
    #[serde(skip)]
    pub revision: Revision,
}

impl Picture {
    pub(super) fn of(
        standing: RunStatus,
        record: &Record,
        lists: impl IntoIterator<Item = List>,
        revision: Revision,
    ) -> Self {
        let mut tasks = BTreeMap::new();
        for list in lists {
            // The list may be from a later round than the record that was read before it: then nothing is known of this.
            let list = list.in_round(record.round);
            tasks.extend(list.tasks.into_iter().map(|task| {
                let is_done = list.done.contains(&task);
                (task, is_done)
            }));
        }
        Self { status: standing, table: record.table.clone(), tasks, revision }
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
    known: Option<(Record, RunStatus)>,
    lists: KeyView,
    /// `None` until they were read once.
    parsed: Option<HashMap<Key, List>>,
    /// The last one that was told.
    told: Option<Picture>,
}

impl Painter {
    pub(super) fn new(place: &Place, top: Key, lists: Key) -> Self {
        let record = place.view(Range::Key(top));
        Self { record, known: None, lists: place.view(Range::Children(lists)), parsed: None, told: None }
    }

    /// The next picture; `None` once the run is deleted. Cancel safe.
    pub(super) async fn next(&mut self) -> Result<Option<Picture>> {
        loop {
            tokio::select! {
                changed = self.record.changed() => {
                    changed?;
                    let Some(entry) = self.record.entries().values().next() else { return Ok(None) };
                    let record: Record = parse(entry)?;
                    if record.deleted {
                        return Ok(None);
                    }
                    let status = RunStatus::of(&record, entry.modified);
                    self.known = Some((record, status));
                }
                changes = self.lists.changed() => self.take(changes?)?,
            }
            if let (Some((record, status)), Some(lists)) = (&self.known, &self.parsed)
                // A move comes with the record, which is on its way.
                && !lists.values().any(|list| list.is_ahead_of(record.round))
            {
                let modified = self.lists.entries().values().map(|entry| entry.modified);
                let revision = modified.fold(status.revision, Revision::max);
                let picture = Picture::of(status.clone(), record, lists.values().cloned(), revision);
                if self.told.as_ref() != Some(&picture) {
                    self.told = Some(picture.clone());
                    return Ok(Some(picture));
                }
            }
        }
    }

    fn take(&mut self, changes: Vec<KvChange>) -> Result<()> {
        let lists = self.parsed.get_or_insert_default();
        for change in changes {
            match change {
                KvChange::Put(entry) => lists.insert(entry.key.clone(), parse(&entry)?),
                KvChange::Delete(key) => lists.remove(&key),
            };
        }
        Ok(())
    }
}
