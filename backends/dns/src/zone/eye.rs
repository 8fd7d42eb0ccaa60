//! Keeping an eye on the server: one task a handle, as long as there are watches or leases.
//!
//! It asks for the serial once a [poll interval](super::ZoneConfig::poll_interval), and at once when the server sends a
//! NOTIFY (RFC 1996) or this handle has written. What it hears goes to all watches; when it hears nothing any more, they
//! end. And it ends leases that fell silent, and sweeps away what they leave.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use discovery::{ErrorKind, Result};
use tokio::{
    task::JoinHandle,
    time::{self, Instant},
};

use super::{Shared, log::Work, notify::Listener};

/// How long to wait, at most, before ending what has fallen silent: so that not all who notice do it.
const SWEEP_DELAY: Duration = Duration::from_millis(300);

/// The task; dropped, it ends.
#[derive(Debug)]
pub(super) struct Eye(JoinHandle<()>);

impl Eye {
    pub(super) fn open(shared: Arc<Shared>) -> Self {
        Self(tokio::spawn(
            Watchman { shared, listener: None, is_deaf: false, sweep: None, may_sweep: true }.run(),
        ))
    }
}

impl Drop for Eye {
    fn drop(&mut self) {
        self.0.abort();
    }
}

struct Watchman {
    shared: Arc<Shared>,
    /// Where NOTIFY comes in.
    listener: Option<Listener>,
    /// Whether it was told that it cannot come in.
    is_deaf: bool,
    /// When to sweep, if there is anything to be swept away.
    sweep: Option<Instant>,
    /// Whether the server lets us.
    may_sweep: bool,
}

impl Watchman {
    async fn run(mut self) {
        loop {
            self.listen().await;
            let began = Instant::now();
            match self.shared.replica.sync(began + self.shared.config.silence_timeout()).await {
                Ok(()) => self.tidy().await,
                Err(error) => {
                    tracing::debug!(zone = %self.shared.replica.origin, %error, "lost the server");
                    self.shared.replica.lose(error);
                }
            }
            self.rest(began).await;
        }
    }

    /// Waits until it is time to look again, or there is a reason to.
    async fn rest(&self, began: Instant) {
        let interval = self.shared.config.poll_interval();
        // Clients that were started together should not ask together for ever.
        let jitter = interval.mul_f64(0.9 + 0.2 * fastrand::f64());
        let due = self.sweep.map_or(began + jitter, |sweep| sweep.min(began + jitter));
        let notified = async {
            match &self.listener {
                Some(listener) => listener.heard().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = time::sleep_until(due) => {}
            () = self.shared.bell.notified() => {}
            () = notified => {}
        }
    }

    /// Ends what has fallen silent, after a moment.
    async fn tidy(&mut self) {
        let heard = self.shared.replica.heard();
        let found = self.shared.replica.look(|mirror| {
            let lapsed = heard.map(|heard| mirror.lapsed(heard)).unwrap_or_default();
            (lapsed, mirror.orphans().next().is_some())
        });
        let Some((lapsed, orphans)) = found else { return };
        if lapsed.is_empty() && !orphans || !self.may_sweep {
            self.sweep = None;
            return;
        }
        let now = Instant::now();
        let due = *self.sweep.get_or_insert_with(|| now + SWEEP_DELAY.mul_f64(fastrand::f64()));
        if now < due {
            return;
        }
        self.sweep = None;
        for (id, beat) in lapsed {
            tracing::debug!(zone = %self.shared.replica.origin, lease = %id, "a lease fell silent");
            self.take_note(self.shared.write(Work::End(id, Some(beat))).await);
        }
        if orphans {
            self.take_note(self.shared.write(Work::Sweep).await);
        }
    }

    fn take_note<T>(&mut self, outcome: Result<T>) {
        if let Err(error) = outcome
            && error.kind() == ErrorKind::Denied
        {
            tracing::warn!(zone = %self.shared.replica.origin, %error, "may not sweep; others have to");
            self.may_sweep = false;
        }
    }

    /// Listens for NOTIFY, if that is wanted and not done yet.
    async fn listen(&mut self) {
        let replica = &self.shared.replica;
        if self.listener.is_some() {
            return;
        }
        match Listener::open(&replica.origin, self.shared.config.notify(), &replica.server).await {
            Ok(listener) => {
                let port = listener.as_ref().map_or(0, Listener::port);
                replica.notify_port.store(port, Ordering::Relaxed);
                self.listener = listener;
            }
            Err(error) if !self.is_deaf => {
                self.is_deaf = true;
                tracing::warn!(zone = %replica.origin, %error, "cannot listen for NOTIFY; polling, and trying again");
            }
            Err(_) => {}
        }
    }
}
