//! One upstream watch for all local watchers of a scope.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use super::{Watch, resume::Resume, topic::Topic};
use crate::{Backend, Scope, backoff::Backoff, lease::Keepers};

/// The topics of one backend.
pub(crate) struct Hub {
    backend: Arc<dyn Backend>,
    backoff: Backoff,
    keepers: Arc<Keepers>,
    /// Watchers keep their topic alive; the hub only knows where it is.
    topics: Mutex<HashMap<Scope, Weak<Topic>>>,
}

impl Hub {
    pub(crate) fn new(backend: Arc<dyn Backend>, backoff: Backoff, keepers: Arc<Keepers>) -> Self {
        Self { backend, backoff, keepers, topics: Mutex::default() }
    }

    /// One more watcher of `scope`; the first one opens the upstream watch, the last one to go closes it.
    pub(crate) fn watch(&self, scope: Scope) -> Watch {
        let mut topics = self.topics.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(topic) = topics.get(&scope).and_then(Weak::upgrade).filter(|topic| topic.is_open()) {
            return Watch::new(topic);
        }
        topics.retain(|_, topic| topic.strong_count() > 0);
        let topic = Arc::new(Topic::new(scope.clone()));
        let resume = Resume {
            backend: self.backend.clone(),
            backoff: self.backoff,
            keepers: self.keepers.clone(),
            topic: Arc::downgrade(&topic),
            scope: scope.clone(),
        };
        topic.own(tokio::spawn(resume.run()).abort_handle());
        topics.insert(scope, Arc::downgrade(&topic));
        Watch::new(topic)
    }
}

impl fmt::Debug for Hub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Hub({:?})", self.backend)
    }
}
