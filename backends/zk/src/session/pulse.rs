//! Signs of life of the server, which all watches of a session share: one of them asks for all.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::Semaphore,
    time::{Instant, timeout_at},
};

use super::{Horizon, Session, Task};
use crate::error::Trouble;

/// What a session knows about the life of its server.
#[derive(Debug)]
pub(super) struct Pulse {
    /// One at a time asks.
    asking: Semaphore,
    /// The latest answer. Held for single looks, never across an `await`.
    last: Mutex<Option<SignOfLife>>,
}

/// An answer of the leader of the ensemble.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SignOfLife {
    /// When it came.
    pub(crate) at: Instant,
    /// Events up to this zxid have arrived before it.
    pub(crate) told: i64,
}

impl Default for Pulse {
    fn default() -> Self {
        Self { asking: Semaphore::new(1), last: Mutex::default() }
    }
}

impl Pulse {
    fn last(&self) -> MutexGuard<'_, Option<SignOfLife>> {
        // A sign is replaced as a whole, so a panic elsewhere under the lock does no harm.
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Session {
    /// A sign of life: the latest, unless that is older than `age`, or one that is asked for.
    ///
    /// That is done in a task: whoever waits may be a stream that is not polled for a while, and would else
    /// keep the turn from all others.
    pub(crate) async fn sign_of_life(
        self: &Arc<Self>,
        age: Duration,
        deadline: Instant,
        horizon: &Arc<Horizon>,
    ) -> Result<SignOfLife, Trouble> {
        let (session, horizon) = (self.clone(), horizon.clone());
        let asking =
            Task(tokio::spawn(async move { session.ask_for_sign_of_life(age, deadline, &horizon).await }));
        // Fails only when the runtime ends.
        asking.await.unwrap_or(Err(Trouble::Late))
    }

    async fn ask_for_sign_of_life(
        &self,
        age: Duration,
        deadline: Instant,
        horizon: &Horizon,
    ) -> Result<SignOfLife, Trouble> {
        // Nobody closes it, so it can only be late.
        let _turn = timeout_at(deadline, self.pulse.asking.acquire()).await.map_err(|_| Trouble::Late)?;
        let last = *self.pulse.last();
        if let Some(sign) = last.filter(|sign| sign.at.elapsed() <= age) {
            return Ok(sign);
        }
        let target = horizon.zxid();
        let caught_up = self.has_caught_up(deadline, Some(self.catch_up(horizon))).await?;
        let sign = SignOfLife { at: Instant::now(), told: if caught_up { target } else { 0 } };
        *self.pulse.last() = Some(sign);
        Ok(sign)
    }
}
