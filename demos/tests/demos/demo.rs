//! The binary as a child process.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{ExitStatus, Output, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, geteuid, kill_process};
use tempfile::TempDir;
use tokio::{
    io::AsyncWriteExt,
    process::{Child, ChildStdin, Command},
    time::timeout,
};

use crate::{DEADLINE, eventually, http};

/// A running demo. Dropping it kills it, and shows its log if the test has failed.
#[derive(Debug)]
pub(crate) struct Demo {
    label: String,
    child: Child,
    input: Option<ChildStdin>,
    url: String,
    dir: TempDir,
}

impl Demo {
    /// Starts the binary with these arguments, the name of the demo first; returns when it has said where its page is.
    pub(crate) async fn start<A: AsRef<str>>(args: impl IntoIterator<Item = A>) -> Self {
        Self::start_with(&[], args).await
    }

    /// The same with variables in its environment.
    pub(crate) async fn start_with<A: AsRef<str>>(
        env: &[(&str, &str)],
        args: impl IntoIterator<Item = A>,
    ) -> Self {
        let mut demo = Self::spawn_with(env, args);
        eventually("the demo says where its page is", async || {
            demo.assert_runs();
            demo.urls().into_iter().next().is_some_and(|url| {
                demo.url = url;
                true
            })
        })
        .await;
        demo
    }

    /// Starts the binary with these arguments, where no page is to be expected.
    pub(crate) fn spawn<A: AsRef<str>>(args: impl IntoIterator<Item = A>) -> Self {
        Self::spawn_with(&[], args)
    }

    /// The same as process 1, as in a container. That one is a child of the process whose [`id`](Self::id) this has.
    pub(crate) fn spawn_as_process_1<A: AsRef<str>>(args: impl IntoIterator<Item = A>) -> Self {
        // Who is not root must become it.
        let user: &[_] = if geteuid().is_root() { &[] } else { &["--user", "--map-root-user"] };
        let by = [&["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"], user].concat();
        Self::spawn_by(&by, &[], args)
    }

    fn spawn_with<A: AsRef<str>>(env: &[(&str, &str)], args: impl IntoIterator<Item = A>) -> Self {
        Self::spawn_by(&[], env, args)
    }

    /// Has another program start it, if there is one.
    fn spawn_by<A: AsRef<str>>(by: &[&str], env: &[(&str, &str)], args: impl IntoIterator<Item = A>) -> Self {
        let args: Vec<String> = args.into_iter().map(|arg| arg.as_ref().to_owned()).collect();
        let dir = tempfile::Builder::new().prefix("discovery-demo-").tempdir().unwrap();
        let file = |name| File::create(dir.path().join(name)).unwrap();
        let mut child = command(by, &args)
            .envs(env.iter().copied())
            .stdin(Stdio::piped())
            .stdout(file("out"))
            .stderr(file("log"))
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let input = child.stdin.take();
        Self { label: args.join(" "), child, input, url: String::new(), dir }
    }

    /// Writes a line to its standard input.
    pub(crate) async fn tell(&mut self, line: &str) {
        let input = self.input.as_mut().expect("its input is open");
        input.write_all(format!("{line}\n").as_bytes()).await.unwrap();
    }

    /// Ends its standard input.
    pub(crate) fn hang_up(&mut self) {
        self.input = None;
    }

    /// Waits until it has printed this, and goes on.
    pub(crate) async fn says(&mut self, what: &str) {
        let label = format!("{} says {what:?}", self.label);
        eventually(&label, async || {
            // In this order: what it says last, it may say at its end.
            let has_ended = self.child.try_wait().unwrap().is_some();
            let said = self.out().contains(what);
            assert!(said || !has_ended, "{} has ended: {}{}", self.label, self.out(), self.log());
            said
        })
        .await;
    }

    fn assert_runs(&mut self) {
        assert!(self.child.try_wait().unwrap().is_none(), "{} has ended: {}", self.label, self.log());
    }

    /// The address of its page, with a slash at the end.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// All addresses it has named.
    pub(crate) fn urls(&self) -> Vec<String> {
        let words = self.out();
        words.split_whitespace().filter(|word| word.starts_with("http://")).map(str::to_owned).collect()
    }

    pub(crate) fn port(&self) -> &str {
        self.url.trim_end_matches('/').rsplit(':').next().unwrap()
    }

    /// The answer of `/state`.
    pub(crate) async fn state(&self) -> serde_json::Value {
        let answer = http::get(&format!("{}state", self.url)).await;
        serde_json::from_str(&answer.body).unwrap()
    }

    /// Its coordinate, instance included.
    pub(crate) async fn coordinate(&self) -> String {
        self.state().await["coordinate"].as_str().unwrap().to_owned()
    }

    /// What it has printed for people.
    pub(crate) fn out(&self) -> String {
        read(&self.dir.path().join("out"))
    }

    /// What it has logged.
    pub(crate) fn log(&self) -> String {
        read(&self.dir.path().join("log"))
    }

    /// Its process, until it has been waited for.
    pub(crate) fn id(&self) -> Option<u32> {
        self.child.id()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let id = self.id().expect("the process has not been waited for");
        kill_process(Pid::from_raw(id.cast_signed()).unwrap(), signal).unwrap();
    }

    /// Waits for the end.
    pub(crate) async fn ended(&mut self) -> ExitStatus {
        self.ended_within(DEADLINE).await
    }

    pub(crate) async fn ended_within(&mut self, deadline: Duration) -> ExitStatus {
        let ended = timeout(deadline, self.child.wait()).await;
        ended.unwrap_or_else(|_| panic!("{} has not ended within {deadline:?}", self.label)).unwrap()
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- {}\n{}{}---", self.label, self.out(), self.log());
        }
    }
}

/// Runs the binary with these arguments to its end.
pub(crate) async fn run(args: &[&str]) -> Output {
    let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
    timeout(DEADLINE, command(&[], &args).kill_on_drop(true).output())
        .await
        .expect("it ends by itself")
        .unwrap()
}

/// What came of a command.
#[derive(Debug)]
pub(crate) struct Done {
    label: String,
    pub(crate) code: Option<i32>,
    /// What it has printed for people.
    pub(crate) out: String,
    pub(crate) log: String,
}

impl Done {
    /// Runs the binary with these arguments to its end.
    pub(crate) async fn of(args: &[&str]) -> Self {
        let output = run(args).await;
        let [out, log] = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap());
        Self { label: args.join(" "), code: output.status.code(), out, log }
    }

    /// What it has printed where it is to succeed.
    pub(crate) fn ok(self) -> String {
        assert_eq!(self.code, Some(0), "{}: {self:?}", self.label);
        self.out
    }

    /// What it has printed where it is to fail for this reason.
    pub(crate) fn fails(self, reason: &str) -> String {
        assert_eq!(self.code, Some(1), "{}: {self:?}", self.label);
        assert!(self.log.contains(reason), "{}: {reason:?} is not in {self:?}", self.label);
        self.out
    }
}

fn command(by: &[&str], args: &[String]) -> Command {
    // Whoever runs the tests may ignore that signal, as under nohup, and the demos heed that.
    let ours = ["env", "--default-signal=HUP", env!("CARGO_BIN_EXE_demos")];
    let mut words = by.iter().chain(&ours);
    let mut command = Command::new(words.next().expect("there is a program"));
    command.args(words).args(args);
    command.env_remove("RUST_LOG").env_remove("DISCOVERY_BACKEND").env("NO_COLOR", "1");
    command
}

fn read(path: &Path) -> String {
    fs::read_to_string(PathBuf::from(path)).unwrap_or_default()
}
