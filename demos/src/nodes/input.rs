//! Lines that are typed.

use std::{
    io::{self, BufRead, IsTerminal},
    thread,
};

use tokio::sync::mpsc;

/// Standard input by the line.
#[derive(Debug)]
pub(super) struct Input(mpsc::Receiver<Option<String>>);

impl Input {
    /// Reads from now on. A thread of its own, since a read cannot be broken off, and the process must not wait for one
    /// when it ends.
    pub(super) fn open() -> Self {
        let (send, lines) = mpsc::channel(1);
        thread::spawn(move || {
            let (mut input, mut line) = (io::stdin().lock(), String::new());
            loop {
                line.clear();
                let heard = match input.read_line(&mut line) {
                    Ok(1..) => Some(line.trim().to_owned()),
                    Ok(0) | Err(_) => None,
                };
                // Behind a Ctrl-D, a terminal goes on.
                let is_over = heard.is_none() && !io::stdin().is_terminal();
                if send.blocking_send(heard).is_err() || is_over {
                    return;
                }
            }
        });
        Self(lines)
    }

    /// The next line; `None` for Ctrl-D, and behind the end. Cancel safe.
    pub(super) async fn line(&mut self) -> Option<String> {
        self.0.recv().await.flatten()
    }

    /// The next line that there is, however long that takes. Cancel safe.
    pub(super) async fn command(&mut self) -> String {
        loop {
            match self.0.recv().await {
                Some(Some(line)) => return line,
                Some(None) => {}
                None => std::future::pending().await,
            }
        }
    }

    /// Waits for the end.
    pub(super) async fn end(&mut self) {
        while self.0.recv().await.is_some_and(|line| line.is_some()) {}
    }
}
