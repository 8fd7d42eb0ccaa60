//! A server of the sample, and what it says of those below.

use std::{
    fs,
    thread::sleep,
    time::{Duration, Instant},
};

use discovery_testbed::Port;
use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    DEADLINE,
    demo::Demo,
    eventually,
    http::{self, Answer},
};

/// Much faster than the sample.
pub(crate) const FAST: [&str; 4] = ["--start-delay", "200ms", "--poll-interval", "200ms"];

/// What the configuration calls this program.
pub(crate) const SIMPLE: &str = "build/simple";

/// A configuration file of its own.
#[derive(Debug)]
pub(crate) struct Config(TempDir);

impl Config {
    pub(crate) fn new(targets: &Value) -> Self {
        let dir = tempfile::Builder::new().prefix("discovery-simple-").tempdir().unwrap();
        fs::write(dir.path().join("simple.conf"), targets.to_string()).unwrap();
        Self(dir)
    }

    pub(crate) fn path(&self) -> String {
        self.0.path().join("simple.conf").to_str().unwrap().to_owned()
    }

    /// A server that looks after these targets, on a free port.
    pub(crate) async fn serve(&self, args: &[&str]) -> Server {
        self.serve_at(&FAST, args).await
    }

    /// The same at another pace.
    pub(crate) async fn serve_at(&self, pace: &[&str], args: &[&str]) -> Server {
        Server::start(&[&[&self.path(), ":0"], pace, args].concat()).await
    }
}

/// Where a target can be, and the command that starts a server there.
pub(crate) fn leaf(port: &Port) -> (String, String) {
    (format!("http://127.0.0.1:{}", port.number()), format!("{SIMPLE} - :{}", port.number()))
}

/// A running server.
#[derive(Debug)]
pub(crate) struct Server(pub(crate) Demo);

impl Server {
    pub(crate) async fn start(args: &[&str]) -> Self {
        Self(Demo::start([&["simple"], args].concat()).await)
    }

    /// The whole tree, fast, on free ports.
    pub(crate) async fn tree(args: &[&str]) -> Self {
        Self::start(&[&["demo", "--port", "0"], &FAST[..], args].concat()).await
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        http::get(&format!("{}{path}", self.0.url())).await
    }

    pub(crate) async fn does(&self, path: &[&str], deed: &str) {
        let act = json!({ "path": path, "deed": deed });
        let answer = http::ask("POST", &format!("{}act", self.0.url()), act.clone()).await;
        assert_eq!(answer.status, 204, "{act}: {answer:?}");
    }

    /// All about its targets.
    pub(crate) async fn targets(&self) -> Vec<Value> {
        let url = format!("{}state", self.0.url());
        let answer = http::request("GET", &url, "Accept: application/json\r\n", "").await;
        answer.json()["targets"].as_array().unwrap().clone()
    }

    /// All about one target, or all but its state if that is not what is wanted.
    pub(crate) async fn target(&self, target: &str) -> Value {
        let all = self.targets().await;
        all.into_iter().find(|each| each["target"] == target).unwrap()
    }

    pub(crate) async fn until(&self, target: &str, state: &str) -> Value {
        let mut last = Value::Null;
        let what = format!("{target} is {state}");
        eventually(&what, async || {
            last = self.target(target).await;
            last["state"] == state
        })
        .await;
        last
    }

    /// All servers below, with the way to each.
    pub(crate) async fn below(&self) -> Vec<(Vec<String>, Value)> {
        let answer = self.get("tree").await;
        let mut all = Vec::new();
        collect(&answer.json(), &mut Vec::new(), &mut all);
        all
    }

    /// Waits until all ten run, each as somebody's process, and the top says so.
    pub(crate) async fn all_run(&self) -> Vec<(Vec<String>, Value)> {
        let mut all = Vec::new();
        eventually("all ten run", async || {
            all = self.below().await;
            all.len() == 10
                && all.iter().all(|(_, each)| each["state"] == "RUNNING" && each["pid"].is_i64())
                && self.get("").await.status == 200
        })
        .await;
        all
    }

    /// Ends it in order, and looks whether it took all of these with it. Returns its log.
    pub(crate) async fn ends_with(mut self, pids: &[i64]) -> String {
        self.0.signal(Signal::TERM);
        assert!(self.0.ended().await.success(), "{}", self.0.log());
        for pid in pids {
            assert!(!lives(*pid), "process {pid} is left over: {}{}", self.0.out(), self.0.log());
        }
        self.0.log()
    }
}

/// A test that ends early leaves nothing behind: who is only killed leaves its targets alone.
impl Drop for Server {
    fn drop(&mut self) {
        let Some(id) = self.0.id().map(i64::from) else { return };
        self.0.signal(Signal::TERM);
        let deadline = Instant::now() + Duration::from_secs(5);
        while lives(id) && Instant::now() < deadline {
            sleep(Duration::from_millis(10));
        }
    }
}

fn collect(tree: &Value, path: &mut Vec<String>, all: &mut Vec<(Vec<String>, Value)>) {
    for target in tree["targets"].as_array().into_iter().flatten() {
        path.push(target["target"].as_str().unwrap().to_owned());
        all.push((path.clone(), target.clone()));
        collect(&target["below"], path, all);
        path.pop();
    }
}

/// The process of a target.
pub(crate) fn pid(target: &Value) -> i64 {
    target["pid"].as_i64().unwrap_or_else(|| panic!("it has a process: {target}"))
}

/// Whether a process runs. One that has ended may be listed until somebody waits for it, and nobody has to.
pub(crate) fn lives(pid: i64) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    test_kill_process(process(pid)).is_ok() && !stat.contains(") Z ")
}

pub(crate) fn signal(pid: i64, signal: Signal) {
    kill_process(process(pid), signal).unwrap();
}

pub(crate) async fn until_gone(pid: i64) {
    eventually(&format!("process {pid} is gone, within {DEADLINE:?}"), async || !lives(pid)).await;
}

fn process(pid: i64) -> Pid {
    Pid::from_raw(pid.try_into().unwrap()).unwrap()
}
