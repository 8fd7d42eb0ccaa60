//! Follows a scope by looking again and again.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use async_trait::async_trait;
use discovery::{Instance, Result, Revision, Scope, ServiceName, Update, Updates};
use futures_util::{StreamExt, stream};
use tokio::{
    sync::Notify,
    time::{self, Instant},
};

use super::poll::{Known, Pace};
use crate::error::named;

/// How long a watch that failed is remembered, for the next one to go on from.
const REMEMBERED: Duration = Duration::from_secs(600);

/// Looks at a scope.
#[async_trait]
pub(crate) trait Look: fmt::Debug + Send + Sync + 'static {
    /// What is there now.
    async fn look(&self, scope: &Scope) -> Result<Looked>;
}

/// What was seen.
#[derive(Clone, Debug, Default)]
pub(crate) struct Looked {
    pub(crate) instances: Vec<Instance>,
    /// How long that holds, where it is told.
    pub(crate) ttl: Option<Duration>,
}

/// What the watches of a backend have in common. Both locks are for moments only.
#[derive(Debug, Default)]
pub(crate) struct Watches {
    /// One for each open watch, to be rung when there is reason to look at once.
    bells: Mutex<Vec<(Scope, Weak<Notify>)>>,
    /// What watches knew when they failed. A watch that goes on from there does not take the first answer for the whole
    /// truth either: what is missing from it is missing once.
    failed: Mutex<HashMap<(Scope, Revision), (Instant, Known)>>,
}

impl Watches {
    /// Makes the open watches of a service look, no sooner than the floor allows.
    pub(crate) fn ring(&self, service: &ServiceName) {
        let bells = self.bells.lock().unwrap_or_else(PoisonError::into_inner);
        for (_, bell) in bells.iter().filter(|(scope, _)| scope.contains(service)) {
            if let Some(bell) = bell.upgrade() {
                bell.notify_one();
            }
        }
    }

    fn hang(&self, scope: &Scope) -> Arc<Notify> {
        let bell = Arc::new(Notify::new());
        let mut bells = self.bells.lock().unwrap_or_else(PoisonError::into_inner);
        bells.retain(|(_, bell)| bell.strong_count() > 0);
        bells.push((scope.clone(), Arc::downgrade(&bell)));
        bell
    }

    fn remember(&self, scope: &Scope, known: Known) {
        let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        failed.retain(|_, (when, _)| when.elapsed() < REMEMBERED);
        failed.insert((scope.clone(), known.revision()), (Instant::now(), known));
    }

    fn recall(&self, scope: &Scope, after: Option<Revision>) -> Known {
        let Some(after) = after else { return Known::default() };
        let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        match failed.remove(&(scope.clone(), after)) {
            Some((when, known)) if when.elapsed() < REMEMBERED => known,
            _ => Known::behind(after),
        }
    }
}

/// Follows a scope, from what an earlier watch knew, if there was one.
pub(crate) fn watch(
    look: Arc<dyn Look>,
    watches: Arc<Watches>,
    pace: Pace,
    scope: Scope,
    after: Option<Revision>,
) -> Updates {
    let bell = watches.hang(&scope);
    let known = watches.recall(&scope, after);
    let watch = Watch { look, watches, pace, scope, bell, known, next: None, is_over: false };
    stream::unfold(watch, Watch::step).boxed()
}

struct Watch {
    look: Arc<dyn Look>,
    watches: Arc<Watches>,
    pace: Pace,
    scope: Scope,
    bell: Arc<Notify>,
    known: Known,
    /// When the next look may be at the earliest, and when it is due; none before the first.
    next: Option<(Instant, Instant)>,
    is_over: bool,
}

impl Watch {
    async fn step(mut self) -> Option<(Result<Update>, Self)> {
        if self.is_over {
            return None;
        }
        let is_first = self.next.is_none();
        if let Some((earliest, due)) = self.next {
            tokio::select! {
                () = time::sleep_until(due) => {}
                () = self.bell.notified() => time::sleep_until(earliest).await,
            }
        }
        let begin = Instant::now();
        let looked = match self.look.look(&self.scope).await {
            Ok(looked) => looked,
            Err(error) => {
                self.watches.remember(&self.scope, std::mem::take(&mut self.known));
                self.is_over = true;
                return Some((Err(named("watch")(error)), self));
            }
        };
        let changes = self.known.take(looked.instances, self.pace.misses);
        let pause = self.pace.pause(&self.known, looked.ttl, fastrand::f64());
        self.next = Some((begin + self.pace.floor, begin + pause));
        let update = if is_first {
            Update::Reset(self.known.reset())
        } else if changes.is_empty() {
            Update::Progress(self.known.revision())
        } else {
            Update::Delta { revision: self.known.revision(), changes }
        };
        Some((Ok(update), self))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use discovery::{Change, Error, ErrorKind};

    use super::*;

    const PACE: Pace =
        Pace { floor: Duration::from_secs(1), ceiling: Duration::from_secs(30), jitter: 0.0, misses: 2 };

    /// Ids, and a time to live in seconds; none in an outage.
    type Sight = Option<(Vec<u32>, u64)>;

    /// Sees what it is told to; then always the last of it.
    #[derive(Debug)]
    struct Scripted {
        script: Mutex<VecDeque<Sight>>,
        looks: Mutex<Vec<Instant>>,
    }

    #[async_trait]
    impl Look for Scripted {
        async fn look(&self, _: &Scope) -> Result<Looked> {
            self.looks.lock().unwrap().push(Instant::now());
            let mut script = self.script.lock().unwrap();
            let now = if script.len() > 1 { script.pop_front() } else { script.front().cloned() };
            let (ids, ttl) = now.flatten().ok_or_else(|| Error::new(ErrorKind::Timeout, "as told"))?;
            let instance =
                |id: u32| Instance::builder(service()).id(id.to_string().parse().unwrap()).build().unwrap();
            let instances = ids.into_iter().map(instance).collect();
            Ok(Looked { instances, ttl: Some(Duration::from_secs(ttl)) })
        }
    }

    struct Stage {
        look: Arc<Scripted>,
        watches: Arc<Watches>,
        begin: Instant,
    }

    impl Stage {
        fn new(script: &[Option<(&[u32], u64)>]) -> Self {
            let script = script.iter().map(|now| now.map(|(ids, ttl)| (ids.to_vec(), ttl))).collect();
            let look = Scripted { script: Mutex::new(script), looks: Mutex::default() };
            Self { look: Arc::new(look), watches: Arc::default(), begin: Instant::now() }
        }

        fn watch(&self, after: Option<Revision>) -> Updates {
            watch(self.look.clone(), self.watches.clone(), PACE, Scope::Service(service()), after)
        }

        /// The seconds from the beginning at which there was a look.
        fn seconds(&self) -> Vec<u64> {
            self.look.looks.lock().unwrap().iter().map(|when| (*when - self.begin).as_secs()).collect()
        }
    }

    fn service() -> ServiceName {
        "a".parse().unwrap()
    }

    /// An update as text: `=1 2` is a reset, `+3 -1` a delta, `.` progress, `!` an error.
    async fn next(updates: &mut Updates) -> String {
        let ids = |ids: Vec<String>| ids.join(" ");
        match updates.next().await.expect("an item") {
            Ok(Update::Reset(all)) => {
                format!("={}", ids(all.iter().map(|one| one.id().to_string()).collect()))
            }
            Ok(Update::Delta { changes, .. }) => ids(changes
                .iter()
                .map(|change| match change {
                    Change::Put(one) => format!("+{}", one.id()),
                    Change::Remove(key) => format!("-{}", key.id()),
                })
                .collect()),
            Ok(Update::Progress(_)) => ".".into(),
            Err(_) => "!".into(),
        }
    }

    async fn take(updates: &mut Updates, count: usize) -> Vec<String> {
        let mut all = Vec::new();
        for _ in 0..count {
            all.push(next(updates).await);
        }
        all
    }

    #[tokio::test(start_paused = true)]
    async fn looks_as_often_as_the_answers_hold() {
        let stage =
            Stage::new(&[Some((&[1], 5)), Some((&[1], 0)), Some((&[1, 2], 600)), Some((&[1, 2], 10))]);
        let mut updates = stage.watch(None);
        assert_eq!(take(&mut updates, 5).await, ["=1", ".", "+2", ".", "."]);
        assert_eq!(stage.seconds(), [0, 5, 6, 36, 46]);
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_missing_is_looked_for_soon_and_gone_the_second_time() {
        let stage = Stage::new(&[Some((&[1, 2], 20)), Some((&[1], 20)), Some((&[1], 20))]);
        let mut updates = stage.watch(None);
        assert_eq!(take(&mut updates, 4).await, ["=1 2", ".", "-2", "."]);
        assert_eq!(stage.seconds(), [0, 20, 21, 41]);
    }

    #[tokio::test(start_paused = true)]
    async fn an_outage_is_one_error_and_the_end() {
        let stage = Stage::new(&[Some((&[1], 1)), None]);
        let mut updates = stage.watch(None);
        assert_eq!(take(&mut updates, 2).await, ["=1", "!"]);
        assert!(updates.next().await.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_watch_that_goes_on_after_an_outage_does_not_believe_the_first_answer() {
        let stage =
            Stage::new(&[Some((&[1, 2], 1)), None, None, Some((&[1], 1)), Some((&[1], 1)), Some((&[1], 1))]);
        let mut updates = stage.watch(None);
        assert_eq!(take(&mut updates, 2).await, ["=1 2", "!"]);
        let after = Some(Revision(2));
        assert_eq!(next(&mut stage.watch(after)).await, "!");
        let mut updates = stage.watch(after);
        assert_eq!(take(&mut updates, 3).await, ["=1 2", "-2", "."]);
        // Whoever begins anew knows nothing of that.
        assert_eq!(next(&mut stage.watch(None)).await, "=1");
    }

    #[tokio::test(start_paused = true)]
    async fn revisions_go_on_behind_what_is_known() {
        let stage = Stage::new(&[Some((&[1], 1))]);
        match stage.watch(Some(Revision(41))).next().await {
            Some(Ok(Update::Reset(all))) => assert!(all.revision() > Revision(41)),
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_ring_is_heard_at_once_but_not_more_often_than_the_floor() {
        let stage = Stage::new(&[Some((&[1], 30))]);
        let mut updates = stage.watch(None);
        next(&mut updates).await;
        for _ in 0..5 {
            stage.watches.ring(&service());
        }
        stage.watches.ring(&"b".parse().unwrap());
        take(&mut updates, 2).await;
        assert_eq!(stage.seconds(), [0, 1, 31]);
        time::sleep(Duration::from_secs(10)).await;
        stage.watches.ring(&service());
        next(&mut updates).await;
        assert_eq!(stage.seconds(), [0, 1, 31, 41]);
    }

    #[tokio::test(start_paused = true)]
    async fn dropped_watches_leave_nothing() {
        let stage = Stage::new(&[Some((&[1], 30))]);
        drop(stage.watch(None));
        let _open = stage.watch(None);
        assert_eq!(stage.watches.bells.lock().unwrap().len(), 1);
    }
}
