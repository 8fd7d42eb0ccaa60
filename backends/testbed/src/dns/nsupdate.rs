//! A command line client that changes zones: it shares no code with what is tested.

use std::{fs, io, net::SocketAddr, time::Duration};

use tokio::process::Command;

use super::key::Key;
use crate::client;

/// How long a client waits for an answer.
const WITHIN: Duration = Duration::from_secs(10);

/// The command line client `nsupdate`, aimed at one zone of one server.
#[derive(Debug, Clone)]
#[must_use]
pub struct NsUpdate {
    server: SocketAddr,
    zone: String,
    key: Option<Key>,
    tcp: bool,
    within: Duration,
}

impl NsUpdate {
    /// A client that changes a zone of any server, and does not sign what it sends.
    pub fn new(server: SocketAddr, zone: &str) -> Self {
        Self { server, zone: zone.to_owned(), key: None, tcp: false, within: WITHIN }
    }

    pub(super) fn signed(server: SocketAddr, zone: &str, key: &Key) -> Self {
        Self::new(server, zone).key(&key.name, &key.secret)
    }

    /// Changes a zone of any server, without a key.
    pub fn to(server: SocketAddr, zone: &str) -> Self {
        Self { server, zone: zone.to_owned(), key: None, tcp: false, within: WITHIN }
    }

    /// Sends elsewhere, e.g. to a proxy.
    pub fn server(mut self, server: SocketAddr) -> Self {
        self.server = server;
        self
    }

    /// Sends updates for another zone.
    pub fn zone(mut self, zone: &str) -> Self {
        zone.clone_into(&mut self.zone);
        self
    }

    /// Signs what it sends with another key (hmac-sha256); the secret is in base64.
    pub fn key(mut self, name: &str, secret: &str) -> Self {
        self.key = Some(Key::new(name, secret));
        self
    }

    /// Does not sign what it sends.
    pub fn without_key(mut self) -> Self {
        self.key = None;
        self
    }

    /// Sends over TCP, which it else does only when an update is large.
    pub fn tcp(mut self) -> Self {
        self.tcp = true;
        self
    }

    /// Gives up after this time, in whole seconds, instead of ten.
    pub fn within(mut self, time: Duration) -> Self {
        self.within = time;
        self
    }

    /// Sends one update: lines such as `add web.disco.test. 60 A 127.0.0.1`, `delete web.disco.test. A` or
    /// `prereq nxdomain web.disco.test.`, with absolute names. A line `send` begins another update.
    ///
    /// The client itself refuses host names that are none; `check-names off` as the first line leaves that to the server.
    ///
    /// # Errors
    ///
    /// When the server refuses, with its response code in the error (e.g. `REFUSED`, `NOTAUTH`, `YXDOMAIN`), or does not
    /// answer.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future kills the client; whether the update was carried out is then unknown.
    pub async fn run(&self, script: &str) -> io::Result<()> {
        let (ip, port) = (self.server.ip(), self.server.port());
        let script = format!("server {ip} {port}\nzone {}\n{script}\nsend\n", self.zone);
        let file = tempfile::NamedTempFile::new()?;
        fs::write(&file, script)?;
        let mut nsupdate = Command::new("nsupdate");
        // Seconds in all, seconds an attempt and how many more attempts, which go on as long as there is time.
        let seconds = self.within.as_secs().max(1);
        nsupdate.args(["-t", &seconds.to_string(), "-u", "3", "-r", &(seconds / 3).to_string()]);
        if let Some(key) = &self.key {
            nsupdate.args(["-y", &key.argument()]);
        }
        if self.tcp {
            nsupdate.arg("-v");
        }
        nsupdate.arg(file.path());
        client::run("nsupdate", nsupdate, super::printed).await.map(|_| ())
    }
}
