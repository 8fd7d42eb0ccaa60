//! How long to wait before trying again.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use tokio::time::{self, Instant};

/// Exponential back-off with jitter: how the machines of this crate pace their attempts.
///
/// The delays double from `first` to `cap`; to each a random share of itself is added, so that many clients that lost
/// the same server do not come back in step. The sequence starts over only after a calm period as long as `cap`: a
/// server that flaps is not hammered each time it answers once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    first: Duration,
    cap: Duration,
    seed: Option<u64>,
}

impl Backoff {
    /// Delays from `first` to `cap`.
    pub const fn new(first: Duration, cap: Duration) -> Self {
        Self { first, cap, seed: None }
    }

    /// Makes the jitter repeatable.
    #[must_use]
    pub fn with_seed(self, seed: u64) -> Self {
        Self { seed: Some(seed), ..self }
    }

    /// The same with delays that grow no further than this.
    pub(crate) fn up_to(self, cap: Duration) -> Self {
        Self { first: self.first.min(cap), cap: self.cap.min(cap), ..self }
    }

    pub(crate) fn start(self) -> Attempts {
        Attempts { policy: self, delays: self.delays(), resumed: Instant::now() }
    }

    fn delays(self) -> ExponentialBackoff {
        ExponentialBuilder::new()
            .with_min_delay(self.first)
            .with_max_delay(self.cap)
            .with_factor(2.0)
            .with_jitter()
            .with_jitter_seed(self.seed.unwrap_or_else(|| fastrand::u64(..)))
            .without_max_times()
            .build()
    }
}

impl Default for Backoff {
    /// From 50 ms to 5 s.
    fn default() -> Self {
        Self::new(Duration::from_millis(50), Duration::from_secs(5))
    }
}

/// A running sequence of delays.
#[derive(Debug)]
pub(crate) struct Attempts {
    policy: Backoff,
    delays: ExponentialBackoff,
    /// When the last delay was over: what has gone well since then counts as calm.
    resumed: Instant,
}

impl Attempts {
    /// The delay before the next attempt.
    pub(crate) fn next_delay(&mut self) -> Duration {
        let now = Instant::now();
        if now.saturating_duration_since(self.resumed) >= self.policy.cap {
            self.delays = self.policy.delays();
        }
        let delay = self.delays.next().unwrap_or(self.policy.cap);
        self.resumed = now + delay;
        delay
    }
}

/// Waits until a moment; for ever if there is none.
pub(crate) async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use tokio::time;

    use super::*;

    const FIRST: Duration = Duration::from_millis(100);
    const CAP: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn delays_grow_to_the_cap_and_start_over_after_a_calm_period() {
        let mut attempts = Backoff::new(FIRST, CAP).with_seed(7).start();
        let mut last = Duration::ZERO;
        for nominal in [100, 200, 400, 800, 1000, 1000].map(Duration::from_millis) {
            last = attempts.next_delay();
            assert!(last >= nominal && last < 2 * nominal, "{last:?} for {nominal:?}");
            time::sleep(last).await;
        }
        assert!(attempts.next_delay() >= CAP, "no calm yet");
        time::sleep(last + 3 * CAP).await;
        assert!(attempts.next_delay() < 2 * FIRST);
    }
}
