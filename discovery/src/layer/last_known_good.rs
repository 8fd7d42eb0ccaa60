//! An old answer rather than none.
#![deny(clippy::missing_trait_methods)]

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use tokio::time::Instant;

use super::Layer;
use crate::{Backend, Info, Leases, Registrar, Result, Revision, Scope, Snapshot, Updates, kv::Kv};

/// Answers a `fetch` with the last snapshot of that scope while the backend is out of reach, up to an age.
///
/// For programs that look services up now and then. A [`View`](crate::View) needs no such thing: it keeps what it knows, and says how fresh
/// that is, which a fetch cannot; an old answer is told by a warning in the log only. An answer that is empty is as
/// good as any other, and an error that will not pass is never papered over.
///
/// Add it before [`Retry`](super::Retry) and [`Timeout`](super::Timeout), so that it speaks when they have given up.
/// Keeps one snapshot of each scope that was fetched within that age.
///
/// # Example: ten minutes without a server
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> discovery::Result<()> {
/// use std::time::Duration;
/// use discovery::{Discovery, ServiceName, layer::{Fault, LastKnownGood}, mem::Mem};
///
/// let fault = Fault::new();
/// let fallback = LastKnownGood::new(Duration::from_secs(600));
/// let discovery = Discovery::new(Mem::new()).layer(fallback).layer(fault.clone());
///
/// let cart: ServiceName = "cart".parse()?;
/// discovery.lookup(&cart).await?;
/// fault.partition();
/// assert!(discovery.lookup(&cart).await.is_ok());
/// # Ok(()) }
/// ```
#[derive(Clone, Copy, Debug)]
pub struct LastKnownGood(Duration);

impl LastKnownGood {
    /// Answers that are at most `age` old.
    pub fn new(age: Duration) -> Self {
        Self(age)
    }
}

impl Layer for LastKnownGood {
    fn wrap(&self, inner: Arc<dyn Backend>) -> Arc<dyn Backend> {
        Arc::new(Fallback { limit: *self, known: Mutex::default(), inner })
    }
}

struct Fallback {
    limit: LastKnownGood,
    /// The last answer for each scope, and when it came.
    known: Mutex<HashMap<Scope, (Instant, Snapshot)>>,
    inner: Arc<dyn Backend>,
}

impl Fallback {
    fn learn(&self, scope: &Scope, snapshot: &Snapshot) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|_, (since, _)| since.elapsed() <= self.limit.0);
        known.insert(scope.clone(), (Instant::now(), snapshot.clone()));
    }

    fn recall(&self, scope: &Scope) -> Option<(Duration, Snapshot)> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let (since, snapshot) = known.get(scope)?;
        let age = since.elapsed();
        (age <= self.limit.0).then(|| (age, snapshot.clone()))
    }
}

#[async_trait]
impl Backend for Fallback {
    fn info(&self) -> &Info {
        self.inner.info()
    }

    async fn fetch(&self, scope: &Scope) -> Result<Snapshot> {
        let error = match self.inner.fetch(scope).await {
            Ok(snapshot) => {
                self.learn(scope, &snapshot);
                return Ok(snapshot);
            }
            Err(error) => error,
        };
        match self.recall(scope) {
            Some((age, snapshot)) if error.is_transient() => {
                tracing::warn!(backend = %self.info(), %scope, %error, ?age, "answered with what was last known");
                Ok(snapshot)
            }
            _ => Err(error),
        }
    }

    fn watch(&self, scope: &Scope, after: Option<Revision>) -> Updates {
        self.inner.watch(scope, after)
    }

    fn registrar(&self) -> Option<&dyn Registrar> {
        self.inner.registrar()
    }

    fn leases(&self) -> Option<&dyn Leases> {
        self.inner.leases()
    }

    fn kv(&self) -> Option<&dyn Kv> {
        self.inner.kv()
    }
}

impl fmt::Debug for Fallback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} over {:?}", self.limit, self.inner)
    }
}
