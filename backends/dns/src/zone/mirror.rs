//! The store as of one serial: what the TXT records of the zone say, kept up to date by transfers.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    ops::Bound,
};

use discovery::{
    LeaseId, Revision,
    kv::{Entry, Key, KvChange, Range, Scan},
};
use hickory_proto::rr::{Name, rdata::TXT};
use tokio::time::Instant;

use super::{
    entry::{self, Beat, Head, Stamped},
    transfer::{Step, Text},
};
use crate::{names::Origin, protocol::is_newer};

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
    /// Which entries are bound to a lease, be it there or not.
    bound: HashMap<LeaseId, BTreeSet<Key>>,
    /// Those whose lease is not there.
    orphans: BTreeSet<Key>,
    history: History,
}

/// A lease as others see it.
#[derive(Debug)]
pub(super) struct Lease {
    pub(super) beat: Beat,
    /// Since when it has been silent, at the earliest, on our clock.
    since: Instant,
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
            bound: HashMap::new(),
            orphans: BTreeSet::new(),
            history: History::default(),
        };
        let mut touched = BTreeSet::new();
        for (name, text) in texts {
            if mirror.is_ours(&name) {
                touched.insert(name.clone());
                mirror.texts.entry(name).or_default().push(text);
            }
        }
        mirror.read_all(&touched, now);
        mirror.history = History::from(mirror.revision());
        mirror
    }

    pub(super) fn serial(&self) -> u32 {
        self.serial
    }

    /// Whether there are no entries.
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(super) fn head(&self) -> Option<Head> {
        self.head
    }

    /// The head as it is written; several records, or what is none, if somebody meddled with it.
    pub(super) fn heads(&self) -> &[TXT] {
        self.texts.get(&entry::head_name(&self.origin)).map_or(&[], Vec::as_slice)
    }

    /// The serial as a revision: ever growing, also where the serial is not.
    pub(super) fn revision(&self) -> Revision {
        Revision(u64::from(self.era) << 32 | u64::from(self.serial))
    }

    /// The number behind every number that was given in this log, as far as is known.
    pub(super) fn next_number(&self, at_least: u64) -> u64 {
        if let Some(head) = self.head {
            return head.number + 1;
        }
        // The log was lost, or never begun: what was written under it must not come again.
        let stamped = self.entries.values().filter(|entry| !entry.is_foreign());
        stamped.map(|entry| entry.modified.0 + 1).max().unwrap_or(0).max(at_least)
    }

    /// Makes the next step; all of it, or nothing.
    pub(super) fn apply(&mut self, step: Step, now: Instant) -> Result<(), Inconsistent> {
        let (removed, added) = (self.ours(step.removed), self.ours(step.added));
        let mut left = HashMap::<&Name, Vec<&TXT>>::new();
        for (name, text) in &removed {
            let known = || self.texts.get(name).map(|texts| texts.iter().collect()).unwrap_or_default();
            let texts = left.entry(name).or_insert_with(known);
            let at = texts.iter().position(|known| *known == text).ok_or(Inconsistent)?;
            texts.swap_remove(at);
        }
        if !is_newer(step.serial, self.serial) {
            return Err(Inconsistent);
        }
        let mut touched = BTreeSet::new();
        for (name, text) in removed {
            if let Some(texts) = self.texts.get_mut(&name) {
                let at = texts.iter().position(|known| *known == text);
                at.map(|at| texts.swap_remove(at));
                if texts.is_empty() {
                    self.texts.remove(&name);
                }
            }
            touched.insert(name);
        }
        for (name, text) in added {
            let texts = self.texts.entry(name.clone()).or_default();
            // A server may tell of a record whose ttl changed.
            if !texts.contains(&text) {
                texts.push(text);
            }
            touched.insert(name);
        }
        self.era += u32::from(step.serial < self.serial);
        self.serial = step.serial;
        self.read_all(&touched, now);
        Ok(())
    }

    /// Replaces everything by a zone that came as a whole: watches have to start over.
    pub(super) fn replace(&mut self, serial: u32, texts: Vec<Text>, now: Instant) {
        let mut new = Self::new(&self.origin, serial, texts, now);
        for (id, lease) in &mut new.leases {
            if let Some(known) = self.leases.get(id).filter(|known| known.beat == lease.beat) {
                lease.since = known.since;
            }
        }
        new.era = self.era + u32::from(serial <= self.serial);
        new.history = History::from(new.revision());
        *self = new;
    }

    fn is_ours(&self, name: &Name) -> bool {
        self.origin.is_entry(name)
            || *name == entry::head_name(&self.origin)
            || entry::lease_at(&self.origin, name).is_some()
    }

    fn ours(&self, texts: Vec<Text>) -> Vec<Text> {
        texts.into_iter().filter(|(name, _)| self.is_ours(name)).collect()
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
                    Some(beat) => self.begin_lease(id, beat, now),
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
            self.end_lease(id);
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

    fn begin_lease(&mut self, id: LeaseId, beat: Beat, now: Instant) {
        if self.leases.insert(id, Lease { beat, since: now }).is_none() {
            for key in self.bound.get(&id).cloned().unwrap_or_default() {
                self.orphans.remove(&key);
                self.record(&key);
            }
        }
    }

    fn end_lease(&mut self, id: LeaseId) {
        if self.leases.remove(&id).is_some() {
            for key in self.bound.get(&id).cloned().unwrap_or_default() {
                self.orphans.insert(key.clone());
                self.record(&key);
            }
        }
    }

    fn put(&mut self, key: &Key, entry: Option<Stamped>) {
        let new_lease = entry.as_ref().and_then(|entry| entry.lease);
        let old = match entry {
            Some(entry) => self.entries.insert(key.clone(), entry),
            None => self.entries.remove(key),
        };
        if old.as_ref() == self.entries.get(key) {
            return;
        }
        let was_visible = old.is_some() && !self.orphans.contains(key);
        if let Some(id) = old.and_then(|old| old.lease)
            && let Some(keys) = self.bound.get_mut(&id)
        {
            keys.remove(key);
            if keys.is_empty() {
                self.bound.remove(&id);
            }
        }
        self.orphans.remove(key);
        if let Some(id) = new_lease {
            self.bound.entry(id).or_default().insert(key.clone());
            if !self.leases.contains_key(&id) {
                self.orphans.insert(key.clone());
            }
        }
        if was_visible || self.visible(key).is_some() {
            self.record(key);
        } else {
            self.history.push(self.revision(), key.clone(), None);
        }
    }

    /// Remembers that a key is now as it is.
    fn record(&mut self, key: &Key) {
        let change = match self.get(key) {
            Some(entry) => KvChange::Put(entry),
            None => KvChange::Delete(key.clone()),
        };
        self.history.push(self.revision(), key.clone(), Some(change));
    }

    /// The entry of a key, if it counts, as it is written. It does not if the lease it is bound to has ended, although
    /// nobody has swept it away yet.
    pub(super) fn visible(&self, key: &Key) -> Option<&Stamped> {
        self.entries.get(key).filter(|_| !self.orphans.contains(key))
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
        if let Range::Key(only) = range {
            return Scan { revision: self.revision(), entries: self.get(only).into_iter().collect() };
        }
        let within = self.below(range.top()).filter(|entry| range.contains(&entry.key));
        let visible = within.filter(|entry| !self.orphans.contains(&entry.key));
        Scan { revision: self.revision(), entries: visible.map(public).collect() }
    }

    /// All entries at any level below a key, whether they count or not.
    pub(super) fn below(&self, top: &Key) -> impl Iterator<Item = &Stamped> {
        let from = if top.is_root() { Bound::Unbounded } else { Bound::Excluded(top) };
        // Keys below `a` start with `a/`; between them and `a` there may be others, such as `a-b`. `0` is behind `/`.
        let end = (!top.is_root()).then(|| format!("{}0", top.as_str()));
        let front = top.clone();
        self.entries
            .range((from, Bound::Unbounded))
            .take_while(move |(key, _)| end.as_ref().is_none_or(|end| key.as_str() < end.as_str()))
            .filter(move |(key, _)| key.below(&front).is_some())
            .map(|(_, entry)| entry)
    }

    /// All records, as they are written.
    pub(super) fn records(&self) -> impl Iterator<Item = (&Name, &TXT)> {
        self.texts.iter().flat_map(|(name, texts)| texts.iter().map(move |text| (name, text)))
    }

    /// Whether there is anything at a name of ours, be it readable or not.
    pub(super) fn has_text(&self, name: &Name) -> bool {
        self.texts.contains_key(name)
    }

    /// The changes of a range behind a revision, or `None` if some of them may not be known.
    pub(super) fn since(&self, after: Revision, range: &Range) -> Option<Vec<KvChange>> {
        let news = self.history.since(after).filter(|_| after <= self.revision())?;
        let told = news.filter_map(|(_, change)| change.as_ref());
        Some(told.filter(|change| range.contains(change.key())).cloned().collect())
    }

    /// The keys that anything was done to behind a revision, or `None` if some of them may not be known.
    pub(super) fn touched(&self, after: Revision) -> Option<BTreeSet<&Key>> {
        self.history.since(after).map(|news| news.map(|(key, _)| key).collect())
    }

    pub(super) fn lease(&self, id: LeaseId) -> Option<&Lease> {
        self.leases.get(&id)
    }

    /// What is bound to a lease, be it there or not.
    pub(super) fn bound(&self, id: LeaseId) -> impl Iterator<Item = &Key> {
        self.bound.get(&id).into_iter().flatten()
    }

    /// Gives all leases their full time from now on.
    pub(super) fn excuse_silence(&mut self, now: Instant) {
        for lease in self.leases.values_mut() {
            lease.since = now;
        }
    }

    /// Leases that were silent for longer than they may be, by what was heard up to `heard`.
    pub(super) fn lapsed(&self, heard: Instant) -> Vec<(LeaseId, Beat)> {
        let is_over = |lease: &Lease| heard.saturating_duration_since(lease.since) > lease.beat.ttl;
        let lapsed = self.leases.iter().filter(|(_, lease)| is_over(lease));
        lapsed.map(|(id, lease)| (*id, lease.beat.clone())).collect()
    }

    /// Entries whose lease has ended, to be swept away.
    pub(super) fn orphans(&self) -> impl Iterator<Item = &Key> {
        self.orphans.iter()
    }
}

/// The latest changes, oldest first.
#[derive(Debug, Default)]
struct History {
    /// What was done to which key; no change if nobody could see it.
    changes: VecDeque<(Revision, (Key, Option<KvChange>))>,
    /// The changes behind this one are all there.
    floor: Revision,
}

impl History {
    fn from(floor: Revision) -> Self {
        Self { changes: VecDeque::new(), floor }
    }

    fn push(&mut self, revision: Revision, key: Key, change: Option<KvChange>) {
        self.changes.push_back((revision, (key, change)));
        while self.changes.len() > HISTORY {
            if let Some((forgotten, _)) = self.changes.pop_front() {
                self.floor = forgotten;
            }
        }
    }

    fn since(&self, after: Revision) -> Option<impl Iterator<Item = &(Key, Option<KvChange>)>> {
        let first = self.changes.partition_point(|(revision, _)| *revision <= after);
        (after >= self.floor).then(|| self.changes.range(first..).map(|(_, change)| change))
    }
}

/// As the contract has it.
fn public(entry: &Stamped) -> Entry {
    let Stamped { key, value, created, modified, lease } = entry.clone();
    Entry { key, value, created, modified, lease }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use hickory_proto::rr::{RData, Record};

    use super::*;

    const LEASE: LeaseId = LeaseId(0x9f);
    const OTHER: LeaseId = LeaseId(0xa0);

    fn origin() -> Origin {
        Origin::parse("z").unwrap()
    }

    fn text(record: &Record) -> Text {
        let RData::TXT(txt) = &record.data else { panic!("{record}") };
        (record.name.clone(), txt.clone())
    }

    fn entry(key: &str, value: &'static str, lease: Option<LeaseId>) -> Text {
        let (key, value) = (key.parse().unwrap(), value.into());
        let entry = Stamped { key, value, created: Revision(1), modified: Revision(1), lease };
        text(&entry.record(&origin(), 5))
    }

    fn beat(id: LeaseId, beat: u64) -> Text {
        text(&Beat { ttl: Duration::from_secs(1), beat }.record(&origin(), id, 5))
    }

    fn mirror(texts: Vec<Text>) -> Mirror {
        Mirror::new(&origin(), 1, texts, Instant::now())
    }

    fn step(mirror: &mut Mirror, removed: Vec<Text>, added: Vec<Text>) -> Result<(), Inconsistent> {
        let serial = mirror.serial() + 1;
        mirror.apply(Step { serial, removed, added }, Instant::now())
    }

    fn listed(mirror: &Mirror, top: &str) -> Vec<String> {
        let top = if top.is_empty() { Key::root() } else { top.parse().unwrap() };
        let entries = mirror.scan(&Range::Subtree(top)).entries;
        entries.iter().map(|entry| entry.key.as_str().to_owned()).collect()
    }

    /// What watches of everything are told behind a revision.
    fn told(mirror: &Mirror, after: Revision) -> Vec<String> {
        let changes = mirror.since(after, &Range::Subtree(Key::root())).unwrap();
        let sign = |change: &KvChange| if matches!(change, KvChange::Put(_)) { '+' } else { '-' };
        changes.iter().map(|change| format!("{}{}", sign(change), change.key().as_str())).collect()
    }

    #[tokio::test]
    async fn what_is_below_a_key_is_that_and_nothing_beside_it() {
        let all = ["a", "a-b", "a.b/c", "a/b", "a/b/c", "a0", "ab/c"];
        let mirror = mirror(all.iter().map(|key| entry(key, "v", None)).collect());
        assert_eq!(listed(&mirror, "a"), ["a/b", "a/b/c"]);
        assert_eq!(listed(&mirror, "").len(), all.len());
        let one = |key: &str| mirror.scan(&Range::Key(key.parse().unwrap())).entries;
        assert_eq!(one("a").iter().map(|entry| entry.key.as_str()).collect::<Vec<_>>(), ["a"]);
        assert_eq!((one("ab"), one("a/b/c/d")), (vec![], vec![]));
        assert_eq!(mirror.scan(&Range::Key(Key::root())).entries, []);
    }

    #[tokio::test]
    async fn an_entry_counts_as_long_as_its_lease_is_there() {
        let mut mirror =
            mirror(vec![beat(LEASE, 0), entry("a/1", "v", Some(LEASE)), entry("a/2", "v", Some(OTHER))]);
        assert_eq!(listed(&mirror, ""), ["a/1"]);
        assert_eq!(mirror.orphans().count(), 1);
        let before = mirror.revision();
        step(&mut mirror, vec![beat(LEASE, 0)], vec![beat(OTHER, 0)]).unwrap();
        assert_eq!(
            (listed(&mirror, ""), told(&mirror, before)),
            (vec!["a/2".into()], vec!["+a/2".into(), "-a/1".into()])
        );
        assert_eq!(mirror.orphans().collect::<Vec<_>>(), [&"a/1".parse().unwrap()]);
        // Nobody sees it go a second time; but whoever counts records has to know.
        let before = mirror.revision();
        step(&mut mirror, vec![entry("a/1", "v", Some(LEASE))], vec![]).unwrap();
        assert_eq!((told(&mirror, before).len(), mirror.touched(before).unwrap().len()), (0, 1));
        assert_eq!((mirror.orphans().count(), mirror.bound(LEASE).count()), (0, 0));
    }

    #[tokio::test]
    async fn an_entry_that_moves_to_another_lease_is_not_seen_to_leave() {
        let mut mirror = mirror(vec![beat(LEASE, 0), entry("a/1", "v", Some(LEASE))]);
        let before = mirror.revision();
        let removed = vec![beat(LEASE, 0), entry("a/1", "v", Some(LEASE))];
        step(&mut mirror, removed, vec![entry("a/1", "w", Some(OTHER)), beat(OTHER, 0)]).unwrap();
        assert_eq!(told(&mirror, before), ["+a/1"]);
    }

    #[tokio::test]
    async fn a_step_that_does_not_fit_changes_nothing() {
        let mut mirror = mirror(vec![entry("a/1", "v", None)]);
        let bad = vec![entry("a/1", "v", None), entry("a/2", "v", None)];
        assert_eq!(step(&mut mirror, bad, vec![]), Err(Inconsistent));
        assert_eq!((listed(&mirror, ""), mirror.serial()), (vec!["a/1".into()], 1));
        let old = Step { serial: 1, removed: vec![], added: vec![] };
        assert_eq!(mirror.apply(old, Instant::now()), Err(Inconsistent));
    }

    #[tokio::test]
    async fn revisions_grow_when_serials_do_not() {
        let mut mirror = Mirror::new(&origin(), u32::MAX, vec![], Instant::now());
        let before = mirror.revision();
        mirror.apply(Step { serial: 3, ..Step::default() }, Instant::now()).unwrap();
        assert!(mirror.revision() > before);
        let before = mirror.revision();
        mirror.replace(1, vec![], Instant::now());
        assert!(mirror.revision() > before);
        assert_eq!(mirror.since(before, &Range::Subtree(Key::root())), None, "what was is not known");
    }

    #[tokio::test(start_paused = true)]
    async fn silence_is_measured_from_the_last_change() {
        let mut mirror = mirror(vec![beat(LEASE, 0)]);
        tokio::time::advance(Duration::from_millis(900)).await;
        step(&mut mirror, vec![beat(LEASE, 0)], vec![beat(LEASE, 1)]).unwrap();
        tokio::time::advance(Duration::from_millis(900)).await;
        assert_eq!(mirror.lapsed(Instant::now()), []);
        tokio::time::advance(Duration::from_millis(200)).await;
        assert_eq!(mirror.lapsed(Instant::now()).len(), 1);
        mirror.excuse_silence(Instant::now());
        assert_eq!(mirror.lapsed(Instant::now()), []);
    }

    #[tokio::test]
    async fn numbers_go_on_where_the_head_is_gone() {
        assert_eq!(mirror(vec![]).next_number(7), 7);
        let by_hand = (origin().entry(&"mail".parse().unwrap()), TXT::new(vec!["v=spf1 -all".into()]));
        assert_eq!(mirror(vec![by_hand, entry("a/1", "v", None)]).next_number(1), 2);
        let head = text(&Head { number: 41, mark: 1 }.record(&origin(), 5));
        assert_eq!(mirror(vec![head]).next_number(7), 42);
    }
}
