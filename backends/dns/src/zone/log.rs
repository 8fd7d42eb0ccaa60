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
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use discovery::{Error, ErrorKind, Outcome, Result, Revision};
use hickory_proto::op::ResponseCode;
use tokio::{
    sync::oneshot,
    task::JoinSet,
    time::{self, Instant},
};

use super::{
    Shared, message,
    mirror::Mirror,
    plan::{Ahead, Plan, Planner, Verdict, Work},
    projection::Projection,
    replica::Hint,
};

/// How many works share a message.
const BATCH: usize = 64;
/// How much may be ahead of the mirror before that is brought up to date.
const AHEAD_MAX: usize = 1000;

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
            let mut writer = lock(&self.log.writer);
            while writer.try_join_next().is_some() {}
            let is_idle = {
                let mut queue = lock(&self.log.queue);
                // Whoever waits for a fence waits for the end of a doubt, not for those that came before it.
                let place = if matches!(work, Work::Fence) { 0 } else { queue.waiting.len() };
                queue.waiting.insert(place, Member { work, deadline, answer });
                // One that serves and is no more went with its runtime.
                let is_idle = !queue.is_served || writer.is_empty();
                queue.is_served = true;
                is_idle
            };
            if is_idle {
                // A runtime that ends drops it at once, and then it locks the queue.
                writer.spawn(Writer { shared: self.clone(), is_done: false }.run());
            }
        }
        match time::timeout_at(deadline, answered).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => {
                let message = "whoever was to send it ended with its runtime; try again";
                Err(Error::new(ErrorKind::Unavailable, message).maybe_applied())
            }
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
