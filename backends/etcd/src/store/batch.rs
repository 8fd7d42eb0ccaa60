//! Entries that come to be, or go, at the same time do so with one request.
//!
//! A process that starts registers everything it has at once, each entry with a transaction of its own. As one
//! transaction they cost the server a fraction. Nobody waits for company: who finds a seat free goes at once and alone,
//! and what has gathered while all seats were taken makes up the next batch.
//!
//! Only transactions that are hardly ever refused go together, for a refusal is for all of them, and then each has to
//! be sent on its own.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
};

use discovery::{
    Error, ErrorKind, Outcome, Result, Revision,
    kv::{Guard, Op, Txn},
};
use tokio::{
    runtime::Handle,
    sync::oneshot,
    task::JoinSet,
    time::{Instant, timeout_at},
};

use super::{Store, commit::Sent};
use crate::lease::Fence;

/// How many guards and operations and how many bytes of values a batch has at most: less than a server takes.
const SIZE: usize = 100;
const BYTES: usize = 256 * 1024;

/// How many batches may be under way.
const UNDER_WAY: usize = 4;

/// What waits to be sent.
#[derive(Default)]
pub(super) struct Batches {
    /// Held for single looks, never across an `await`.
    queue: Mutex<Queue>,
    /// The batches under way.
    senders: Mutex<JoinSet<()>>,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Member>,
    senders: usize,
}

struct Member {
    txn: Txn,
    /// What it demands, as of when its caller came: a renewal since then keeps it out, also if its caller has left.
    fences: Vec<Fence>,
    answer: oneshot::Sender<Answer>,
}

/// What whoever waits is told.
enum Answer {
    /// What became of its batch; `None` if it has to go on its own.
    Sent(Result<Option<Revision>>),
    /// That it has a seat and sends by itself.
    Seat(Seat),
}

impl Store {
    /// Sends a transaction, together with others if many come at once. `None` if that was not possible and nothing was
    /// done: something was in the way of this transaction, or of one that went with it.
    ///
    /// A caller who gives up leaves the batch as it is.
    pub(super) async fn send_together(
        &self,
        txn: &Txn,
        fences: &[Fence],
        deadline: Instant,
    ) -> Result<Option<Sent>> {
        let answered = {
            let mut queue = lock(&self.batches.queue);
            if queue.senders < UNDER_WAY {
                queue.senders += 1;
                None
            } else {
                let (answer, answered) = oneshot::channel();
                queue.waiting.push_back(Member { txn: txn.clone(), fences: fences.to_vec(), answer });
                Some(answered)
            }
        };
        let seat = match answered {
            None => Seat { store: self.clone(), is_taken: true },
            Some(answered) => match timeout_at(deadline, answered).await {
                Ok(Ok(Answer::Seat(seat))) => seat,
                Ok(Ok(Answer::Sent(outcome))) => return Ok(outcome?.map(Sent::Applied)),
                Ok(Err(_)) => {
                    let message = "whoever was to send it ended with its runtime; try again";
                    return Err(Error::new(ErrorKind::Unavailable, message).maybe_applied());
                }
                Err(_) => return Err(Error::new(ErrorKind::Timeout, "no answer within the call timeout")),
            },
        };
        let _turn = Turn(Some(seat));
        self.send(txn, fences, deadline).await.map(Some)
    }
}

/// The right to send. Dropped, it is handed on to somebody who waits, and free again if nobody does.
struct Seat {
    store: Store,
    is_taken: bool,
}

impl Seat {
    /// Sends batches until nothing waits.
    async fn send_batches(mut self) {
        while let Some(batch) = self.next_batch() {
            let deadline = self.store.cluster.deadline();
            let (txn, fences) = together(&batch);
            let outcome = match self.store.send(&txn, &fences, deadline).await {
                Ok(Sent::Applied(revision)) => Ok(Some(revision)),
                // What is wrong with one must not befall the others: each on its own, then, if its caller is there.
                Ok(Sent::Refused(_)) => Ok(None),
                Err(error) if is_personal(&error) => Ok(None),
                Err(error) => Err(error),
            };
            for member in batch {
                // Who no longer waits does not need to know.
                let _ = member.answer.send(Answer::Sent(outcome.clone()));
            }
        }
    }

    /// What waits, as much as fits; `None` if nothing does, and then the seat is free.
    fn next_batch(&mut self) -> Option<Vec<Member>> {
        let mut queue = lock(&self.store.batches.queue);
        let batch = queue.next_batch();
        if batch.is_none() {
            // Under the same lock: who comes from now on finds a seat free.
            self.is_taken = false;
            queue.senders -= 1;
        }
        batch
    }

    /// Whether it is taken and anything waits; if nothing does, the seat is free.
    fn is_wanted(&mut self) -> bool {
        let mut queue = lock(&self.store.batches.queue);
        if self.is_taken && queue.waiting.is_empty() {
            self.is_taken = false;
            queue.senders -= 1;
        }
        self.is_taken
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        while self.is_wanted() {
            // Not under the lock: whoever gives up at this moment drops a seat as well.
            let Some(next) = lock(&self.store.batches.queue).waiting.pop_front() else { continue };
            let seat = Self { store: self.store.clone(), is_taken: true };
            match next.answer.send(Answer::Seat(seat)) {
                // Who no longer waits gives it back, and the next one is asked.
                Err(Answer::Seat(mut seat)) => seat.is_taken = false,
                _ => return,
            }
        }
    }
}

/// A seat for one transaction, that of a caller. When it is over, or the caller gives up, a task goes on with what has
/// gathered meanwhile.
struct Turn(Option<Seat>);

impl Drop for Turn {
    fn drop(&mut self) {
        let Some(mut seat) = self.0.take() else { return };
        if seat.is_wanted()
            && let Ok(runtime) = Handle::try_current()
        {
            let batches = seat.store.batches.clone();
            let mut senders = lock(&batches.senders);
            while senders.try_join_next().is_some() {}
            senders.spawn_on(seat.send_batches(), &runtime);
        }
    }
}

impl Queue {
    /// What waits, as much as fits.
    fn next_batch(&mut self) -> Option<Vec<Member>> {
        let mut batch = Vec::new();
        let (mut size, mut bytes, mut keys, mut fences) = (0, 0, BTreeSet::new(), BTreeMap::new());
        while let Some(member) = self.waiting.front() {
            // What its caller has given up must not take effect later, when a renewal has proved that it did not.
            if member.answer.is_closed() {
                self.waiting.pop_front();
                continue;
            }
            size += member.txn.guards().len() + member.txn.ops().len();
            bytes += member.txn.ops().iter().map(bytes_of).sum::<usize>();
            let fits = size <= SIZE && bytes <= BYTES;
            // Two that want the same key would both fail.
            let mut clashes = member.txn.ops().iter().any(|op| !keys.insert(op.key().clone()));
            // And of two that demand the same fence elsewhere, one does.
            clashes |= member.fences.iter().any(|it| *fences.entry(it.lease).or_insert(it.moved) != it.moved);
            if !batch.is_empty() && (!fits || clashes) {
                break;
            }
            batch.extend(self.waiting.pop_front());
        }
        (!batch.is_empty()).then_some(batch)
    }
}

/// Whether a transaction is fit for company: it only creates entries that must not be there, or deletes what must be as
/// it was, each with a guard of its own.
pub(super) fn is_sociable(txn: &Txn) -> bool {
    let fits = |op: &Op| {
        let guard = txn.guards().iter().find(|guard| guard.key() == op.key());
        matches!(
            (op, guard),
            (Op::Put { .. }, Some(Guard::Absent(_))) | (Op::Delete(_), Some(Guard::Unmodified(..)))
        )
    };
    txn.guards().len() == txn.ops().len() && txn.ops().iter().all(fits)
}

/// All of a batch as one transaction, and the fences that it demands.
fn together(batch: &[Member]) -> (Txn, Vec<Fence>) {
    let txn = batch.iter().fold(Txn::new(), |all, member| {
        let all = member.txn.guards().iter().cloned().fold(all, Txn::guard);
        member.txn.ops().iter().cloned().fold(all, Txn::op)
    });
    let fences: BTreeSet<_> = batch.iter().flat_map(|member| member.fences.iter().copied()).collect();
    (txn, fences.into_iter().collect())
}

/// Whether an error may be about one member of a batch only: the server has refused.
fn is_personal(error: &Error) -> bool {
    !error.is_transient() && error.outcome() == Outcome::NotApplied
}

fn bytes_of(op: &Op) -> usize {
    match op {
        Op::Put { value, .. } => value.len(),
        Op::Delete(_) => 0,
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // No step leaves the queue half-changed, so a panic elsewhere under the lock does no harm.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use discovery::{LeaseId, kv::Key};

    use super::*;

    fn key(n: usize) -> Key {
        format!("a/{n}").parse().unwrap()
    }

    fn member(txn: Txn) -> (Member, oneshot::Receiver<Answer>) {
        let (answer, answered) = oneshot::channel();
        (Member { txn, fences: Vec::new(), answer }, answered)
    }

    #[test]
    fn only_what_is_hardly_ever_refused_is_sociable() {
        let (a, b) = (key(1), key(2));
        let unmodified = |key: &Key| Guard::Unmodified(key.clone(), Revision(1));
        assert!(is_sociable(&Txn::new().absent(&a).put(&a, "1")));
        assert!(is_sociable(&Txn::new().guard(unmodified(&a)).delete(&a).absent(&b).put(&b, "1")));
        for other in [
            Txn::new().put(&a, "1"),
            Txn::new().delete(&a),
            Txn::new().guard(unmodified(&a)).put(&a, "1"),
            Txn::new().absent(&b).put(&a, "1"),
            Txn::new().absent(&a).put(&a, "1").delete(&b),
            Txn::new().absent(&a).absent(&b).put(&a, "1"),
            Txn::new().guard(Guard::Alive(a.clone(), Revision(1))).delete(&a),
        ] {
            assert!(!is_sociable(&other), "{other:?}");
        }
    }

    #[test]
    fn a_batch_takes_what_fits_and_leaves_out_who_has_left() {
        let mut queue = Queue::default();
        let mut waiting = Vec::new();
        for n in [0, 1, 2, 1, 3] {
            let (member, answered) = member(Txn::new().absent(&key(n)).put(&key(n), "1"));
            queue.waiting.push_back(member);
            waiting.push(answered);
        }
        waiting.remove(0);
        let keys = |batch: Option<Vec<Member>>| {
            together(&batch.unwrap()).0.ops().iter().map(|op| op.key().clone()).collect::<Vec<_>>()
        };
        assert_eq!(keys(queue.next_batch()), [key(1), key(2)], "0 has left, and 1 is there already");
        assert_eq!(keys(queue.next_batch()), [key(1), key(3)]);
        assert!(queue.next_batch().is_none());

        for n in 0..80 {
            queue.waiting.push_back(member(Txn::new().absent(&key(n)).put(&key(n), "1")).0);
        }
        queue.waiting.iter_mut().for_each(|waits| {
            let (member, answered) = member(waits.txn.clone());
            *waits = member;
            waiting.push(answered);
        });
        assert_eq!(queue.next_batch().unwrap().len(), 50);
        // One that demands the same fence elsewhere waits for the next.
        for (n, moved) in [(1, 0), (2, 0), (3, 7)] {
            let (mut member, answered) = member(Txn::new().absent(&key(n)).put(&key(n), "1"));
            member.fences = vec![Fence { lease: LeaseId(1), moved }];
            queue.waiting.push_back(member);
            waiting.push(answered);
        }
        queue.waiting.rotate_right(3);
        let batch = queue.next_batch().unwrap();
        assert_eq!((batch.len(), together(&batch).1), (2, vec![Fence { lease: LeaseId(1), moved: 0 }]));
        queue.waiting.pop_front();
        // One that is too large for company goes alone.
        let (large, _answered) = member(Txn::new().absent(&key(99)).put(&key(99), vec![1; BYTES + 1]));
        queue.waiting.push_front(large);
        assert_eq!(queue.next_batch().unwrap().len(), 1);
        assert_eq!(queue.next_batch().unwrap().len(), 30);
    }
}
