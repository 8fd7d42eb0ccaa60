//! Everything that goes wrong in a network, on demand.

use std::{
    collections::VecDeque,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::{
    StreamExt,
    stream::{self, BoxStream},
};
use tokio::{sync::watch, time};

use super::{
    Layer,
    around::{Around, Layered, Request, failed},
};
use crate::{Backend, Error, ErrorKind, Result};

/// Breaks the backend underneath, as a test says: by script, by chance, or both.
///
/// Clones are handles on the same trouble, and so are the stacks that it was added to: keep a clone and turn the
/// knobs while the program under test runs. With a [seed](Fault::seeded) and a paused clock every run is the same.
///
/// # Example: survive a partition
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> discovery::Result<()> {
/// use discovery::{Discovery, ErrorKind, ServiceName, layer::Fault, mem::Mem};
///
/// let fault = Fault::new();
/// let discovery = Discovery::new(Mem::new()).layer(fault.clone());
/// let cart: ServiceName = "cart".parse()?;
///
/// fault.partition();
/// assert_eq!(discovery.lookup(&cart).await.unwrap_err().kind(), ErrorKind::Unavailable);
/// fault.heal();
/// assert!(discovery.lookup(&cart).await?.is_empty());
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Fault(Arc<Shared>);

struct Shared {
    /// Turned by the handles, consulted by every call; never held across an `await`.
    script: Mutex<Script>,
    /// Rung to end all watches that are open.
    cuts: watch::Sender<()>,
}

struct Script {
    partitioned: bool,
    delay: Duration,
    failures: VecDeque<Error>,
    replies_to_lose: usize,
    leases_to_expire: usize,
    odds: Odds,
    random: fastrand::Rng,
}

impl Fault {
    /// No trouble yet. Chance, if [asked for](Fault::odds), differs from run to run.
    pub fn new() -> Self {
        Self::seeded(fastrand::u64(..))
    }

    /// No trouble yet, and a chance that is the same in every run.
    pub fn seeded(seed: u64) -> Self {
        let script = Script::calm(fastrand::Rng::with_seed(seed));
        Self(Arc::new(Shared { script: Mutex::new(script), cuts: watch::Sender::new(()) }))
    }

    /// Puts the backend out of reach until [`heal`](Fault::heal): calls fail with [`ErrorKind::Unavailable`] and have
    /// no effect, and watches end.
    pub fn partition(&self) {
        self.script().partitioned = true;
        self.cut();
    }

    /// Ends a partition.
    pub fn heal(&self) {
        self.script().partitioned = false;
    }

    /// Makes every call, and every item of a watch, take so much longer. A call that is cancelled meanwhile has had
    /// no effect.
    pub fn delay(&self, delay: Duration) {
        self.script().delay = delay;
    }

    /// Answers the next `count` calls with `error` instead of making them.
    pub fn fail_next(&self, count: usize, error: &Error) {
        self.script().failures.extend(std::iter::repeat_n(error, count).cloned());
    }

    /// Loses the replies to the next `count` writes that succeed: they are applied, and the caller gets
    /// [`ErrorKind::Unavailable`] with [`Outcome::Unknown`](crate::Outcome::Unknown). Writes are `put`, `remove` and
    /// `commit`.
    pub fn lose_replies(&self, count: usize) {
        self.script().replies_to_lose += count;
    }

    /// Ends the leases of the next `count` renewals, with all that is bound to them, and says so:
    /// [`ErrorKind::LeaseLost`].
    pub fn expire_next(&self, count: usize) {
        self.script().leases_to_expire += count;
    }

    /// Ends all watches that are open, each with one error. New ones work.
    pub fn cut(&self) {
        self.0.cuts.send_replace(());
    }

    /// Leaves trouble to chance.
    pub fn odds(&self, odds: Odds) {
        self.script().odds = odds;
    }

    /// Ends all trouble, present and to come.
    pub fn calm(&self) {
        let mut script = self.script();
        *script = Script::calm(script.random.clone());
    }

    fn script(&self) -> MutexGuard<'_, Script> {
        // Each change is a single assignment, so a panic under the lock leaves nothing half-done.
        self.0.script.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Fault {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.script().partitioned { "Fault(partitioned)" } else { "Fault" })
    }
}

/// How likely what kind of trouble is, from 0 (never, unless told) to 1 (always).
///
/// # Example: an unreliable network, the same one in every run
///
/// ```
/// use discovery::layer::{Fault, Odds};
///
/// let fault = Fault::seeded(7);
/// fault.odds(Odds::new().fail(0.1).lose_reply(0.05).cut(0.01));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[must_use = "odds do nothing until a fault has them"]
pub struct Odds {
    fail: f64,
    lose_reply: f64,
    expire: f64,
    cut: f64,
}

impl Odds {
    /// No trouble.
    pub fn new() -> Self {
        Self::default()
    }

    /// That a call fails with [`ErrorKind::Unavailable`] and has no effect.
    pub fn fail(self, fail: f64) -> Self {
        Self { fail, ..self }
    }

    /// That the reply to a write that succeeded is lost.
    pub fn lose_reply(self, lose_reply: f64) -> Self {
        Self { lose_reply, ..self }
    }

    /// That a renewal finds its lease gone.
    pub fn expire(self, expire: f64) -> Self {
        Self { expire, ..self }
    }

    /// That a watch ends with an error where its next item would be.
    pub fn cut(self, cut: f64) -> Self {
        Self { cut, ..self }
    }
}

impl Layer for Fault {
    fn wrap(&self, inner: Arc<dyn Backend>) -> Arc<dyn Backend> {
        Layered::wrap(inner, self.clone())
    }
}

impl Around for Fault {
    async fn call<T, F>(
        &self,
        backend: &dyn Backend,
        request: Request<'_>,
        attempt: impl Fn() -> F + Send + Sync,
    ) -> Result<T>
    where
        T: Send,
        F: Future<Output = Result<T>> + Send,
    {
        self.pause().await;
        let trouble = self.script().before(request);
        match trouble {
            Some(Trouble::Failure(error)) => return Err(error),
            Some(Trouble::Expiry) => {
                if let (Request::Renew(lease), Some(leases)) = (request, backend.leases()) {
                    leases.revoke(lease).await?;
                }
                return Err(Error::new(ErrorKind::LeaseLost, format!("a fault ended {request}")));
            }
            None => {}
        }
        let reply = attempt().await?;
        if self.script().loses_reply(request) {
            return Err(Error::new(ErrorKind::Unavailable, "a fault lost the reply"));
        }
        Ok(reply)
    }

    fn stream<T: Send + 'static>(
        &self,
        _: &dyn Backend,
        _: Request<'_>,
        open: impl FnOnce() -> BoxStream<'static, Result<T>>,
    ) -> BoxStream<'static, Result<T>> {
        // Listen first: a partition from here on is either seen in the script or heard.
        let cuts = self.0.cuts.subscribe();
        if self.script().partitioned {
            return failed(partitioned());
        }
        stream::unfold(Wire { fault: self.clone(), cuts, inner: Some(open()) }, Wire::next).boxed()
    }
}

impl Fault {
    async fn pause(&self) {
        let delay = self.script().delay;
        if !delay.is_zero() {
            time::sleep(delay).await;
        }
    }
}

/// What a call runs into before it is made.
enum Trouble {
    Failure(Error),
    Expiry,
}

impl Script {
    fn calm(random: fastrand::Rng) -> Self {
        Self {
            partitioned: false,
            delay: Duration::ZERO,
            failures: VecDeque::new(),
            replies_to_lose: 0,
            leases_to_expire: 0,
            odds: Odds::new(),
            random,
        }
    }

    fn before(&mut self, request: Request<'_>) -> Option<Trouble> {
        if self.partitioned {
            return Some(Trouble::Failure(partitioned()));
        }
        if let Some(error) = self.failures.pop_front() {
            return Some(Trouble::Failure(error));
        }
        if self.happens(self.odds.fail) {
            let error = Error::new(ErrorKind::Unavailable, "a fault ate the request").not_applied();
            return Some(Trouble::Failure(error));
        }
        let renewal = matches!(request, Request::Renew(_));
        if renewal && (count_down(&mut self.leases_to_expire) || self.happens(self.odds.expire)) {
            return Some(Trouble::Expiry);
        }
        None
    }

    fn loses_reply(&mut self, request: Request<'_>) -> bool {
        request.is_write() && (count_down(&mut self.replies_to_lose) || self.happens(self.odds.lose_reply))
    }

    fn happens(&mut self, odds: f64) -> bool {
        // No draw for what cannot happen: switching one kind of trouble off leaves the others as they were.
        odds > 0.0 && self.random.f64() < odds
    }
}

fn count_down(count: &mut usize) -> bool {
    let due = *count > 0;
    *count = count.saturating_sub(1);
    due
}

fn partitioned() -> Error {
    Error::new(ErrorKind::Unavailable, "a fault put the backend out of reach").not_applied()
}

/// A watch that can be cut.
struct Wire<T> {
    fault: Fault,
    cuts: watch::Receiver<()>,
    /// `None` once it was cut.
    inner: Option<BoxStream<'static, Result<T>>>,
}

impl<T> Wire<T> {
    async fn next(mut self) -> Option<(Result<T>, Self)> {
        let mut inner = self.inner.take()?;
        let item = async {
            let item = inner.next().await;
            self.fault.pause().await;
            item
        };
        let item = tokio::select! {
            biased;
            _ = self.cuts.changed() => None,
            item = item => Some(item?),
        };
        let unlucky = || {
            let mut script = self.fault.script();
            let odds = script.odds.cut;
            script.happens(odds)
        };
        match item {
            Some(item) if item.is_err() || !unlucky() => {
                self.inner = Some(inner);
                Some((item, self))
            }
            _ => Some((Err(Error::new(ErrorKind::Unavailable, "a fault cut the watch")), self)),
        }
    }
}
