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

/// How many bytes are remembered.
const BYTES: usize = 1 << 20;

/// How many bytes are in a page: whatever has to be escaped in them, a frame takes it.
const PAGE: usize = 1 << 18;

/// How many bytes of a text are kept.
pub(super) const TEXT: usize = 4000;

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
        // It may come from anybody.
        say(format_args!("{FAINT}{NODE}-{} |{FAINT:#} {}", self.node, plain(&self.text)));
    }

    /// How much room it takes, its number and the like included.
    fn size(&self) -> usize {
        self.text.len() + 64
    }
}

/// Some lines in their order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Page {
    pub(super) lines: Vec<Line>,
    /// Whether there are more behind them already.
    pub(super) has_next: bool,
}

/// Lines with numbers. Written by nodes, read by whoever follows them; never locked across an `await`.
#[derive(Debug, Default)]
pub(super) struct Journal {
    lines: Mutex<VecDeque<Line>>,
    /// The number of the last line.
    last: watch::Sender<u64>,
}

impl Journal {
    /// Adds a line, as far as one line can hold the text, and returns it.
    pub(super) fn push(&self, node: Index, text: &str) -> Line {
        let mut lines = self.lines();
        let line = Line { number: *self.last.borrow() + 1, node, text: plain(text) };
        lines.push_back(line.clone());
        let mut bytes: usize = lines.iter().map(Line::size).sum();
        while lines.len() > LINES || bytes > BYTES {
            bytes -= lines.pop_front().as_ref().map_or(bytes, Line::size);
        }
        self.last.send_replace(line.number);
        line
    }

    /// The lines behind a number: at once if there are any, or else those that come within [`WAIT`].
    pub(super) async fn read(&self, after: u64) -> Page {
        let mut last = self.last.subscribe();
        // Nothing new in time is an answer too.
        let _ = time::timeout(WAIT, last.wait_for(|last| *last > after)).await;
        let all = self.lines();
        let mut news = all.iter().filter(|line| line.number > after).peekable();
        let (mut lines, mut bytes) = (Vec::new(), 0);
        while let Some(line) = news.next_if(|line| bytes + line.size() <= PAGE) {
            bytes += line.size();
            lines.push(line.clone());
        }
        Page { lines, has_next: news.peek().is_some() }
    }

    fn lines(&self) -> MutexGuard<'_, VecDeque<Line>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The text in one line of [`TEXT`] bytes at most: what would end the line, or do anything to a terminal, is escaped.
/// Doing it twice changes nothing.
fn plain(text: &str) -> String {
    let mut line = String::new();
    for c in text.chars() {
        let start = line.len();
        if c.is_control() {
            line.extend(c.escape_default());
        } else {
            line.push(c);
        }
        if line.len() > TEXT {
            line.truncate(start);
            line.push('…');
            break;
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(page: Page) -> Vec<String> {
        page.lines.into_iter().map(|line| line.text).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_gets_what_is_new_or_waits_for_it() {
        let journal = Journal::default();
        assert!(journal.read(0).await.lines.is_empty());
        journal.push(Index::MIN, "a");
        journal.push(Index::MIN, "b");
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
            journal.push(Index::MIN, &n.to_string());
        }
        let Page { lines, has_next } = journal.read(0).await;
        assert_eq!((lines.len(), lines[0].number, has_next), (LINES, 6, false));
    }

    #[tokio::test]
    async fn long_lines_come_by_the_page() {
        let journal = Journal::default();
        for _ in 0..LINES {
            // What JSON makes twice as long.
            journal.push(Index::MIN, &"\"".repeat(TEXT));
        }
        let (mut seen, mut bytes, mut pages) = (0, 0, 0);
        loop {
            let page = journal.read(seen).await;
            assert!(serde_json::to_vec(&page).unwrap().len() < 1 << 20);
            bytes += page.lines.iter().map(Line::size).sum::<usize>();
            pages += 1;
            seen = page.lines.last().unwrap().number;
            if !page.has_next {
                break;
            }
        }
        assert_eq!(seen, LINES as u64);
        assert!(bytes <= BYTES && pages > 3, "{bytes} bytes on {pages} pages");
    }

    #[test]
    fn a_text_is_one_line_and_cut() {
        assert_eq!(
            plain("Grüße\n\u{1b}[31mnode-3 | died\t\u{85}"),
            "Grüße\\n\\u{1b}[31mnode-3 | died\\t\\u{85}"
        );
        for text in ["x".repeat(TEXT + 1), "ü".repeat(TEXT), format!("{}\n", "x".repeat(TEXT - 1))] {
            let line = plain(&text);
            assert!(line.ends_with('…') && line.len() <= TEXT + '…'.len_utf8(), "{line}");
            assert_eq!(plain(&line), line);
        }
        assert_eq!(plain(&"x".repeat(TEXT)).len(), TEXT);
    }
}
