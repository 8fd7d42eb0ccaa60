//! Bringing a target to an end.

use std::sync::Arc;

use futures_util::future::join_all;
use rustix::process::Signal as Posix;
use tokio::time::{self, Instant};

use super::{
    MOMENT, Target,
    kin::{Kin, end_all},
};
use crate::simple::{machine::State, process::Process};

impl Target {
    /// Tells it to end: as the original does, or else by signal.
    pub(in crate::simple) async fn end(&self) -> anyhow::Result<()> {
        anyhow::ensure!(*self.leads.borrow(), "another supervisor looks after it");
        if self.state() == State::Provisioning {
            self.note(format!(
                "it was started, and has not answered within {:?}",
                self.context.pace.limits().start
            ));
        }
        let urls: Vec<_> = self.urls().iter().map(|url| format!("{url}/kill")).collect();
        if join_all(urls.iter().map(|url| self.get(url))).await.iter().any(Result::is_ok) {
            return Ok(());
        }
        match &*self.process() {
            Some(process) => process.signal(Posix::TERM),
            None => anyhow::bail!("it does not take /kill, and is no process of ours"),
        }
    }

    /// Ends it, where it hangs: nothing is to be expected of it.
    pub(in crate::simple) async fn cut_short(&self) -> anyhow::Result<()> {
        let ended = match &*self.process() {
            Some(process) if process.is_alive() => {
                process.signal(Posix::TERM)?;
                process.ended()
            }
            _ => anyhow::bail!("it hangs, and is no process of ours"),
        };
        let limit = MOMENT.min(self.context.stop_limit);
        if time::timeout(limit, ended).await.is_err() {
            tracing::warn!("{} hangs, and has not ended within {limit:?}; killing it", self.address);
            self.crush()?;
        }
        Ok(())
    }

    /// Kills it.
    pub(in crate::simple) fn crush(&self) -> anyhow::Result<()> {
        match &*self.process() {
            Some(process) if process.is_alive() => process.signal(Posix::KILL),
            _ => anyhow::bail!("it is no process of ours"),
        }
    }

    /// Ends it in order, and all that belongs to it: it is asked, then it is made to.
    pub(in crate::simple) async fn stop(self: &Arc<Self>) {
        let leads = *self.leads.borrow();
        // It may be that nobody has looked for it yet.
        if leads {
            self.adopt().await;
        }
        let limit = self.context.stop_limit;
        let is_there = matches!(self.state(), State::Running | State::Pending | State::Error);
        if let Some(ended) = self.terminate() {
            if time::timeout(limit, ended).await.is_err() {
                tracing::warn!("{} has not ended within {limit:?}; killing it", self.address);
                self.crush_and_wait().await;
            }
        } else if leads && is_there {
            tracing::warn!("{} is left running: it is no process of ours", self.address);
        }
        if leads {
            self.end_branch(Instant::now() + limit / 3).await;
        }
    }

    /// Asks its process to end, if there is one; returns what waits for that.
    fn terminate(&self) -> Option<impl Future<Output = ()> + use<>> {
        let process = self.process();
        let process = process.as_ref().filter(|process| process.is_alive())?;
        if let Err(error) = process.signal(Posix::TERM) {
            tracing::warn!("{}: {error:#}", self.address);
        }
        Some(process.ended())
    }

    async fn crush_and_wait(&self) {
        let ended = self.process().as_ref().map(Process::ended);
        if let (Ok(()), Some(ended)) = (self.crush(), ended)
            && time::timeout(MOMENT, ended).await.is_ok()
        {
            return;
        }
        tracing::warn!("{} cannot be killed, and is left alone", self.address);
    }

    /// Ends what is left of its branch: what its process has started, and the targets of a server that has died.
    async fn end_branch(&self, deadline: Instant) {
        let left = self.kin(Kin::Branch).await;
        if left.is_empty() {
            return;
        }
        tracing::info!("{}: ending what it has left behind, {} processes", self.address, left.len());
        let left = end_all(left, deadline).await;
        if !left.is_empty() {
            tracing::warn!("{}: cannot end processes {left:?}", self.address);
        }
    }
}
