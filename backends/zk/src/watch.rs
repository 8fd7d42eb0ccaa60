//! Following a range: a persistent recursive watch on its top, whose events are taken as hints.
//!
//! The watch is set first and the range read after, so that nothing falls in between. An event says that something
//! happened to a node; what, is read from the node. Several events for one node become one read of its present state,
//! in which a node that was deleted and created anew in one step is simply there. A watch of one key hears what happens
//! below it as well, and does not look.
//!
//! The client never sets a persistent watch again after a reconnect (its list of watches to set is cut short), and the
//! server does not tell what happened in between. So any change of the session's state ends the stream; whoever
//! resumes sets a new watch and reads the range again. The watcher must not be asked again after such an event: when
//! the state is final, it panics.
//!
//! Two streams on one node share the watch on the server, which the client removes when the last of them is dropped.
//! All streams use the same kind of watch: the server confuses two kinds on one node.

use std::{
    collections::{BTreeMap, BTreeSet},
    panic::AssertUnwindSafe,
    sync::Arc,
};

use discovery::{
    Error, ErrorKind, Result,
    kv::{Key, KvChange, KvUpdate, KvUpdates, Range},
};
use futures_util::{FutureExt, StreamExt, TryStreamExt, stream};
use tokio::time::{Instant, sleep_until};
use zookeeper_client::{self as zk, EventType};

use crate::{
    session::{Room, Session, revision},
    store::{Reader, answers, named},
};

/// How many events are taken together, at most.
const GATHERED: usize = 1000;

/// Follows a range until there is trouble.
pub(crate) fn follow(reader: Arc<Reader>, range: Range) -> KvUpdates {
    let updates = stream::try_unfold(Phase::New(reader, range), |phase| async {
        let (update, watch) = match phase {
            Phase::New(reader, range) => Watch::open(reader, range).await?,
            Phase::Open(mut watch) => (watch.next().await?, watch),
        };
        Ok(Some((update, Phase::Open(watch))))
    });
    updates.map_err(named("watch")).boxed()
}

enum Phase {
    New(Arc<Reader>, Range),
    Open(Box<Watch>),
}

struct Watch {
    /// Dropped before the session, to which it says that the watch is to be removed.
    watcher: zk::PersistentWatcher,
    _room: Room,
    session: Arc<Session>,
    reader: Arc<Reader>,
    range: Range,
    /// The zxid up to which everything was reported.
    reported: i64,
    /// When the server last gave a sign of life.
    heard: Instant,
}

/// What the events say about a key.
#[derive(Default)]
struct Hint {
    /// Something other than its creation happened: there may have been an entry before.
    may_have_been: bool,
    /// It was deleted, so the zxid of that is to be found in its parent.
    was_deleted: bool,
}

impl Watch {
    /// Sets the watch and reads the range.
    async fn open(reader: Arc<Reader>, range: Range) -> Result<(KvUpdate, Box<Self>)> {
        reader.layout().check(range.top())?;
        let deadline = reader.deadline();
        let top = reader.layout().node(range.top());
        let (session, room) = reader.watches().room(&top, deadline).await?;
        let set = session.client().watch(&top, zk::AddWatchMode::PersistentRecursive);
        let watcher =
            session.call(deadline, set).await.map_err(|trouble| session.failed(trouble).not_applied())?;
        let scan = reader.scan_on(&session, &range).await?;
        let reported = scan.revision.0.cast_signed();
        let watch = Self { watcher, _room: room, session, reader, range, reported, heard: Instant::now() };
        Ok((KvUpdate::Reset(scan), Box::new(watch)))
    }

    /// The next news. May be dropped only together with the watch: events that were taken would be lost.
    async fn next(&mut self) -> Result<KvUpdate> {
        loop {
            let idle = sleep_until(self.heard + self.reader.config().probe_interval());
            let event = tokio::select! {
                biased;
                event = changed(&mut self.watcher) => Some(event),
                () = idle => self.probe().await?,
            };
            let Some(event) = event else {
                return Ok(KvUpdate::Progress(revision(self.reported)));
            };
            let hints = self.gather(event)?;
            let changes = self.read(hints).await?;
            if !changes.is_empty() {
                return Ok(KvUpdate::Delta { revision: revision(self.reported), changes });
            }
        }
    }

    /// Waits for a sign of life. Events that happened before have arrived before it; returns the first if there is one.
    async fn probe(&mut self) -> Result<Option<zk::WatchedEvent>> {
        // One that another watch has asked for will do, too: they soon ask together.
        let age = self.reader.config().probe_interval() / 4;
        let sign = self.session.sign_of_life(age, self.patience(), self.reader.horizon()).await;
        let sign = sign.map_err(|trouble| self.session.failed(trouble).not_applied())?;
        self.heard = sign.at;
        let event = changed(&mut self.watcher).now_or_never();
        if event.is_none() {
            self.reported = self.reported.max(sign.told);
        }
        Ok(event)
    }

    /// Takes an event and those that are ready behind it.
    fn gather(&mut self, first: zk::WatchedEvent) -> Result<BTreeMap<Key, Hint>> {
        let mut hints = BTreeMap::<_, Hint>::new();
        let mut event = first;
        for taken in 1.. {
            if event.event_type == EventType::Session {
                return Err(self.interrupted(event.session_state));
            }
            self.reported = self.reported.max(event.zxid);
            if let Some(key) = self.reader.layout().key(&event.path).filter(|key| self.range.contains(key)) {
                let hint = hints.entry(key).or_default();
                hint.may_have_been |= event.event_type != EventType::NodeCreated;
                hint.was_deleted |= event.event_type == EventType::NodeDeleted;
            }
            if taken == GATHERED {
                break;
            }
            let Some(next) = changed(&mut self.watcher).now_or_never() else { break };
            event = next;
        }
        Ok(hints)
    }

    /// Reads what there are hints about.
    async fn read(&mut self, hints: BTreeMap<Key, Hint>) -> Result<Vec<KvChange>> {
        if hints.is_empty() {
            return Ok(Vec::new());
        }
        let failed = |trouble| self.session.failed(trouble).not_applied();
        let deleted = hints.iter().filter(|(_, hint)| hint.was_deleted);
        let parents = deleted.map(|(key, _)| self.reader.layout().node(&key.parent()));
        let parents: BTreeSet<_> = parents.collect();
        let parents = parents.iter().map(|parent| self.session.client().check_stat(parent)).collect();
        let patience = self.patience();
        let nodes = if let Range::Key(only) = &self.range {
            let node = self.reader.read_one(&self.session, only, patience).await;
            node.map_err(failed)?.into_iter().collect()
        } else {
            let reading = self.reader.read_all(&self.session, hints.keys().cloned().collect());
            self.session.call(patience, reading).await.map_err(failed)?
        };
        let mut newest = self.reported;
        for parent in answers(&self.session, patience, parents).await {
            newest = parent.map_err(failed)?.map_or(newest, |stat| newest.max(stat.pzxid));
        }
        let mut entries = BTreeMap::new();
        for node in nodes {
            newest = newest.max(node.stat.mzxid);
            if let Some(entry) = self.reader.entry(&self.session, node.key, node.data, &node.stat) {
                entries.insert(entry.key.clone(), entry);
            }
        }
        self.session.has_applied(newest, self.reader.horizon());
        self.reported = newest;
        self.heard = Instant::now();
        let changes = hints.into_iter().filter_map(|(key, hint)| match entries.remove(&key) {
            Some(entry) => Some(KvChange::Put(entry)),
            None => hint.may_have_been.then_some(KvChange::Delete(key)),
        });
        Ok(changes.collect())
    }

    /// How long to wait for an answer before the server counts as silent.
    fn patience(&self) -> Instant {
        let config = self.reader.config();
        Instant::now() + config.probe_interval().min(config.call_timeout())
    }

    fn interrupted(&self, state: zk::SessionState) -> Error {
        let (kind, message) = match state {
            zk::SessionState::AuthFailed => {
                (ErrorKind::Denied, "the server does not accept user and secret any more")
            }
            zk::SessionState::Expired | zk::SessionState::Closed => {
                (ErrorKind::Unavailable, "the session is over; changes may have been missed")
            }
            _ => (ErrorKind::Unavailable, "the connection was interrupted; changes may have been missed"),
        };
        tracing::debug!(range = ?self.range, %state, "watch ends");
        Error::new(kind, message).not_applied()
    }
}

/// The next event. A client that went with its runtime does not tell so, and the watcher panics.
async fn changed(watcher: &mut zk::PersistentWatcher) -> zk::WatchedEvent {
    // Nothing is asked of it any more behind a session event, so it does not matter in what state it is.
    let event = AssertUnwindSafe(watcher.changed()).catch_unwind().await;
    event.unwrap_or_else(|_| zk::WatchedEvent::new_session(zk::SessionState::Closed))
}
