//! Keeping an eye on the server: one task a handle, as long as there are watches or leases.
//!
//! It asks for the serial once a [poll interval](super::DnsZoneConfig::poll_interval), and for what is new at once when
//! the server sends a NOTIFY (RFC 1996) or this handle has written. What it hears goes to all watches; when it hears
//! nothing any more, they end. And it ends leases that fell silent, and sweeps away what they leave.
//!
//! A handle that watches nothing, but holds leases, has time: it looks only to end the leases of others.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use discovery::{Error, ErrorKind, Result};
use futures_util::future::{BoxFuture, join_all};
use tokio::{
    task::JoinHandle,
    time::{self, Instant},
};

use super::{Shared, notify::Listener, plan::Work, replica::Hint};

/// How long to wait, at most, before ending what has fallen silent: so that not all who notice do it.
const SWEEP_DELAY: Duration = Duration::from_millis(300);
/// How long to leave it alone when the server does not let us: at first, and at most.
const LET_BE: Duration = Duration::from_secs(1);
const LET_BE_MAX: Duration = Duration::from_secs(60);
/// How many leases are ended at once.
const ENDS: usize = 256;

/// How long to rest after a look when there is a reason for the next one already: as long as the look took, so that the
/// more there is to be done, the more changes come together; but from what the timer can tell up to this.
const REST_MIN: Duration = Duration::from_millis(1);
const REST_MAX: Duration = Duration::from_millis(10);

/// The task; dropped, it ends.
#[derive(Debug)]
pub(super) struct Eye {
    task: JoinHandle<()>,
    /// Set by whichever ends first, the handle or the task.
    is_over: Arc<AtomicBool>,
}

impl Eye {
    pub(super) fn open(shared: Arc<Shared>) -> Self {
        let is_over = Arc::<AtomicBool>::default();
        let watchman = Watchman {
            shared,
            is_over: is_over.clone(),
            listener: None,
            is_deaf: false,
            sweep: None,
            sweeping: None,
            let_be: LET_BE,
            spared: None,
        };
        Self { task: tokio::spawn(watchman.run()), is_over }
    }

    /// Whether it is still there; it goes with the runtime that it was opened on.
    pub(super) fn is_open(&self) -> bool {
        !self.is_over.load(Ordering::Acquire)
    }
}

impl Drop for Eye {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Release);
        self.task.abort();
    }
}

struct Watchman {
    shared: Arc<Shared>,
    is_over: Arc<AtomicBool>,
    /// Where NOTIFY comes in.
    listener: Option<Listener>,
    /// Whether it was told that it cannot come in.
    is_deaf: bool,
    /// When to sweep, if there is anything to be swept away.
    sweep: Option<Instant>,
    /// What is being swept away.
    sweeping: Option<BoxFuture<'static, Result<()>>>,
    /// How long to leave it alone if that fails.
    let_be: Duration,
    /// Until when to leave it alone.
    spared: Option<Instant>,
}

impl Watchman {
    async fn run(mut self) {
        let mut hint = Hint::Perhaps;
        loop {
            self.listen().await;
            let began = Instant::now();
            match self.shared.replica.sync(hint, began + self.shared.config.silence_timeout()).await {
                Ok(()) => self.look_for_silence(),
                // It answers, but not everything in time.
                Err(error) if error.kind() == ErrorKind::Timeout && self.was_heard() => {}
                Err(error) => {
                    tracing::debug!(zone = %self.shared.replica.origin, %error, "lost the server");
                    self.shared.replica.lose(error);
                }
            }
            hint = self.rest(began).await;
        }
    }

    /// Waits until it is time to look again, or there is a reason to.
    async fn rest(&mut self, began: Instant) -> Hint {
        let took = began.elapsed();
        let enough = Instant::now() + took.min(REST_MAX);
        let interval = self.interval();
        self.shared.replica.set_interval(interval);
        // Clients that were started together should not ask together for ever.
        let due = began + interval.mul_f64(0.9 + 0.2 * fastrand::f64());
        let due = self.sweep.map_or(due, |sweep| sweep.min(due));
        let notified = async {
            match &self.listener {
                Some(listener) => listener.heard().await,
                None => std::future::pending().await,
            }
        };
        let swept = async {
            match &mut self.sweeping {
                Some(sweeping) => sweeping.await,
                None => std::future::pending().await,
            }
        };
        let (hint, swept) = tokio::select! {
            () = time::sleep_until(due) => (Hint::Perhaps, None),
            () = self.shared.bell.notified() => (Hint::News, None),
            () = notified => (Hint::News, None),
            swept = swept => (Hint::Perhaps, Some(swept)),
        };
        if let Some(swept) = swept {
            self.sweeping = None;
            self.take_note(swept);
        }
        if took >= REST_MIN {
            time::sleep_until(enough).await;
        }
        hint
    }

    /// Whether the server has answered within the time that it may be silent, and told everything not long before.
    fn was_heard(&self) -> bool {
        let (replica, silence) = (&self.shared.replica, self.shared.config.silence_timeout());
        let is_within = |at: Option<Instant>, time| at.is_some_and(|at| at.elapsed() < time);
        is_within(replica.answered(), silence) && is_within(replica.heard(), 3 * silence)
    }

    /// How often to ask.
    fn interval(&self) -> Duration {
        let interval = self.shared.config.poll_interval();
        if self.shared.replica.is_watched() {
            return interval;
        }
        self.shared.leases.shortest().map_or(interval, |ttl| interval.max(ttl / 3))
    }

    /// Ends what has fallen silent, after a moment.
    fn look_for_silence(&mut self) {
        let heard = self.shared.replica.heard();
        let found = self.shared.replica.look(|mirror| {
            let lapsed = heard.map(|heard| mirror.lapsed(heard)).unwrap_or_default();
            (lapsed, mirror.orphans().next().is_some())
        });
        let Some((lapsed, orphans)) = found else { return };
        let now = Instant::now();
        let is_spared = self.spared.is_some_and(|until| now < until);
        if (lapsed.is_empty() && !orphans) || is_spared || self.sweeping.is_some() {
            self.sweep = None;
            return;
        }
        let due = *self.sweep.get_or_insert_with(|| now + SWEEP_DELAY.mul_f64(fastrand::f64()));
        if now < due {
            return;
        }
        self.sweep = None;
        let shared = self.shared.clone();
        self.sweeping = Some(Box::pin(async move {
            let ends = lapsed.into_iter().take(ENDS).map(|(id, beat)| {
                tracing::debug!(zone = %shared.replica.origin, lease = %id, "a lease fell silent");
                shared.write(Work::End(id, Some(beat)))
            });
            join_all(ends).await.into_iter().collect::<Result<Vec<_>>>()?;
            if orphans {
                shared.write(Work::Sweep).await?;
            }
            Ok(())
        }));
    }

    fn take_note(&mut self, swept: Result<()>) {
        let Err(error) = swept else {
            self.let_be = LET_BE;
            self.spared = None;
            // There may be more.
            self.shared.look_now();
            return;
        };
        let zone = &self.shared.replica.origin;
        if self.spared.is_none() {
            tracing::warn!(%zone, %error, "cannot end what fell silent; trying again later");
        }
        // A server that takes no updates takes none of those who renew their leases either.
        self.shared.replica.excuse_silence();
        self.spared = Some(Instant::now() + self.let_be);
        self.let_be = (2 * self.let_be).min(LET_BE_MAX);
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

impl Drop for Watchman {
    fn drop(&mut self) {
        let port = self.listener.as_ref().map_or(0, Listener::port);
        // Another may listen by now.
        let _ =
            self.shared.replica.notify_port.compare_exchange(port, 0, Ordering::Relaxed, Ordering::Relaxed);
        // Before the watches are told: who watches again on being told needs another one.
        if self.is_over.swap(true, Ordering::AcqRel) {
            return;
        }
        // Who still watches, because this ended with its runtime or by a panic, must not wait for ever.
        let error = Error::new(ErrorKind::Unavailable, "nobody asks the server any more; watch again");
        self.shared.replica.lose(error.not_applied());
    }
}
