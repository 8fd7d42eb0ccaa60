//! What the workers of this process said lately.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use futures_util::{StreamExt, stream};
use serde_json::json;
use tokio::sync::{
    broadcast::{self, error::RecvError},
    watch,
};

use super::push::Values;
use crate::{run_state::worker::Word, web::epoch_millis};

/// How many words are remembered.
const WORDS: usize = 100;

/// Words with numbers, the latest of them. Written by whoever listens to the workers, read by clients; never locked across
/// an `await`.
#[derive(Debug, Default)]
pub(in crate::run_state) struct Log {
    words: Mutex<VecDeque<(u64, Word)>>,
    /// The number of the last word.
    last: watch::Sender<u64>,
}

impl Log {
    /// Listens to a worker until it is gone.
    pub(in crate::run_state) async fn listen(&self, mut words: broadcast::Receiver<Word>) {
        loop {
            match words.recv().await {
                Ok(word) => self.push(word),
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return,
            }
        }
    }

    pub(in crate::run_state) fn push(&self, word: Word) {
        tracing::info!("{}: {}", word.worker, word.text);
        let mut words = self.words();
        // Numbers grow also over a restart, for those who come back with one.
        let number = epoch_millis(SystemTime::now()).max(*self.last.borrow() + 1);
        words.push_back((number, word));
        if words.len() > WORDS {
            words.pop_front();
        }
        self.last.send_replace(number);
    }

    /// The words, the oldest first.
    pub(super) fn latest(&self) -> Vec<Word> {
        self.words().iter().map(|(_, word)| word.clone()).collect()
    }

    /// The words behind a number, the oldest first, and then those to come.
    pub(super) fn follow(self: Arc<Self>, after: Option<u64>) -> Values {
        let reader = (self.clone(), self.last.subscribe(), after.unwrap_or(0));
        let words = stream::unfold(reader, |(log, mut last, seen)| async move {
            loop {
                let next = log.words().iter().find(|(number, _)| *number > seen).cloned();
                if let Some((number, word)) = next {
                    return Some((Ok((Some(number), json!(word))), (log, last, number)));
                }
                last.changed().await.ok()?;
            }
        });
        words.boxed()
    }

    fn words(&self) -> MutexGuard<'_, VecDeque<(u64, Word)>> {
        self.words.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
