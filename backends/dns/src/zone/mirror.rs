//! The store as of one serial: what the TXT records of the zone say, kept up to date by transfers.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    ops::Bound,
    time::Duration,
};

use discovery::{
    LeaseId, Revision,
    kv::{Entry, Key, KvChange, Range, Scan},
};
use hickory_proto::rr::{Name, rdata::TXT};
use tokio::time::Instant;

use super::{
    entry::{self, Beat, Head, Stamped},
    transfer::{Step, Text, is_newer},
};
use crate::names::Origin;

/// How many changes are remembered for watches that continue.
const HISTORY: usize = 4096;

/// What the zone holds.
#[derive(Debug)]
pub(super) struct Mirror {
    origin: Origin,
    serial: u32,
    /// How often the serial wrapped, or the history broke off. Together with the serial, a revision that only grows.
    era: u32,
    head: Option<Head>,
    /// All TXT records that mean something here, by their names.
    texts: HashMap<Name, Vec<TXT>>,
    entries: BTreeMap<Key, Stamped>,
    /// The keys of entries whose names do not tell them.
    digests: HashMap<Name, Key>,
    leases: HashMap<LeaseId, Lease>,
    changes: VecDeque<(Revision, KvChange)>,
    /// The changes behind this one are all there.
    floor: Revision,
}

/// A lease as others see it.
#[derive(Debug)]
pub(super) struct Lease {
    pub(super) beat: Beat,
    /// Since when it has been silent, at the earliest, on our clock.
    pub(super) since: Instant,
    keys: BTreeSet<Key>,
}

impl Lease {
    /// What is bound to it.
    pub(super) fn keys(&self) -> impl Iterator<Item = &Key> {
        self.keys.iter()
    }
}

/// That a step cannot be made from where the mirror is: its history is another.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Inconsistent;

impl Mirror {
    /// The zone as it came as a whole.
    pub(super) fn new(origin: &Origin, serial: u32, texts: Vec<Text>, now: Instant) -> Self {
        let mut mirror = Self {
            origin: origin.clone(),
            serial,
            era: 1,
            head: None,
            texts: HashMap::new(),
            entries: BTreeMap::new(),
            digests: HashMap::new(),
            leases: HashMap::new(),
            changes: VecDeque::new(),
            floor: Revision(0),
        };
        let mut touched = BTreeSet::new();
        for (name, text) in texts {
            if mirror.is_ours(&name) {
                touched.insert(name.clone());
                mirror.texts.entry(name).or_default().push(text);
            }
        }
        mirror.read_all(&touched, now);
        mirror.changes.clear();
        mirror.floor = mirror.revision();
        mirror
    }

    pub(super) fn origin(&self) -> &Origin {
        &self.origin
    }

    pub(super) fn serial(&self) -> u32 {
        self.serial
    }

    pub(super) fn head(&self) -> Option<Head> {
        self.head
    }

    /// The serial as a revision: ever growing, also where the serial is not.
    pub(super) fn revision(&self) -> Revision {
        Revision(u64::from(self.era) << 32 | u64::from(self.serial))
    }

    /// The head as it is written; several records, or what is none, if somebody meddled with it.
    pub(super) fn heads(&self) -> &[TXT] {
        self.texts.get(&entry::head_name(&self.origin)).map_or(&[], Vec::as_slice)
    }

    /// Whether there is anything at a name of ours, be it readable or not.
    pub(super) fn has_text(&self, name: &Name) -> bool {
        self.texts.contains_key(name)
    }

    /// The number behind every number that was given in this zone.
    pub(super) fn next_number(&self, at_least: u64) -> u64 {
        if let Some(head) = self.head {
            return head.number + 1;
        }
        // The log was lost, or never begun: what was written under it must not come again.
        let stamped = self.entries.values().filter(|entry| !entry.is_foreign());
        stamped.map(|entry| entry.modified.0 + 1).max().unwrap_or(0).max(at_least)
    }

    /// Makes the next step.
    pub(super) fn apply(&mut self, step: Step, now: Instant) -> Result<(), Inconsistent> {
        let mut touched = BTreeSet::new();
        for (name, text) in step.removed {
            if !self.is_ours(&name) {
                continue;
            }
            let texts = self.texts.get_mut(&name).ok_or(Inconsistent)?;
            let at = texts.iter().position(|known| *known == text).ok_or(Inconsistent)?;
            texts.swap_remove(at);
            if texts.is_empty() {
                self.texts.remove(&name);
            }
            touched.insert(name);
        }
        for (name, text) in step.added {
            if !self.is_ours(&name) {
                continue;
            }
            let texts = self.texts.entry(name.clone()).or_default();
            // A server may tell of a record whose ttl changed.
            if !texts.contains(&text) {
                texts.push(text);
            }
            touched.insert(name);
        }
        if !is_newer(step.serial, self.serial) {
            return Err(Inconsistent);
        }
        self.era += u32::from(step.serial < self.serial);
        self.serial = step.serial;
        self.read_all(&touched, now);
        Ok(())
    }

    /// Replaces everything by a zone that came as a whole. Where that is not known to continue what was before, watches
    /// have to start over.
    pub(super) fn replace(&mut self, serial: u32, texts: Vec<Text>, now: Instant) {
        let mut new = Self::new(&self.origin, serial, texts, now);
        for (id, lease) in &mut new.leases {
            if let Some(known) = self.leases.get(id).filter(|known| known.beat == lease.beat) {
                lease.since = known.since;
            }
        }
        new.era = self.era + u32::from(serial <= self.serial);
        new.floor = new.revision();
        *self = new;
    }

    fn is_ours(&self, name: &Name) -> bool {
        self.origin.is_entry(name)
            || *name == entry::head_name(&self.origin)
            || entry::lease_at(&self.origin, name).is_some()
    }

    /// Takes in what the records at these names are now: leases that began first, and those that ended last, so that an
    /// entry that moves from one to another is never seen to be without.
    fn read_all(&mut self, names: &BTreeSet<Name>, now: Instant) {
        let mut ended = Vec::new();
        for name in names {
            let texts = self.texts.get(name).map_or(&[][..], Vec::as_slice);
            if *name == entry::head_name(&self.origin) {
                self.head = texts.iter().filter_map(Head::read).max_by_key(|head| head.number);
            } else if let Some(id) = entry::lease_at(&self.origin, name) {
                match texts.iter().filter_map(Beat::read).max_by_key(|beat| beat.beat) {
                    Some(beat) => self.beat(id, beat, now),
                    None => ended.push(id),
                }
            }
        }
        for name in names {
            if self.origin.is_entry(name) {
                self.read_entry(name);
            }
        }
        for id in ended {
            let keys = self.leases.remove(&id).map(|lease| lease.keys).unwrap_or_default();
            for key in &keys {
                self.record(key);
            }
        }
    }

    fn read_entry(&mut self, name: &Name) {
        let texts = self.texts.get(name).map_or(&[][..], Vec::as_slice);
        let entry = Stamped::read(&self.origin, name, texts);
        let told = self.origin.key(name);
        let is_told = told.is_some();
        let known = told.or_else(|| self.digests.remove(name));
        if let (false, Some(entry)) = (is_told, &entry) {
            self.digests.insert(name.clone(), entry.key.clone());
        }
        if let Some(known) = known.filter(|known| entry.as_ref().is_none_or(|entry| entry.key != *known)) {
            self.put(&known, None);
        }
        if let Some(entry) = entry {
            self.put(&entry.key.clone(), Some(entry));
        }
    }

    fn beat(&mut self, id: LeaseId, beat: Beat, now: Instant) {
        if let Some(lease) = self.leases.get_mut(&id) {
            lease.beat = beat;
            lease.since = now;
            return;
        }
        let bound = self.entries.values().filter(|entry| entry.lease == Some(id));
        let keys: BTreeSet<_> = bound.map(|entry| entry.key.clone()).collect();
        self.leases.insert(id, Lease { beat, since: now, keys: keys.clone() });
        for key in &keys {
            self.record(key);
        }
    }

    fn put(&mut self, key: &Key, entry: Option<Stamped>) {
        let old = match &entry {
            Some(entry) => self.entries.insert(key.clone(), entry.clone()),
            None => self.entries.remove(key),
        };
        if old == entry {
            return;
        }
        let was_visible = old.as_ref().is_some_and(|old| self.is_visible(old));
        if let Some(lease) = old.and_then(|old| old.lease).and_then(|id| self.leases.get_mut(&id)) {
            lease.keys.remove(key);
        }
        if let Some(lease) = entry.and_then(|entry| entry.lease).and_then(|id| self.leases.get_mut(&id)) {
            lease.keys.insert(key.clone());
        }
        if was_visible || self.get(key).is_some() {
            self.record(key);
        }
    }

    /// Remembers that a key is now as it is.
    fn record(&mut self, key: &Key) {
        let change = match self.get(key) {
            Some(entry) => KvChange::Put(entry),
            None => KvChange::Delete(key.clone()),
        };
        self.changes.push_back((self.revision(), change));
        while self.changes.len() > HISTORY {
            if let Some((forgotten, _)) = self.changes.pop_front() {
                self.floor = forgotten;
            }
        }
    }

    /// Whether an entry counts: not if the lease it is bound to has ended, although nobody has swept it away yet.
    fn is_visible(&self, entry: &Stamped) -> bool {
        entry.lease.is_none_or(|id| self.leases.contains_key(&id))
    }

    /// The entry of a key, if it counts, as it is written.
    pub(super) fn visible(&self, key: &Key) -> Option<&Stamped> {
        self.entries.get(key).filter(|entry| self.is_visible(entry))
    }

    /// The entry of a key.
    pub(super) fn get(&self, key: &Key) -> Option<Entry> {
        self.visible(key).map(public)
    }

    /// The entry of a key, whether it counts or not.
    pub(super) fn stored(&self, key: &Key) -> Option<&Stamped> {
        self.entries.get(key)
    }

    pub(super) fn scan(&self, range: &Range) -> Scan {
        let below = self.below(range.top());
        let entries = below.filter(|entry| range.contains(&entry.key) && self.is_visible(entry));
        Scan { revision: self.revision(), entries: entries.map(public).collect() }
    }

    /// All entries at any level below a key.
    pub(super) fn below(&self, top: &Key) -> impl Iterator<Item = &Stamped> {
        let from = if top.is_root() { Bound::Unbounded } else { Bound::Excluded(top) };
        // Keys below `a` start with `a/`; between them and `a` there may be others, such as `a-b`.
        self.entries
            .range((from, Bound::Unbounded))
            .take_while({
                let top = top.as_str().to_owned();
                move |(key, _)| key.as_str().starts_with(&top)
            })
            .map(|(_, entry)| entry)
    }

    /// The changes of a range behind a revision, or `None` if some of them may not be known.
    pub(super) fn since(&self, after: Revision, range: &Range) -> Option<Vec<KvChange>> {
        if after < self.floor || after > self.revision() {
            return None;
        }
        let first = self.changes.partition_point(|(revision, _)| *revision <= after);
        let news = self.changes.range(first..).map(|(_, change)| change);
        Some(news.filter(|change| range.contains(change.key())).cloned().collect())
    }

    pub(super) fn lease(&self, id: LeaseId) -> Option<&Lease> {
        self.leases.get(&id)
    }

    /// Gives all leases their full time from now on.
    pub(super) fn excuse_silence(&mut self, now: Instant) {
        for lease in self.leases.values_mut() {
            lease.since = now;
        }
    }

    /// Leases that were silent for longer than they may be, by what was heard up to `heard`.
    pub(super) fn lapsed(&self, heard: Instant) -> Vec<(LeaseId, Beat)> {
        let lapsed = self.leases.iter().filter(|(_, lease)| {
            heard.saturating_duration_since(lease.since) > lease.beat.ttl.max(Duration::from_millis(1))
        });
        lapsed.map(|(id, lease)| (*id, lease.beat.clone())).collect()
    }

    /// Entries whose lease has ended, to be swept away.
    pub(super) fn orphans(&self) -> impl Iterator<Item = &Stamped> {
        self.entries.values().filter(|entry| !self.is_visible(entry))
    }
}

/// As the contract has it.
fn public(entry: &Stamped) -> Entry {
    let Stamped { key, value, created, modified, lease } = entry.clone();
    Entry { key, value, created, modified, lease }
}
