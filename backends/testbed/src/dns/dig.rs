//! A command line client that asks: it shares no code with what is tested.

use std::{io, net::SocketAddr};

use tokio::process::Command;

use super::key::Key;
use crate::client;

/// The sections of an answer, as `dig` titles them.
const SECTIONS: [&str; 2] = [";; ANSWER SECTION:", ";; AUTHORITY SECTION:"];

/// The command line client `dig`, aimed at one server, which asks once and waits for two seconds.
///
/// It asks over UDP, and again over TCP when the answer was truncated. Names are absolute, with or without the last dot.
#[derive(Debug, Clone)]
#[must_use]
pub struct Dig {
    server: SocketAddr,
    key: Option<Key>,
    options: Vec<String>,
}

/// What a server answered.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Answer {
    /// The response code, e.g. `NOERROR` or `NXDOMAIN`.
    pub rcode: String,
    /// The flags that are set, e.g. `qr aa rd`.
    pub flags: String,
    /// The records of the answer, e.g. `web.disco.test. 60 IN A 127.0.0.1`.
    pub records: Vec<String>,
    /// The records of the authority section: in a negative answer, the zone's SOA.
    pub authority: Vec<String>,
}

impl Dig {
    /// Asks any server, without a key.
    pub fn new(server: SocketAddr) -> Self {
        Self { server, key: None, options: Vec::new() }
    }

    pub(super) fn signed(server: SocketAddr, key: &Key) -> Self {
        Self::new(server).key(&key.name, &key.secret)
    }

    /// Asks elsewhere, e.g. a proxy.
    pub fn server(mut self, server: SocketAddr) -> Self {
        self.server = server;
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

    /// Asks over TCP at once.
    pub fn tcp(self) -> Self {
        self.option("+tcp")
    }

    /// Any other option of `dig`, e.g. `+ignore` (a truncated answer is an answer) or `+bufsize=4096`.
    pub fn option(mut self, option: &str) -> Self {
        self.options.push(option.to_owned());
        self
    }

    /// Asks for the records of one type at `name`. Whatever the server answers is a success, also `NXDOMAIN` or `REFUSED`.
    ///
    /// # Errors
    ///
    /// When there is no answer.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future kills the client.
    pub async fn query(&self, name: &str, kind: &str) -> io::Result<Answer> {
        let printed = self.run(name, kind).await?;
        Answer::read(&printed).ok_or_else(|| io::Error::other(format!("dig printed no answer: {printed}")))
    }

    /// The data of the records alone, e.g. `127.0.0.1`; empty when there are none.
    ///
    /// # Errors
    ///
    /// When there is no answer.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future kills the client.
    pub async fn short(&self, name: &str, kind: &str) -> io::Result<Vec<String>> {
        let answer = self.query(name, kind).await?;
        Ok(answer
            .records
            .iter()
            .filter_map(|record| Some(record.splitn(5, ' ').nth(4)?.to_owned()))
            .collect())
    }

    /// The whole zone (AXFR), its SOA first and last.
    ///
    /// # Errors
    ///
    /// When the server refuses, with its response code in the error, or does not answer.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future kills the client.
    pub async fn transfer(&self, zone: &str) -> io::Result<Vec<String>> {
        self.records_of(zone, "AXFR").await
    }

    /// What changed since the zone had `serial` (IXFR, over TCP): only the SOA where that was nothing, and the whole zone
    /// where the server no longer knows.
    ///
    /// # Errors
    ///
    /// When the server refuses, with its response code in the error, or does not answer.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future kills the client.
    pub async fn transfer_since(&self, zone: &str, serial: u32) -> io::Result<Vec<String>> {
        self.records_of(zone, &format!("IXFR={serial}")).await
    }

    async fn records_of(&self, zone: &str, kind: &str) -> io::Result<Vec<String>> {
        let printed = self.run(zone, kind).await?;
        // The client calls that a success.
        if printed.contains("; Transfer failed.") {
            let why = Answer::read(&printed).map_or(printed, |answer| answer.rcode);
            return Err(io::Error::other(format!("dig failed: {kind} of {zone}: {why}")));
        }
        Ok(printed.lines().filter_map(record).collect())
    }

    async fn run(&self, name: &str, kind: &str) -> io::Result<String> {
        let mut dig = Command::new("dig");
        // Without the options of whoever runs the test.
        dig.arg("-r").arg(format!("@{}", self.server.ip())).args(["-p", &self.server.port().to_string()]);
        if let Some(key) = &self.key {
            dig.args(["-y", &key.argument()]);
        }
        dig.args(["+tries=1", "+time=10", "+noall", "+comments", "+answer", "+authority"]);
        dig.args(&self.options).args(["-t", kind, "-q", name]);
        client::run("dig", dig, super::printed).await
    }
}

impl Answer {
    fn read(printed: &str) -> Option<Self> {
        let after = |label: &str| {
            let rest = printed.lines().find_map(|line| line.strip_prefix(";; ")?.split_once(label))?.1;
            Some(rest.split([',', ';']).next()?.trim().to_owned())
        };
        let section = |title: &str| {
            let lines = printed.lines().skip_while(|line| *line != title).skip(1);
            lines.take_while(|line| !line.starts_with(";; ")).filter_map(record).collect()
        };
        let [records, authority] = SECTIONS.map(section);
        Some(Self { rcode: after("status: ")?, flags: after("flags: ")?, records, authority })
    }
}

/// A record with single spaces between its fields; `None` for any other line.
fn record(line: &str) -> Option<String> {
    if line.is_empty() || line.starts_with(';') {
        return None;
    }
    let mut rest = line;
    let mut fields = Vec::new();
    // What follows name, TTL, class and type may hold spaces that mean something.
    for _ in 0..4 {
        let (field, more) = rest.split_once(char::is_whitespace)?;
        fields.push(field);
        rest = more.trim_start();
    }
    fields.push(rest);
    Some(fields.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRINTED: &str = "\
;; Got answer:
;; ->>HEADER<<- opcode: QUERY, status: NXDOMAIN, id: 25723
;; flags: qr aa rd; QUERY: 1, ANSWER: 1, AUTHORITY: 1, ADDITIONAL: 2
;; WARNING: recursion requested but not available

;; OPT PSEUDOSECTION:
; EDNS: version: 0, flags:; udp: 1232
;; ANSWER SECTION:
a.disco.test.\t\t60\tIN\tTXT\t\"two  spaces\" \"; and more\"

;; AUTHORITY SECTION:
disco.test.\t60\tIN\tSOA\tns.disco.test. hostmaster.disco.test. 1 1 1 604800 1
";

    #[test]
    fn an_answer_is_read_from_what_dig_prints() {
        let answer = Answer::read(PRINTED).unwrap();
        assert_eq!((answer.rcode.as_str(), answer.flags.as_str()), ("NXDOMAIN", "qr aa rd"));
        assert_eq!(answer.records, ["a.disco.test. 60 IN TXT \"two  spaces\" \"; and more\""]);
        assert_eq!(
            answer.authority,
            ["disco.test. 60 IN SOA ns.disco.test. hostmaster.disco.test. 1 1 1 604800 1"]
        );
        assert_eq!(Answer::read("; nothing"), None);
    }
}
