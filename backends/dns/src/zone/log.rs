//! Writing: everything that changes the store goes through here, in one order.
//!
//! Each commit is one update message. It demands the head of the log as the mirror has it, and moves it. If that is
//! refused, somebody was quicker: the mirror is brought up to date and everything is decided anew. If it is accepted,
//! nothing has happened since the mirror was read, so what was decided on the mirror was decided on the truth; a message
//! needs no other prerequisites but those about leases, which may end at any time.
//!
//! A handle has one message under way at a time. What gathers meanwhile shares the next one. A write that got lost on
//! its way and arrives late names a head that is no more, once another commit was made: that is how a
//! [fence](Work::Fence) keeps it out.

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
    mirror::{Lease, Mirror},
    projection::{Projection, Undo},
};

/// How many bytes a message may have, its signature aside.
const MESSAGE_MAX: usize = 60_000;
/// How many works share a message.
const BATCH: usize = 64;
/// How many entries are swept away with one message.
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

/// What waits to be written, and who writes it.
#[derive(Debug)]
pub(super) struct Log {
    /// Held for single looks, never across an `await`.
    queue: Mutex<Queue>,
    writer: Mutex<JoinSet<()>>,
    /// `None` while a writer has it.
    projection: Mutex<Option<Projection>>,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<Member>,
    is_served: bool,
}

#[derive(Debug)]
struct Member {
    work: Work,
    answer: oneshot::Sender<Result<Revision>>,
}

impl Log {
    pub(super) fn new(projection: Projection) -> Self {
        Self { queue: Mutex::default(), writer: Mutex::default(), projection: Mutex::new(Some(projection)) }
    }
}

impl Shared {
    /// Does some work and returns the number of its commit. Dropped before its turn came, nothing is done.
    pub(super) async fn write(self: &Arc<Self>, work: Work) -> Result<Revision> {
        let (answer, answered) = oneshot::channel();
        {
            let mut queue = lock(&self.log.queue);
            queue.waiting.push_back(Member { work, answer });
            let mut writer = lock(&self.log.writer);
            while writer.try_join_next().is_some() {}
            // One that serves and is no more went with its runtime.
            if !queue.is_served || writer.is_empty() {
                queue.is_served = true;
                writer.spawn(Writer(self.clone()).run());
            }
        }
        answered.await.unwrap_or_else(|_| {
            Err(Error::new(ErrorKind::Closed, "the store went away meanwhile").maybe_applied())
        })
    }
}

/// The right to write.
struct Writer(Arc<Shared>);

impl Writer {
    /// Writes until nothing waits.
    async fn run(self) {
        let shared = &self.0;
        let kept = lock(&shared.log.projection).take();
        let mut projection = kept.unwrap_or_else(|| shared.projection());
        while let Some(batch) = self.next_batch() {
            Batch { shared, projection: &mut projection, members: batch, is_fresh: false }.write().await;
        }
        *lock(&shared.log.projection) = Some(projection);
    }

    fn next_batch(&self) -> Option<Vec<Member>> {
        let mut queue = lock(&self.0.log.queue);
        let count = queue.waiting.len().min(BATCH);
        let batch: Vec<_> = queue.waiting.drain(..count).collect();
        queue.is_served = !batch.is_empty();
        queue.is_served.then_some(batch)
    }
}

/// Works that are done together, as far as possible.
struct Batch<'a> {
    shared: &'a Arc<Shared>,
    projection: &'a mut Projection,
    members: Vec<Member>,
    /// Whether the mirror was brought up to date since the members came.
    is_fresh: bool,
}

impl Batch<'_> {
    async fn write(mut self) {
        let deadline = self.shared.deadline();
        let replica = &self.shared.replica;
        let mut is_due = replica.look(|_| ()).is_none();
        let mut planned_on = None;
        for attempt in 0_u32.. {
            // What its caller has given up must not take effect later.
            self.members.retain(|member| !member.answer.is_closed());
            if self.members.is_empty() {
                return;
            }
            if is_due {
                // Those that were overtaken should not all come again at once.
                let pause = Duration::from_millis(fastrand::u64(0..1 << attempt.min(5)));
                time::sleep(if attempt > 1 { pause } else { Duration::ZERO }).await;
                if let Err(error) = replica.sync(deadline).await {
                    return self.answer_all(&error.not_applied());
                }
                self.is_fresh = true;
                // Refused again and again on the same serial: the zone is another, or the server a secondary that is late.
                let is_stuck = planned_on.is_some() && planned_on == replica.look(Mirror::serial);
                if is_stuck && attempt >= 4 && attempt.is_power_of_two() {
                    replica.doubt();
                    continue;
                }
            }
            planned_on = replica.look(Mirror::serial);
            let plan = replica.look(|mirror| {
                self.projection.follow(mirror);
                Plan::make(self.shared, mirror, self.projection, &self.members, self.is_fresh)
            });
            let Some(plan) = plan else { continue };
            is_due = true;
            if !plan.is_decided {
                self.projection.undo(plan.undo.into_iter());
                continue;
            }
            if plan.number.is_none() {
                self.settle(plan.verdicts, &Ok(()));
                continue;
            }
            let answer = self.shared.replica.server.call(&plan.message, deadline).await;
            let outcome = match answer {
                Ok(answer) if answer.metadata.response_code == ResponseCode::NoError => Ok(()),
                Ok(answer) if message::is_unmet(answer.metadata.response_code) => {
                    self.projection.undo(plan.undo.into_iter());
                    if Instant::now() >= deadline {
                        return self.answer_all(&contended());
                    }
                    continue;
                }
                Ok(answer) => Err(message::refusal(answer.metadata.response_code, &replica.origin)),
                Err(error) => Err(error),
            };
            match (&outcome, plan.number) {
                (Ok(()), Some(number)) => {
                    replica.raise_floor(number);
                    self.shared.look_now();
                }
                _ => self.projection.undo(plan.undo.into_iter()),
            }
            self.settle(plan.verdicts, &outcome);
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

/// What becomes of a work.
enum Verdict {
    /// It is in the message, under this number.
    Written(Revision),
    /// There is nothing to be done.
    Done(Revision),
    /// It cannot be done.
    Refused(Error),
    /// It does not fit any more.
    Later,
}

/// A message, and what it does.
struct Plan {
    message: Message,
    verdicts: Vec<Verdict>,
    /// The number that the log is moved to; `None` if there is nothing to write.
    number: Option<u64>,
    undo: Vec<Undo>,
    /// Whether what was refused is certain, and not only so on a mirror that may be old.
    is_decided: bool,
}

impl Plan {
    fn make(
        shared: &Shared,
        mirror: &Mirror,
        projection: &mut Projection,
        members: &[Member],
        is_fresh: bool,
    ) -> Self {
        let mut planner = Planner {
            shared,
            mirror,
            projection,
            is_fresh,
            number: mirror.next_number(first_number()),
            changed: HashMap::new(),
            ended: HashSet::new(),
            required: BTreeSet::new(),
            beats: Vec::new(),
            updates: Vec::new(),
            undo: Vec::new(),
            size: 0,
        };
        let first = planner.number;
        let verdicts: Vec<_> = members.iter().map(|member| planner.consider(&member.work)).collect();
        let is_decided = is_fresh || !verdicts.iter().any(|verdict| matches!(verdict, Verdict::Refused(_)));
        let number = (planner.number > first).then(|| planner.number - 1);
        let message = planner.message(number);
        Self { message, verdicts, number, undo: planner.undo, is_decided }
    }
}

/// Decides about one work after the other, each on what the ones before it leave.
struct Planner<'a> {
    shared: &'a Shared,
    mirror: &'a Mirror,
    projection: &'a mut Projection,
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

impl Planner<'_> {
    fn consider(&mut self, work: &Work) -> Verdict {
        let number = Revision(self.number);
        match work {
            Work::Txn(txn) => self.transaction(txn),
            Work::Fence => self.written(),
            Work::End(id, beat) => self.end(*id, beat.as_ref()),
            Work::Sweep => {
                let orphans: Vec<_> = self.mirror.orphans().take(SWEEP).collect();
                let keys = orphans.iter().map(|entry| entry.key.clone());
                let keys: Vec<_> = keys.filter(|key| !self.changed.contains_key(key)).collect();
                if keys.is_empty() {
                    return Verdict::Done(number);
                }
                let verdict = self.sweep(keys);
                if let Verdict::Written(_) = verdict {
                    // A lease that cannot be read must not come back to life without what was bound to it.
                    let leases: BTreeSet<_> = orphans.iter().filter_map(|entry| entry.lease).collect();
                    let names = leases.into_iter().map(|id| entry::lease_name(self.mirror.origin(), id));
                    let garbled: Vec<_> = names.filter(|name| self.mirror.has_text(name)).collect();
                    for name in &garbled {
                        self.push(message::delete_all(name, RecordType::TXT));
                    }
                }
                verdict
            }
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
                        if self.ended.contains(id) || (self.is_fresh && self.mirror.lease(*id).is_none()) {
                            return Verdict::Refused(self.shared.leases.lost(*id));
                        }
                        required.insert(*id);
                    }
                    let modified = Revision(self.number);
                    let created = found.map_or(modified, |entry| entry.created);
                    let (key, value, lease) = (key.clone(), value.clone(), *lease);
                    changes.push((key.clone(), Some(Stamped { key, value, created, modified, lease })));
                }
                Op::Delete(_) if found.is_some() => changes.push((key.clone(), None)),
                Op::Delete(_) => {}
            }
        }
        let verdict = self.change(changes);
        if let Verdict::Written(_) = verdict {
            self.required.extend(required);
        }
        verdict
    }

    fn end(&mut self, id: LeaseId, beat: Option<&Beat>) -> Verdict {
        let origin = &self.shared.replica.origin;
        let known = self.mirror.lease(id).filter(|_| !self.ended.contains(&id));
        if let Some(beat) = beat {
            match known {
                Some(lease) if lease.beat == *beat => {
                    self.beats.push(message::exactly(&beat.record(origin, id, 0)));
                }
                // Renewed meanwhile, or gone.
                _ => return Verdict::Done(Revision(self.number)),
            }
        }
        let name = entry::lease_name(origin, id);
        self.push(message::delete_all(&name, RecordType::TXT));
        let bound = known.map(Lease::keys).into_iter().flatten();
        let bound = bound.filter(|key| self.found(key).is_some_and(|entry| entry.lease == Some(id)));
        let keys: Vec<_> = bound.take(SWEEP).cloned().collect();
        self.ended.insert(id);
        match self.sweep(keys) {
            Verdict::Written(number) => Verdict::Written(number),
            // What is bound to it goes with the next message; that the lease ends is more urgent.
            _ => self.written(),
        }
    }

    /// Has entries go, as many of them as fit into the message.
    fn sweep(&mut self, keys: Vec<Key>) -> Verdict {
        let mut swept = None;
        for key in keys {
            match self.change(vec![(key, None)]) {
                Verdict::Written(number) => swept = Some(number),
                full => return swept.map_or(full, Verdict::Written),
            }
        }
        swept.map_or(Verdict::Later, Verdict::Written)
    }

    /// The entry that counts.
    fn found(&self, key: &Key) -> Option<Stamped> {
        let entry = match self.changed.get(key) {
            Some(changed) => changed.clone(),
            None => self.mirror.visible(key).cloned(),
        };
        entry.filter(|entry| entry.lease.is_none_or(|id| !self.ended.contains(&id)))
    }

    /// Makes changes, if they fit into the message.
    fn change(&mut self, changes: Vec<(Key, Option<Stamped>)>) -> Verdict {
        let origin = &self.shared.replica.origin;
        let (mut updates, mut undo) = (Vec::new(), Vec::new());
        for (key, entry) in &changes {
            updates.push(message::delete_all(&origin.entry(key), RecordType::TXT));
            if let Some(entry) = entry {
                updates.push(entry.record(origin, self.shared.config.record_ttl()));
            }
            let orphan = self.mirror.stored(key).filter(|_| self.mirror.visible(key).is_none());
            let orphan = orphan.map(|entry| &*entry.value);
            let value = entry.as_ref().map(|entry| &*entry.value);
            let (records, step) = self.projection.change(self.mirror, key, orphan, value);
            updates.extend(records);
            undo.push(step);
        }
        let size: usize = updates.iter().map(size).sum();
        if self.size + size > MESSAGE_MAX {
            self.projection.undo(undo.into_iter());
            if self.size > 0 {
                return Verdict::Later;
            }
            return Verdict::Refused(Error::invalid(format!(
                "a transaction comes to {size} bytes of records; at most {MESSAGE_MAX} fit into a DNS message"
            )));
        }
        self.size += size;
        self.updates.extend(updates);
        self.undo.extend(undo);
        self.changed.extend(changes);
        self.written()
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

    fn message(&mut self, number: Option<u64>) -> Message {
        let origin = &self.shared.replica.origin;
        let mut message = message::update(origin);
        let head = entry::head_name(origin);
        match self.mirror.heads() {
            [] => message.add_answer(message::absent(&head, RecordType::TXT)),
            heads => {
                let records = heads.iter().map(|text| entry::record(&head, text));
                message.add_answers(records.map(|record| message::exactly(&record)))
            }
        };
        let leases = self.required.iter().map(|id| entry::lease_name(origin, *id));
        message.add_answers(leases.map(|name| message::present(&name, RecordType::TXT)));
        message.add_answers(self.beats.drain(..));
        message.add_authority(message::delete_all(&head, RecordType::TXT));
        let moved = Head { number: number.unwrap_or(self.number), mark: fastrand::u64(..) };
        message.add_authority(moved.record(origin, self.shared.config.record_ttl()));
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
