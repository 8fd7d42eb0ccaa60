//! Entries that come to be at the same time are created with one request.
//!
//! A process that starts registers everything it has at once, each entry with a transaction of its own. Sent one by one
//! each would also write a stripe; sent together they share stripes and requests, which costs the server a fraction.
//! Nobody waits for company: what has gathered while earlier batches were under way makes up the next one.

use std::{
    collections::{BTreeSet, HashMap, VecDeque, hash_map::Entry},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use discovery::{
    Error, ErrorKind, Outcome, Result, Revision,
    kv::{Op, Txn},
};
use tokio::{
    sync::oneshot,
    task::JoinSet,
    time::{Instant, timeout_at},
};
use zookeeper_client as zk;

use super::{line::Line, view::View};
use crate::error::Trouble;

/// How many operations and how many bytes of values a batch has at most.
const OPS: usize = 64;
const BYTES: usize = 256 * 1024;

/// How many batches of a session may be under way.
const UNDER_WAY: usize = 4;

/// How often a batch starts over because a directory was missing; the server may reap one that was just made.
const ATTEMPTS: usize = 3;

/// What waits to be created, by session.
#[derive(Default)]
pub(super) struct Batches {
    /// Held for single looks, never across an `await`.
    queues: Arc<Mutex<HashMap<i64, Queue>>>,
    /// The batches under way; they end with the store.
    senders: Mutex<JoinSet<()>>,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Member>,
    senders: usize,
}

struct Member {
    txn: Txn,
    answer: oneshot::Sender<Result<Option<Revision>>>,
}

/// Who sends the batches of a session.
struct Sender {
    queues: Arc<Mutex<HashMap<i64, Queue>>>,
    line: Line,
    is_done: bool,
}

impl Batches {
    /// Creates the entries of a transaction that does nothing else, together with others. `None` if that was not
    /// possible, and nothing was done: something was in the way of this transaction, or of one that went with it.
    ///
    /// A caller who gives up leaves the batch as it is.
    pub(super) async fn create(&self, line: &Line, txn: &Txn, deadline: Instant) -> Result<Option<Revision>> {
        let (answer, answered) = oneshot::channel();
        let is_short_of_senders = {
            let mut queues = lock(&self.queues);
            let queue = queues.entry(line.session.id()).or_default();
            queue.waiting.push_back(Member { txn: txn.clone(), answer });
            let is_short = queue.senders < UNDER_WAY;
            queue.senders += usize::from(is_short);
            is_short
        };
        if is_short_of_senders {
            let sender = Sender { queues: self.queues.clone(), line: line.clone(), is_done: false };
            let mut senders = lock(&self.senders);
            while senders.try_join_next().is_some() {}
            senders.spawn(sender.run());
        }
        match timeout_at(deadline, answered).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => {
                let message = "whoever was to send it ended with its runtime; try again";
                Err(Error::new(ErrorKind::Unavailable, message).maybe_applied())
            }
            Err(_) => Err(line.session.failed(Trouble::Late)),
        }
    }
}

impl Sender {
    /// Sends batches until nothing waits.
    async fn run(mut self) {
        while let Some(mut batch) = self.next_batch() {
            let outcome = self.send(&mut batch).await;
            for member in batch {
                // Who no longer waits does not need to know.
                let _ = member.answer.send(outcome.clone());
            }
        }
    }

    async fn send(&self, batch: &mut Vec<Member>) -> Result<Option<Revision>> {
        let deadline = self.line.reader.deadline();
        for _ in 0..ATTEMPTS {
            self.line.session.ready(deadline).await?;
            // What its caller has given up must not take effect later, when a renewal has proved that it did not.
            batch.retain(|member| !member.answer.is_closed());
            if batch.is_empty() {
                return Ok(None);
            }
            let txn = &together(batch);
            // Written without a look: the server itself refuses what exists.
            let outcome = match self.line.send(txn, &View::default(), deadline).await {
                Ok(Ok(revision)) => return Ok(Some(revision)),
                Ok(Err(Trouble::Client(zk::Error::NoNode))) => self.line.make_missing(txn, deadline).await,
                Ok(Err(Trouble::Client(zk::Error::NodeExists))) => return Ok(None),
                Ok(Err(trouble)) => Err(self.line.session.failed(trouble)),
                Err(error) => Err(error),
            };
            match outcome {
                Ok(()) => {}
                // What is wrong with one must not befall the others: each on its own, then.
                Err(error) if is_personal(&error) => return Ok(None),
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    /// What waits, as much as fits; `None` if nothing does, and then this sender no longer counts.
    fn next_batch(&mut self) -> Option<Vec<Member>> {
        let mut queues = lock(&self.queues);
        let queue = queues.get_mut(&self.line.session.id())?;
        let mut batch = Vec::new();
        let (mut ops, mut bytes, mut keys) = (0, 0, BTreeSet::new());
        while let Some(member) = queue.waiting.front() {
            if member.answer.is_closed() {
                queue.waiting.pop_front();
                continue;
            }
            ops += member.txn.ops().len();
            bytes += member.txn.ops().iter().map(size).sum::<usize>();
            let fits = ops <= OPS && bytes <= BYTES;
            // Two that want the same key would both fail.
            let clashes = member.txn.ops().iter().any(|op| !keys.insert(op.key().clone()));
            if !batch.is_empty() && (!fits || clashes) {
                break;
            }
            batch.extend(queue.waiting.pop_front());
        }
        if batch.is_empty() {
            // Under the same lock: who comes from now on finds one sender less.
            self.is_done = true;
            leave(&mut queues, self.line.session.id());
            return None;
        }
        Some(batch)
    }
}

/// One that ends before it is done, with its runtime or by a panic, gives back the right to send.
impl Drop for Sender {
    fn drop(&mut self) {
        if !self.is_done {
            leave(&mut lock(&self.queues), self.line.session.id());
        }
    }
}

/// One sender of a session less. The last one takes the queue along, so that nobody waits in it for ever.
fn leave(queues: &mut HashMap<i64, Queue>, session: i64) {
    if let Entry::Occupied(mut queue) = queues.entry(session) {
        queue.get_mut().senders -= 1;
        if queue.get().senders == 0 {
            queue.remove();
        }
    }
}

/// All of a batch as one transaction.
fn together(batch: &[Member]) -> Txn {
    batch.iter().fold(Txn::new(), |all, member| {
        let all = member.txn.guards().iter().cloned().fold(all, Txn::guard);
        member.txn.ops().iter().cloned().fold(all, Txn::op)
    })
}

/// Whether an error may be about one member of a batch only: the server, or the client, has refused.
fn is_personal(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Denied | ErrorKind::Invalid | ErrorKind::Other)
        && error.outcome() == Outcome::NotApplied
}

fn size(op: &Op) -> usize {
    match op {
        Op::Put { value, .. } => value.len(),
        Op::Delete(_) => 0,
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // No step leaves the queues half-changed, so a panic elsewhere under the lock does no harm.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
