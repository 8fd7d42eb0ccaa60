//! What the entries of a store look like to everybody else: which records a change adds to the zone, and which it
//! takes away.
//!
//! Instances of a service may share records, an address for one; a record goes when the last of them goes. So the
//! records of a service are counted, from the moment on at which this handle first writes to it; and those that list the
//! services, which are all at one name, from its first write on.
//!
//! Servers limit how many records of a type a name may have (BIND, since 9.18.28: to 100), and no resolver likes more.
//! Of those that an order shows which has nothing to do with addresses or ids, and which is the same for all who write,
//! the first hundred are in the zone.

use std::collections::{BTreeMap, HashMap};

use discovery::{
    Revision,
    kv::{self, Key, KvChange, Range},
};
use hickory_proto::{
    rr::{Name, Record, RecordType},
    serialize::binary::BinEncodable,
};

use super::{entry::digest, message, mirror::Mirror};
use crate::{names::Origin, records};

/// How many services are counted at once; beyond that counting begins anew.
const SERVICES_MAX: usize = 1024;

/// How many records of a type a name has at most.
const SHOWN_MAX: usize = 100;

/// The records of the services that this handle writes to.
#[derive(Debug)]
pub(super) struct Projection {
    origin: Origin,
    ttl: u32,
    /// By the key above its instances.
    services: HashMap<Key, Service>,
    /// Where the services are listed.
    list: Name,
    /// What is there, of all instances in the zone; `None` until it is needed.
    listed: Option<Service>,
    /// As of when.
    revision: Revision,
}

/// The records of one service.
#[derive(Debug, Default)]
struct Service {
    instances: HashMap<Key, Vec<Record>>,
    sets: HashMap<(Name, RecordType), Set>,
}

/// The records of one type at one name, in their order, and how many instances have them.
type Set = BTreeMap<Rank, (Record, usize)>;

/// The place of a record: by a digest of its data, and by these where digests are the same.
type Rank = (u64, Vec<u8>);

/// What an instance had before a change, so that the change can be taken back.
#[derive(Debug)]
pub(super) struct Undo {
    key: Key,
    records: Vec<Record>,
}

impl Projection {
    pub(super) fn new(origin: &Origin, ttl: u32) -> Self {
        let list = records::list(origin);
        let (origin, services) = (origin.clone(), HashMap::new());
        Self { origin, ttl, services, list, listed: None, revision: Revision(0) }
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
                    self.set(change.key(), records);
                }
            }
            _ => {
                self.services.clear();
                self.listed = None;
            }
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
        if self.listed.is_none() {
            self.listed = Some(self.count_listed(mirror));
        }
        let (listing, new) = self.split(new);
        let listed = self.listed.get_or_insert_default();
        let service = self.services.entry(parent).or_default();
        let mut updates = Vec::new();
        let mut old = service.set(key, new, &mut updates);
        old.extend(listed.set(key, listing, &mut updates));
        let gone = stored.iter().filter(|record| !service.has(record) && !listed.has(record));
        updates.extend(gone.map(message::delete));
        (updates, Undo { key: key.clone(), records: old })
    }

    /// Takes changes back, in the reverse of their order.
    pub(super) fn undo(&mut self, changes: impl DoubleEndedIterator<Item = Undo>) {
        for Undo { key, records } in changes.rev() {
            self.set(&key, records);
        }
    }

    /// Takes in what the records of an instance are, where they are counted.
    fn set(&mut self, key: &Key, records: Vec<Record>) {
        let (listing, records) = self.split(records);
        if let Some(service) = self.services.get_mut(&key.parent()) {
            service.set(key, records, &mut Vec::new());
        }
        if let Some(listed) = &mut self.listed {
            listed.set(key, listing, &mut Vec::new());
        }
    }

    /// Those that list a service, and the others.
    fn split(&self, records: Vec<Record>) -> (Vec<Record>, Vec<Record>) {
        records.into_iter().partition(|record| record.name == self.list)
    }

    fn count(&self, mirror: &Mirror, parent: &Key) -> Service {
        let mut service = Service::default();
        for entry in mirror.scan(&Range::Children(parent.clone())).entries {
            let (_, records) = self.split(self.records(&entry.key, &entry.value));
            service.set(&entry.key, records, &mut Vec::new());
        }
        service
    }

    fn count_listed(&self, mirror: &Mirror) -> Service {
        let mut listed = Service::default();
        for entry in mirror.scan(&Range::Subtree(Key::root())).entries {
            let (listing, _) = self.split(self.records(&entry.key, &entry.value));
            listed.set(&entry.key, listing, &mut Vec::new());
        }
        listed
    }

    fn records(&self, key: &Key, value: &[u8]) -> Vec<Record> {
        let instance = kv::instance(key, value);
        instance.map(|instance| records::of_instance(&self.origin, &instance, self.ttl)).unwrap_or_default()
    }
}

impl Service {
    /// Sets the records of an instance, and says what has to be updated for it. Returns what they were.
    fn set(&mut self, key: &Key, records: Vec<Record>, updates: &mut Vec<Record>) -> Vec<Record> {
        let old = self.instances.remove(key).unwrap_or_default();
        for record in old.iter().filter(|record| !records.contains(record)) {
            self.remove(record, updates);
        }
        for record in &records {
            if old.contains(record) {
                // Added again, it costs nothing, and mends what somebody took away.
                updates.extend(self.has(record).then(|| record.clone()));
            } else {
                self.insert(record, updates);
            }
        }
        if !records.is_empty() {
            self.instances.insert(key.clone(), records);
        }
        old
    }

    fn insert(&mut self, record: &Record, updates: &mut Vec<Record>) {
        let set = self.sets.entry(place(record)).or_default();
        let rank = rank(record);
        if let Some((_, count)) = set.get_mut(&rank) {
            *count += 1;
            return;
        }
        set.insert(rank.clone(), (record.clone(), 1));
        if set.keys().take(SHOWN_MAX).any(|shown| *shown == rank) {
            // It takes the last place from another, which has to go first.
            updates.extend(set.values().nth(SHOWN_MAX).map(|(record, _)| message::delete(record)));
            updates.push(record.clone());
        }
    }

    fn remove(&mut self, record: &Record, updates: &mut Vec<Record>) {
        let place = place(record);
        let Some(set) = self.sets.get_mut(&place) else { return };
        let rank = rank(record);
        let Some((_, count)) = set.get_mut(&rank) else { return };
        *count -= 1;
        if *count > 0 {
            return;
        }
        let was_shown = set.keys().take(SHOWN_MAX).any(|shown| *shown == rank);
        set.remove(&rank);
        if was_shown {
            updates.push(message::delete(record));
            // Another takes the last place.
            updates.extend(set.values().nth(SHOWN_MAX - 1).map(|(record, _)| record.clone()));
        }
        if set.is_empty() {
            self.sets.remove(&place);
        }
    }

    /// Whether a record is in the zone.
    fn has(&self, record: &Record) -> bool {
        let rank = rank(record);
        self.sets
            .get(&place(record))
            .is_some_and(|set| set.keys().take(SHOWN_MAX).any(|shown| *shown == rank))
    }
}

fn place(record: &Record) -> (Name, RecordType) {
    (record.name.clone(), record.record_type())
}

fn rank(record: &Record) -> Rank {
    let data = record.data.to_bytes().unwrap_or_default();
    (digest(&data), data)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use hickory_proto::rr::{DNSClass, RData, rdata::A};
    use proptest::prelude::*;

    use super::*;

    fn record(n: u8) -> Record {
        Record::from_rdata(Name::from_ascii("a.z.").unwrap(), 5, RData::A(A::new(10, 0, 0, n)))
    }

    /// The zone after updates.
    fn update(zone: &mut BTreeSet<String>, updates: &[Record]) {
        for update in updates {
            let text = update.data.to_string();
            if update.dns_class == DNSClass::NONE {
                zone.remove(&text)
            } else {
                zone.insert(text)
            };
        }
    }

    proptest! {
        #[test]
        fn the_zone_shows_the_first_of_all(steps in prop::collection::vec((0_u8..150, prop::collection::vec(0_u8..200, 0..3)), 1..400)) {
            let (mut service, mut zone) = (Service::default(), BTreeSet::new());
            for (instance, addresses) in steps {
                let addresses: BTreeSet<_> = addresses.into_iter().collect();
                let mut updates = Vec::new();
                let key = format!("s/{instance}").parse().unwrap();
                service.set(&key, addresses.into_iter().map(record).collect(), &mut updates);
                update(&mut zone, &updates);
            }
            let all: BTreeMap<_, _> = service.instances.values().flatten().map(|one| (rank(one), one.data.to_string())).collect();
            prop_assert_eq!(zone, all.into_values().take(SHOWN_MAX).collect::<BTreeSet<_>>());
        }
    }
}
