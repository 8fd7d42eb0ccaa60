//! Which servers this machine has, and whether a test may be skipped without one.

use std::{
    env, fmt, io,
    path::{Path, PathBuf},
};

use crate::{dns, etcd, zk};

/// The environment variable with the comma separated names of servers that must be there, e.g. `zk,etcd,dns`.
/// A test that needs one of them fails instead of being skipped.
pub const REQUIRE: &str = "DISCOVERY_TEST_REQUIRE";

/// A kind of server that tests may need.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Server {
    /// Apache `ZooKeeper`, named `zk` in [`REQUIRE`].
    ZooKeeper,
    /// etcd with its command line client, named `etcd` in [`REQUIRE`].
    Etcd,
    /// BIND with the command line clients `dig` and `nsupdate`, named `dns` in [`REQUIRE`] as all DNS servers are.
    Bind,
    /// Knot DNS with the same clients, named `dns` in [`REQUIRE`].
    Knot,
    /// dnsmasq with the same clients, named `dns` in [`REQUIRE`].
    Dnsmasq,
}

impl Server {
    /// Whether tests can use this server here; prints why they are skipped when they cannot.
    ///
    /// # Panics
    ///
    /// When the server is not installed although [`REQUIRE`] names it.
    pub fn available(self) -> bool {
        let required = env::var(REQUIRE).unwrap_or_default();
        match self.verdict(self.missing().as_deref(), &required) {
            Verdict::Run => true,
            Verdict::Skip(why) => {
                eprintln!("skipped: {why}");
                false
            }
            Verdict::Fail(why) => panic!("{why}"),
        }
    }

    /// Starts a server unless the test is to be skipped without it; panics when the server does not come up.
    pub(crate) async fn or_skip<T>(self, start: impl Future<Output = io::Result<T>>) -> Option<T> {
        if !self.available() {
            return None;
        }
        Some(start.await.unwrap_or_else(|error| panic!("{error}")))
    }

    fn verdict(self, missing: Option<&str>, required: &str) -> Verdict {
        let Some(missing) = missing else { return Verdict::Run };
        let why = format!("{self} is not installed: {missing}");
        if required.split(',').any(|name| name.trim() == self.name()) {
            return Verdict::Fail(format!("{REQUIRE}={required} forbids to skip this test, but {why}"));
        }
        Verdict::Skip(why)
    }

    /// The name in [`REQUIRE`].
    fn name(self) -> &'static str {
        match self {
            Self::ZooKeeper => "zk",
            Self::Etcd => "etcd",
            Self::Bind | Self::Knot | Self::Dnsmasq => "dns",
        }
    }

    /// What is missing, and how to get it.
    fn missing(self) -> Option<String> {
        match self {
            Self::ZooKeeper => zk::missing(),
            Self::Etcd => etcd::missing(),
            Self::Bind => dns::missing(&["named", "rndc"], "bind9"),
            Self::Knot => dns::missing(&["knotd", "knotc"], "knot"),
            Self::Dnsmasq => dns::missing(&["dnsmasq"], "dnsmasq-base"),
        }
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ZooKeeper => "ZooKeeper",
            Self::Etcd => "etcd",
            Self::Bind => "BIND",
            Self::Knot => "Knot DNS",
            Self::Dnsmasq => "dnsmasq",
        })
    }
}

/// Says that `program` is not on the search path, or one of `files` is not there; `package` would bring them.
pub(crate) fn missing(program: &str, files: &[&str], package: &str) -> Option<String> {
    let lacking =
        if find(program).is_some() { files.iter().find(|file| !Path::new(file).exists())? } else { program };
    Some(format!("{lacking} not found (Debian: apt-get install {package})"))
}

/// A program of the machine, or its mere name where it is not there. Servers may be where only the administrator's search
/// path leads.
pub(crate) fn program(name: &str) -> PathBuf {
    find(name).unwrap_or_else(|| name.into())
}

fn find(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let dirs = env::split_paths(&path).chain(["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from));
    dirs.map(|dir| dir.join(program)).find(|file| file.is_file())
}

#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Run,
    Skip(String),
    Fail(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_installed_server_is_used_whether_required_or_not() {
        assert_eq!(Server::ZooKeeper.verdict(None, ""), Verdict::Run);
        assert_eq!(Server::ZooKeeper.verdict(None, "zk"), Verdict::Run);
    }

    #[test]
    fn a_missing_server_is_a_skip_that_says_why() {
        for required in ["", "etcd", "zkx,dns"] {
            let Verdict::Skip(why) = Server::ZooKeeper.verdict(Some("java not found"), required) else {
                panic!("{required:?} does not name zk");
            };
            assert_eq!(why, "ZooKeeper is not installed: java not found");
        }
    }

    #[test]
    fn a_missing_server_that_is_required_is_a_failure() {
        for (server, required) in [
            (Server::ZooKeeper, "zk"),
            (Server::ZooKeeper, "etcd, zk ,dns"),
            (Server::Etcd, "zk,etcd"),
            (Server::Knot, "zk,etcd,dns"),
        ] {
            let Verdict::Fail(why) = server.verdict(Some("program not found"), required) else {
                panic!("{required:?} names {server}");
            };
            assert!(why.contains(required) && why.contains("program not found"), "{why}");
        }
    }

    #[test]
    fn what_is_missing_is_named_with_its_package() {
        let missing = |program, files| missing(program, files, "some-package");
        assert_eq!(missing("sh", &["/"]), None);
        let program = missing("no-such-program", &["/"]).unwrap();
        assert!(program.starts_with("no-such-program not found") && program.contains("some-package"));
        assert!(missing("sh", &["/", "/no-such-file"]).unwrap().starts_with("/no-such-file not found"));
    }
}
