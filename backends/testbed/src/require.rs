//! Which servers this machine has, and whether a test may be skipped without one.

use std::{env, fmt, io, path::Path};

use crate::{docker, etcd, zk};

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
    /// A Docker engine with Compose, named `docker` in [`REQUIRE`].
    Docker,
}

impl Server {
    /// Whether tests can use this server here; prints why they are skipped when they cannot.
    ///
    /// # Panics
    ///
    /// When the server cannot be started although [`REQUIRE`] names it.
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
        let why = format!("{self} cannot be started here: {missing}");
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
            Self::Docker => "docker",
        }
    }

    /// What is missing, and how to get it.
    fn missing(self) -> Option<String> {
        match self {
            Self::ZooKeeper => zk::missing(),
            Self::Etcd => etcd::missing(),
            Self::Docker => docker::missing(),
        }
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ZooKeeper => "ZooKeeper",
            Self::Etcd => "etcd",
            Self::Docker => "Docker",
        })
    }
}

/// Says that `program` is not on the search path, or one of `files` is not there; `package` would bring them.
pub(crate) fn missing(program: &str, files: &[&str], package: &str) -> Option<String> {
    let path = env::var_os("PATH").unwrap_or_default();
    let lacking = if env::split_paths(&path).any(|dir| dir.join(program).is_file()) {
        files.iter().find(|file| !Path::new(file).exists())?
    } else {
        program
    };
    Some(format!("{lacking} not found (Debian: apt-get install {package})"))
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
            assert_eq!(why, "ZooKeeper cannot be started here: java not found");
        }
    }

    #[test]
    fn a_missing_server_that_is_required_is_a_failure() {
        for (server, required) in
            [(Server::ZooKeeper, "zk"), (Server::ZooKeeper, "etcd, zk ,dns"), (Server::Etcd, "zk,etcd")]
        {
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
