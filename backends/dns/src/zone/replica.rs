//! Keeps the mirror true: asks the server for its serial, and transfers what is new.
//!
//! One question serves all who were waiting when it was sent. A read is served by a question that was sent after the
//! read began; so it sees what was acknowledged before, by whomever.
//!
//! What is known here never goes back. A server whose log ends before what it told before (a secondary that has not
//! caught up, a zone that was restored from a backup) is an error for a while; if it stays behind, that is the truth from
//! now on, and the beginning of another history, which ends all leases: in a restored zone they would live on, with the
//! entries of yesterday. A zone without a log ends before everything if it is empty; if it is not, then somebody took the
//! record of the log away, and that is all.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU16, AtomicU64, Ordering},
    },
    time::Duration,
};

use discovery::{Error, ErrorKind, Outcome, Result, Revision};
use hickory_proto::{
    op::{Message, ResponseCode},
    rr::{RecordType, rdata::TXT},
};
use tokio::{
    sync::{Mutex as AsyncMutex, watch},
    time::{self, Instant},
};

use super::{
    entry::{self, Head},
    message,
    mirror::Mirror,
    server::Server,
    transfer::{self, Reader, Text, Transfer},
};
use crate::{names::Origin, protocol::is_newer};

/// How long a server may be behind what it told before, until that counts as another history.
const PATIENCE: Duration = Duration::from_secs(5);
/// An answer that was waited for less than this long is not missing.
const SILENCE: Duration = Duration::from_secs(1);
/// About how long to wait before asking a server again that is behind, or busy: at first, and at most.
const AGAIN: Duration = Duration::from_millis(20);
const AGAIN_MAX: Duration = Duration::from_secs(1);

/// The mirror, and what keeps it true.
#[derive(Debug)]
pub(super) struct Replica {
    pub(super) origin: Origin,
    pub(super) server: Arc<Server>,
    /// Held for single looks, never across an `await`. `None` until something was asked for.
    mirror: Mutex<Option<Mirror>>,
    /// The number of the last synchronisation that is done. Whoever holds the lock synchronises; the others wait.
    line: AsyncMutex<u64>,
    /// How many have asked for a synchronisation.
    tickets: AtomicU64,
    /// The number of the log that reads must have reached: the highest that was met or made. Only grows, but for
    /// another history.
    floor: AtomicU64,
    /// Grows with each history.
    history: AtomicU64,
    contact: Mutex<Contact>,
    /// Where we listen for NOTIFY; 0 if we do not.
    pub(super) notify_port: AtomicU16,
    pulse: watch::Sender<Pulse>,
    /// How many milliseconds two questions may be apart before a lease that was silent in between is excused.
    gap: AtomicU64,
}

/// Whether the server has something new, as far as one knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hint {
    /// Perhaps: a question for the serial costs less than a transfer.
    Perhaps,
    /// It has: the transfer is asked for at once.
    News,
}

/// When the server was last heard. Begins anew with each outage.
#[derive(Debug, Default)]
struct Contact {
    /// When the last question was sent that was answered.
    heard: Option<Instant>,
    /// When that answer came.
    answered: Option<Instant>,
    /// Since when the server has been behind.
    behind: Option<Instant>,
    /// Whether the mirror is known not to be what the server has, although their serials are the same.
    is_doubted: bool,
}

/// What watches are told, with each answer of the server, also if nothing has changed.
#[derive(Clone, Debug, Default)]
pub(super) struct Pulse {
    /// The mirror is at this revision.
    pub(super) revision: Revision,
    /// How often whoever keeps an eye on the server has lost it, and why the last time.
    pub(super) losses: u64,
    pub(super) error: Option<Error>,
}

impl Replica {
    pub(super) fn new(origin: Origin, server: Arc<Server>, interval: Duration) -> Self {
        let replica = Self {
            origin,
            server,
            mirror: Mutex::default(),
            line: AsyncMutex::default(),
            tickets: AtomicU64::new(0),
            floor: AtomicU64::new(0),
            history: AtomicU64::new(0),
            contact: Mutex::default(),
            notify_port: AtomicU16::new(0),
            pulse: watch::Sender::default(),
            gap: AtomicU64::new(0),
        };
        replica.set_interval(interval);
        replica
    }

    /// Looks at the mirror as it is.
    pub(super) fn look<T>(&self, look: impl FnOnce(&Mirror) -> T) -> Option<T> {
        self.mirror().as_ref().map(look)
    }

    /// Looks at the mirror as it is on the server now.
    pub(super) async fn read<T>(
        self: &Arc<Self>,
        deadline: Instant,
        look: impl FnOnce(&Mirror) -> T,
    ) -> Result<T> {
        self.sync(Hint::Perhaps, deadline).await?;
        self.look(look).ok_or_else(|| Error::new(ErrorKind::Other, "the zone was read and is not there"))
    }

    /// Has the zone be read as a whole with the next synchronisation.
    pub(super) fn doubt(&self) {
        self.contact().is_doubted = true;
    }

    /// Makes the mirror at least as new as the server is now, and as what this handle knows of.
    ///
    /// That is done in a task: whoever waits may be a stream that is not polled for a while, and would else keep all others
    /// in line behind it.
    pub(super) async fn sync(self: &Arc<Self>, hint: Hint, deadline: Instant) -> Result<()> {
        let replica = self.clone();
        let synced = tokio::spawn(async move { replica.sync_until(hint, deadline).await }).await;
        synced.unwrap_or_else(|error| {
            Err(Error::new(ErrorKind::Other, "the zone could not be read").with_source(error).not_applied())
        })
    }

    async fn sync_until(&self, hint: Hint, deadline: Instant) -> Result<()> {
        let mut pause = AGAIN;
        loop {
            match self.sync_once(hint, deadline).await {
                Err(trouble) if trouble.is_passing && Instant::now() + pause < deadline => {
                    time::sleep(pause.mul_f64(0.5 + fastrand::f64())).await;
                    pause = (2 * pause).min(AGAIN_MAX);
                }
                outcome => return outcome.map_err(|trouble| trouble.error),
            }
        }
    }

    /// The same, but a server that is behind or busy is an error at once.
    async fn sync_once(&self, hint: Hint, deadline: Instant) -> Result<(), Trouble> {
        // Ordering: the ticket is taken before the lock is asked for, and read by whoever holds the lock; the lock
        // orders the two.
        let ticket = self.tickets.fetch_add(1, Ordering::AcqRel) + 1;
        let line = time::timeout_at(deadline, self.line.lock()).await;
        let mut line = line
            .map_err(|_| Error::new(ErrorKind::Timeout, "no answer within the call timeout").not_applied())?;
        if *line >= ticket {
            return Ok(());
        }
        let waiting = self.tickets.load(Ordering::Acquire);
        let sent = Instant::now();
        let outcome = self.catch_up(hint, deadline).await;
        match &outcome {
            Ok(()) => self.heard_at(sent),
            // It answered, and may soon do so better; or had no time to.
            Err(trouble)
                if trouble.is_passing || is_hasty(trouble, sent) || self.answered() >= Some(sent) => {}
            Err(_) => *self.contact() = Contact::default(),
        }
        outcome?;
        *line = waiting;
        Ok(())
    }

    async fn catch_up(&self, hint: Hint, deadline: Instant) -> Result<(), Trouble> {
        // After so long, what the server has is the truth: to be read as a whole.
        let as_whole = {
            let contact = self.contact();
            contact.is_doubted || contact.behind.is_some_and(|since| since.elapsed() >= PATIENCE)
        };
        let known = self.look(Mirror::serial).filter(|_| !as_whole);
        if let (Some(serial), Hint::News) = (known, hint) {
            match self.transfer(known, deadline).await? {
                Transfer::Nothing(theirs) if theirs == serial => return self.check_floor(),
                // Not what was expected: to be asked about.
                Transfer::Nothing(_) => {}
                news => return self.take_all(news, deadline).await,
            }
        }
        let after = match known {
            Some(serial) => {
                let question = message::query(&self.origin, RecordType::SOA, self.notify_port());
                let answer = self.server.ask(&question, deadline).await?;
                self.contact().answered = Some(Instant::now());
                let theirs = transfer::serial(&self.origin, &answer)?;
                if theirs == serial {
                    return self.check_floor();
                }
                if !is_newer(theirs, serial) {
                    // Another history, or one that we know the end of. Its log tells, without a transfer of the whole.
                    let question = message::question(&entry::head_name(&self.origin), RecordType::TXT);
                    let answer = self.server.ask(&question, deadline).await?;
                    if let Some(head) = transfer::head(&answer) {
                        self.check(Some(head.number))?;
                    }
                }
                is_newer(theirs, serial).then_some(serial)
            }
            None => None,
        };
        match self.transfer(after, deadline).await? {
            // Two servers behind one address, and this one does not have yet what the other one told of.
            Transfer::Nothing(_) => Err(Trouble::behind()),
            news => self.take_all(news, deadline).await,
        }
    }

    /// Takes a transfer in, or the zone as a whole if it does not fit.
    async fn take_all(&self, news: Transfer, deadline: Instant) -> Result<(), Trouble> {
        if self.take(news)? {
            // Whatever the steps lead away from, it is not what we have.
            tracing::debug!(zone = %self.origin, "steps do not fit; reading the zone as a whole");
            let whole = self.transfer(None, deadline).await?;
            self.take(whole)?;
        }
        self.check_floor()
    }

    async fn transfer(&self, after: Option<u32>, deadline: Instant) -> Result<Transfer, Trouble> {
        let mut reader = Reader::new(&self.origin, after);
        let request = reader.request(self.notify_port());
        // BIND serves ten transfers at a time (`transfers-out`) and tells all others that it failed.
        let mut is_passing = false;
        let take = |message: Message| {
            is_passing = message.metadata.response_code == ResponseCode::ServFail;
            reader.take(message)
        };
        let transfer = self.server.converse(&request, deadline, take).await;
        transfer.map_err(|error| {
            // A connection that breaks is no outage, if another can be made.
            is_passing |= error.kind() == ErrorKind::Unavailable && error.outcome() == Outcome::Unknown;
            // Nothing was written, whatever became of it.
            Trouble { error: error.not_applied(), is_passing }
        })
    }

    /// Takes a transfer in; says whether it does not fit.
    fn take(&self, transfer: Transfer) -> Result<bool, Trouble> {
        let now = Instant::now();
        match transfer {
            Transfer::Nothing(_) => {}
            Transfer::Steps(steps) => {
                let mut mirror = self.mirror();
                let Some(known) = mirror.as_mut() else { return Ok(true) };
                for step in steps {
                    if known.apply(step, now).is_err() {
                        return Ok(true);
                    }
                }
            }
            Transfer::Whole { serial, texts } => self.take_whole(serial, texts, now)?,
        }
        Ok(false)
    }

    fn take_whole(&self, serial: u32, texts: Vec<Text>, now: Instant) -> Result<(), Trouble> {
        let name = entry::head_name(&self.origin);
        let heads = texts.iter().filter(|(at, _)| *at == name);
        let head = heads.filter_map(|(_, text): &(_, TXT)| Head::read(text)).map(|head| head.number).max();
        let is_empty = !texts.iter().any(|(name, _)| self.origin.is_entry(name));
        let end = head.or(is_empty.then_some(0));
        if self.is_behind(end) {
            let mut contact = self.contact();
            let since = *contact.behind.get_or_insert(now);
            if now - since < PATIENCE {
                return Err(Trouble::behind());
            }
            contact.behind = None;
            tracing::warn!(zone = %self.origin, "the zone is another than it was; all leases end");
            self.history.fetch_add(1, Ordering::AcqRel);
            self.floor.store(head.unwrap_or(0), Ordering::Release);
        }
        self.contact().is_doubted = false;
        let mut mirror = self.mirror();
        match mirror.as_mut() {
            Some(mirror) => mirror.replace(serial, texts, now),
            None => *mirror = Some(Mirror::new(&self.origin, serial, texts, now)),
        }
        Ok(())
    }

    fn check_floor(&self) -> Result<(), Trouble> {
        let end = |mirror: &Mirror| match mirror.head() {
            Some(head) => Some(head.number),
            None => mirror.is_empty().then_some(0),
        };
        let end = self.look(end).flatten();
        self.check(end)?;
        self.raise_floor(end.unwrap_or(0));
        Ok(())
    }

    /// Whether a log reaches as far as is known; for a while, it may not. What is not known of its end is no reason.
    fn check(&self, end: Option<u64>) -> Result<(), Trouble> {
        let mut contact = self.contact();
        if !self.is_behind(end) {
            contact.behind = None;
            return Ok(());
        }
        // When the time is over, that is for a transfer of the whole to judge.
        let since = *contact.behind.get_or_insert_with(Instant::now);
        if since.elapsed() < PATIENCE { Err(Trouble::behind()) } else { Ok(()) }
    }

    fn is_behind(&self, end: Option<u64>) -> bool {
        end.is_some_and(|end| end < self.floor())
    }

    /// The number of the log that is known to have been reached.
    pub(super) fn floor(&self) -> u64 {
        self.floor.load(Ordering::Acquire)
    }

    /// Nothing below this number of the log is to be read from now on.
    pub(super) fn raise_floor(&self, number: u64) {
        self.floor.fetch_max(number, Ordering::AcqRel);
    }

    /// Which history this is.
    pub(super) fn history(&self) -> u64 {
        self.history.load(Ordering::Acquire)
    }

    /// What watches are told, from now on.
    pub(super) fn pulse(&self) -> watch::Receiver<Pulse> {
        self.pulse.subscribe()
    }

    /// Whether there are watches.
    pub(super) fn is_watched(&self) -> bool {
        self.pulse.receiver_count() > 0
    }

    /// Tells the watches that the server is lost.
    pub(super) fn lose(&self, error: Error) {
        self.pulse.send_modify(|pulse| {
            pulse.losses += 1;
            pulse.error = Some(error);
        });
    }

    /// When the last answer came, if the server is there.
    pub(super) fn answered(&self) -> Option<Instant> {
        self.contact().answered
    }

    /// When the server was last heard, if it is there.
    pub(super) fn heard(&self) -> Option<Instant> {
        self.contact().heard
    }

    /// Takes in that the server has answered a question.
    fn heard_at(&self, sent: Instant) {
        let now = Instant::now();
        let before = {
            let mut contact = self.contact();
            contact.answered = Some(now);
            contact.heard.replace(sent)
        };
        let mut mirror = self.mirror();
        let Some(mirror) = mirror.as_mut() else { return };
        let gap = Duration::from_millis(self.gap.load(Ordering::Relaxed));
        if before.is_none_or(|before| sent.duration_since(before) > gap) {
            // Whoever is silent now may not have been able to speak.
            mirror.excuse_silence(now);
        }
        let revision = mirror.revision();
        self.pulse.send_modify(|pulse| pulse.revision = revision);
    }

    /// Gives all leases their full time: the server takes no updates now, from us and maybe from nobody.
    pub(super) fn excuse_silence(&self) {
        if let Some(mirror) = self.mirror().as_mut() {
            mirror.excuse_silence(Instant::now());
        }
    }

    /// Says how often the server is asked: two questions that are much farther apart were interrupted.
    pub(super) fn set_interval(&self, interval: Duration) {
        let gap = 3 * interval + Duration::from_secs(1);
        self.gap.store(u64::try_from(gap.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    fn notify_port(&self) -> Option<u16> {
        let port = self.notify_port.load(Ordering::Relaxed);
        (port != 0).then_some(port)
    }

    fn mirror(&self) -> MutexGuard<'_, Option<Mirror>> {
        // A step that panicked half-way is found out by the next one, which then does not fit.
        self.mirror.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn contact(&self) -> MutexGuard<'_, Contact> {
        self.contact.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why the mirror is not up to date.
struct Trouble {
    error: Error,
    /// Whether it may be over in a moment.
    is_passing: bool,
}

impl Trouble {
    fn behind() -> Self {
        let message =
            "the server is behind what is known of the zone; is it a secondary, or was the zone restored?";
        Self { error: Error::new(ErrorKind::Unavailable, message).not_applied(), is_passing: true }
    }
}

/// Whether no answer was waited for long enough to say that there is none.
fn is_hasty(trouble: &Trouble, sent: Instant) -> bool {
    trouble.error.kind() == ErrorKind::Timeout && sent.elapsed() < SILENCE
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        Self { error, is_passing: false }
    }
}
