//! Where a recipe keeps its entries, and with what it works on them.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use tokio::{sync::watch, time};

use super::fence::lost;
use crate::{
    Error, ErrorKind, KeyView, LeaseId, Result, Revision, ServiceName,
    backoff::{Attempts, Backoff},
    kv::{Entry, Guard, Key, Kv, Op, Range, Txn},
    lease::{Session, Sessions, Standing},
};

/// How long a lease lives without renewal unless told otherwise.
const TTL: Duration = Duration::from_secs(10);

/// A place in a store, all of one recipe, and the leases to hold something there. Clones share both.
#[derive(Clone)]
pub(super) struct Place {
    sessions: Arc<Sessions>,
    top: Key,
    ttl: Duration,
    /// The latest session, so that it does not end between two uses of the recipe.
    session: Arc<Mutex<Option<Arc<Session>>>>,
}

impl Place {
    /// The place of the recipe of this `kind` and `name`. No instance is ever found there: `_` is not allowed in labels.
    pub(super) fn new(sessions: &Arc<Sessions>, kind: &str, name: &ServiceName) -> Result<Self> {
        let backend = sessions.backend();
        if backend.kv().is_none() {
            return Err(backend.info().lacks("kv"));
        }
        if backend.leases().is_none() {
            return Err(backend.info().lacks("leases"));
        }
        if name.is_root() {
            return Err(Error::invalid(format!("{kind}: the root is no name; give at least one label")));
        }
        // Flat, so that no recipe is in the tree of another one; `.` is not allowed in labels either.
        let top = format!("_{kind}/{}", name.path().replace('/', ".")).parse()?;
        Ok(Self { sessions: sessions.clone(), top, ttl: TTL, session: Arc::default() })
    }

    pub(super) fn ttl(self, ttl: Duration) -> Self {
        Self { ttl, session: Arc::default(), ..self }
    }

    pub(super) fn top(&self) -> &Key {
        &self.top
    }

    pub(super) fn sessions(&self) -> &Arc<Sessions> {
        &self.sessions
    }

    pub(super) fn kv(&self) -> Result<&dyn Kv> {
        self.sessions.kv()
    }

    /// How many bytes a record may have.
    pub(super) fn max_record(&self) -> usize {
        self.sessions.backend().info().capabilities().max_record
    }

    /// A lease to hold something under; waits for a store that is out of reach.
    pub(super) async fn session(&self) -> Result<Arc<Session>> {
        let mut pace = self.pace();
        loop {
            match self.sessions.get(self.ttl).await {
                Ok(session) => {
                    // Dropped outside of the lock: the last holder ends the lease.
                    let _old =
                        self.session.lock().unwrap_or_else(PoisonError::into_inner).replace(session.clone());
                    return Ok(session);
                }
                Err(error) => pace.after(error).await?,
            }
        }
    }

    /// Has a range at hand.
    pub(super) fn view(&self, range: Range) -> KeyView {
        KeyView::new(self.sessions.backend().clone(), self.backoff(), range)
    }

    /// Follows a key.
    pub(super) fn sight(&self, key: Key) -> Sight {
        Sight(self.view(Range::Key(key)))
    }

    /// A new sequence of attempts.
    pub(super) fn pace(&self) -> Pace {
        Pace { outage: self.backoff().start(), contention: CONTENTION.start() }
    }

    /// Pauses that grow must not outgrow the lease: whoever renews it all the same, because connections break but can be
    /// made again, would count as alive and see nothing.
    fn backoff(&self) -> Backoff {
        self.sessions.backoff().up_to(self.ttl / 10)
    }

    /// Creates an entry of our own under a lease, right below `parent`.
    pub(super) async fn create(&self, parent: &Key, value: impl Into<Bytes>) -> Result<Hold> {
        let mut hold = Hold::new(self.session().await?, parent.join(&random_id())?);
        let value = value.into();
        let mut pace = self.pace();
        loop {
            match self.kv()?.commit(Txn::new().absent(hold.key()).op(hold.op(value.clone()))).await {
                Ok(revision) => hold.is_there(revision),
                Err(error) if error.kind() == ErrorKind::LeaseLost => {
                    hold = self.start_over(hold, parent.join(&random_id())?, &mut pace).await?;
                    continue;
                }
                Err(error) => {
                    pace.after(error).await?;
                    // Whether it is there now will not change any more.
                    hold.session().prove().await?;
                    let Some(entry) = self.read(hold.key()).await? else { continue };
                    hold.is_there(entry.created);
                }
            }
            return Ok(hold);
        }
    }

    /// Replaces a hold whose session turns out to be over before anything came of it. The new one has another `key`: the
    /// old one may still be undone in the background.
    pub(super) async fn start_over(&self, hold: Hold, key: Key, pace: &mut Pace) -> Result<Hold> {
        // It may not know yet; asked, it finds out, and is not given to anybody any more.
        let _ = hold.session().prove().await;
        pace.later().await;
        Ok(Hold::new(self.session().await?, key))
    }

    /// Reads a key; waits for a store that is out of reach.
    pub(super) async fn read(&self, key: &Key) -> Result<Option<Entry>> {
        let mut pace = self.pace();
        loop {
            match self.kv()?.get(key).await {
                Err(error) => pace.after(error).await?,
                found => return found,
            }
        }
    }

    /// Reads a range; waits for a store that is out of reach.
    pub(super) async fn scan(&self, range: &Range) -> Result<Vec<Entry>> {
        let mut pace = self.pace();
        loop {
            match self.kv()?.scan(range).await {
                Err(error) => pace.after(error).await?,
                found => return found.map(|scan| scan.entries),
            }
        }
    }

    /// Waits until there is an entry right below the top.
    pub(super) async fn filled(&self) -> Result<()> {
        let mut view = self.view(Range::Children(self.top.clone()));
        while view.entries().is_empty() {
            view.changed().await?;
        }
        Ok(())
    }

    /// Waits until this life of an entry is over.
    pub(super) async fn gone(&self, entry: &Entry) -> Result<()> {
        let mut sight = self.sight(entry.key.clone());
        while sight.next().await?.is_some_and(|found| found.created == entry.created) {}
        Ok(())
    }
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} in {}", self.top, self.sessions.backend().info())
    }
}

/// Others were faster: they are done within milliseconds.
const CONTENTION: Backoff = Backoff::new(Duration::from_millis(1), Duration::from_millis(100));

/// How to go on after a failure: a while later, if there is a point in it.
#[derive(Debug)]
pub(super) struct Pace {
    outage: Attempts,
    contention: Attempts,
}

impl Pace {
    /// Waits for a while, for what would otherwise be a tight loop.
    pub(super) async fn later(&mut self) {
        time::sleep(self.outage.next_delay()).await;
    }

    /// Waits until it makes sense to look at the store again and to try once more: when somebody else was faster, or the
    /// store was out of reach.
    ///
    /// # Errors
    ///
    /// What another attempt cannot change.
    pub(super) async fn after(&mut self, error: Error) -> Result<()> {
        match error.kind() {
            ErrorKind::Conflict => time::sleep(self.contention.next_delay()).await,
            _ if error.is_transient() => self.later().await,
            _ => return Err(error),
        }
        Ok(())
    }
}

/// One key, followed through outages.
#[derive(Debug)]
pub(super) struct Sight(KeyView);

impl Sight {
    /// How it is now, and then how it is whenever something happened to it. What it was in between may be left out, but
    /// not that it was deleted and created anew: the creation differs. Cancel safe.
    pub(super) async fn next(&mut self) -> Result<Option<Entry>> {
        self.0.changed().await?;
        Ok(self.0.entries().values().next().cloned())
    }
}

/// A name that nobody else gives.
pub(super) fn random_id() -> String {
    format!("{:016x}", fastrand::u64(..))
}

/// An entry under a lease, which is taken back when this is dropped.
#[derive(Debug)]
pub(super) struct Hold {
    session: Arc<Session>,
    key: Key,
    /// When it came to be; `None` until that is known.
    created: Option<Revision>,
    released: bool,
    /// What its fences tell: written by their lookouts, and last of all by this, before it is given back.
    standing: watch::Sender<Standing>,
}

impl Hold {
    /// Is about to write `key`, which nobody else writes. From here on nothing comes of it if this is dropped.
    pub(super) fn new(session: Arc<Session>, key: Key) -> Self {
        let standing = watch::Sender::new(session.standing().borrow().clone());
        Self { session, key, created: None, released: false, standing }
    }

    pub(super) fn key(&self) -> &Key {
        &self.key
    }

    pub(super) fn session(&self) -> &Arc<Session> {
        &self.session
    }

    pub(super) fn standing(&self) -> &watch::Sender<Standing> {
        &self.standing
    }

    pub(super) fn lease(&self) -> LeaseId {
        self.session.lease()
    }

    /// The write.
    pub(super) fn op(&self, value: impl Into<Bytes>) -> Op {
        Op::Put { key: self.key.clone(), value: value.into(), lease: Some(self.lease()) }
    }

    /// Is there since then.
    pub(super) fn is_there(&mut self, created: Revision) {
        self.created = Some(created);
    }

    /// When it came to be; later than everything, as long as it is not there.
    pub(super) fn created(&self) -> Revision {
        self.created.unwrap_or(Revision(u64::MAX))
    }

    /// The condition that it is still there.
    pub(super) fn guard(&self) -> Guard {
        Guard::Alive(self.key.clone(), self.created())
    }

    /// Takes the entry back, and waits until it is gone. The error says that it was lost before.
    pub(super) async fn release(mut self) -> Result<()> {
        let held = self.end();
        self.session.retire(self.key.clone()).await?;
        self.released = true;
        held
    }

    /// There is nothing left to take back: that was done in one step with something else.
    pub(super) fn forget(mut self) {
        self.released = true;
    }

    /// Tells all who have a proof of it that it is over, unless they know.
    fn end(&self) -> Result<()> {
        let over = Error::new(ErrorKind::LeaseLost, "it was given back");
        match self.standing.send_replace(Standing::Ended(over)) {
            standing if standing.until().is_some() => Ok(()),
            Standing::Until(_) => Err(lost("the lease was not renewed in time")),
            Standing::Ended(why) => Err(why),
        }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let _ = self.end();
        if self.released {
            return;
        }
        if self.created.is_some() {
            self.session.retire_later(self.key.clone());
        } else {
            self.session.undo_later(self.key.clone());
        }
    }
}
