//! A test in a process of its own, to be frozen and killed.

use std::{
    env, io,
    process::{Child, ChildStdin, Command, ExitStatus, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};

use crate::process::Deadline;

/// The environment variable that tells an agent that it is one, and what it has to know.
const ORDER: &str = "DISCOVERY_TEST_AGENT";

/// How long an agent may take to end once it was asked to.
const ENDS_WITHIN: Duration = Duration::from_secs(60);

/// The test binary once more, in a process of its own, which runs one test only: an `#[ignore]`d one, that begins with
/// [`Agent::order`] and goes on until [`Agent::until_asked_to_end`]. Dropping the handle kills the process.
#[derive(Debug)]
pub struct Agent {
    child: Child,
    /// Closed, it tells the agent to come to its end.
    stdin: Option<ChildStdin>,
}

impl Agent {
    /// Starts `test` of this test binary, such as `process::agent`, with an order that is not empty.
    ///
    /// # Errors
    ///
    /// When the process cannot be started.
    pub fn start(test: &str, order: &str) -> io::Result<Self> {
        let mut command = Command::new(env::current_exe()?);
        command.args([test, "--exact", "--ignored", "--nocapture"]).env(ORDER, order);
        let mut child = command.stdin(Stdio::piped()).spawn()?;
        Ok(Self { stdin: child.stdin.take(), child })
    }

    /// In the agent: what it was started with; `None` in a process that is none.
    pub fn order() -> Option<String> {
        env::var(ORDER).ok()
    }

    /// In the agent: waits until it is asked to end.
    ///
    /// # Errors
    ///
    /// When the standard input cannot be read.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime.
    pub async fn until_asked_to_end() -> io::Result<()> {
        let closed = tokio::task::spawn_blocking(|| io::copy(&mut io::stdin(), &mut io::sink()));
        closed.await.map_err(io::Error::other)?.map(|_| ())
    }

    /// Freezes the process (SIGSTOP).
    ///
    /// # Errors
    ///
    /// When the signal cannot be sent.
    pub fn pause(&self) -> io::Result<()> {
        Ok(kill_process(Pid::from_child(&self.child), Signal::STOP)?)
    }

    /// Lets it go on (SIGCONT).
    ///
    /// # Errors
    ///
    /// When the signal cannot be sent.
    pub fn resume(&self) -> io::Result<()> {
        Ok(kill_process(Pid::from_child(&self.child), Signal::CONT)?)
    }

    /// Asks it to end, and waits until it has. The status tells whether its test passed.
    ///
    /// # Errors
    ///
    /// When that takes longer than a minute.
    pub async fn end(&mut self) -> io::Result<ExitStatus> {
        drop(self.stdin.take());
        let deadline = Deadline::after(ENDS_WITHIN);
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            if !deadline.wait().await {
                return Err(io::Error::other(format!("the agent did not end within {ENDS_WITHIN:?}")));
            }
        }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // One that has ended already is no matter.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
