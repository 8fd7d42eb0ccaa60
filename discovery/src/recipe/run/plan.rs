//! What a run begins with.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    time::Duration,
};

use bytes::Bytes;

use super::{
    record::{Limit, List, Record, Tally},
    table::{Table, check_name},
};
use crate::{Error, Result, kv::Key};

/// What a run begins with: nobody sees it without all of this.
#[derive(Clone, Debug)]
pub struct Plan {
    pub(super) record: Record,
    pub(super) lists: Vec<List>,
    pub(super) tally: Tally,
    /// By what follows [`data_key`](super::Run::data_key).
    pub(super) data: BTreeMap<Key, Bytes>,
}

impl Plan {
    /// A run in the first state of its table, with these tasks.
    ///
    /// # Errors
    ///
    /// [`Invalid`](crate::ErrorKind::Invalid) for a bad table, a bad task or the same task twice.
    pub fn new<T: Into<String>>(table: &Table, tasks: impl IntoIterator<Item = T>) -> Result<Self> {
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
        Ok(Self { record, lists, tally, data: BTreeMap::new() })
    }

    /// Limits how long a round may take, as [`Run::limit`](super::Run::limit) does.
    ///
    /// # Errors
    ///
    /// [`Invalid`](crate::ErrorKind::Invalid) if `to` is no exit of the table.
    pub fn limit(mut self, limit: Duration, to: &str) -> Result<Self> {
        self.record.table.check_exit(to)?;
        self.record.limit = Some(Limit::new(limit, to));
        Ok(self)
    }

    /// Something else that there is to say about it, to be found at [`Run::data_key`](super::Run::data_key).
    ///
    /// # Errors
    ///
    /// [`Invalid`](crate::ErrorKind::Invalid) if `below` is not a key, or there is something already.
    pub fn data(mut self, below: &str, value: impl Into<Bytes>) -> Result<Self> {
        match self.data.entry(below.parse()?) {
            Entry::Occupied(twice) => {
                Err(Error::invalid(format!("data {:?} is given twice", twice.key().as_str())))
            }
            Entry::Vacant(free) => {
                free.insert(value.into());
                Ok(self)
            }
        }
    }
}
