//! etcd's own command line client: a reader and writer that shares no code with what is tested.

use std::{
    ffi::OsStr,
    io,
    path::{Path, PathBuf},
    process::Output,
};

use tokio::process::Command;

use super::builder::Login;
use crate::{certificates::PemFiles, client};

/// etcd's command line client (`etcdctl`, with the third version of the API), aimed at one server.
#[derive(Debug, Clone)]
#[must_use]
pub struct EtcdCtl {
    endpoints: String,
    /// Where the server keeps what its clients need.
    dir: PathBuf,
    tls: bool,
    certificate: bool,
    login: Option<Login>,
}

impl EtcdCtl {
    pub(super) fn new(endpoints: String, dir: &Path, tls: bool, login: Option<Login>) -> Self {
        Self { endpoints, dir: dir.to_owned(), tls, certificate: tls, login }
    }

    /// Connects elsewhere, e.g. to a proxy or, separated by commas, a whole cluster.
    pub fn endpoints(mut self, endpoints: impl Into<String>) -> Self {
        self.endpoints = endpoints.into();
        self
    }

    /// Shows no client certificate on a TLS port.
    pub fn without_certificate(mut self) -> Self {
        self.certificate = false;
        self
    }

    /// Logs in as another user, e.g. `root`.
    pub fn login(mut self, user: impl Into<String>, password: impl Into<String>) -> Self {
        self.login = Some(Login::new(user, password));
        self
    }

    /// Does not log in.
    pub fn without_login(mut self) -> Self {
        self.login = None;
        self
    }

    /// Runs one command, e.g. `["get", "/path", "--print-value-only"]`, on a connection of its own and returns what
    /// it printed.
    ///
    /// A server that does not answer is given up after a few seconds; `--command-timeout` in the command sets
    /// another time.
    ///
    /// # Errors
    ///
    /// When the client cannot connect, the command fails (with what the client said), or it takes too long.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future kills the client; whether the command was carried out is then unknown.
    pub async fn run<A: AsRef<OsStr>>(&self, command: impl IntoIterator<Item = A>) -> io::Result<String> {
        let mut etcdctl = Command::new("etcdctl");
        etcdctl.env("ETCDCTL_API", "3").args(self.options()).args(command);
        client::run("etcdctl", etcdctl, printed).await
    }

    fn options(&self) -> Vec<String> {
        let files = PemFiles::in_dir(&self.dir);
        let mut options = vec![format!("--endpoints={}", self.endpoints)];
        if self.tls {
            options.push(format!("--cacert={}", files.authority.display()));
        }
        if self.certificate {
            // One file with both, from which the client takes what it needs.
            options.push(format!("--cert={}", files.client.display()));
            options.push(format!("--key={}", files.client.display()));
        }
        if let Some(Login { user, password }) = &self.login {
            options.push(format!("--user={user}"));
            options.push(format!("--password={password}"));
        }
        options
    }
}

/// Results go to standard output. The client's log, on standard error, matters only when there is no result.
fn printed(output: &Output) -> String {
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if output.status.success() { out.trim_end().to_owned() } else { format!("{out}{err}").trim().to_owned() }
}
