//! Leases: a record with a beat that its holder changes again and again.
//!
//! A stock DNS server knows of no leases. So whoever watches the zone looks for beats that do not change: on its own
//! clock, never by comparing clocks. A lease that was silent for longer than its ttl is ended by whoever notices first,
//! on condition that the beat is still the same: either that or the renewal takes effect, never both. A server that
//! knows of leases (RFC 9664) is asked to end it by itself.
//!
//! Time in which the server was not heard does not count: nobody may have been able to renew.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use discovery::{Error, ErrorKind, Grant, LeaseId, Result};
use hickory_proto::{
    op::{Message, ResponseCode},
    rr::RecordType,
};
use tokio::time::Instant;

use super::{
    Shared,
    entry::{self, Beat},
    message,
    plan::Work,
    replica::Replica,
};

/// Shorter than this no lease is granted: there has to be time for the renewals.
const TTL_MIN: Duration = Duration::from_secs(1);
/// Longer than this no lease is granted.
const TTL_MAX: Duration = Duration::from_secs(365 * 24 * 3600);

impl Shared {
    pub(super) async fn grant(&self, ttl: Duration) -> Result<Grant> {
        if ttl.is_zero() || ttl > TTL_MAX {
            return Err(Error::invalid(format!(
                "a ttl of {ttl:?} cannot be granted; give one of more than nothing, up to a year"
            )));
        }
        // Whole milliseconds, as they are written.
        let millis = ttl.as_millis() + u128::from(!ttl.subsec_nanos().is_multiple_of(1_000_000));
        let ttl = Duration::from_millis(millis.try_into().unwrap_or(u64::MAX)).max(TTL_MIN);
        let history = self.replica.history();
        let id = LeaseId(fastrand::u64(1..));
        let beat = Beat { ttl, beat: 0 };
        let mut request = message::update(&self.replica.origin);
        let name = entry::lease_name(&self.replica.origin, id);
        request.add_answer(message::absent(&name, RecordType::TXT));
        // Of no effect, if it is lost: nothing is bound to a lease that nobody knows.
        let answer = self.beat(request, id, &beat, self.deadline()).await.map_err(Error::not_applied)?;
        if message::is_unmet(answer.metadata.response_code) {
            let message = "two leases drew the same random id; try again";
            return Err(Error::new(ErrorKind::Unavailable, message).not_applied());
        }
        let ttl = kept(&answer, ttl);
        self.leases.add(id, ttl, history);
        Ok(Grant { id, ttl })
    }

    pub(super) async fn renew(self: &Arc<Self>, id: LeaseId) -> Result<Duration> {
        let beat = self.leases.next_beat(id)?;
        // Whoever keeps the lease has a third of its time for an answer.
        let deadline = self.deadline().min(Instant::now() + beat.ttl / 4);
        let fence = async {
            let Some(doubt) = self.leases.doubt(id) else { return Ok(()) };
            self.write(Work::Fence).await.map_err(Error::not_applied)?;
            doubt.dispel();
            Ok(())
        };
        let renewal = async {
            let mut request = message::update(&self.replica.origin);
            let name = entry::lease_name(&self.replica.origin, id);
            request.add_answer(message::present(&name, RecordType::TXT));
            request.add_authority(message::delete_all(&name, RecordType::TXT));
            self.beat(request, id, &beat, deadline).await
        };
        let (fenced, renewed) = tokio::join!(fence, renewal);
        let answer = renewed.map_err(|error| {
            // Others may be no better off, and must not be ended for it.
            self.replica.excuse_silence();
            error.not_applied()
        })?;
        if message::is_unmet(answer.metadata.response_code) {
            return Err(self.leases.lost(id));
        }
        fenced.map(|()| kept(&answer, beat.ttl))
    }

    pub(super) async fn revoke(self: &Arc<Self>, id: LeaseId) -> Result<()> {
        self.leases.forget(id);
        let deadline = self.deadline();
        self.write(Work::End(id, None)).await?;
        // The rest of what was bound to it does not count any more; to sweep it away is a courtesy to those who read the
        // zone without knowing of leases.
        let has_left = |mirror: &super::mirror::Mirror| mirror.bound(id).next().is_some();
        while let Ok(true) = self.replica.read(deadline, has_left).await {
            if self.write(Work::Sweep).await.is_err() {
                break;
            }
        }
        Ok(())
    }

    /// Adds a beat to a request, and sends it.
    async fn beat(
        &self,
        mut request: Message,
        id: LeaseId,
        beat: &Beat,
        deadline: Instant,
    ) -> Result<Message> {
        let origin = &self.replica.origin;
        request.add_authority(beat.record(origin, id, self.config.record_ttl()));
        let seconds = beat.ttl.as_secs() + u64::from(beat.ttl.subsec_nanos() > 0);
        message::ask_lease(&mut request, u32::try_from(seconds).unwrap_or(u32::MAX));
        // A beat may come twice, a grant may not.
        let answer = if beat.beat > 0 {
            self.replica.server.ask(&request, deadline).await?
        } else {
            self.replica.server.call(&request, deadline).await?
        };
        let code = answer.metadata.response_code;
        if code == ResponseCode::NoError || message::is_unmet(code) {
            return Ok(answer);
        }
        Err(message::refusal(code, origin))
    }
}

/// How long a lease is kept without another beat: as long as its record says, by everybody, unless a server that ends
/// leases by itself keeps it for less.
fn kept(answer: &Message, asked: Duration) -> Duration {
    match message::granted_lease(answer) {
        Some(seconds) if seconds > 0 => asked.min(Duration::from_secs(seconds.into())),
        _ => asked,
    }
}

/// The leases of one handle.
#[derive(Debug)]
pub(super) struct LeaseBook {
    replica: Arc<Replica>,
    /// Held for single looks, never across an `await`.
    page: Mutex<Page>,
}

/// The leases of one history. In another there may be a lease of the same name, with entries of yesterday.
#[derive(Debug, Default)]
struct Page {
    history: u64,
    leases: HashMap<LeaseId, Held>,
}

#[derive(Debug)]
struct Held {
    ttl: Duration,
    beat: u64,
    /// Whether a write under it may be on its way still, although nobody waits for it.
    in_doubt: bool,
}

impl LeaseBook {
    pub(super) fn new(replica: Arc<Replica>) -> Self {
        Self { replica, page: Mutex::default() }
    }

    /// Whether a lease is one of ours.
    pub(super) fn contains(&self, id: LeaseId) -> bool {
        self.page().leases.contains_key(&id)
    }

    /// Says that these leases are about to be written under; until that is settled, its outcome counts as unknown.
    ///
    /// # Errors
    ///
    /// [`LeaseLost`](ErrorKind::LeaseLost) if one of them is not ours.
    pub(super) fn pledge(self: &Arc<Self>, ids: BTreeSet<LeaseId>) -> Result<Pledge> {
        if let Some(stranger) = ids.iter().find(|id| !self.contains(**id)) {
            return Err(lost(*stranger));
        }
        Ok(Pledge { book: self.clone(), ids, is_settled: false })
    }

    /// Forgets a lease, and says so.
    pub(super) fn lost(&self, id: LeaseId) -> Error {
        self.forget(id);
        lost(id)
    }

    fn add(&self, id: LeaseId, ttl: Duration, history: u64) {
        let mut page = self.page();
        if page.history == history {
            page.leases.insert(id, Held { ttl, beat: 0, in_doubt: false });
        }
    }

    fn next_beat(&self, id: LeaseId) -> Result<Beat> {
        let mut page = self.page();
        let held = page.leases.get_mut(&id).ok_or_else(|| lost(id))?;
        held.beat += 1;
        Ok(Beat { ttl: held.ttl, beat: held.beat })
    }

    /// The doubt about the writes under a lease, if there is any.
    fn doubt(self: &Arc<Self>, id: LeaseId) -> Option<Doubt> {
        let mut page = self.page();
        let held = page.leases.get_mut(&id).filter(|held| held.in_doubt)?;
        // Writes that come into doubt from now on are the next renewal's.
        held.in_doubt = false;
        Some(Doubt { book: self.clone(), id, is_dispelled: false })
    }

    fn raise_doubt(&self, id: LeaseId) {
        if let Some(held) = self.page().leases.get_mut(&id) {
            held.in_doubt = true;
        }
    }

    fn forget(&self, id: LeaseId) {
        self.page().leases.remove(&id);
    }

    /// The shortest time that any of them lives without a beat; `None` if there are none.
    pub(super) fn shortest(&self) -> Option<Duration> {
        self.page().leases.values().map(|held| held.ttl).min()
    }

    /// The page of the present history: a new one if that has begun since the last look.
    fn page(&self) -> MutexGuard<'_, Page> {
        let history = self.replica.history();
        // No step leaves the map half-changed, so a panic elsewhere under the lock does no harm.
        let mut page = self.page.lock().unwrap_or_else(PoisonError::into_inner);
        if page.history != history {
            *page = Page { history, leases: HashMap::new() };
        }
        page
    }
}

/// Comes back as a doubt about its leases unless it is settled.
#[must_use]
pub(super) struct Pledge {
    book: Arc<LeaseBook>,
    ids: BTreeSet<LeaseId>,
    is_settled: bool,
}

impl Pledge {
    /// It is known what became of the write, and nothing more will.
    pub(super) fn settle(&mut self) {
        self.is_settled = true;
    }
}

impl Drop for Pledge {
    fn drop(&mut self) {
        if !self.is_settled {
            self.ids.iter().for_each(|id| self.book.raise_doubt(*id));
        }
    }
}

/// Comes back unless it is dispelled.
#[must_use]
struct Doubt {
    book: Arc<LeaseBook>,
    id: LeaseId,
    is_dispelled: bool,
}

impl Doubt {
    fn dispel(mut self) {
        self.is_dispelled = true;
    }
}

impl Drop for Doubt {
    fn drop(&mut self) {
        if !self.is_dispelled {
            self.book.raise_doubt(self.id);
        }
    }
}

fn lost(lease: LeaseId) -> Error {
    Error::new(ErrorKind::LeaseLost, format!("lease {lease} is gone; grant a new one"))
}
