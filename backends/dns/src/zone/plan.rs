//! Deciding: what becomes of works that wait to be written, on the mirror and on what was committed since; and the
//! message that carries it out.

use std::collections::{BTreeSet, HashMap, HashSet};

use discovery::{
    Error, ErrorKind, LeaseId, Revision,
    kv::{Guard, Key, Op, Txn},
};
use hickory_proto::{
    op::Message,
    rr::{Record, RecordType},
    serialize::binary::BinEncodable,
};

use super::{
    Shared,
    entry::{self, Beat, Head, Stamped},
    message,
    mirror::Mirror,
    projection::{Projection, Undo},
};
use crate::protocol::unix_time;

/// How many bytes a message may have, its signature and its head aside.
const MESSAGE_MAX: usize = 60_000;
/// How many entries are swept away with one message, at most.
const SWEEP: usize = 100;

/// What is to be done.
#[derive(Debug)]
pub(super) enum Work {
    /// A transaction.
    Txn(Txn),
    /// Nothing, but behind it nothing can take effect that was sent before.
    Fence,
    /// A lease ends, with what is bound to it; with a beat only if that is its latest.
    End(LeaseId, Option<Beat>),
    /// Entries go whose lease has ended.
    Sweep,
}

/// What this handle has committed and the mirror may not have yet.
#[derive(Debug, Default)]
pub(super) struct Ahead {
    pub(super) head: Option<Head>,
    pub(super) changed: HashMap<Key, Option<Stamped>>,
    pub(super) ended: HashSet<LeaseId>,
}

impl Ahead {
    /// Takes in an accepted message.
    pub(super) fn take(
        &mut self,
        head: Head,
        changed: HashMap<Key, Option<Stamped>>,
        ended: HashSet<LeaseId>,
    ) {
        self.head = Some(head);
        self.changed.extend(changed);
        self.ended.extend(ended);
    }

    /// Forgets what the mirror has by now.
    pub(super) fn trim(&mut self, mirror: &Mirror) {
        let known = mirror.head().map_or(0, |head| head.number);
        if self.head.is_some_and(|head| head.number <= known) {
            *self = Self::default();
        }
    }
}

/// What becomes of a work.
pub(super) enum Verdict {
    /// It is in the message, under this number.
    Written(Revision),
    /// There is nothing to be done.
    Done(Revision),
    /// It cannot be done.
    Refused(Error),
    /// It cannot be done, since this lease has ended.
    Lost(LeaseId),
    /// It does not fit any more.
    Later,
}

impl Verdict {
    /// What is left of it when the message came to nothing.
    pub(super) fn if_written(self) -> Self {
        if let Self::Written(_) = self { self } else { Self::Later }
    }
}

/// A message, and what it does.
pub(super) struct Plan {
    pub(super) message: Message,
    pub(super) verdicts: Vec<Verdict>,
    /// Where the log is moved to; `None` if there is nothing to write.
    pub(super) head: Option<Head>,
    pub(super) changed: HashMap<Key, Option<Stamped>>,
    pub(super) ended: HashSet<LeaseId>,
    pub(super) undo: Vec<Undo>,
}

impl Plan {
    /// Whether what it refuses is certain, and not only so on a mirror that may be old.
    pub(super) fn is_decided(&self, is_fresh: bool) -> bool {
        let refuses = |verdict: &Verdict| matches!(verdict, Verdict::Refused(_) | Verdict::Lost(_));
        is_fresh || !self.verdicts.iter().any(refuses)
    }
}

/// Decides about one work after the other, each on what the ones before it leave.
pub(super) struct Planner<'a> {
    shared: &'a Shared,
    mirror: &'a Mirror,
    projection: &'a mut Projection,
    ahead: &'a Ahead,
    is_fresh: bool,
    /// The number of the next commit.
    number: u64,
    changed: HashMap<Key, Option<Stamped>>,
    ended: HashSet<LeaseId>,
    /// The leases that must not have ended.
    required: BTreeSet<LeaseId>,
    /// The leases that must not have been renewed.
    beats: Vec<Record>,
    updates: Vec<Record>,
    undo: Vec<Undo>,
    size: usize,
}

impl<'a> Planner<'a> {
    pub(super) fn new(
        shared: &'a Shared,
        mirror: &'a Mirror,
        projection: &'a mut Projection,
        ahead: &'a Ahead,
        is_fresh: bool,
    ) -> Self {
        let at_least = first_number().max(shared.replica.floor() + 1);
        Self {
            shared,
            mirror,
            projection,
            ahead,
            is_fresh,
            number: ahead.head.map_or_else(|| mirror.next_number(at_least), |head| head.number + 1),
            changed: HashMap::new(),
            ended: HashSet::new(),
            required: BTreeSet::new(),
            beats: Vec::new(),
            updates: Vec::new(),
            undo: Vec::new(),
            size: 0,
        }
    }

    /// Considers the first `count` of the works.
    pub(super) fn plan<'w>(mut self, works: impl Iterator<Item = &'w Work>, count: usize) -> Plan {
        let first = self.number;
        let verdict = |(n, work)| if n < count { self.consider(work) } else { Verdict::Later };
        let verdicts = works.enumerate().map(verdict).collect();
        let head = (self.number > first).then(|| Head { number: self.number - 1, mark: fastrand::u64(..) });
        let message = match head {
            Some(head) => self.message(head),
            None => message::update(&self.shared.replica.origin),
        };
        Plan { message, verdicts, head, changed: self.changed, ended: self.ended, undo: self.undo }
    }

    fn consider(&mut self, work: &Work) -> Verdict {
        match work {
            Work::Txn(txn) => self.transaction(txn),
            Work::Fence => self.written(),
            Work::End(id, beat) => self.end(*id, beat.as_ref()),
            Work::Sweep => self.sweep(),
        }
    }

    fn transaction(&mut self, txn: &Txn) -> Verdict {
        let mut required = BTreeSet::new();
        for guard in txn.guards() {
            let found = self.found(guard.key());
            let holds = match guard {
                Guard::Absent(_) => found.is_none(),
                Guard::Unmodified(_, revision) => {
                    found.as_ref().is_some_and(|entry| entry.modified == *revision)
                }
                Guard::Alive(_, revision) => found.as_ref().is_some_and(|entry| entry.created == *revision),
            };
            if !holds {
                let message = format!("{} is not as expected", guard.key());
                return Verdict::Refused(Error::new(ErrorKind::Conflict, message));
            }
            required.extend(found.and_then(|entry| entry.lease));
        }
        let mut changes = Vec::new();
        for op in txn.ops() {
            let (key, found) = (op.key(), self.found(op.key()));
            match op {
                Op::Put { value, lease, .. } => {
                    if let Some(id) = lease {
                        // A lease of ours that is not known here is too new for the mirror; or the mirror is not old.
                        if self.has_ended(*id) || (self.is_fresh && self.mirror.lease(*id).is_none()) {
                            return Verdict::Lost(*id);
                        }
                        required.insert(*id);
                    }
                    // What is written over has to be there still: else this is another life.
                    required.extend(found.as_ref().and_then(|entry| entry.lease));
                    let modified = Revision(self.number);
                    let created = found.map_or(modified, |entry| entry.created);
                    let (key, value, lease) = (key.clone(), value.clone(), *lease);
                    changes.push((key.clone(), Some(Stamped { key, value, created, modified, lease })));
                }
                Op::Delete(_) if found.is_some() => changes.push((key.clone(), None)),
                Op::Delete(_) => {}
            }
        }
        self.change(changes, required)
    }

    fn end(&mut self, id: LeaseId, beat: Option<&Beat>) -> Verdict {
        let origin = &self.shared.replica.origin;
        let known = self.mirror.lease(id).filter(|_| !self.has_ended(id));
        if self.size > MESSAGE_MAX - 512 {
            return Verdict::Later;
        }
        if let Some(beat) = beat {
            match known {
                Some(lease) if lease.beat == *beat => {
                    self.beats.push(message::exactly(&beat.record(origin, id, 0)));
                }
                // Renewed meanwhile, or gone.
                _ => return Verdict::Done(Revision(self.number)),
            }
        }
        self.push(message::delete_all(&entry::lease_name(origin, id), RecordType::TXT));
        let found = |key: &&Key| self.found(key).is_some_and(|entry| entry.lease == Some(id));
        let mut keys: Vec<_> = self.mirror.bound(id).filter(found).cloned().collect();
        let ours = |entry: &&Stamped| entry.lease == Some(id);
        keys.extend(self.ahead.changed.values().flatten().filter(ours).map(|entry| entry.key.clone()));
        self.ended.insert(id);
        self.take_away(keys);
        // What does not fit goes with the next message; that the lease ends is more urgent.
        self.written()
    }

    fn sweep(&mut self) -> Verdict {
        let number = Revision(self.number);
        let is_left = |key: &&Key| !self.changed.contains_key(*key) && !self.ahead.changed.contains_key(*key);
        let orphans: Vec<_> = self.mirror.orphans().filter(is_left).take(SWEEP).cloned().collect();
        if orphans.is_empty() {
            return Verdict::Done(number);
        }
        let leases: BTreeSet<_> = orphans
            .iter()
            .filter_map(|key| self.mirror.stored(key))
            .filter_map(|entry| entry.lease)
            .collect();
        if !self.take_away(orphans) {
            return Verdict::Later;
        }
        // A lease that cannot be read must not come back to life without what was bound to it.
        for id in leases {
            let name = entry::lease_name(&self.shared.replica.origin, id);
            if self.mirror.has_text(&name) {
                self.push(message::delete_all(&name, RecordType::TXT));
            }
        }
        self.written()
    }

    /// Has entries go, as many of them as fit into the message; says whether any did.
    fn take_away(&mut self, keys: Vec<Key>) -> bool {
        let before = self.changed.len();
        for key in keys.into_iter().take(SWEEP) {
            if !self.fit(vec![(key, None)], &BTreeSet::new()) {
                break;
            }
        }
        self.changed.len() > before
    }

    /// The entry that counts.
    fn found(&self, key: &Key) -> Option<Stamped> {
        let changed = self.changed.get(key).or_else(|| self.ahead.changed.get(key));
        let entry = changed.cloned().unwrap_or_else(|| self.mirror.visible(key).cloned());
        entry.filter(|entry| entry.lease.is_none_or(|id| !self.has_ended(id)))
    }

    fn has_ended(&self, id: LeaseId) -> bool {
        self.ended.contains(&id) || self.ahead.ended.contains(&id)
    }

    /// Makes the changes of one work, if they fit.
    fn change(&mut self, changes: Vec<(Key, Option<Stamped>)>, required: BTreeSet<LeaseId>) -> Verdict {
        if self.fit(changes, &required) {
            self.required.extend(required);
            return self.written();
        }
        if self.size > 0 {
            return Verdict::Later;
        }
        Verdict::Refused(Error::invalid(format!(
            "the records of a transaction come to more than the {MESSAGE_MAX} bytes that fit into a DNS message"
        )))
    }

    /// Adds changes to the message; says whether they fit.
    fn fit(&mut self, changes: Vec<(Key, Option<Stamped>)>, required: &BTreeSet<LeaseId>) -> bool {
        let origin = &self.shared.replica.origin;
        let (mut updates, mut undo) = (Vec::new(), Vec::new());
        for (key, entry) in &changes {
            updates.push(message::delete_all(&origin.entry(key), RecordType::TXT));
            if let Some(entry) = entry {
                updates.push(entry.record(origin, self.shared.config.record_ttl()));
            }
            let (records, step) = self.projection.change(self.mirror, key, entry.as_ref());
            updates.extend(records);
            undo.push(step);
        }
        let new = required.iter().filter(|id| !self.required.contains(id));
        let names = new.map(|id| entry::lease_name(origin, *id).len() + 10);
        let size = updates.iter().map(size).sum::<usize>() + names.sum::<usize>();
        if self.size + size > MESSAGE_MAX {
            self.projection.undo(undo.into_iter());
            return false;
        }
        self.size += size;
        self.updates.extend(updates);
        self.undo.extend(undo);
        self.changed.extend(changes);
        true
    }

    fn push(&mut self, record: Record) {
        self.size += size(&record);
        self.updates.push(record);
    }

    fn written(&mut self) -> Verdict {
        let number = self.number;
        self.number += 1;
        Verdict::Written(Revision(number))
    }

    fn message(&mut self, moved: Head) -> Message {
        let (origin, ttl) = (&self.shared.replica.origin, self.shared.config.record_ttl());
        let mut message = message::update(origin);
        let name = entry::head_name(origin);
        match (self.ahead.head, self.mirror.heads()) {
            (Some(head), _) => message.add_answer(message::exactly(&head.record(origin, ttl))),
            (None, []) => message.add_answer(message::absent(&name, RecordType::TXT)),
            (None, heads) => {
                let records = heads.iter().map(|text| entry::record(&name, text));
                message.add_answers(records.map(|record| message::exactly(&record)))
            }
        };
        let leases = self.required.iter().map(|id| entry::lease_name(origin, *id));
        message.add_answers(leases.map(|name| message::present(&name, RecordType::TXT)));
        message.add_answers(self.beats.drain(..));
        message.add_authority(message::delete_all(&name, RecordType::TXT));
        message.add_authority(moved.record(origin, ttl));
        message.add_authorities(self.updates.drain(..));
        message
    }
}

/// Where a log begins that has no head: behind every one that may have been in the zone before, if clocks are not far off.
fn first_number() -> u64 {
    unix_time().max(1) << 20
}

/// About how many bytes a record takes.
fn size(record: &Record) -> usize {
    record.to_bytes().map_or(0, |bytes| bytes.len())
}
