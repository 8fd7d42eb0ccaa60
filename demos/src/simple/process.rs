//! A process that belongs to a target: started by us, or by a supervisor that is gone.

use std::{os::fd::OwnedFd, process::ExitStatus, sync::Arc, time::Duration};

use anyhow::Context;
use rustix::{
    io::Errno,
    process::{Pid, Signal, kill_process_group},
};
use tokio::{process::Command, sync::watch, time};
use tokio_util::task::AbortOnDropHandle;

use super::{
    orphan::{self, Relative},
    output::Output,
};

/// How often what it prints is looked for, and the end of an orphan.
const LOOK: Duration = Duration::from_millis(50);

/// A process, dead or alive. Dropping this leaves it alone.
#[derive(Debug)]
pub(super) struct Process {
    pid: Pid,
    /// By which the end of an orphan is seen; its number could be somebody else's by then.
    orphan: Option<Arc<OwnedFd>>,
    /// How it ended. Closed once that has been told.
    end: watch::Receiver<Option<String>>,
    /// Waits for its end, and passes on what it prints.
    _attendant: AbortOnDropHandle<()>,
}

impl Process {
    /// Starts a command, in a process group of its own: what a terminal sends to ours is for us to pass on, in order.
    /// `ended` is called at its end.
    pub(super) fn start(
        words: &[String],
        env: &[(&str, Option<String>)],
        label: String,
        ended: impl FnOnce(String) + Send + 'static,
    ) -> anyhow::Result<Self> {
        let (program, args) = words.split_first().context("the command is empty")?;
        let (mut output, file) = Output::new(label).context("cannot keep what it prints")?;
        let mut command = Command::new(program);
        for (name, value) in env {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        command.args(args).stdin(std::process::Stdio::null()).process_group(0);
        command.stdout(file.try_clone()?).stderr(file);
        let mut child = command.spawn().with_context(|| format!("cannot start {program}"))?;
        let pid = child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
        let pid = pid.context("it ended before it had begun")?;
        let (over, end) = watch::channel(None);
        let attendant = tokio::spawn(async move {
            let status = loop {
                tokio::select! {
                    status = child.wait() => break status,
                    () = time::sleep(LOOK) => output.copy(),
                }
            };
            // Who ends well may have left a server behind on purpose; otherwise its children would be in the way. As
            // long as there is one of them, nobody else has their number.
            if !status.as_ref().is_ok_and(ExitStatus::success) {
                let _ = kill_process_group(pid, Signal::KILL);
            }
            output.finish();
            let reason = status.map_or_else(|error| format!("was lost: {error}"), reason);
            over.send_replace(Some(reason.clone()));
            ended(reason);
            drop(over);
        });
        Ok(Self { pid, orphan: None, end, _attendant: AbortOnDropHandle::new(attendant) })
    }

    /// Adopts a process that a supervisor before us has started.
    pub(super) fn adopt(
        Relative { pid, handle, .. }: Relative,
        label: String,
        ended: impl FnOnce(String) + Send + 'static,
    ) -> Self {
        let handle = Arc::new(handle);
        let (over, end) = watch::channel(None);
        let watched = handle.clone();
        let attendant = tokio::spawn(async move {
            let mut output = orphan::output(pid, label);
            while !orphan::is_gone(&watched) {
                time::sleep(LOOK).await;
                output.iter_mut().for_each(Output::copy);
            }
            output.iter_mut().for_each(Output::finish);
            let reason = "ended".to_owned();
            over.send_replace(Some(reason.clone()));
            ended(reason);
            drop(over);
        });
        Self { pid, orphan: Some(handle), end, _attendant: AbortOnDropHandle::new(attendant) }
    }

    pub(super) fn pid(&self) -> i32 {
        self.pid.as_raw_nonzero().get()
    }

    pub(super) fn is_alive(&self) -> bool {
        self.end.borrow().is_none()
    }

    /// Signals it, if it is alive, and those that it has started, which are in its group.
    pub(super) fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        if !self.is_alive() {
            return Ok(());
        }
        let sent = match &self.orphan {
            Some(handle) if orphan::is_gone(handle) => Ok(()),
            // Its number is its own, and that of its group, until it has been waited for.
            _ => kill_process_group(self.pid, signal),
        };
        match sent {
            // It has ended a moment ago.
            Err(Errno::SRCH) => Ok(()),
            sent => sent.with_context(|| format!("cannot signal process {}", self.pid())),
        }
    }

    /// Waits for its end, and until that has been told.
    pub(super) fn ended(&self) -> impl Future<Output = ()> + use<> {
        let mut end = self.end.clone();
        async move { while end.changed().await.is_ok() {} }
    }
}

fn reason(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt;
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exited with {code}"),
        (None, Some(signal)) => format!("was killed by signal {signal}"),
        (None, None) => "ended".into(),
    }
}
