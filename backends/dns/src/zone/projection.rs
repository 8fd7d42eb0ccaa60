//! What the entries of a store look like to everybody else: which records a change adds to the zone, and which it
//! takes away.
//!
//! Instances of a service may share records, an address for one; a record goes when the last of them goes. So the
//! records of a service are counted, from the moment on at which this handle first writes to it; and those that list the
//! services, which are all at one name, from its first write on. What counts is what is in the zone, also when its lease
//! has ended and nobody has swept it away yet.
//!
//! Servers limit how many records of a type a name may have (BIND, since 9.18.28: to 100), and no resolver likes more.
//! Of those that an order shows which has nothing to do with addresses or ids, and which is the same for all who write,
//! the first hundred are in the zone.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::Duration,
};

use discovery::{
    Revision,
    kv::{self, Key, Range},
};
use hickory_proto::{
    rr::{Name, RData, Record, RecordType},
    serialize::binary::BinEncodable,
};

use super::{
    entry::{self, Stamped, digest},
    message,
    mirror::Mirror,
};
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
    /// The versions that this handle wrote and has not met in the mirror yet: nothing new there.
    written: HashMap<Key, Revision>,
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
        let (services, written) = (HashMap::new(), HashMap::new());
        Self { origin: origin.clone(), ttl, services, list, listed: None, written, revision: Revision(0) }
    }

    /// Takes in what has happened in the store.
    pub(super) fn follow(&mut self, mirror: &Mirror) {
        match mirror.touched(self.revision) {
            Some(touched) if self.services.len() <= SERVICES_MAX => {
                for key in touched {
                    let written = self.written.remove(key);
                    if written.is_some() && written == mirror.stored(key).map(|entry| entry.modified) {
                        continue;
                    }
                    if self.listed.is_some() || self.services.contains_key(&key.parent()) {
                        let records = mirror.stored(key).map(|entry| self.records(key, &entry.value));
                        self.set(key, records.unwrap_or_default());
                    }
                }
            }
            _ => {
                self.services.clear();
                self.listed = None;
                self.written.clear();
            }
        }
        self.revision = mirror.revision();
    }

    /// What has to be updated when the entry of a key becomes this one, or goes.
    pub(super) fn change(
        &mut self,
        mirror: &Mirror,
        key: &Key,
        entry: Option<&Stamped>,
    ) -> (Vec<Record>, Undo) {
        let parent = key.parent();
        self.count(mirror, &parent);
        if self.listed.is_none() {
            self.listed = Some(self.count_listed(mirror));
        }
        let records = entry.map(|entry| self.records(key, &entry.value)).unwrap_or_default();
        match entry {
            Some(entry) => self.written.insert(key.clone(), entry.modified),
            None => self.written.remove(key),
        };
        let (listing, records) = self.split(records);
        let mut updates = Vec::new();
        let mut old = self.services.entry(parent).or_default().set(key, records, &mut updates);
        old.extend(self.listed.get_or_insert_default().set(key, listing, &mut updates));
        updates.retain(|update| !message::is_deletion(update) || !self.is_of_another(mirror, key, update));
        (updates, Undo { key: key.clone(), records: old })
    }

    /// Takes changes back, in the reverse of their order.
    pub(super) fn undo(&mut self, changes: impl DoubleEndedIterator<Item = Undo>) {
        for Undo { key, records } in changes.rev() {
            self.set(&key, records);
            self.written.remove(&key);
        }
    }

    /// Everything that is in the zone, and how long what is a lease lives without a beat.
    pub(super) fn content(&mut self, mirror: &Mirror) -> Vec<(Record, Option<Duration>)> {
        let texts = mirror.records().map(|(name, text)| {
            let mut record = entry::record(name, text);
            record.ttl = self.ttl;
            let id = entry::lease_at(&self.origin, name);
            (record, id.and_then(|id| Some(mirror.lease(id)?.beat.ttl)))
        });
        let mut content: Vec<_> = texts.collect();
        let parents: BTreeSet<_> = mirror.below(&Key::root()).map(|entry| entry.key.parent()).collect();
        let services = parents.iter().map(|parent| self.counted(mirror, parent));
        let services = services.chain([self.count_listed(mirror)]);
        let shown = services
            .flat_map(|service| service.sets.into_values().flat_map(|set| set.into_values().take(SHOWN_MAX)));
        content.extend(shown.map(|(record, _)| (record, None)));
        content
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

    /// Whether a record that goes here is there for another reason: an instance may be called like a service.
    fn is_of_another(&mut self, mirror: &Mirror, key: &Key, gone: &Record) -> bool {
        if !matches!(gone.data, RData::A(_) | RData::AAAA(_)) {
            return false;
        }
        let Some(called) = self.origin.key(&gone.name).filter(|called| called != key) else { return false };
        let is_same = |record: &Record| record.name == gone.name && record.data == gone.data;
        let instance = mirror.stored(&called).map(|entry| self.records(&called, &entry.value));
        if instance.is_some_and(|records| records.iter().any(is_same)) {
            return true;
        }
        let is_service = called != key.parent() && mirror.below(&called).next().is_some();
        is_service && {
            self.count(mirror, &called);
            self.services.get(&called).is_some_and(|service| service.has(gone))
        }
    }

    /// Those that list a service, and the others.
    fn split(&self, records: Vec<Record>) -> (Vec<Record>, Vec<Record>) {
        records.into_iter().partition(|record| record.name == self.list)
    }

    /// Counts a service, if that is not done yet.
    fn count(&mut self, mirror: &Mirror, parent: &Key) {
        if !self.services.contains_key(parent) {
            let service = self.counted(mirror, parent);
            self.services.insert(parent.clone(), service);
        }
    }

    fn counted(&self, mirror: &Mirror, parent: &Key) -> Service {
        let mut service = Service::default();
        let range = Range::Children(parent.clone());
        for entry in mirror.below(parent).filter(|entry| range.contains(&entry.key)) {
            let (_, records) = self.split(self.records(&entry.key, &entry.value));
            service.set(&entry.key, records, &mut Vec::new());
        }
        service
    }

    fn count_listed(&self, mirror: &Mirror) -> Service {
        let mut listed = Service::default();
        for entry in mirror.below(&Key::root()) {
            let (listing, _) = self.split(self.records(&entry.key, &entry.value));
            listed.set(&entry.key, listing, &mut Vec::new());
        }
        listed
    }

    fn records(&self, key: &Key, value: &[u8]) -> Vec<Record> {
        let Some(instance) = kv::instance(key, value) else { return Vec::new() };
        let mut records = records::of_instance(&self.origin, &instance, self.ttl);
        // A service's target is a host name (RFC 2782), and servers refuse one that is none, such as `project_web_1`.
        records.retain(|record| match &record.data {
            RData::SRV(srv) => srv.target.iter().all(is_host_label),
            _ => true,
        });
        records
    }
}

/// Whether a label is one of a host (RFC 1123).
fn is_host_label(label: &[u8]) -> bool {
    label.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'-')
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
