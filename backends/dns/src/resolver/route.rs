//! Learns which way leads to a service.
//!
//! At first all ways are tried, and the best that leads to anything is kept to: others may not be answered at all (Docker
//! sends what it does not know to servers that may be out of reach), and what is found on another way has other ids. A
//! better way that could not be told about is tried again now and then.

use std::{
    collections::HashMap,
    ops::Range,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use discovery::{Error, ErrorKind, Result, ServiceName};
use futures_util::{StreamExt, stream::FuturesUnordered};
use tokio::time::{self, Instant};

use super::{answer::more_hopeful, find::Found};

/// How long until better ways are tried again, at first where they could not be told about, and at most.
const AGAIN_FIRST: Duration = Duration::from_secs(30);
const AGAIN_MAX: Duration = Duration::from_secs(600);
/// How many services are remembered. Who looks for more learns anew.
const REMEMBERED: usize = 10_000;

/// What was learnt.
#[derive(Debug)]
pub(crate) struct Routes {
    /// How long a better way may keep a found service waiting.
    grace: Duration,
    learnt: Mutex<HashMap<ServiceName, Learnt>>,
}

#[derive(Clone, Copy, Debug)]
struct Learnt {
    way: usize,
    /// When better ways are tried again, and the pause that led there.
    again: Instant,
    pause: Duration,
}

/// What each way led to; `None` for what is not known yet.
type Seen = Vec<Option<Result<Found>>>;

impl Routes {
    pub(crate) fn new(grace: Duration) -> Self {
        Self { grace, learnt: Mutex::default() }
    }

    /// Finds a service on one of `count` ways, the first being the best.
    ///
    /// Empty if the way that led to it before says so, or if all do. A way that cannot be told about is no proof of
    /// anything, except that it is no use where the server does not know what was asked for.
    pub(crate) async fn find<F: Future<Output = Result<Found>>>(
        &self,
        service: &ServiceName,
        count: usize,
        follow: impl Fn(usize) -> F,
    ) -> Result<Found> {
        let learnt = self.learnt().get(service).copied().filter(|learnt| learnt.way < count);
        let mut seen: Seen = (0..count).map(|_| None).collect();
        let tried = match learnt {
            None => 0..count,
            Some(learnt) if Instant::now() >= learnt.again => 0..learnt.way + 1,
            Some(learnt) => learnt.way..learnt.way + 1,
        };
        self.race(&mut seen, tried.clone(), &follow, None).await;
        if let Some(found) = self.choose(service, learnt, &mut seen) {
            return Ok(found);
        }
        let Some(learnt) = learnt else { return nothing(seen) };
        // What cannot be told may not be empty.
        let empty = seen[learnt.way].take().unwrap_or_else(|| Ok(Found::default()))?;
        let end = Some(Instant::now() + self.grace);
        for others in [0..tried.start, tried.end..count] {
            self.race(&mut seen, others, &follow, end).await;
        }
        Ok(self.choose(service, None, &mut seen).unwrap_or(empty))
    }

    /// Tries ways at the same time, until the best that leads anywhere is known, or `end`.
    async fn race<F: Future<Output = Result<Found>>>(
        &self,
        seen: &mut Seen,
        ways: Range<usize>,
        follow: impl Fn(usize) -> F,
        mut end: Option<Instant>,
    ) {
        let mut running: FuturesUnordered<_> = ways
            .clone()
            .map(|way| {
                let found = follow(way);
                async move { (way, found.await) }
            })
            .collect();
        loop {
            let best = ways.clone().find(|way| leads(seen[*way].as_ref()));
            if best
                .is_some_and(|best| ways.clone().take_while(|way| *way < best).all(|way| seen[way].is_some()))
            {
                return;
            }
            if best.is_some() && end.is_none() {
                end = Some(Instant::now() + self.grace);
            }
            tokio::select! {
                next = running.next() => match next {
                    Some((way, found)) => seen[way] = Some(found),
                    None => return,
                },
                () = time::sleep_until(end.unwrap_or_else(Instant::now)), if end.is_some() => return,
            }
        }
    }

    /// The best that was found, which is remembered.
    fn choose(&self, service: &ServiceName, before: Option<Learnt>, seen: &mut Seen) -> Option<Found> {
        let way = seen.iter().position(|found| leads(found.as_ref()))?;
        // A way before this one that nothing was heard of, or that was not tried because it is not time yet.
        let undecided = seen[..way].iter().any(|found| !matches!(found, Some(Ok(_))));
        let not_tried = before.is_some_and(|before| before.way == way && before.again > Instant::now());
        if !not_tried {
            let pause = match before.filter(|before| before.way == way) {
                Some(before) if undecided => (before.pause * 2).min(AGAIN_MAX),
                None if undecided => AGAIN_FIRST,
                _ => AGAIN_MAX,
            };
            let mut learnt = self.learnt();
            if learnt.len() >= REMEMBERED && !learnt.contains_key(service) {
                learnt.clear();
            }
            learnt.insert(service.clone(), Learnt { way, again: Instant::now() + pause, pause });
        }
        seen[way].take()?.ok()
    }

    fn learnt(&self) -> std::sync::MutexGuard<'_, HashMap<ServiceName, Learnt>> {
        self.learnt.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn leads(found: Option<&Result<Found>>) -> bool {
    matches!(found, Some(Ok(found)) if !found.listed.is_empty())
}

/// All ways were tried, and none leads anywhere.
fn nothing(seen: Seen) -> Result<Found> {
    let mut error: Option<Error> = None;
    let mut empty: Option<Found> = None;
    for found in seen.into_iter().flatten() {
        match found {
            Ok(found) => {
                let ttl = empty.map_or(found.ttl, |other| other.ttl.into_iter().chain(found.ttl).min());
                empty = Some(Found { ttl, ..found });
            }
            Err(one) => error = Some(more_hopeful(error, one)),
        }
    }
    match (error, empty) {
        (Some(error), Some(empty)) if error.kind() == ErrorKind::Unsupported => Ok(empty),
        (Some(error), _) => Err(error),
        (None, empty) => Ok(empty.unwrap_or_default()),
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::{super::candidate::Candidate, *};

    /// What a way does: how long it takes, and where it leads.
    #[derive(Clone, Copy)]
    enum Does {
        Lead(u64),
        Nothing(u64),
        Fail(ErrorKind),
        Hang,
    }
    use Does::{Fail, Hang, Lead, Nothing};

    /// Ways that do as told, and a record of which were tried.
    struct Stage {
        routes: Routes,
        tried: RefCell<Vec<usize>>,
    }

    impl Stage {
        fn new() -> Self {
            Self { routes: Routes::new(Duration::from_millis(500)), tried: RefCell::default() }
        }

        /// The way that was found, and which were tried.
        async fn find(&self, ways: &[Does]) -> (Result<Option<String>>, Vec<usize>) {
            let follow = async |way: usize| {
                self.tried.borrow_mut().push(way);
                let found = || {
                    let id = format!("way{way}").parse().unwrap();
                    Found { listed: vec![Candidate::new(id, Vec::new())], ttl: None }
                };
                match ways[way] {
                    Lead(ms) => {
                        time::sleep(Duration::from_millis(ms)).await;
                        Ok(found())
                    }
                    Nothing(ms) => {
                        time::sleep(Duration::from_millis(ms)).await;
                        Ok(Found::default())
                    }
                    Fail(kind) => Err(Error::new(kind, "as told")),
                    Hang => std::future::pending().await,
                }
            };
            let found = self.routes.find(&"a".parse().unwrap(), ways.len(), follow).await;
            let id = found.map(|found| found.listed.first().map(|one| one.id.to_string()));
            (id, self.tried.take())
        }

        async fn found(&self, ways: &[Does]) -> (String, Vec<usize>) {
            let (found, tried) = self.find(ways).await;
            (found.unwrap().unwrap(), tried)
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_best_way_is_kept_to() {
        let stage = Stage::new();
        assert_eq!(stage.found(&[Nothing(5), Lead(9), Lead(1)]).await, ("way1".into(), vec![0, 1, 2]));
        assert_eq!(stage.found(&[Lead(1), Lead(9), Lead(1)]).await, ("way1".into(), vec![1]));
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_better_way_keeps_nobody_waiting_for_long() {
        let stage = Stage::new();
        let begin = Instant::now();
        assert_eq!(stage.found(&[Hang, Lead(1)]).await.0, "way1");
        assert_eq!(begin.elapsed(), Duration::from_millis(501));
        assert_eq!(stage.found(&[Hang, Lead(1)]).await.1, [1]);
        assert_eq!(begin.elapsed(), Duration::from_millis(502), "once is enough");
    }

    #[tokio::test(start_paused = true)]
    async fn what_could_not_be_told_is_tried_again_and_again_less_often() {
        let stage = Stage::new();
        stage.found(&[Fail(ErrorKind::Timeout), Lead(1)]).await;
        let mut tries = Vec::new();
        for second in 0..2000 {
            if stage.found(&[Fail(ErrorKind::Timeout), Lead(0)]).await.1.len() > 1 {
                tries.push(second);
            }
            time::sleep(Duration::from_secs(1)).await;
        }
        assert_eq!(tries.len(), 6, "{tries:?}");
        time::sleep(AGAIN_MAX).await;
        assert_eq!(stage.found(&[Lead(1), Lead(0)]).await.0, "way0", "better comes late, and comes");
    }

    #[tokio::test(start_paused = true)]
    async fn a_known_way_that_fails_is_not_replaced_by_another() {
        let stage = Stage::new();
        stage.found(&[Nothing(0), Lead(0), Nothing(0)]).await;
        let (found, tried) = stage.find(&[Nothing(0), Fail(ErrorKind::Timeout), Lead(0)]).await;
        assert_eq!(found.unwrap_err().kind(), ErrorKind::Timeout);
        assert_eq!(tried, [1]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_known_way_that_is_empty_is_empty_unless_another_is_not() {
        let stage = Stage::new();
        stage.found(&[Hang, Lead(0), Nothing(0)]).await;
        assert_eq!(stage.find(&[Hang, Nothing(0), Fail(ErrorKind::Timeout)]).await.0.unwrap(), None);
        assert_eq!(stage.found(&[Nothing(0), Nothing(0), Lead(0)]).await.0, "way2");
        assert_eq!(stage.found(&[Nothing(0), Lead(0), Lead(0)]).await, ("way2".into(), vec![2]));
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_empty_only_if_all_say_so() {
        for (ways, expected) in [
            ([Nothing(0), Nothing(0)], Ok(())),
            ([Fail(ErrorKind::Timeout), Nothing(0)], Err(ErrorKind::Timeout)),
            ([Fail(ErrorKind::Denied), Fail(ErrorKind::Unavailable)], Err(ErrorKind::Unavailable)),
            ([Fail(ErrorKind::Unsupported), Nothing(0)], Ok(())),
            ([Fail(ErrorKind::Unsupported), Fail(ErrorKind::Denied)], Err(ErrorKind::Unsupported)),
        ] {
            let (found, _) = Stage::new().find(&ways).await;
            assert_eq!(found.map(|found| assert_eq!(found, None)).map_err(|error| error.kind()), expected);
        }
    }
}
