//! What nodes have said, the latest of it.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::{sync::watch, time};

use super::{index::Index, project::NODE};
use crate::console::{FAINT, say};

/// How many lines are remembered.
const LINES: usize = 1000;

/// How long a reader waits for something new before it asks again.
pub(super) const WAIT: Duration = Duration::from_secs(5);

/// Something that a node has said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Line {
    /// Grows by one with each line of a journal, from 1.
    pub(super) number: u64,
    pub(super) node: Index,
    pub(super) text: String,
}

impl Line {
    /// Shows it, as Compose does.
    pub(super) fn tell(&self) {
        say(format_args!("{FAINT}{NODE}-{} |{FAINT:#} {}", self.node, self.text));
    }
}

/// Lines with numbers. Written by nodes, read by whoever follows them; never locked across an `await`.
#[derive(Debug, Default)]
pub(super) struct Journal {
    lines: Mutex<VecDeque<Line>>,
    /// The number of the last line.
    last: watch::Sender<u64>,
}

impl Journal {
    /// Adds a line, and returns it.
    pub(super) fn push(&self, node: Index, text: impl Into<String>) -> Line {
        let mut lines = self.lines();
        let line = Line { number: *self.last.borrow() + 1, node, text: text.into() };
        lines.push_back(line.clone());
        if lines.len() > LINES {
            lines.pop_front();
        }
        self.last.send_replace(line.number);
        line
    }

    /// The lines behind a number: at once if there are any, or else those that come within [`WAIT`].
    pub(super) async fn read(&self, after: u64) -> Vec<Line> {
        let mut last = self.last.subscribe();
        // Nothing new in time is an answer too.
        let _ = time::timeout(WAIT, last.wait_for(|last| *last > after)).await;
        self.lines().iter().filter(|line| line.number > after).cloned().collect()
    }

    fn lines(&self) -> MutexGuard<'_, VecDeque<Line>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_reader_gets_what_is_new_or_waits_for_it() {
        let journal = Journal::default();
        assert!(journal.read(0).await.is_empty());
        journal.push(Index::MIN, "a");
        journal.push(Index::MIN, "b");
        let texts = |lines: Vec<Line>| lines.into_iter().map(|line| line.text).collect::<Vec<_>>();
        assert_eq!(texts(journal.read(0).await), ["a", "b"]);
        assert_eq!(texts(journal.read(1).await), ["b"]);
        let late = async {
            time::sleep(WAIT / 2).await;
            journal.push(Index::MIN, "c");
        };
        let (read, ()) = tokio::join!(journal.read(2), late);
        assert_eq!(texts(read), ["c"]);
    }

    #[tokio::test]
    async fn the_oldest_lines_are_forgotten() {
        let journal = Journal::default();
        for n in 0..LINES + 5 {
            journal.push(Index::MIN, n.to_string());
        }
        let lines = journal.read(0).await;
        assert_eq!((lines.len(), lines[0].number), (LINES, 6));
    }
}
