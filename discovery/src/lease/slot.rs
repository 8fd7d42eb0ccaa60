//! One registration in the hands of its keeper: what is wanted, what is written, and what to do about the difference.

use std::sync::Arc;

use tokio::{sync::watch, time::Instant};

use super::{Ack, Order, Phase, RegistrationStatus};
use crate::{
    Claim, Error, ErrorKind, Instance, LeaseId, OnConflict, Outcome, Owner, Result, Revision,
    backoff::{Attempts, Backoff},
};

/// A registration. At most one write of it is under way at any time.
#[derive(Debug)]
pub(super) struct Slot {
    owner: Owner,
    on_conflict: OnConflict,
    status: watch::Sender<RegistrationStatus>,
    /// What is wanted, and how often that was changed.
    wish: Arc<Instance>,
    /// What was wanted at first, and is again as long as nothing else was taken.
    first: Arc<Instance>,
    version: u64,
    fate: Fate,
    /// What the backend has, as far as we know.
    written: Option<Written>,
    /// Whether something of ours may be in the backend, even if no reply said so.
    attempted: bool,
    /// A write of unknown outcome may still be on its way, unless a later renewal than this one has succeeded.
    doubt: Option<u64>,
    busy: bool,
    /// Who waits for a version to be written; in order of version.
    acks: Vec<(u64, Ack)>,
    farewells: Vec<Ack>,
    trouble: Option<Error>,
    attempts: Attempts,
    not_before: Instant,
}

/// What is to become of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// It is kept in place.
    Kept,
    /// It is left alone once it is in place.
    Forgotten,
    /// It is taken back.
    Withdrawn,
}

#[derive(Debug)]
struct Written {
    draft: Draft,
    lease: Option<LeaseId>,
    revision: Revision,
}

/// What a slot wants done now.
#[derive(Debug)]
pub(super) enum Step {
    /// Nothing.
    Rest,
    /// Nothing until then.
    Wait(Instant),
    /// Write this, and report as [`Slot::wrote`].
    Write { draft: Draft, claim: Claim },
    /// Nothing until the lease has been renewed: a removal could be overtaken by a write that is still on its way.
    Renew,
    /// Remove what we wrote, and report as [`Slot::removed`].
    Remove { instance: Arc<Instance>, owner: Owner },
    /// There is nothing left to do, ever.
    Finish,
}

/// A wish on its way to the backend.
#[derive(Clone, Debug)]
pub(super) struct Draft {
    pub(super) instance: Arc<Instance>,
    version: u64,
}

/// The state of the keeper's lease, as far as it matters to a slot.
#[derive(Clone, Debug)]
pub(super) enum Tenure {
    /// No lease is needed.
    Permanent,
    /// There is no lease now, and why.
    None(Option<Error>),
    /// There is one: renewed in time, or not and why, or not renewed for so long that it must have ended. Renewals are
    /// counted: the last one that was sent, and the last one that is known to have succeeded.
    Held { id: LeaseId, sent: u64, proof: u64, trouble: Option<Error>, lapsed: bool },
}

impl Tenure {
    fn lease(&self) -> Option<LeaseId> {
        match self {
            Self::Held { id, .. } => Some(*id),
            Self::Permanent | Self::None(_) => None,
        }
    }
}

impl Slot {
    pub(super) fn new(order: Order, backoff: Backoff) -> Self {
        Self {
            owner: order.owner,
            on_conflict: order.on_conflict,
            status: order.status,
            wish: order.instance.clone(),
            first: order.instance,
            version: 0,
            fate: Fate::Kept,
            written: None,
            attempted: false,
            doubt: None,
            busy: false,
            acks: order.ack.into_iter().map(|ack| (0, ack)).collect(),
            farewells: Vec::new(),
            trouble: None,
            attempts: backoff.start(),
            not_before: Instant::now(),
        }
    }

    /// Wants other data.
    pub(super) fn put(&mut self, instance: Arc<Instance>, ack: Ack) {
        self.wish = instance;
        self.version += 1;
        self.acks.push((self.version, ack));
        self.not_before = Instant::now();
    }

    /// Wants to be gone. There is no way back: a write that is under way is undone when it is over.
    pub(super) fn withdraw(&mut self, ack: Option<Ack>) {
        self.fate = Fate::Withdrawn;
        self.farewells.extend(ack);
        self.acks.clear();
        self.not_before = Instant::now();
    }

    /// Is left alone as soon as it is in place.
    pub(super) fn forget(&mut self) {
        self.fate = Fate::Forgotten;
    }

    /// Need not wait any longer for its next attempt.
    pub(super) fn end_pause(&mut self) {
        self.not_before = Instant::now();
    }

    pub(super) fn is_withdrawn(&self) -> bool {
        self.fate == Fate::Withdrawn
    }

    /// Whether a write may arrive later than a removal that is sent now.
    fn is_in_doubt(&self, tenure: &Tenure) -> bool {
        let Tenure::Held { proof, lapsed: false, .. } = tenure else { return false };
        self.doubt.is_some_and(|doubt| *proof <= doubt)
    }

    /// Whether it was last written under another lease than this one.
    pub(super) fn was_under_another(&self, lease: Option<LeaseId>) -> bool {
        self.written.as_ref().is_some_and(|written| written.lease != lease)
    }

    /// Whether what was written is in place, if the lease is, or nothing more can be done about it.
    pub(super) fn is_settled(&self, tenure: &Tenure) -> bool {
        self.is_withdrawn()
            || self.written.as_ref().is_none_or(|written| written.lease == tenure.lease())
            || self.trouble.as_ref().is_some_and(is_refusal)
    }

    /// What to do now, given the keeper's lease.
    pub(super) fn step(&mut self, tenure: &Tenure) -> Step {
        if self.busy {
            return Step::Rest;
        }
        let is_refused = self.trouble.as_ref().is_some_and(is_refusal);
        if self.fate == Fate::Forgotten && (self.is_current(tenure) || is_refused) {
            return Step::Finish;
        }
        if self.is_withdrawn() {
            if !self.attempted {
                return Step::Finish;
            }
            if self.is_in_doubt(tenure) {
                return Step::Renew;
            }
        } else if self.is_current(tenure) || matches!(tenure, Tenure::None(_)) {
            return Step::Rest;
        }
        if Instant::now() < self.not_before {
            return Step::Wait(self.not_before);
        }
        self.busy = true;
        let (instance, owner) = (self.wish.clone(), self.owner.clone());
        if self.is_withdrawn() {
            return Step::Remove { instance, owner };
        }
        self.attempted = true;
        let mut claim = Claim::new(owner).on_conflict(self.on_conflict);
        claim.lease = tenure.lease();
        // After the lease was lost, so was the entry: no use in expecting it.
        let written = self.written.as_ref().filter(|written| written.lease == claim.lease);
        claim.expected = written.map(|written| written.revision);
        Step::Write { draft: Draft { instance, version: self.version }, claim }
    }

    /// Takes in the outcome of a write. `Err` means that the slot has come to its end with this refusal.
    pub(super) fn wrote(
        &mut self,
        draft: Draft,
        lease: Option<LeaseId>,
        outcome: Result<Revision>,
        tenure: &Tenure,
    ) -> Result<()> {
        self.busy = false;
        match outcome {
            Ok(revision) => {
                let version = draft.version;
                self.written = Some(Written { draft, lease, revision });
                self.trouble = None;
                // A doubt about an earlier attempt stays: that one may yet arrive, when this one has been removed.
                // First the status: whoever is told that it is done may look there at once.
                self.report(tenure);
                self.answer(version, &Ok(revision));
            }
            // The lease's own doing; there will be another one.
            Err(error) if error.kind() == ErrorKind::LeaseLost => self.doubt = None,
            Err(error) if is_refusal(&error) => return self.refused(&draft, error),
            Err(error) => {
                if let (Outcome::Unknown, Tenure::Held { sent, .. }) = (error.outcome(), tenure) {
                    self.doubt = Some(*sent);
                }
                self.failed(error);
            }
        }
        Ok(())
    }

    /// Takes in the outcome of a removal; says whether the slot has come to its end.
    pub(super) fn removed(&mut self, outcome: Result<bool>, tenure: &Tenure) -> bool {
        self.busy = false;
        match outcome {
            // Another owner's entry means that ours is gone.
            Ok(_) => true,
            Err(error) if error.kind() == ErrorKind::Conflict => true,
            Err(error) => {
                let over = match tenure {
                    Tenure::Permanent => false,
                    Tenure::None(_) => true,
                    Tenure::Held { lapsed, .. } => *lapsed,
                };
                if !over {
                    self.failed(error);
                }
                over
            }
        }
    }

    /// Takes in that there is no lease to be had; `Err` means that the slot has come to its end.
    pub(super) fn no_lease(&mut self, error: &Error) -> Result<()> {
        if !is_refusal(error) {
            return Ok(());
        }
        if !self.is_on_probation() && self.acks.is_empty() {
            return Ok(());
        }
        let draft = Draft { instance: self.wish.clone(), version: self.version };
        self.refused(&draft, error.clone())
    }

    /// The last word.
    pub(super) fn finish(mut self, refusal: Option<Error>) {
        let phase = if refusal.is_some() { Phase::Refused } else { Phase::Withdrawn };
        for ack in self.farewells.drain(..) {
            let _ = ack.send(Ok(self.written.as_ref().map(|written| written.revision).unwrap_or_default()));
        }
        if let Some(error) = &refusal {
            for (_, ack) in self.acks.drain(..) {
                let _ = ack.send(Err(error.clone()));
            }
        }
        self.publish(phase, refusal);
    }

    /// There is nobody left to keep it.
    pub(super) fn abandon(self) {
        self.publish(Phase::Lost, Some(Error::new(ErrorKind::Closed, "the keeper is gone with its runtime")));
    }

    /// Tells the handle how things stand.
    pub(super) fn report(&self, tenure: &Tenure) {
        let (phase, cause) = match (&self.trouble, &self.written, tenure) {
            (Some(error), _, _) if is_refusal(error) => (Phase::Refused, self.trouble.clone()),
            (_, None, Tenure::None(cause)) => {
                (Phase::Pending, self.trouble.clone().or_else(|| cause.clone()))
            }
            (_, None, _) => (Phase::Pending, self.trouble.clone()),
            (_, Some(_), Tenure::None(cause)) => (Phase::Lost, cause.clone()),
            (_, Some(written), _) if written.lease != tenure.lease() => (Phase::Lost, self.trouble.clone()),
            (_, Some(_), Tenure::Held { trouble, lapsed: true, .. }) => (Phase::Lost, trouble.clone()),
            (_, Some(_), Tenure::Held { trouble: Some(error), .. }) | (Some(error), Some(_), _) => {
                (Phase::Suspect, Some(error.clone()))
            }
            (None, Some(_), _) => (Phase::Active, None),
        };
        self.publish(phase, cause);
    }

    fn publish(&self, phase: Phase, cause: Option<Error>) {
        let revision = self.written.as_ref().map(|written| written.revision);
        self.status.send_if_modified(|status| {
            let same = status.phase == phase
                && status.revision == revision
                && status.cause.as_ref().map(Error::kind) == cause.as_ref().map(Error::kind);
            if status.phase != phase {
                status.since = Instant::now();
                status.phase = phase;
            }
            (status.cause, status.revision) = (cause, revision);
            !same
        });
    }

    fn is_current(&self, tenure: &Tenure) -> bool {
        let written = self.written.as_ref();
        written
            .is_some_and(|written| written.draft.version == self.version && written.lease == tenure.lease())
    }

    /// Whether somebody waits for the very first write, and takes a refusal for an answer.
    pub(super) fn is_on_probation(&self) -> bool {
        self.written.is_none() && self.acks.first().is_some_and(|(version, _)| *version == 0)
    }

    fn refused(&mut self, draft: &Draft, error: Error) -> Result<()> {
        if self.is_on_probation() {
            return Err(error);
        }
        let told = self.answer(draft.version, &Err(error.clone()));
        match &mut self.written {
            // Whoever asked for it was told: go back to what the backend took before.
            Some(written) if told => {
                if draft.version == self.version {
                    self.wish = written.draft.instance.clone();
                    written.draft.version = self.version;
                }
            }
            // Nothing was taken before: go back to what was to be registered.
            None if told => {
                if draft.version == self.version {
                    self.wish = self.first.clone();
                }
            }
            // Nobody asked just now: we were putting back what was lost. Try for ever.
            _ => self.failed(error),
        }
        Ok(())
    }

    /// Answers all who wait for this version or an earlier one; says whether there was anybody.
    fn answer(&mut self, version: u64, outcome: &Result<Revision>) -> bool {
        let waiting = self.acks.partition_point(|(wanted, _)| *wanted <= version);
        for (_, ack) in self.acks.drain(..waiting) {
            let _ = ack.send(outcome.clone());
        }
        waiting > 0
    }

    fn failed(&mut self, error: Error) {
        self.trouble = Some(error);
        self.not_before = Instant::now() + self.attempts.next_delay();
    }
}

/// Whether the backend said no, as opposed to nothing.
fn is_refusal(error: &Error) -> bool {
    use ErrorKind::{Conflict, Denied, Invalid, Unsupported};
    matches!(error.kind(), Conflict | Denied | Invalid | Unsupported)
}
