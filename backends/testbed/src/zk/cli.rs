//! `ZooKeeper`'s own command line client: a reader and writer that shares no code with what is tested.

use std::{
    ffi::OsStr,
    io,
    path::{Path, PathBuf},
    process::Output,
};

use tokio::process::Command;

use super::{builder::JAAS_FILE, class_path};
use crate::{certificates::PemFiles, client};

/// `ZooKeeper`'s command line client (`zkCli`), aimed at one server.
#[derive(Debug, Clone)]
#[must_use]
pub struct ZkCli {
    connect_string: String,
    /// Where the server keeps what its clients need.
    dir: PathBuf,
    tls: bool,
    certificate: bool,
    login: bool,
}

impl ZkCli {
    pub(super) fn new(connect_string: String, dir: &Path, tls: bool, login: bool) -> Self {
        Self { connect_string, dir: dir.to_owned(), tls, certificate: tls, login }
    }

    /// Connects elsewhere, e.g. to a proxy or a whole ensemble.
    pub fn connect_string(mut self, connect_string: impl Into<String>) -> Self {
        self.connect_string = connect_string.into();
        self
    }

    /// Shows no client certificate on a TLS port.
    pub fn without_certificate(mut self) -> Self {
        self.certificate = false;
        self
    }

    /// Does not log in.
    pub fn without_login(mut self) -> Self {
        self.login = false;
        self
    }

    /// Runs one command, e.g. `["get", "/path"]`, in a session of its own and returns what it printed.
    ///
    /// # Errors
    ///
    /// When the client cannot connect, the command fails (with what the client said), or it takes too long.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future kills the client; whether the command was carried out is then unknown.
    pub async fn run<A: AsRef<OsStr>>(&self, command: impl IntoIterator<Item = A>) -> io::Result<String> {
        let mut zk_cli = Command::new("java");
        zk_cli
            // A short life: compile little, collect no garbage.
            .args(["-Xmx64m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp", &class_path()])
            .arg("-Dorg.slf4j.simpleLogger.defaultLogLevel=off")
            .args(self.properties())
            .args(["org.apache.zookeeper.ZooKeeperMain", "-server", &self.connect_string])
            .args(self.patience())
            .args(command);
        client::run("zkCli", zk_cli, printed).await
    }

    /// With one server, failing to connect is an answer. With several it is only a reason to try the next, but unless
    /// told to wait for a connection, the client gives up on the command when the first server it picks is down.
    fn patience(&self) -> &'static [&'static str] {
        if self.connect_string.contains(',') { &["-waitforconnection"] } else { &[] }
    }

    fn properties(&self) -> Vec<String> {
        let files = PemFiles::in_dir(&self.dir);
        let mut properties = Vec::new();
        if self.tls {
            properties.push("-Dzookeeper.client.secure=true".to_owned());
            properties
                .push("-Dzookeeper.clientCnxnSocket=org.apache.zookeeper.ClientCnxnSocketNetty".to_owned());
            properties.push(format!("-Dzookeeper.ssl.trustStore.location={}", files.authority.display()));
        }
        if self.certificate {
            properties.push(format!("-Dzookeeper.ssl.keyStore.location={}", files.client.display()));
        }
        if self.login {
            let jaas = self.dir.join(JAAS_FILE);
            properties.push(format!("-Djava.security.auth.login.config={}", jaas.display()));
        }
        properties
    }
}

/// What the client printed for the command: without the lines about its connection. Results go to standard
/// output, messages such as `Created /path` to standard error.
fn printed(output: &Output) -> String {
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let noise = ["Connecting to ", "WATCHER::", "WatchedEvent state:"];
    out.lines()
        .chain(err.lines())
        .filter(|line| !line.is_empty() && !noise.iter().any(|noise| line.starts_with(noise)))
        .collect::<Vec<_>>()
        .join("\n")
}
