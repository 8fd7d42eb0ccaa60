//! Following a range: the server's own watch, from a revision on.
//!
//! A watch starts behind the revision that the range was read at, or behind the one that an earlier watch came to, and
//! etcd tells everything from there on, in order. So nothing falls in between, and after an interruption only what was
//! missed is told; unless that is compacted, or the cluster has another [history](crate::connection): then the range is
//! read again.
//!
//! Where something may have happened since, the server is asked for one revision more than is wanted: servers before 3.5.16,
//! and 3.4.23, forget a deletion that is compacted at its own revision (etcd-io/etcd#18089), and later ones still may at
//! that moment (etcd-io/etcd#19179); a watch that begins there misses it and is not told. One that begins a revision
//! earlier is told that this is compacted.
//!
//! Each watch is a stream of its own on the connection. One that hears nothing asks for a sign of life. What it is
//! answered says that the server serves the stream, and nothing else: before 3.4.25 and 3.5.8 the answer could overtake
//! events that were still to come (etcd-io/etcd#15220), so its revision is not believed. Newer servers do not answer a
//! watch that waits for a revision that is still to come (etcd-io/etcd#20229), as one on a quiet cluster does; there an
//! answer to any request will do.

use std::{sync::Arc, time::Duration};

use discovery::{
    Error, ErrorKind, Result, Revision,
    kv::{KvChange, KvUpdate, KvUpdates, Range},
};
use etcd_client::{EventType, GetOptions, WatchOptions, WatchResponse, WatchStream};
use futures_util::{StreamExt, TryStreamExt, stream};
use tokio::time::{Instant, sleep_until, timeout};

use crate::{
    connection::Connection,
    error::{Trouble, named},
    path::Layout,
    store::{Store, revision},
};

/// How long a watch that continues waits for what it missed, if the cluster has moved on meanwhile, before it says that
/// there is nothing. The server looks for watches that have to catch up every tenth of a second.
const CATCH_UP: Duration = Duration::from_millis(300);

/// Follows a range until there is trouble.
pub(crate) fn follow(store: Store, range: Range, after: Option<Revision>) -> KvUpdates {
    let updates = stream::try_unfold(Phase::New(store, range, after), |phase| async {
        let (update, watch) = match phase {
            Phase::New(store, range, after) => Watch::open(store, range, after).await?,
            Phase::Open(mut watch) => (watch.next().await?, watch),
        };
        Ok(Some((update, Phase::Open(watch))))
    });
    updates.map_err(named("watch")).boxed()
}

enum Phase {
    New(Store, Range, Option<Revision>),
    Open(Box<Watch>),
}

struct Watch {
    /// Dropped, it is closed, and the server forgets it.
    stream: WatchStream,
    connection: Arc<Connection>,
    store: Store,
    range: Range,
    /// The revision that the server tells from, which may be still to come.
    start: i64,
    /// The revision that it continues behind; what is told of it is known.
    after: i64,
    /// The revision up to which everything was reported.
    reported: i64,
    /// When the server last gave a sign of life.
    heard: Instant,
}

/// What there is on a stream.
enum News {
    /// What happened, or how far nothing did.
    Update(KvUpdate),
    /// The server serves the stream; or something that is none of our business.
    Life,
    /// What was to be told is compacted.
    Compacted,
}

impl Watch {
    /// Continues behind `after` if that can be done without a gap, and else begins with the whole range.
    async fn open(store: Store, range: Range, after: Option<Revision>) -> Result<(KvUpdate, Box<Self>)> {
        Layout::check(range.top())?;
        let deadline = store.cluster.deadline();
        let era = store.cluster.connection(deadline).await?.era();
        let after = after.and_then(|after| i64::try_from(after.0).ok());
        if let Some(after) = after.filter(|after| store.cluster.history().is_trusted(*after))
            && let (mut watch, now) = Self::start(&store, &range, after, after, era, deadline).await?
            && after <= now
            && let Some(missed) = watch.catch_up(now).await?
        {
            return Ok((missed, Box::new(watch)));
        }
        let scan = store.read_all(&range, deadline).await?;
        let read = scan.revision.0.cast_signed();
        let (mut watch, now) =
            Self::start(&store, &range, read, read.saturating_add(1), era, deadline).await?;
        if now > read {
            // Only then: such a watch has to catch up, which may take the server a tenth of a second.
            (watch, _) = Self::start(&store, &range, read, read, era, deadline).await?;
        }
        Ok((KvUpdate::Reset(scan), Box::new(watch)))
    }

    /// Has the server watch the range from `start` on, to continue behind `after`, a revision of an era. Returns also the
    /// revision that the server is at.
    async fn start(
        store: &Store,
        range: &Range,
        after: i64,
        start: i64,
        era: u64,
        deadline: Instant,
    ) -> Result<(Self, i64)> {
        let (from, end) = store.cluster.layout().bounds(range);
        let options = WatchOptions::new()
            .with_range(end)
            .with_start_revision(start)
            // Once in a while the server says by itself how far nothing happened, and this it does in order.
            .with_progress_notify();
        let watch = |connection: &Connection| {
            let (mut client, from, options) = (connection.watch(), from.clone(), options.clone());
            async move {
                let mut stream = client.watch(from, Some(options)).await?;
                let created = stream.message().await?;
                Ok((stream, created))
            }
        };
        let (connection, answer) = store.cluster.call(deadline, watch).await?;
        let (stream, created) = answer.map_err(|trouble| Error::from(trouble).not_applied())?;
        if connection.era() != era {
            return Err(restored());
        }
        let created = created.ok_or_else(ended)?;
        if created.canceled() && created.compact_revision() == 0 {
            return Err(refused(&connection, &created));
        }
        store.cluster.history().met(connection.era(), created.header());
        let now = created.header().map_or(0, etcd_client::ResponseHeader::revision);
        let watch = Self {
            stream,
            connection,
            store: store.clone(),
            range: range.clone(),
            start,
            after,
            reported: after,
            heard: Instant::now(),
        };
        Ok((watch, now))
    }

    /// What was missed until `now`, in one; `None` if that is compacted.
    async fn catch_up(&mut self, now: i64) -> Result<Option<KvUpdate>> {
        let mut missed = Vec::new();
        while self.reported < now {
            match timeout(CATCH_UP, self.receive()).await {
                Ok(Ok(News::Life | News::Update(KvUpdate::Reset(_) | KvUpdate::Progress(_)))) => {}
                Ok(Ok(News::Update(KvUpdate::Delta { changes, .. }))) => missed.extend(changes),
                Ok(Ok(News::Compacted)) => return Ok(None),
                Ok(Err(error)) if missed.is_empty() => return Err(error),
                // There seems to be nothing more; or the watch is over, as the next call will find, and another one may not
                // live longer. What is said is true of the revision that it says, whatever comes.
                Ok(Err(_)) | Err(_) => break,
            }
        }
        let revision = revision(self.reported);
        Ok(Some(told(revision, missed)))
    }

    /// The next news. May be dropped only together with the watch.
    async fn next(&mut self) -> Result<KvUpdate> {
        let patience = self.store.cluster.config().probe_interval();
        let mut asked = None;
        loop {
            let until = asked.map_or(self.heard + patience, |asked| asked + patience / 2);
            tokio::select! {
                biased;
                news = self.receive() => match news? {
                    News::Update(update) => return Ok(update),
                    News::Life => asked = None,
                    News::Compacted => {
                        let message = "what was to be told next is compacted; starting over";
                        return Err(Error::new(ErrorKind::Unavailable, message).not_applied());
                    }
                },
                () = sleep_until(until) => if asked.take().is_none() {
                    // Not before now: whoever reads seldom has not listened meanwhile.
                    asked = Some(Instant::now());
                    self.stream.request_progress().await.map_err(|error| self.broken(error))?;
                } else if self.must_wait(Instant::now() + patience / 2).await {
                    self.heard = Instant::now();
                } else {
                    self.connection.give_up();
                    let message = format!("the server has been silent for {:?}", self.heard.elapsed());
                    return Err(Error::new(ErrorKind::Timeout, message).not_applied());
                },
            }
        }
    }

    /// Whether a server that does not answer on the stream may have its reason: the revision that the watch begins at is
    /// still to come, as its answer to another request says.
    async fn must_wait(&self, deadline: Instant) -> bool {
        let nothing = self.store.cluster.layout().nothing();
        let mut kv = self.connection.kv();
        let look = kv.get(nothing, Some(GetOptions::new().with_count_only()));
        let answer = self.connection.call(deadline, look).await;
        let now = answer.as_ref().ok().and_then(|answer| answer.header());
        now.is_some_and(|header| header.revision() < self.start)
    }

    /// The next message. Cancel safe.
    async fn receive(&mut self) -> Result<News> {
        let message = self.stream.message().await.map_err(|error| self.broken(error))?;
        let message = message.ok_or_else(|| {
            self.connection.give_up();
            ended()
        })?;
        self.heard = Instant::now();
        self.take(&message)
    }

    fn take(&mut self, message: &WatchResponse) -> Result<News> {
        let history = self.store.cluster.history();
        if history.era() != self.connection.era() {
            return Err(restored());
        }
        if message.canceled() {
            let is_compacted = message.compact_revision() > 0;
            return if is_compacted { Ok(News::Compacted) } else { Err(refused(&self.connection, message)) };
        }
        history.met(self.connection.era(), message.header());
        let Some(last) = message.events().last().and_then(etcd_client::Event::kv) else {
            // Of nobody's watch in particular: the answer to a question of ours.
            let is_answer = message.watch_id() < 0 || message.created();
            let now = message.header().map_or(0, etcd_client::ResponseHeader::revision);
            if is_answer || now <= self.reported {
                return Ok(News::Life);
            }
            self.reported = now;
            return Ok(News::Update(KvUpdate::Progress(revision(now))));
        };
        // Not the header's revision: that may be ahead of what a watch that catches up has been told.
        self.reported = self.reported.max(last.mod_revision());
        let revision = revision(self.reported);
        let changes = message.events().iter().filter_map(|event| self.change(event)).collect();
        // What others write below the children of the range is no news, but progress.
        Ok(News::Update(told(revision, changes)))
    }

    fn change(&self, event: &etcd_client::Event) -> Option<KvChange> {
        let found = event.kv().filter(|found| found.mod_revision() > self.after)?;
        let key = self.store.cluster.layout().key(found.key()).filter(|key| self.range.contains(key))?;
        match event.event_type() {
            // What has no value is no entry any more.
            EventType::Put => {
                let entry = self.store.entry(self.connection.era(), found);
                Some(entry.map_or_else(|| KvChange::Delete(key), KvChange::Put))
            }
            EventType::Delete => Some(KvChange::Delete(key)),
        }
    }

    fn broken(&self, error: etcd_client::Error) -> Error {
        self.connection.give_up();
        let trouble = Trouble::from(error);
        if trouble.is_answer() {
            return Error::from(trouble).not_applied();
        }
        let message =
            format!("the connection to {} broke; changes may have been missed", self.connection.address());
        Error::new(ErrorKind::Unavailable, message).not_applied().with_source(Error::from(trouble))
    }
}

fn told(revision: Revision, changes: Vec<KvChange>) -> KvUpdate {
    if changes.is_empty() { KvUpdate::Progress(revision) } else { KvUpdate::Delta { revision, changes } }
}

/// Why the server does not watch, or no longer.
fn refused(connection: &Connection, message: &WatchResponse) -> Error {
    let trouble = Trouble::refused(match message.cancel_reason() {
        "" => "permission denied",
        reason => reason,
    });
    if trouble.is_of_connection() {
        connection.give_up();
    }
    Error::from(trouble).not_applied()
}

fn restored() -> Error {
    let message = "the cluster was wiped or restored; starting over";
    Error::new(ErrorKind::Unavailable, message).not_applied()
}

fn ended() -> Error {
    let message = "the server ended the watch; changes may have been missed";
    Error::new(ErrorKind::Unavailable, message).not_applied()
}
