//! Trying until it works.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use tokio::time::{self, Instant};

/// How long to wait after the first failure, and at most; with as much again by chance, so that not all come back at the
/// same moment.
const PAUSES: [Duration; 2] = [Duration::from_millis(25), Duration::from_secs(1)];

/// How long something may fail before that is worth a word, and then between the words.
const REMINDERS: [Duration; 2] = [Duration::from_millis(500), Duration::from_secs(30)];

/// The outcome of the first attempt that succeeds. Tells of a failure once, and when it is over.
pub(super) async fn until_done<T, F>(what: &str, mut attempt: impl FnMut() -> F) -> T
where
    F: Future<Output = anyhow::Result<T>>,
{
    let (mut since, mut told) = (None, None);
    for pause in pauses() {
        let error = match attempt().await {
            Ok(done) => {
                if let (Some(since), Some(_)) = (since, told) {
                    tracing::info!("{what} works again, after {:.1} s", seconds(since));
                }
                return done;
            }
            Err(error) => error,
        };
        let since = *since.get_or_insert_with(Instant::now);
        let silence = if told.is_some() { REMINDERS[1] } else { REMINDERS[0] };
        if told.unwrap_or(since).elapsed() >= silence {
            tracing::warn!("{what}: {error:#}; trying again, for {:.1} s now", seconds(since));
            told = Some(Instant::now());
        }
        time::sleep(pause).await;
    }
    // The pauses have no end.
    std::future::pending().await
}

fn seconds(since: Instant) -> f64 {
    since.elapsed().as_secs_f64()
}

fn pauses() -> impl Iterator<Item = Duration> {
    let [first, most] = PAUSES;
    ExponentialBuilder::new()
        .with_min_delay(first)
        .with_max_delay(most)
        .with_jitter()
        .without_max_times()
        .build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn attempts_go_on_ever_more_slowly_until_one_succeeds() {
        let began = Instant::now();
        let mut attempts = 0;
        let done = until_done("it", || {
            attempts += 1;
            let is_last = attempts == 200;
            async move { if is_last { Ok(200) } else { Err(anyhow::anyhow!("not yet")) } }
        })
        .await;
        assert_eq!(done, 200);
        let most = PAUSES[1] * 2 * 200;
        assert!(began.elapsed() > PAUSES[1] * 190 && began.elapsed() < most, "{:?}", began.elapsed());
    }
}
