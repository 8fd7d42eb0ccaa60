//! A real Redis.

use std::{env, fs::File, net::SocketAddr, path::Path, process::Stdio};

use discovery_testbed::{Port, REQUIRE};
use tempfile::TempDir;
use tokio::process::{Child, Command};

use crate::eventually;

const SERVER: &str = "/usr/bin/redis-server";

/// A Redis of a test's own, which writes all down before it answers.
#[derive(Debug)]
pub(crate) struct RedisServer {
    port: Port,
    dir: TempDir,
    process: Child,
}

impl RedisServer {
    /// Starts one, or says why the test is skipped when there is none; fails if it must not be skipped.
    pub(crate) async fn start_or_skip() -> Option<Self> {
        if !Path::new(SERVER).exists() {
            let why = format!("{SERVER} not found (Debian: apt-get install redis-server)");
            let required = env::var(REQUIRE).unwrap_or_default();
            assert!(
                !required.split(',').any(|name| name.trim() == "redis"),
                "{REQUIRE}={required} forbids to skip this test, but {why}"
            );
            eprintln!("skipped: {why}");
            return None;
        }
        let port = Port::reserve().unwrap();
        let dir = tempfile::Builder::new().prefix("discovery-redis-").tempdir().unwrap();
        let process = spawn(&port, dir.path());
        let server = Self { port, dir, process };
        server.serves().await;
        Some(server)
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.port.address()
    }

    /// As a crash would.
    pub(crate) async fn kill(&mut self) {
        self.process.kill().await.unwrap();
    }

    /// With what it held before.
    pub(crate) async fn restart(&mut self) {
        self.process = spawn(&self.port, self.dir.path());
        self.serves().await;
    }

    /// Asks it with its own client.
    pub(crate) async fn ask(&self, command: &[&str]) -> String {
        let output = cli(&self.port).args(command).output().await.unwrap();
        assert!(output.status.success(), "{command:?}: {output:?}");
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    async fn serves(&self) {
        eventually("Redis answers", async || {
            let output = cli(&self.port).arg("ping").output().await.unwrap();
            output.stdout.starts_with(b"PONG")
        })
        .await;
    }
}

fn spawn(port: &Port, dir: &Path) -> Child {
    let port = port.number().to_string();
    let args = ["--port", &port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "yes"];
    let log = File::options().create(true).append(true).open(dir.join("log")).unwrap();
    let mut command = Command::new(SERVER);
    command.args(args).arg("--dir").arg(dir).stdin(Stdio::null()).stdout(log);
    command.kill_on_drop(true).spawn().unwrap()
}

fn cli(port: &Port) -> Command {
    let mut command = Command::new("redis-cli");
    command.args(["-h", "127.0.0.1", "-p", &port.number().to_string()]).stdin(Stdio::null());
    command
}
