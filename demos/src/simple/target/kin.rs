//! The processes that belong to a target: its own, what that has started, and all below.

use rustix::process::Signal as Posix;
use tokio::{
    task,
    time::{self, Instant},
};

use super::{
    BREATH, MOMENT, Target,
    life::{ABOVE, BACKEND, TARGET},
};
use crate::simple::orphan::{self, Relative};

/// Which processes belong to a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kin {
    /// Its process, and what that has started.
    Own,
    /// And all that is below it.
    Branch,
}

impl Target {
    /// Those that nobody else looks after.
    pub(super) async fn kin(&self, which: Kin) -> Vec<Relative> {
        let address = self.address.to_string();
        let target = format!("{TARGET}={address}");
        // There may be a target of this name in another registry.
        let backend = self.context.backend.as_ref().map(|backend| format!("{BACKEND}={backend}"));
        let find = move || {
            orphan::find(|env| {
                let is_below = || {
                    let mut above = env.iter().filter_map(|word| word.strip_prefix(ABOVE)?.strip_prefix('='));
                    above.any(|above| above.split(' ').any(|above| above == address))
                };
                let is_kin = env.contains(&target) || (which == Kin::Branch && is_below());
                is_kin && backend.as_ref().is_none_or(|backend| env.contains(backend))
            })
        };
        task::spawn_blocking(find).await.unwrap_or_default()
    }
}

/// Asks processes to end, and kills those that live at the deadline. Returns those that live all the same: they are
/// somebody else's, or wait for a device.
pub(super) async fn end_all(mut processes: Vec<Relative>, deadline: Instant) -> Vec<i32> {
    for (signal, deadline) in [(Posix::TERM, deadline), (Posix::KILL, deadline + MOMENT)] {
        for process in &processes {
            // What has ended need not be told.
            let _ = process.signal(signal);
        }
        while !processes.is_empty() && Instant::now() < deadline {
            time::sleep(BREATH).await;
            processes.retain(|process| !process.is_gone());
        }
    }
    processes.iter().map(|process| process.pid.as_raw_nonzero().get()).collect()
}
