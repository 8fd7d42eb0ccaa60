//! The task that keeps one lease and the registrations under it.

use std::{
    collections::{BTreeSet, HashMap},
    panic::AssertUnwindSafe,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{self, Instant},
};

use super::{
    Command,
    slot::{Draft, Slot, Step, Tenure},
};
use crate::{
    Backend, Error, ErrorKind, Grant, LeaseId, Result, Revision,
    backoff::{Attempts, Backoff, sleep_until},
};

/// How long to go on taking entries back after the last handle was dropped, where no ttl sets the limit.
const FAREWELL: Duration = Duration::from_secs(10);

/// Serves `inbox` until all handles are gone and everything is taken back, as well as can be.
pub(super) async fn run(
    backend: Arc<dyn Backend>,
    backoff: Backoff,
    ttl: Option<Duration>,
    inbox: mpsc::UnboundedReceiver<Command>,
    load: Arc<AtomicUsize>,
    contact: watch::Sender<()>,
) {
    let keeper = Keeper {
        lease: ttl.map(|ttl| Lease {
            ttl,
            held: None,
            trouble: None,
            attempts: backoff.start(),
            due: Instant::now(),
        }),
        lease_call: None,
        backend,
        backoff,
        load,
        heard: contact.subscribe(),
        contact,
        is_echo: false,
        slots: HashMap::new(),
        waiting: BTreeSet::new(),
        writes: FuturesUnordered::new(),
        sent: 0,
        unproved: Vec::new(),
        assurances: Vec::new(),
        restored: Instant::now(),
        left_behind: false,
    };
    keeper.run(inbox).await;
}

struct Keeper {
    backend: Arc<dyn Backend>,
    backoff: Backoff,
    load: Arc<AtomicUsize>,
    /// Rung when the backend answers again.
    contact: watch::Sender<()>,
    heard: watch::Receiver<()>,
    /// Whether the grant or renewal under way is because of a ring: then it does not ring in turn.
    is_echo: bool,
    /// `None` for permanent registrations.
    lease: Option<Lease>,
    /// The grant or renewal under way.
    lease_call: Option<BoxFuture<'static, LeaseReply>>,
    slots: HashMap<u64, Slot>,
    /// Slots that want to be looked at again, by when.
    waiting: BTreeSet<(Instant, u64)>,
    writes: FuturesUnordered<BoxFuture<'static, (u64, Reply)>>,
    /// How many grants and renewals were sent. There is one at a time, so this is also the number of the last one.
    sent: u64,
    /// Slots that want the lease renewed before they go on, by a later renewal than this one.
    unproved: Vec<(u64, u64)>,
    /// Who wants to know that everything is in place, as of a later renewal than this one.
    assurances: Vec<(u64, oneshot::Sender<Instant>)>,
    /// When something was last put back after its lease was lost.
    restored: Instant,
    /// Whether a registration was let go of without removal: its lease must then end by itself.
    left_behind: bool,
}

struct Lease {
    ttl: Duration,
    held: Option<Held>,
    trouble: Option<Error>,
    attempts: Attempts,
    /// When the next grant or renewal is due.
    due: Instant,
}

struct Held {
    id: LeaseId,
    granted: Instant,
    ttl: Duration,
    /// Counts from *sending* the last good renewal: the server cannot have ended the lease before, however long the
    /// reply took.
    deadline: Instant,
    /// The number of that renewal.
    proof: u64,
}

enum LeaseReply {
    Granted { sent: Instant, outcome: Result<Grant> },
    Renewed { sent: Instant, outcome: Result<Duration> },
}

enum Reply {
    Wrote { draft: Draft, lease: Option<LeaseId>, outcome: Result<Revision> },
    Removed(Result<bool>),
}

impl Keeper {
    async fn run(mut self, inbox: mpsc::UnboundedReceiver<Command>) {
        let mut inbox = Some(inbox);
        let mut last_call = None;
        loop {
            self.use_proof();
            self.give_assurances();
            self.call_lease();
            if inbox.is_none() && self.slots.is_empty() {
                break;
            }
            let wake = self.next_wake().into_iter().chain(last_call).min();
            let is_paused = self.is_paused();
            if !is_paused {
                // What was rung while all was well is no news when it is not.
                self.heard.mark_unchanged();
            }
            tokio::select! {
                command = receive(&mut inbox) => if let Some(command) = command {
                    self.obey(command);
                } else {
                    inbox = None;
                    let limit = self.lease.as_ref().map_or(FAREWELL, |lease| lease.ttl);
                    last_call = Some(Instant::now() + limit);
                },
                Some((id, reply)) = self.writes.next() => self.hear(id, reply),
                reply = pending_or(&mut self.lease_call) => {
                    self.lease_call = None;
                    self.hear_lease(reply);
                }
                // The sender is our own: it is there as long as we are.
                _ = self.heard.changed(), if is_paused => self.end_pauses(),
                () = sleep_until(wake) => {
                    if last_call.is_some_and(|limit| limit <= Instant::now()) {
                        tracing::warn!(left = self.slots.len(), "gave up deregistering; leases will end by themselves");
                        break;
                    }
                    self.look_at_waiting();
                }
            }
        }
        self.farewell().await;
    }

    fn obey(&mut self, command: Command) {
        let id = match command {
            Command::Attach { id, order } => {
                self.slots.insert(id, Slot::new(order, self.backoff));
                id
            }
            Command::Put { id, instance, ack } => {
                if let Some(slot) = self.slots.get_mut(&id) {
                    slot.put(instance, ack);
                }
                id
            }
            Command::Withdraw { id, ack } => {
                if let Some(slot) = self.slots.get_mut(&id) {
                    slot.withdraw(ack);
                }
                id
            }
            Command::Forget { id } => {
                self.left_behind = true;
                match self.slots.get_mut(&id) {
                    // What is to outlive us must be there first; unless whoever wanted it gave up waiting for that.
                    Some(slot) if self.lease.is_none() && !slot.is_on_probation() => slot.forget(),
                    _ => return self.finish(id, None),
                }
                id
            }
            Command::Assure { ack } => {
                self.assurances.retain(|(_, ack)| !ack.is_closed());
                self.assurances.push((self.sent, ack));
                self.renew_soon();
                return;
            }
        };
        self.advance(id);
    }

    /// Starts what a slot wants done.
    fn advance(&mut self, id: u64) {
        let tenure = self.tenure();
        let Some(slot) = self.slots.get_mut(&id) else { return };
        let backend = self.backend.clone();
        let limit = self.lease.as_ref().map(|lease| lease.ttl);
        match slot.step(&tenure) {
            Step::Rest => slot.report(&tenure),
            Step::Wait(until) => {
                slot.report(&tenure);
                self.waiting.insert((until, id));
            }
            Step::Renew => {
                self.unproved.push((self.sent, id));
                self.renew_soon();
            }
            Step::Finish => self.finish(id, None),
            Step::Write { draft, claim } => self.writes.push(
                async move {
                    let outcome = match backend.registrar() {
                        Some(registrar) => in_time(limit, registrar.put(&draft.instance, &claim)).await,
                        None => Err(no_facet()),
                    };
                    (id, Reply::Wrote { draft, lease: claim.lease, outcome })
                }
                .boxed(),
            ),
            Step::Remove { instance, owner } => self.writes.push(
                async move {
                    let outcome = match backend.registrar() {
                        Some(registrar) => {
                            in_time(limit, registrar.remove(instance.key(), Some(&owner))).await
                        }
                        None => Err(no_facet()),
                    };
                    (id, Reply::Removed(outcome))
                }
                .boxed(),
            ),
        }
    }

    fn hear(&mut self, id: u64, reply: Reply) {
        let tenure = self.tenure();
        let Some(slot) = self.slots.get_mut(&id) else { return };
        match reply {
            Reply::Wrote { draft, lease, outcome } => {
                let lost =
                    outcome.as_ref().err().filter(|error| error.kind() == ErrorKind::LeaseLost).cloned();
                let is_back = outcome.is_ok() && slot.was_under_another(lease);
                if let Err(refusal) = slot.wrote(draft, lease, outcome, &tenure) {
                    return self.finish(id, Some(refusal));
                }
                if is_back {
                    self.restored = Instant::now();
                }
                if let Some(error) = lost {
                    self.lose_lease(lease, error);
                }
            }
            Reply::Removed(outcome) => {
                let failure = outcome.as_ref().err().cloned();
                if slot.removed(outcome, &tenure) {
                    self.finish(id, None);
                    return self.leave_behind(failure);
                }
            }
        }
        self.advance(id);
    }

    /// Answers those who asked before the last proof that the lease lives, once everything is written under it.
    fn give_assurances(&mut self) {
        if self.assurances.is_empty() {
            return;
        }
        let tenure = self.tenure();
        if !self.slots.values().all(|slot| slot.is_settled(&tenure)) {
            return;
        }
        let proof = match &self.lease {
            Some(lease) if !self.slots.is_empty() => lease.held.as_ref().map_or(0, |held| held.proof),
            _ => u64::MAX,
        };
        for (_, ack) in self.assurances.extract_if(.., |(asked, _)| *asked < proof) {
            // Who no longer waits does not need to know.
            let _ = ack.send(self.restored);
        }
    }

    /// Lets those go on who waited for a renewal, or for the end of the lease.
    fn use_proof(&mut self) {
        if self.unproved.is_empty() {
            return;
        }
        let proof = match self.tenure() {
            Tenure::Held { proof, lapsed: false, .. } => proof,
            _ => u64::MAX,
        };
        let proved: Vec<_> = self.unproved.extract_if(.., |(asked, _)| *asked < proof).collect();
        for (_, id) in proved {
            self.advance(id);
        }
    }

    fn renew_soon(&mut self) {
        if let Some(lease) = &mut self.lease {
            lease.due = lease.due.min(Instant::now());
        }
    }

    /// Whether somebody has asked for a renewal after the last one was sent.
    fn is_asked_again(&self) -> bool {
        let assurances = self.assurances.iter().filter(|(_, ack)| !ack.is_closed()).map(|(asked, _)| *asked);
        self.unproved.iter().map(|(asked, _)| *asked).chain(assurances).any(|asked| asked == self.sent)
    }

    fn finish(&mut self, id: u64, refusal: Option<Error>) {
        if let Some(slot) = self.slots.remove(&id) {
            self.load.fetch_sub(1, Ordering::Relaxed);
            slot.finish(refusal);
        }
    }

    /// Sees to it that what could not be removed ends with its lease, whose time is over: no late renewal may bring it
    /// back to life.
    fn leave_behind(&mut self, failure: Option<Error>) {
        let failure = failure.filter(|error| error.kind() != ErrorKind::Conflict);
        if let (Some(cause), Some(held)) =
            (failure, self.lease.as_ref().and_then(|lease| lease.held.as_ref()))
        {
            let id = held.id;
            self.lease_call = None;
            let message = "not renewed in time, and given up with an entry that could not be removed";
            self.lose_lease(Some(id), Error::new(ErrorKind::LeaseLost, message).with_source(cause));
        }
    }

    fn look_at_waiting(&mut self) {
        let now = Instant::now();
        while let Some((due, id)) = self.waiting.first().copied().filter(|(due, _)| *due <= now) {
            self.waiting.remove(&(due, id));
            self.advance(id);
        }
        // The lease may have lapsed meanwhile. Then whoever wants to be gone has waited for long enough.
        if let Tenure::Held { lapsed: true, .. } = self.tenure() {
            let withdrawn = |(_, id): &(Instant, u64)| self.slots.get(id).is_some_and(Slot::is_withdrawn);
            let leaving: Vec<_> = self.waiting.iter().copied().filter(withdrawn).collect();
            for (due, id) in leaving {
                self.waiting.remove(&(due, id));
                if let Some(slot) = self.slots.get_mut(&id) {
                    slot.end_pause();
                }
                self.advance(id);
            }
        }
        if self.lease.as_ref().is_some_and(|lease| lease.trouble.is_some()) {
            self.report_all();
        }
    }

    /// Whether something failed and is to be tried again later.
    fn is_paused(&self) -> bool {
        !self.waiting.is_empty() || self.lease.as_ref().is_some_and(|lease| lease.trouble.is_some())
    }

    /// Tries at once what was to be tried later.
    fn end_pauses(&mut self) {
        if let Some(lease) = self.lease.as_mut().filter(|lease| lease.trouble.is_some()) {
            lease.due = lease.due.min(Instant::now());
            self.is_echo = self.lease_call.is_none();
        }
        for (_, id) in std::mem::take(&mut self.waiting) {
            if let Some(slot) = self.slots.get_mut(&id) {
                slot.end_pause();
            }
            self.advance(id);
        }
    }

    /// Takes in that the backend answers again.
    fn ring(&mut self) {
        if !std::mem::take(&mut self.is_echo) {
            self.contact.send_replace(());
            self.heard.mark_unchanged();
        }
    }

    fn next_wake(&self) -> Option<Instant> {
        let waiting = self.waiting.first().map(|(due, _)| *due);
        let lease = self.lease_due();
        let lapse = self.lease.as_ref().filter(|lease| lease.trouble.is_some()).and_then(|lease| {
            lease.held.as_ref().map(|held| held.deadline).filter(|deadline| *deadline > Instant::now())
        });
        waiting.into_iter().chain(lease).chain(lapse).min()
    }

    /// When to grant or renew next, if at all.
    fn lease_due(&self) -> Option<Instant> {
        let lease = self.lease.as_ref()?;
        // Without a registration that wants it there is nothing to get a lease for.
        let wanted = lease.held.is_some() || self.slots.values().any(|slot| !slot.is_withdrawn());
        (wanted && self.lease_call.is_none()).then_some(lease.due)
    }

    /// Grants or renews the lease if that is due.
    fn call_lease(&mut self) {
        let sent = Instant::now();
        if self.lease_due().is_none_or(|due| due > sent) {
            return;
        }
        let Some(lease) = &self.lease else { return };
        self.sent += 1;
        let backend = self.backend.clone();
        let ttl = lease.ttl;
        self.lease_call = Some(match &lease.held {
            None => async move {
                let outcome = match backend.leases() {
                    Some(leases) => unpanicked(leases.grant(ttl)).await,
                    None => Err(no_facet()),
                };
                LeaseReply::Granted { sent, outcome }
            }
            .boxed(),
            Some(Held { id, ttl, .. }) => {
                let (id, limit) = (*id, *ttl / 3);
                async move {
                    let outcome = match backend.leases() {
                        Some(leases) => {
                            time::timeout(limit, unpanicked(leases.renew(id))).await.unwrap_or_else(|_| {
                                Err(Error::new(ErrorKind::Timeout, format!("no answer within {limit:?}"))
                                    .during("renew"))
                            })
                        }
                        None => Err(no_facet()),
                    };
                    LeaseReply::Renewed { sent, outcome }
                }
                .boxed()
            }
        });
    }

    fn hear_lease(&mut self, reply: LeaseReply) {
        let is_answer = !matches!(
            &reply,
            LeaseReply::Granted { outcome: Err(_), .. } | LeaseReply::Renewed { outcome: Err(_), .. }
        );
        self.is_echo &= is_answer;
        let again = self.is_asked_again().then(Instant::now);
        let Some(lease) = &mut self.lease else { return };
        match reply {
            LeaseReply::Granted { sent, outcome: Ok(Grant { id, ttl }) } => {
                lease.held = Some(Held { id, granted: sent, ttl, deadline: sent + ttl, proof: self.sent });
                lease.due = again.unwrap_or(sent + ttl / 3);
                if lease.trouble.take().is_some() {
                    self.ring();
                }
                self.advance_all();
            }
            LeaseReply::Granted { outcome: Err(error), .. } => {
                tracing::warn!(backend = %self.backend.info(), %error, "no lease to be had; trying again");
                lease.due = Instant::now() + lease.attempts.next_delay();
                lease.trouble = Some(error.clone());
                let refused =
                    |(id, slot): (&u64, &mut Slot)| slot.no_lease(&error).err().map(|error| (*id, error));
                let refused: Vec<_> = self.slots.iter_mut().filter_map(refused).collect();
                for (id, error) in refused {
                    self.finish(id, Some(error));
                }
                self.report_all();
            }
            LeaseReply::Renewed { sent, outcome: Ok(ttl) } => {
                if let Some(held) = &mut lease.held {
                    (held.ttl, held.deadline, held.proof) = (ttl, sent + ttl, self.sent);
                    lease.due = again.unwrap_or(sent + ttl / 3);
                }
                if lease.trouble.take().is_some() {
                    self.ring();
                    self.report_all();
                }
            }
            LeaseReply::Renewed { outcome: Err(error), .. } if error.kind() == ErrorKind::LeaseLost => {
                let id = lease.held.as_ref().map(|held| held.id);
                self.lose_lease(id, error);
            }
            LeaseReply::Renewed { outcome: Err(error), .. } => {
                // The server may have renewed it, or may yet: only its own word or a new lease settles that.
                // Pauses that grow must not outgrow the lease.
                let patience = lease.held.as_ref().map_or(lease.ttl, |held| held.ttl) / 10;
                lease.due = Instant::now() + lease.attempts.next_delay().min(patience);
                lease.trouble = Some(error);
                self.report_all();
            }
        }
    }

    fn lose_lease(&mut self, id: Option<LeaseId>, error: Error) {
        let Some(lease) = &mut self.lease else { return };
        // A late reply may speak of a lease that has been replaced already.
        if let Some(held) = lease.held.take_if(|held| Some(held.id) == id) {
            tracing::warn!(backend = %self.backend.info(), %error, "lease lost; registering again under a new one");
            // A renewal of it that is under way would only be in the way of the next grant.
            self.lease_call = None;
            let now = Instant::now();
            // At once, so that we are gone for as short as can be; but not in a tight loop.
            let lived = now - held.granted >= held.ttl / 2;
            lease.due = if lived { now } else { now + lease.attempts.next_delay() };
            lease.trouble = Some(error);
            self.report_all();
        }
    }

    fn tenure(&self) -> Tenure {
        match &self.lease {
            None => Tenure::Permanent,
            Some(Lease { held: None, trouble, .. }) => Tenure::None(trouble.clone()),
            Some(Lease { held: Some(held), trouble, .. }) => Tenure::Held {
                id: held.id,
                sent: self.sent,
                proof: held.proof,
                trouble: trouble.clone(),
                lapsed: held.deadline <= Instant::now(),
            },
        }
    }

    fn advance_all(&mut self) {
        let all: Vec<_> = self.slots.keys().copied().collect();
        for id in all {
            self.advance(id);
        }
    }

    fn report_all(&self) {
        let tenure = self.tenure();
        for slot in self.slots.values() {
            slot.report(&tenure);
        }
    }

    /// Gives the lease back, unless somebody wanted an entry to outlive us.
    async fn farewell(self) {
        let held = self.lease.as_ref().and_then(|lease| lease.held.as_ref());
        if let (Some(held), Some(leases), false) = (held, self.backend.leases(), self.left_behind) {
            let _ = time::timeout(held.ttl, leases.revoke(held.id)).await;
        }
    }
}

/// Whoever is left is kept no more: it went with its runtime.
impl Drop for Keeper {
    fn drop(&mut self) {
        for (_, slot) in self.slots.drain() {
            slot.abandon();
        }
    }
}

async fn receive(inbox: &mut Option<mpsc::UnboundedReceiver<Command>>) -> Option<Command> {
    match inbox {
        Some(inbox) => inbox.recv().await,
        None => std::future::pending().await,
    }
}

pub(super) async fn pending_or<T>(call: &mut Option<BoxFuture<'static, T>>) -> T {
    match call {
        Some(call) => call.await,
        None => std::future::pending().await,
    }
}

/// A backend that panics is one that fails: else this task would end, and nothing be kept any more.
pub(super) async fn unpanicked<T>(answer: impl Future<Output = Result<T>>) -> Result<T> {
    let answer = AssertUnwindSafe(answer).catch_unwind().await;
    answer.unwrap_or_else(|_| Err(Error::new(ErrorKind::Other, "the backend panicked; trying again")))
}

/// A backend that hangs keeps nobody for longer than the lease, if there is one.
async fn in_time<T>(limit: Option<Duration>, answer: impl Future<Output = Result<T>>) -> Result<T> {
    let Some(limit) = limit else { return unpanicked(answer).await };
    let late = |_| Err(Error::new(ErrorKind::Timeout, format!("no answer within {limit:?}")));
    time::timeout(limit, unpanicked(answer)).await.unwrap_or_else(late)
}

pub(super) fn no_facet() -> Error {
    Error::new(ErrorKind::Unsupported, "the backend lost a facet that it had")
}
