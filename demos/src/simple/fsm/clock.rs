//! What makes time pass.

use std::{fmt, sync::Arc, time::Duration};

use tokio::time::{Instant, MissedTickBehavior, interval_at};
use tokio_util::task::AbortOnDropHandle;

use super::{Data, Label, Machines};

/// Makes time pass for [`Machines`], while it is started. Dropping it stops it.
pub(crate) struct Clock {
    beat: Arc<dyn Fn() + Send + Sync>,
    /// Between ticks; by hand without one.
    period: Option<Duration>,
    is_started: bool,
    task: Option<AbortOnDropHandle<()>>,
}

impl Clock {
    /// One that is moved by hand.
    pub(crate) fn manual<S: Label, G: Label, D: Data>(machines: &Machines<S, G, D>) -> Self {
        Self::new(machines, None)
    }

    /// One on the wall. Time that passes while nobody runs us is no time: behind a pause there is one tick, and a whole period
    /// until the next.
    pub(crate) fn wall<S: Label, G: Label, D: Data>(machines: &Machines<S, G, D>, period: Duration) -> Self {
        Self::new(machines, Some(period))
    }

    fn new<S: Label, G: Label, D: Data>(machines: &Machines<S, G, D>, period: Option<Duration>) -> Self {
        let shared = machines.shared().clone();
        Self { beat: Arc::new(move || shared.tick()), period, is_started: false, task: None }
    }

    /// Starts it; one that runs goes on.
    pub(crate) fn start(&mut self) {
        if std::mem::replace(&mut self.is_started, true) {
            return;
        }
        if let Some(period) = self.period {
            let beat = self.beat.clone();
            self.task = Some(AbortOnDropHandle::new(tokio::spawn(async move {
                let mut ticks = interval_at(Instant::now() + period, period);
                // A process that was stopped missed what happened meanwhile: it hears of that before its time is up.
                ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
                loop {
                    ticks.tick().await;
                    beat();
                }
            })));
        }
    }

    /// Stops it, and time with it.
    pub(crate) fn stop(&mut self) {
        self.is_started = false;
        self.task = None;
    }

    /// One tick by hand, if it is started.
    pub(crate) fn tick(&self) {
        if self.is_started {
            (self.beat)();
        }
    }

    /// Several ticks by hand.
    pub(crate) fn ticks(&self, count: u32) {
        (0..count).for_each(|_| self.tick());
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { period, is_started, .. } = self;
        f.debug_struct("Clock")
            .field("period", period)
            .field("is_started", is_started)
            .finish_non_exhaustive()
    }
}
