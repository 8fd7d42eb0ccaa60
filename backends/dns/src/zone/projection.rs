//! What the entries of a store look like to everybody else: which records a change adds to the zone, and which it
//! takes away.
//!
//! Instances of a service may share records, an address for one; a record goes when the last of them goes. So the
//! records of a service are counted, from the moment on at which this handle first writes to it.

use std::collections::HashMap;

use discovery::{
    Revision,
    kv::{self, Key, KvChange, Range},
};
use hickory_proto::rr::{Name, RData, Record};

use super::{message, mirror::Mirror};
use crate::{names::Origin, records};

/// How many services are counted at once; beyond that counting begins anew.
const SERVICES_MAX: usize = 1024;

/// The records of the services that this handle writes to.
#[derive(Debug)]
pub(super) struct Projection {
    origin: Origin,
    ttl: u32,
    /// By the key above its instances.
    services: HashMap<Key, Service>,
    /// As of when.
    revision: Revision,
}

/// The records of one service.
#[derive(Debug, Default)]
struct Service {
    instances: HashMap<Key, Vec<Record>>,
    counts: HashMap<(Name, RData), usize>,
}

/// What an instance had before a change, so that the change can be taken back.
#[derive(Debug)]
pub(super) struct Undo {
    key: Key,
    records: Vec<Record>,
}

impl Projection {
    pub(super) fn new(origin: &Origin, ttl: u32) -> Self {
        Self { origin: origin.clone(), ttl, services: HashMap::new(), revision: Revision(0) }
    }

    /// Takes in what has happened in the store.
    pub(super) fn follow(&mut self, mirror: &Mirror) {
        let everything = Range::Subtree(Key::root());
        match mirror.since(self.revision, &everything) {
            Some(changes) if self.services.len() <= SERVICES_MAX => {
                for change in changes {
                    let records = match &change {
                        KvChange::Put(entry) => self.records(&entry.key, &entry.value),
                        KvChange::Delete(_) => Vec::new(),
                    };
                    if let Some(service) = self.services.get_mut(&change.key().parent()) {
                        service.set(change.key(), records);
                    }
                }
            }
            _ => self.services.clear(),
        }
        self.revision = mirror.revision();
    }

    /// What has to be updated when the entry of a key becomes `value`, or goes. `stored` is what is in the zone although
    /// it does not count any more.
    pub(super) fn change(
        &mut self,
        mirror: &Mirror,
        key: &Key,
        stored: Option<&[u8]>,
        value: Option<&[u8]>,
    ) -> (Vec<Record>, Undo) {
        let new = value.map(|value| self.records(key, value)).unwrap_or_default();
        let stored = stored.map(|value| self.records(key, value)).unwrap_or_default();
        let parent = key.parent();
        if !self.services.contains_key(&parent) {
            let service = self.count(mirror, &parent);
            self.services.insert(parent.clone(), service);
        }
        let service = self.services.entry(parent).or_default();
        let old = service.set(key, new.clone());
        let mut updates = Vec::new();
        for record in old.iter().chain(&stored) {
            if !service.has(record) {
                updates.push(message::delete(record));
            }
        }
        // What is there already is added again: that costs nothing and mends what somebody took away.
        updates.extend(new);
        (updates, Undo { key: key.clone(), records: old })
    }

    /// Takes changes back, in the reverse of their order.
    pub(super) fn undo(&mut self, changes: impl DoubleEndedIterator<Item = Undo>) {
        for Undo { key, records } in changes.rev() {
            if let Some(service) = self.services.get_mut(&key.parent()) {
                service.set(&key, records);
            }
        }
    }

    fn count(&self, mirror: &Mirror, parent: &Key) -> Service {
        let mut service = Service::default();
        for entry in mirror.scan(&Range::Children(parent.clone())).entries {
            let records = self.records(&entry.key, &entry.value);
            service.set(&entry.key, records);
        }
        service
    }

    fn records(&self, key: &Key, value: &[u8]) -> Vec<Record> {
        let instance = kv::instance(key, value);
        instance.map(|instance| records::of_instance(&self.origin, &instance, self.ttl)).unwrap_or_default()
    }
}

impl Service {
    /// Sets the records of an instance; returns what they were.
    fn set(&mut self, key: &Key, records: Vec<Record>) -> Vec<Record> {
        for record in &records {
            *self.counts.entry(identity(record)).or_default() += 1;
        }
        let old = if records.is_empty() {
            self.instances.remove(key)
        } else {
            self.instances.insert(key.clone(), records)
        };
        let old = old.unwrap_or_default();
        for record in &old {
            let identity = identity(record);
            if let Some(count) = self.counts.get_mut(&identity) {
                *count -= 1;
                if *count == 0 {
                    self.counts.remove(&identity);
                }
            }
        }
        old
    }

    fn has(&self, record: &Record) -> bool {
        self.counts.contains_key(&identity(record))
    }
}

fn identity(record: &Record) -> (Name, RData) {
    (record.name.clone(), record.data.clone())
}
