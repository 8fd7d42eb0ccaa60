//! Writing: everything that changes the store goes through here, in one order.
//!
//! Each commit is one update message. It demands the head of the log as it is known here, and moves it. If that is
//! refused, somebody was quicker: the mirror is brought up to date and everything is decided anew. If it is accepted,
//! nobody has committed anything since, so what was decided on the mirror was decided on the truth, as far as whoever
//! writes to the zone moves the head; a message needs no other prerequisites but those about leases, which may end at
//! any time.
//!
//! A handle has one message under way at a time. What gathers meanwhile shares the next one, which is decided on the
//! mirror and on what this handle has committed since ([`Ahead`]). A write that got lost on its way and arrives late
//! names a head that is no more, once another commit was made: that is how a [fence](Work::Fence) keeps it out.

use std::{
    collections::{BTreeSet, HashMap, HashSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use discovery::{
    Error, ErrorKind, LeaseId, Outcome, Result, Revision,
    kv::{Guard, Key, Op, Txn},
};
use hickory_proto::{
    op::{Message, ResponseCode},
    rr::{Record, RecordType},
    serialize::binary::BinEncodable,
};
use tokio::{
    sync::oneshot,
    task::JoinSet,
    time::{self, Instant},
};

use super::{
    Shared,
    entry::{self, Beat, Head, Stamped},
    message,
    mirror::Mirror,
    projection::{Projection, Undo},
    replica::Hint,
};

/// How many bytes a message may have, its signature and its head aside.
const MESSAGE_MAX: usize = 60_000;
/// How many works share a message.
const BATCH: usize = 64;
/// How many entries are swept away with one message, at most.
const SWEEP: usize = 100;
/// How much may be ahead of the mirror before that is brought up to date.
const AHEAD_MAX: usize = 1000;

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

/// What waits to be written, and who writes it.
#[derive(Debug)]
pub(super) struct Log {
    /// Held for single looks, never across an `await`.
    queue: Mutex<Queue>,
    writer: Mutex<JoinSet<()>>,
    /// `None` while a writer sits there.
    desk: Mutex<Option<Desk>>,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<Member>,
    is_served: bool,
}

#[derive(Debug)]
struct Member {
    work: Work,
    deadline: Instant,
    answer: oneshot::Sender<Result<Revision>>,
}

/// What a writer knows beyond the mirror.
#[derive(Debug)]
struct Desk {
    projection: Projection,
    ahead: Ahead,
}

/// What this handle has committed and the mirror may not have yet.
#[derive(Debug, Default)]
struct Ahead {
    head: Option<Head>,
    changed: HashMap<Key, Option<Stamped>>,
    ended: HashSet<LeaseId>,
}

impl Log {
    pub(super) fn new() -> Self {
        Self { queue: Mutex::default(), writer: Mutex::default(), desk: Mutex::default() }
    }
}

impl Shared {
    /// Does some work and returns the number of its commit. Dropped before its turn came, nothing is done.
    pub(super) async fn write(self: &Arc<Self>, work: Work) -> Result<Revision> {
        let (answer, answered) = oneshot::channel();
        let deadline = self.deadline();
        {
            let mut queue = lock(&self.log.queue);
            // Whoever waits for a fence waits for the end of a doubt, not for those that came before it.
            let place = if matches!(work, Work::Fence) { 0 } else { queue.waiting.len() };
            queue.waiting.insert(place, Member { work, deadline, answer });
            let mut writer = lock(&self.log.writer);
            while writer.try_join_next().is_some() {}
            // One that serves and is no more went with its runtime.
            if !queue.is_served || writer.is_empty() {
                queue.is_served = true;
                writer.spawn(Writer { shared: self.clone(), is_done: false }.run());
            }
        }
        match time::timeout_at(deadline, answered).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(Error::new(ErrorKind::Closed, "the store went away meanwhile").maybe_applied()),
            Err(_) => Err(Error::new(ErrorKind::Timeout, "no answer within the call timeout")),
        }
    }
}

/// The right to write.
struct Writer {
    shared: Arc<Shared>,
    is_done: bool,
}

impl Writer {
    /// Writes until nothing waits.
    async fn run(mut self) {
        let shared = self.shared.clone();
        let kept = lock(&shared.log.desk).take();
        let mut desk =
            kept.unwrap_or_else(|| Desk { projection: shared.projection(), ahead: Ahead::default() });
        while let Some(members) = self.next_batch() {
            Batch { shared: &shared, desk: &mut desk, members, is_fresh: false, is_alone: false }
                .write()
                .await;
        }
        *lock(&shared.log.desk) = Some(desk);
    }

    fn next_batch(&mut self) -> Option<Vec<Member>> {
        let mut queue = lock(&self.shared.log.queue);
        let count = queue.waiting.len().min(BATCH);
        let batch: Vec<_> = queue.waiting.drain(..count).collect();
        queue.is_served = !batch.is_empty();
        self.is_done = !queue.is_served;
        queue.is_served.then_some(batch)
    }
}

/// One that ends before it is done, with its runtime or by a panic, leaves nobody waiting.
impl Drop for Writer {
    fn drop(&mut self) {
        if !self.is_done {
            let mut queue = lock(&self.shared.log.queue);
            queue.is_served = false;
            queue.waiting.clear();
        }
    }
}

/// Works that are done together, as far as possible.
struct Batch<'a> {
    shared: &'a Arc<Shared>,
    desk: &'a mut Desk,
    members: Vec<Member>,
    /// Whether the mirror was brought up to date since the members came.
    is_fresh: bool,
    /// Whether each goes on its own: the server has refused them together, and what is wrong with one must not befall
    /// the others.
    is_alone: bool,
}

impl Batch<'_> {
    async fn write(mut self) {
        let replica = &self.shared.replica;
        let mut is_due = replica.look(|_| ()).is_none() || self.desk.ahead.changed.len() > AHEAD_MAX;
        let (mut hint, mut planned_on) = (Hint::News, None);
        for attempt in 0_u32.. {
            // What its caller has given up must not take effect later.
            self.members.retain(|member| !member.answer.is_closed());
            let Some(deadline) = self.members.iter().map(|member| member.deadline).max() else { return };
            if is_due {
                // Those that were overtaken should not all come again at once.
                let pause = Duration::from_millis(fastrand::u64(0..1 << attempt.min(5)));
                time::sleep(if attempt > 1 { pause } else { Duration::ZERO }).await;
                if let Err(error) = replica.sync(hint, deadline).await {
                    return self.answer_all(&error.not_applied());
                }
                self.is_fresh = true;
                // The mirror has it all by now, unless the zone is another.
                self.desk.ahead = Ahead::default();
                // Refused again and again on the same serial: the zone is another, or the server a secondary that is late.
                let is_stuck = planned_on.is_some() && planned_on == replica.look(Mirror::serial);
                if is_stuck && attempt >= 4 && attempt.is_power_of_two() {
                    replica.doubt();
                    continue;
                }
            }
            planned_on = replica.look(Mirror::serial);
            let Some(plan) = replica.look(|mirror| self.plan(mirror)) else {
                is_due = true;
                continue;
            };
            is_due = !plan.is_decided(self.is_fresh);
            hint = Hint::Perhaps;
            if is_due {
                self.desk.projection.undo(plan.undo.into_iter());
                continue;
            }
            let Some(head) = plan.head else {
                self.settle(plan.verdicts, &Ok(()));
                continue;
            };
            match replica.server.call(&plan.message, deadline).await {
                Ok(answer) if answer.metadata.response_code == ResponseCode::NoError => {
                    replica.raise_floor(head.number);
                    self.desk.ahead.take(head, plan.changed, plan.ended);
                    self.settle(plan.verdicts, &Ok(()));
                    if replica.is_watched() {
                        // Else what is ahead of the mirror may stay there.
                        self.shared.look_now();
                    }
                }
                Ok(answer) => {
                    self.desk.projection.undo(plan.undo.into_iter());
                    is_due = true;
                    let code = answer.metadata.response_code;
                    hint = if message::is_unmet(code) { Hint::News } else { Hint::Perhaps };
                    if !message::is_unmet(code) {
                        self.refused(plan.verdicts, &message::refusal(code, &replica.origin));
                    } else if Instant::now() >= deadline {
                        return self.answer_all(&contended());
                    }
                }
                Err(error) => {
                    self.desk.projection.undo(plan.undo.into_iter());
                    is_due = true;
                    self.settle(plan.verdicts.into_iter().map(Verdict::if_written).collect(), &Err(error));
                }
            }
        }
    }

    fn plan(&mut self, mirror: &Mirror) -> Plan {
        let Desk { projection, ahead } = &mut *self.desk;
        ahead.trim(mirror);
        if ahead.head.is_none() {
            // Else it is ahead as well, and what the mirror has would set it back.
            projection.follow(mirror);
        }
        let works = self.members.iter().map(|member| &member.work);
        let count = if self.is_alone { 1 } else { self.members.len() };
        Planner::new(self.shared, mirror, projection, ahead, self.is_fresh).plan(works, count)
    }

    /// The server wants none of it: but maybe only one is to blame.
    fn refused(&mut self, verdicts: Vec<Verdict>, error: &Error) {
        let written = verdicts.iter().filter(|verdict| matches!(verdict, Verdict::Written(_))).count();
        if written > 1 {
            self.is_alone = true;
        } else {
            // What was decided about the others may rest on what has not happened.
            self.settle(verdicts.into_iter().map(Verdict::if_written).collect(), &Err(error.clone()));
        }
    }

    /// Answers those that have been decided about; the others stay.
    fn settle(&mut self, verdicts: Vec<Verdict>, outcome: &Result<()>) {
        let members = std::mem::take(&mut self.members);
        for (member, verdict) in members.into_iter().zip(verdicts) {
            let answer = match verdict {
                Verdict::Written(number) => outcome.clone().map(|()| number),
                Verdict::Done(number) => Ok(number),
                Verdict::Refused(error) => Err(error),
                Verdict::Lost(id) => Err(self.shared.leases.lost(id)),
                Verdict::Later => {
                    self.members.push(member);
                    continue;
                }
            };
            // Who no longer waits does not need to know.
            let _ = member.answer.send(answer);
        }
    }

    fn answer_all(self, error: &Error) {
        for member in self.members {
            let _ = member.answer.send(Err(error.clone()));
        }
    }
}

impl Ahead {
    /// Takes in an accepted message.
    fn take(&mut self, head: Head, changed: HashMap<Key, Option<Stamped>>, ended: HashSet<LeaseId>) {
        self.head = Some(head);
        self.changed.extend(changed);
        self.ended.extend(ended);
    }

    /// Forgets what the mirror has by now.
    fn trim(&mut self, mirror: &Mirror) {
        let known = mirror.head().map_or(0, |head| head.number);
        if self.head.is_some_and(|head| head.number <= known) {
            *self = Self::default();
        }
    }
}

/// What becomes of a work.
enum Verdict {
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
    fn if_written(self) -> Self {
        if let Self::Written(_) = self { self } else { Self::Later }
    }
}

/// A message, and what it does.
struct Plan {
    message: Message,
    verdicts: Vec<Verdict>,
    /// Where the log is moved to; `None` if there is nothing to write.
    head: Option<Head>,
    changed: HashMap<Key, Option<Stamped>>,
    ended: HashSet<LeaseId>,
    undo: Vec<Undo>,
}

impl Plan {
    /// Whether what it refuses is certain, and not only so on a mirror that may be old.
    fn is_decided(&self, is_fresh: bool) -> bool {
        let refuses = |verdict: &Verdict| matches!(verdict, Verdict::Refused(_) | Verdict::Lost(_));
        is_fresh || !self.verdicts.iter().any(refuses)
    }
}

/// Decides about one work after the other, each on what the ones before it leave.
struct Planner<'a> {
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
    fn new(
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
    fn plan<'w>(mut self, works: impl Iterator<Item = &'w Work>, count: usize) -> Plan {
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
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(1, |since| since.as_secs() << 20)
}

/// About how many bytes a record takes.
fn size(record: &Record) -> usize {
    record.to_bytes().map_or(0, |bytes| bytes.len())
}

fn contended() -> Error {
    let message = "others write to the zone all the time; try again";
    Error::new(ErrorKind::Unavailable, message).not_applied()
}

/// Whether a write that failed may be in effect, now or later.
pub(super) fn is_in_doubt(outcome: &Result<Revision>) -> bool {
    outcome.as_ref().is_err_and(|error| error.outcome() == Outcome::Unknown)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // No step leaves what is behind it half-changed, so a panic elsewhere under the lock does no harm.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
