//! The content of a zone at one serial: a value that is never changed, only replaced.
//!
//! Queries read the table they got hold of and wait for nobody. A change makes the next table in O(log n) and shares
//! the rest with it. The steps that led here go along, as far back as the journal reaches: what IXFR tells.

use std::{collections::HashMap as StdMap, sync::Arc};

use imbl::{HashMap, Vector};

use super::wire::{Data, Name, Rr, ancestry, code, parent};
use crate::protocol::is_newer;

/// All records of one type at one name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RrSet {
    pub(crate) kind: u16,
    pub(crate) ttl: u32,
    /// Sorted, so that one of many is found.
    pub(crate) data: Vector<Data>,
}

impl RrSet {
    pub(crate) fn has(&self, data: &Data) -> bool {
        self.data.binary_search(data).is_ok()
    }
}

/// What there is at a name. A node without sets is there because of the names under it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Node {
    sets: Vec<RrSet>,
    /// How many nodes are one label below.
    children: usize,
}

impl Node {
    pub(crate) fn set(&self, kind: u16) -> Option<&RrSet> {
        self.sets.iter().find(|set| set.kind == kind)
    }

    pub(crate) fn sets(&self) -> &[RrSet] {
        &self.sets
    }
}

/// From one serial to the next.
#[derive(Debug)]
pub(crate) struct Step {
    /// The SOA record before it.
    pub(crate) before: Rr,
    pub(crate) removed: Vec<Rr>,
    /// The SOA record behind it.
    pub(crate) after: Rr,
    pub(crate) added: Vec<Rr>,
}

impl Step {
    fn weight(&self) -> usize {
        2 + self.removed.len() + self.added.len()
    }
}

/// How much a table holds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// The most records of the zone.
    pub(crate) records: usize,
    /// The most records of the journal.
    pub(crate) journal: usize,
}

/// The content of a zone, with the steps that led to it.
#[derive(Clone, Debug)]
pub(crate) struct Table {
    apex: Name,
    nodes: HashMap<Name, Arc<Node>>,
    records: usize,
    /// How many sets of NS records there are below the apex.
    cuts: usize,
    soa: Arc<Rr>,
    journal: Vector<Arc<Step>>,
    journal_weight: usize,
    limits: Limits,
}

impl Table {
    /// A zone with its SOA record and nothing else.
    pub(crate) fn new(soa: Rr, limits: Limits) -> Self {
        let mut table = Self {
            apex: soa.name.clone(),
            nodes: HashMap::new(),
            records: 0,
            cuts: 0,
            soa: Arc::new(soa.clone()),
            journal: Vector::new(),
            journal_weight: 0,
            limits,
        };
        table.insert(&soa.name, soa.kind, soa.ttl, soa.data);
        table
    }

    /// A zone with its SOA record and the name of its server.
    pub(crate) fn with_server(soa: Rr, server: &Name, limits: Limits) -> Self {
        let (apex, ttl) = (soa.name.clone(), soa.ttl);
        let mut table = Self::new(soa, limits);
        table.insert(&apex, code::NS, ttl, server.to_vec().into());
        table
    }

    /// The same zone with more in it, as it is in the beginning: no step leads to it.
    pub(crate) fn holding(mut self, records: impl IntoIterator<Item = Rr>) -> Self {
        for rr in records {
            self.insert(&rr.name, rr.kind, rr.ttl, rr.data);
        }
        self
    }

    pub(crate) fn apex(&self) -> &Name {
        &self.apex
    }

    pub(crate) fn soa(&self) -> &Arc<Rr> {
        &self.soa
    }

    pub(crate) fn serial(&self) -> u32 {
        serial_of(&self.soa)
    }

    /// How many records there are.
    pub(crate) fn len(&self) -> usize {
        self.records
    }

    pub(crate) fn node(&self, name: &[u8]) -> Option<&Arc<Node>> {
        self.nodes.get(name)
    }

    pub(crate) fn set(&self, name: &[u8], kind: u16) -> Option<&RrSet> {
        self.node(name)?.set(kind)
    }

    /// The delegation that a name is at or under, if any, the topmost one.
    pub(crate) fn cut(&self, name: &[u8]) -> Option<(&[u8], &RrSet)> {
        if self.cuts == 0 {
            return None;
        }
        let below = ancestry(name).take_while(|name| name.len() > self.apex.len());
        below
            .filter_map(|name| {
                let (key, node) = self.nodes.get_key_value(name)?;
                Some((&**key, node.set(code::NS)?))
            })
            .last()
    }

    /// Every record, SOA included, in no order.
    pub(crate) fn records(&self) -> impl Iterator<Item = Rr> {
        self.nodes.iter().flat_map(|(name, node)| {
            node.sets.iter().flat_map(move |set| {
                let (kind, ttl) = (set.kind, set.ttl);
                set.data.iter().map(move |data| Rr { name: name.clone(), kind, ttl, data: data.clone() })
            })
        })
    }

    /// The steps from a serial to now; `None` if the journal does not reach back so far.
    pub(crate) fn since(&self, serial: u32) -> Option<impl Iterator<Item = &Arc<Step>>> {
        let ahead = self.journal.binary_search_by(|step| {
            let from = serial_of(&step.before);
            if from == serial {
                std::cmp::Ordering::Equal
            } else if is_newer(from, serial) {
                std::cmp::Ordering::Greater
            } else {
                std::cmp::Ordering::Less
            }
        });
        ahead.ok().map(|ahead| self.journal.iter().skip(ahead))
    }

    /// The step that led to this table.
    pub(crate) fn last_step(&self) -> Option<&Arc<Step>> {
        self.journal.last()
    }

    /// Starts a change.
    pub(crate) fn edit(&self) -> Edit {
        Edit { table: self.clone(), removed: Vec::new(), added: Vec::new(), serial: None }
    }

    /// Puts one record in; false if it is there already. The TTL is that of the set, whatever it was.
    fn insert(&mut self, name: &Name, kind: u16, ttl: u32, data: Data) -> bool {
        self.grow(name);
        let Some(node) = self.nodes.get_mut(&**name) else { return false };
        let sets = &mut Arc::make_mut(node).sets;
        let at = sets.iter().position(|set| set.kind == kind).unwrap_or_else(|| {
            sets.push(RrSet { kind, ttl, data: Vector::new() });
            sets.len() - 1
        });
        let set = &mut sets[at];
        set.ttl = ttl;
        let Err(place) = set.data.binary_search(&data) else { return false };
        let is_new_cut = set.data.is_empty() && kind == code::NS;
        set.data.insert(place, data);
        self.records += 1;
        self.cuts += usize::from(is_new_cut && *name != self.apex);
        true
    }

    /// Takes one record out; its TTL, or `None` if it was not there.
    fn take(&mut self, name: &Name, kind: u16, data: &Data) -> Option<u32> {
        let node = self.nodes.get_mut(&**name)?;
        let at = node.sets.iter().position(|set| set.kind == kind)?;
        let place = node.sets[at].data.binary_search(data).ok()?;
        let node = Arc::make_mut(node);
        let set = &mut node.sets[at];
        let ttl = set.ttl;
        set.data.remove(place);
        if set.data.is_empty() {
            node.sets.remove(at);
            self.cuts -= usize::from(kind == code::NS && *name != self.apex);
            self.shrink(name);
        }
        self.records -= 1;
        Some(ttl)
    }

    /// Makes nodes of a name and of all it is under.
    fn grow(&mut self, name: &Name) {
        if self.nodes.contains_key(&**name) {
            return;
        }
        self.nodes.insert(name.clone(), Arc::default());
        for above in ancestry(name).skip(1).take_while(|above| above.len() >= self.apex.len()) {
            if let Some(node) = self.nodes.get_mut(above) {
                Arc::make_mut(node).children += 1;
                return;
            }
            self.nodes.insert(above.into(), Arc::new(Node { sets: Vec::new(), children: 1 }));
        }
    }

    /// Removes the node of a name, and those it was under, that nothing needs any more.
    fn shrink(&mut self, name: &[u8]) {
        let mut at = Some(name);
        while let Some(name) = at {
            match self.nodes.get(name) {
                Some(node) if node.sets.is_empty() && node.children == 0 => {}
                _ => return,
            }
            self.nodes.remove(name);
            at = parent(name).filter(|above| above.len() >= self.apex.len());
            if let Some(node) = at.and_then(|above| self.nodes.get_mut(above)) {
                Arc::make_mut(node).children -= 1;
            }
        }
    }

    fn record_step(&mut self, step: Step) {
        self.journal_weight += step.weight();
        self.journal.push_back(Arc::new(step));
        // The last one stays, however much it is.
        while self.journal_weight > self.limits.journal && self.journal.len() > 1 {
            let Some(oldest) = self.journal.pop_front() else { return };
            self.journal_weight -= oldest.weight();
        }
    }
}

/// A change on its way: all of it becomes the next table, or nothing.
#[derive(Debug)]
pub(crate) struct Edit {
    table: Table,
    removed: Vec<Rr>,
    added: Vec<Rr>,
    /// What somebody set the serial to.
    serial: Option<u32>,
}

impl Edit {
    /// The table as it is so far. Its serial is still the old one.
    pub(crate) fn table(&self) -> &Table {
        &self.table
    }

    /// Adds a record. The TTL becomes that of all its set (RFC 2181, section 5.2).
    pub(crate) fn add(&mut self, name: &Name, kind: u16, ttl: u32, data: Data) {
        if let Some(set) = self.table.set(name, kind).filter(|set| set.ttl != ttl) {
            let of = |ttl| move |data: &Data| Rr { name: name.clone(), kind, ttl, data: data.clone() };
            self.removed.extend(set.data.iter().map(of(set.ttl)));
            self.added.extend(set.data.iter().map(of(ttl)));
        }
        if self.table.insert(name, kind, ttl, data.clone()) {
            self.added.push(Rr { name: name.clone(), kind, ttl, data });
        }
    }

    /// Removes a record, if it is there.
    pub(crate) fn remove(&mut self, name: &Name, kind: u16, data: &Data) {
        if let Some(ttl) = self.table.take(name, kind, data) {
            self.removed.push(Rr { name: name.clone(), kind, ttl, data: data.clone() });
        }
    }

    /// Removes all records of a type at a name.
    pub(crate) fn remove_set(&mut self, name: &Name, kind: u16) {
        let data = self.table.set(name, kind).map(|set| set.data.clone()).unwrap_or_default();
        for data in &data {
            self.remove(name, kind, data);
        }
    }

    /// Replaces the SOA record; ignored unless its serial is newer (RFC 2136, section 3.4.2.2).
    pub(crate) fn set_soa(&mut self, ttl: u32, data: Data) {
        let newer = Rr { ttl, data, ..(*self.table.soa).clone() };
        let serial = serial_of(&newer);
        if is_newer(serial, self.table.serial()) {
            self.replace_soa(newer);
            self.serial = Some(serial);
        }
    }

    /// The next table; `None` if nothing changed, or `Err` if it would hold too much.
    pub(crate) fn finish(mut self, before: &Table) -> Result<Option<Table>, TooLarge> {
        cancel(&mut self.removed, &mut self.added);
        if self.removed.is_empty() && self.added.is_empty() && self.serial.is_none() {
            return Ok(None);
        }
        // What shrinks a zone that is too large is welcome.
        if self.table.records > self.table.limits.records && self.table.records > before.records {
            return Err(TooLarge);
        }
        if self.serial.is_none() {
            let next = self.table.serial().wrapping_add(1);
            self.replace_soa(with_serial(&self.table.soa, next));
        }
        let after = (*self.table.soa).clone();
        let step = Step { before: (*before.soa).clone(), removed: self.removed, after, added: self.added };
        self.table.record_step(step);
        Ok(Some(self.table))
    }

    fn replace_soa(&mut self, newer: Rr) {
        let older = self.table.soa.clone();
        self.table.take(&older.name, older.kind, &older.data);
        self.table.insert(&newer.name, newer.kind, newer.ttl, newer.data.clone());
        self.table.soa = Arc::new(newer);
    }
}

/// A zone may not hold that many records.
#[derive(Debug)]
pub(crate) struct TooLarge;

/// What was removed and added again did not change.
fn cancel(removed: &mut Vec<Rr>, added: &mut Vec<Rr>) {
    if removed.is_empty() || added.is_empty() {
        return;
    }
    let mut net = StdMap::<Rr, i32>::new();
    for rr in removed.drain(..) {
        *net.entry(rr).or_default() -= 1;
    }
    for rr in added.drain(..) {
        *net.entry(rr).or_default() += 1;
    }
    for (rr, change) in net {
        match change {
            0 => {}
            ..0 => removed.push(rr),
            1.. => added.push(rr),
        }
    }
}

/// The serial of a SOA record: the first of the five numbers behind its names.
pub(crate) fn serial_of(soa: &Rr) -> u32 {
    let numbers = soa.data.len().saturating_sub(20);
    soa.data.get(numbers..numbers + 4).and_then(|bytes| bytes.try_into().ok()).map_or(0, u32::from_be_bytes)
}

/// The TTL of negative answers (RFC 2308, section 3).
pub(crate) fn negative_ttl(soa: &Rr) -> u32 {
    let minimum = soa.data.last_chunk().map_or(0, |bytes| u32::from_be_bytes(*bytes));
    minimum.min(soa.ttl)
}

fn with_serial(soa: &Rr, serial: u32) -> Rr {
    let mut data = soa.data.to_vec();
    let numbers = data.len().saturating_sub(20);
    if let Some(place) = data.get_mut(numbers..numbers + 4) {
        place.copy_from_slice(&serial.to_be_bytes());
    }
    Rr { data: data.into(), ..soa.clone() }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::super::testing::*;
    use super::*;

    #[derive(Clone, Debug)]
    enum Op {
        Add(Rr),
        Remove(Rr),
        RemoveSet(Name, u16),
    }

    fn record() -> impl Strategy<Value = Rr> {
        let names = prop::sample::select(vec!["z.", "a.z.", "b.a.z.", "c.b.a.z.", "d.z."]);
        (names, prop::sample::select(vec![code::A, code::TXT]), 1_u32..3, 0_u8..4)
            .prop_map(|(name, kind, ttl, byte)| rr(name, kind, ttl, &[byte; 4]))
    }

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            4 => record().prop_map(Op::Add),
            3 => record().prop_map(Op::Remove),
            1 => record().prop_map(|rr| Op::RemoveSet(rr.name, rr.kind)),
        ]
    }

    /// The same with sets of records and nothing clever.
    fn apply_naively(model: &mut BTreeSet<Rr>, op: &Op) {
        match op {
            Op::Add(rr) => {
                let same = |other: &Rr| other.name == rr.name && other.kind == rr.kind;
                *model = model
                    .iter()
                    .map(
                        |other| if same(other) { Rr { ttl: rr.ttl, ..other.clone() } } else { other.clone() },
                    )
                    .collect();
                model.insert(rr.clone());
            }
            Op::Remove(rr) => {
                model.retain(|other| (&other.name, other.kind, &other.data) != (&rr.name, rr.kind, &rr.data));
            }
            Op::RemoveSet(name, kind) => model.retain(|other| (&other.name, other.kind) != (name, *kind)),
        }
    }

    fn apply(edit: &mut Edit, op: &Op) {
        match op {
            Op::Add(rr) => edit.add(&rr.name, rr.kind, rr.ttl, rr.data.clone()),
            Op::Remove(rr) => edit.remove(&rr.name, rr.kind, &rr.data),
            Op::RemoveSet(name, kind) => edit.remove_set(name, *kind),
        }
    }

    proptest! {
        #[test]
        fn any_changes_lead_where_they_do_naively(
            steps in prop::collection::vec(prop::collection::vec(op(), 0..6), 1..12),
        ) {
            let mut table = table(&[]);
            let (mut model, mut past) = (BTreeSet::new(), vec![(table.serial(), BTreeSet::new())]);
            for ops in &steps {
                let mut edit = table.edit();
                for op in ops {
                    apply(&mut edit, op);
                    apply_naively(&mut model, op);
                }
                let changed = past.last().unwrap().1 != model;
                let next = edit.finish(&table).unwrap();
                prop_assert_eq!(next.is_some(), changed, "a serial for each change, and only then");
                let Some(next) = next else { continue };
                prop_assert_eq!(next.serial(), table.serial() + 1);
                table = next;
                past.push((table.serial(), model.clone()));
                prop_assert_eq!(content(&table), model.iter().cloned().collect::<Vec<_>>());
                prop_assert_eq!(table.len(), model.len() + 2);
            }
            // A node for every name and all above it, and no other.
            let names: BTreeSet<Name> = model
                .iter()
                .map(|rr| &rr.name)
                .chain([table.apex()])
                .flat_map(|name| ancestry(name).filter(|name| name.len() >= 3).map(Name::from))
                .collect();
            prop_assert_eq!(table.nodes.keys().cloned().collect::<BTreeSet<_>>(), names);
            // From every state on, the journal leads to the last one.
            for (serial, mut replayed) in past.clone() {
                for step in table.since(serial).into_iter().flatten() {
                    for rr in &step.removed {
                        prop_assert!(replayed.remove(rr), "{:?} was there", rr);
                    }
                    for rr in &step.added {
                        prop_assert!(replayed.insert(rr.clone()), "{:?} was not there", rr);
                    }
                }
                prop_assert_eq!(&replayed, &model);
            }
        }
    }

    #[test]
    fn the_journal_is_bounded_and_a_zone_too() {
        let (config, _) =
            super::super::config::ZoneConfig::dynamic("z").serial(u32::MAX - 3).build().unwrap();
        let mut table = Table { limits: limits(10, 12), ..(**config.table()).clone() };
        for n in 0..8 {
            let mut edit = table.edit();
            edit.add(&name("a.z."), code::A, 1, [10, 0, 0, n][..].into());
            table = edit.finish(&table).unwrap().unwrap();
        }
        assert_eq!(table.serial(), 4, "round it went");
        assert_eq!(table.since(0).unwrap().count(), 4);
        assert!(table.since(u32::MAX).is_none(), "too long ago");
        assert!(table.since(9).is_none(), "from the future");
        let mut edit = table.edit();
        edit.add(&name("b.z."), code::A, 1, [10, 0, 0, 9][..].into());
        assert!(edit.finish(&table).is_err());
    }
}
