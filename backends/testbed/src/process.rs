//! A server process in a temporary directory: spawn, readiness, signals, end.

use std::{
    ffi::OsString,
    fs::{self, File},
    io,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

/// How often a condition is looked at while waiting for it.
pub(crate) const POLL: Duration = Duration::from_millis(10);

/// How long a process on a tether may take to end by itself.
const LETS_GO_WITHIN: Duration = Duration::from_secs(20);
/// How long killed children of a server may take to end, which others wait for.
const CHILDREN_END_WITHIN: Duration = Duration::from_secs(5);

/// How many lines of the log an error shows.
const LOG_TAIL: usize = 40;

/// A server that can be started again and again with the same command in the same directory.
///
/// The process stays in the process group of the test, so that what ends the group (a test runner's time-out,
/// Ctrl-C) ends the server too. Dropping the value kills the process and removes the directory.
#[derive(Debug)]
pub(crate) struct Process {
    label: String,
    program: OsString,
    args: Vec<OsString>,
    tethered: bool,
    /// `None` while the server is down. Held for single system calls only, never across an `await`.
    running: Mutex<Option<Running>>,
    dir: TempDir,
}

#[derive(Debug)]
struct Running {
    child: Child,
    paused: bool,
    /// Where in the log its output begins.
    log_start: usize,
}

impl Process {
    /// Describes a server without starting it; `label` names it in errors.
    pub(crate) fn new<A: Into<OsString>>(
        label: impl Into<String>,
        dir: TempDir,
        program: impl Into<OsString>,
        args: impl IntoIterator<Item = A>,
    ) -> Self {
        Self {
            label: label.into(),
            program: program.into(),
            args: args.into_iter().map(Into::into).collect(),
            tethered: false,
            running: Mutex::new(None),
            dir,
        }
    }

    /// For a process that ends when its standard input does, and tidies up. It is in a process group of its own, so
    /// that it gets round to that however the test ends; `kill` waits for it and is patient.
    pub(crate) fn tethered(mut self) -> Self {
        self.tethered = true;
        self
    }

    /// Starts the process; its output is appended to the log.
    pub(crate) fn spawn(&self) -> io::Result<()> {
        self.spawn_with(&[])
    }

    /// Starts the process with `more` arguments, this once.
    pub(crate) fn spawn_with(&self, more: &[String]) -> io::Result<()> {
        let mut running = self.running();
        if running.is_some() {
            return Err(io::Error::other(format!("{} is already running", self.label)));
        }
        let log_start = self.log().len();
        let log = File::options().create(true).append(true).open(self.log_path())?;
        let mut command = Command::new(&self.program);
        command.args(&self.args).args(more).current_dir(self.dir.path()).stdin(Stdio::null());
        if self.tethered {
            command.stdin(Stdio::piped()).process_group(0);
        }
        let child = command.stdout(log.try_clone()?).stderr(log).spawn().map_err(|error| {
            let program = Path::new(&self.program).display();
            io::Error::new(error.kind(), format!("cannot run {program} for {}: {error}", self.label))
        })?;
        *running = Some(Running { child, paused: false, log_start });
        Ok(())
    }

    /// Fails with the end of the log when the process has ended by itself.
    pub(crate) fn check(&self) -> io::Result<()> {
        match self.exited()? {
            Some(status) => Err(self.failure(&format!("ended by itself ({status})"))),
            None => Ok(()),
        }
    }

    /// SIGKILL, as a crash would end it; a process on a tether is let go first. Does nothing when it is down.
    pub(crate) fn kill(&self) -> io::Result<()> {
        if let Some(mut running) = self.running().take() {
            running.let_go()?;
            // SIGKILL also ends a process that is stopped, so there is no need to resume it first.
            running.child.kill()?;
            running.child.wait()?;
        }
        Ok(())
    }

    /// Like [`kill`](Self::kill), with the processes that this one has started; returns when all have ended.
    pub(crate) fn kill_with_children(&self) -> io::Result<()> {
        let Some(id) = self.id() else { return Ok(()) };
        // One that stands still starts no others.
        self.pause()?;
        let children = fs::read_to_string(format!("/proc/{id}/task/{id}/children"))?;
        let children: Vec<_> =
            children.split_whitespace().filter_map(|id| Pid::from_raw(id.parse().ok()?)).collect();
        for child in &children {
            // Its number cannot be another's now: its parent, which would have to notice its end, stands still.
            let _ = kill_process(*child, Signal::KILL);
        }
        // The parent, which collects none now, would not tell; it is about to go.
        let deadline = std::time::Instant::now() + CHILDREN_END_WITHIN;
        while !children.iter().all(|child| has_ended(*child)) && std::time::Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(1));
        }
        self.kill()
    }

    /// SIGHUP, upon which most servers read their files again.
    pub(crate) fn hang_up(&self) -> io::Result<()> {
        self.signal(Signal::HUP).map(|_| ())
    }

    /// SIGTERM, then waits for the end. Does nothing when the process is down.
    pub(crate) async fn stop(&self, within: Duration) -> io::Result<()> {
        if !self.is_running() {
            return Ok(());
        }
        self.resume()?;
        self.signal(Signal::TERM)?;
        let deadline = Deadline::after(within);
        while self.exited()?.is_none() {
            if !deadline.wait().await {
                return Err(self.failure(&format!("did not stop within {within:?}")));
            }
        }
        Ok(())
    }

    /// SIGSTOP; returns once every thread of the process stands still.
    pub(crate) fn pause(&self) -> io::Result<()> {
        let pid = self.signal(Signal::STOP)?;
        // The signal is only queued by the call above. EXITED too, or a process that dies meanwhile would block us;
        // NOWAIT leaves its exit status to be collected by `Child`.
        waitid(WaitId::Pid(pid), WaitIdOptions::STOPPED | WaitIdOptions::EXITED | WaitIdOptions::NOWAIT)?;
        self.mark(|running| running.paused = true);
        Ok(())
    }

    /// SIGCONT, the end of a pause.
    pub(crate) fn resume(&self) -> io::Result<()> {
        self.signal(Signal::CONT)?;
        self.mark(|running| running.paused = false);
        Ok(())
    }

    /// The process id, while it runs.
    pub(crate) fn id(&self) -> Option<u32> {
        self.running().as_ref().map(|running| running.child.id())
    }

    /// Whether the process was started and has not been ended by this value.
    pub(crate) fn is_running(&self) -> bool {
        self.running().is_some()
    }

    /// Whether the process is between `pause` and `resume`.
    pub(crate) fn is_paused(&self) -> bool {
        self.running().as_ref().is_some_and(|running| running.paused)
    }

    /// The temporary directory that the process runs in.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Everything the process has printed, over all its starts.
    pub(crate) fn log(&self) -> String {
        fs::read(self.log_path())
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }

    /// What the process has printed since it was last started; empty while it is down.
    pub(crate) fn log_of_this_start(&self) -> String {
        let start = self.running().as_ref().map(|running| running.log_start);
        start.and_then(|start| self.log().get(start..).map(str::to_owned)).unwrap_or_default()
    }

    /// An error that says what happened and shows the end of the log.
    pub(crate) fn failure(&self, what: &str) -> io::Error {
        io::Error::other(format!("{} {what}; its log ends with:\n{}", self.label, self.log_tail()))
    }

    fn log_path(&self) -> PathBuf {
        self.dir.path().join("log")
    }

    fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(LOG_TAIL)..].join("\n")
    }

    /// The status of a process that ended by itself, which is then down.
    fn exited(&self) -> io::Result<Option<ExitStatus>> {
        let mut running = self.running();
        let Some(process) = running.as_mut() else {
            return Err(io::Error::other(format!("{} is not running", self.label)));
        };
        let status = process.child.try_wait()?;
        if status.is_some() {
            *running = None;
        }
        Ok(status)
    }

    /// The id cannot have been given to another process: only `Child` collects the exit status, under this lock.
    fn signal(&self, signal: Signal) -> io::Result<Pid> {
        let running = self.running();
        let Some(process) = running.as_ref() else {
            return Err(io::Error::other(format!("{} is not running", self.label)));
        };
        let pid = Pid::from_child(&process.child);
        kill_process(pid, signal)?;
        Ok(pid)
    }

    fn mark(&self, change: impl FnOnce(&mut Running)) {
        if let Some(running) = self.running().as_mut() {
            change(running);
        }
    }

    fn running(&self) -> MutexGuard<'_, Option<Running>> {
        // A panic of another test thread leaves nothing half done here, and `drop` must work after one.
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Running {
    /// Waits until a process on a tether has ended.
    fn let_go(&mut self) -> io::Result<()> {
        let Some(tether) = self.child.stdin.take() else { return Ok(()) };
        drop(tether);
        // Also called by `drop`, where nothing can be awaited.
        let deadline = std::time::Instant::now() + LETS_GO_WITHIN;
        while self.child.try_wait()?.is_none() && std::time::Instant::now() < deadline {
            std::thread::sleep(POLL);
        }
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- end of the log of {} ---\n{}\n---", self.label, self.log_tail());
        }
        if let Err(error) = self.kill() {
            eprintln!("could not kill {}: {error}", self.label);
        }
    }
}

/// Whether a process, maybe of another parent, has released all it had.
fn has_ended(process: Pid) -> bool {
    let stat = fs::read_to_string(format!("/proc/{}/stat", process.as_raw_nonzero()));
    stat.map_or(true, |stat| stat.contains(") Z "))
}

/// The end of a wait for a condition, which the waiting loop looks at every [`POLL`].
#[derive(Debug)]
pub(crate) struct Deadline(Instant);

impl Deadline {
    pub(crate) fn after(time: Duration) -> Self {
        Self(Instant::now() + time)
    }

    /// Waits until it is time to look again; false, at once, when the time is up.
    pub(crate) async fn wait(&self) -> bool {
        let in_time = Instant::now() < self.0;
        if in_time {
            sleep(POLL).await;
        }
        in_time
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_secs(10);

    fn shell(script: &str) -> Process {
        Process::new("the script", TempDir::new().unwrap(), "sh", ["-c", script])
    }

    #[tokio::test]
    async fn the_log_is_in_the_error_of_a_process_that_ended_by_itself() {
        let process = shell("echo the reason >&2; exit 3");
        process.spawn().unwrap();
        let deadline = Deadline::after(SOON);
        let error = loop {
            match process.check() {
                Ok(()) => assert!(deadline.wait().await),
                Err(error) => break error.to_string(),
            }
        };
        assert!(error.contains("exit status: 3") && error.contains("the reason"), "{error}");
        assert!(!process.is_running());
    }

    #[tokio::test]
    async fn the_log_is_in_the_error_of_a_process_that_does_not_stop() {
        let process = shell("trap 'echo not yet' TERM; echo started; while :; do sleep 0.01; done");
        process.spawn().unwrap();
        let deadline = Deadline::after(SOON);
        while !process.log().contains("started") {
            assert!(deadline.wait().await);
        }
        let error = process.stop(POLL).await.unwrap_err().to_string();
        assert!(error.contains("did not stop within") && error.contains("started"), "{error}");
        assert!(process.is_running());
    }

    #[test]
    fn a_missing_program_is_named() {
        let process = Process::new("the server", TempDir::new().unwrap(), "no-such-program", [""; 0]);
        let error = process.spawn().unwrap_err().to_string();
        assert!(error.contains("no-such-program") && error.contains("the server"), "{error}");
    }

    #[tokio::test]
    async fn a_paused_process_stands_still_and_can_be_stopped() {
        let process = shell("exec sleep 600");
        process.spawn().unwrap();
        process.pause().unwrap();
        let stat = fs::read_to_string(format!("/proc/{}/stat", process.id().unwrap())).unwrap();
        assert!(stat.contains(") T "), "{stat}");
        process.stop(SOON).await.unwrap();
        assert!(!process.is_running());
    }

    #[tokio::test]
    async fn children_can_be_killed_too() {
        let process = shell("sleep 600 & echo $!; sleep 600 & wait");
        process.kill_with_children().unwrap();
        process.spawn().unwrap();
        let deadline = Deadline::after(SOON);
        let child = loop {
            match process.log().trim().parse() {
                Ok(child) => break Pid::from_raw(child).unwrap(),
                Err(_) => assert!(deadline.wait().await),
            }
        };
        assert!(!has_ended(child));
        process.pause().unwrap();
        process.kill_with_children().unwrap();
        assert!(has_ended(child) && !process.is_running());
    }

    #[test]
    fn a_process_on_a_tether_tidies_up() {
        let outside = TempDir::new().unwrap();
        let trace = outside.path().join("trace");
        let script = format!("touch {0}; cat; rm {0}", trace.display());
        let process = shell(&script).tethered();
        process.spawn().unwrap();
        while !trace.exists() {
            std::thread::yield_now();
        }
        drop(process);
        assert!(!trace.exists());
    }

    #[test]
    fn drop_ends_a_paused_process_and_removes_its_directory() {
        let process = shell("exec sleep 600");
        process.spawn().unwrap();
        process.pause().unwrap();
        let (id, dir) = (process.id().unwrap(), process.dir().to_owned());
        drop(process);
        assert!(!Path::new(&format!("/proc/{id}")).exists());
        assert!(!dir.exists());
    }
}
