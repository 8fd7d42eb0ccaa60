//! A Docker engine of its own for a test, from Debian's packages.

mod container;
mod project;

use std::{
    env,
    ffi::{OsStr, OsString},
    fs, io,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    time::Duration,
};

use rustix::process::geteuid;

pub use self::{container::Container, project::Project};
use crate::{
    client,
    process::{Deadline, Process},
    require::{self, Server},
};

/// An idle machine takes about 0.6 s; a loaded one gets much more.
const READY_WITHIN: Duration = Duration::from_secs(60);

const WATCH: &str = include_str!("watch.sh");
const ENGINE: &str = include_str!("engine.sh");

/// The namespaces of its own that an engine gets; see `watch.sh`.
const NAMESPACES: [&str; 5] = ["--net", "--mount", "--pid", "--fork", "--mount-proc"];

/// What is missing to run an engine here, if anything.
pub(crate) fn missing() -> Option<String> {
    let programs = [
        ("dockerd", "docker.io"),
        ("docker", "docker.io"),
        ("docker-compose", "docker-compose"),
        ("iptables", "iptables"),
        ("ip", "iproute2"),
    ];
    if !geteuid().is_root() {
        return Some("only root can start an engine".to_owned());
    }
    programs
        .into_iter()
        .find_map(|(program, package)| require::missing(program, &[], package))
        .or_else(no_namespaces)
}

/// Why root cannot have namespaces of its own, if that is so: as in a container without the privilege.
fn no_namespaces() -> Option<String> {
    let unshare = Command::new("unshare").args(NAMESPACES).arg("true").stdin(Stdio::null()).output();
    match unshare {
        Ok(output) if output.status.success() => None,
        Ok(output) => Some(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
        Err(error) => Some(format!("cannot run unshare: {error}")),
    }
}

/// A running Docker engine without images and without a way to any network but those that it makes itself.
///
/// Its containers are in namespaces inside of its own: neither they nor their addresses can be reached from the test,
/// except by [`Project::exec`] and [`Project::logs`]. Dropping it ends the engine and all its containers, and so does
/// the end of the test's process, also by SIGKILL; nothing remains of it.
#[derive(Debug)]
pub struct Docker {
    process: Process,
}

impl Docker {
    /// Starts an engine.
    ///
    /// # Errors
    ///
    /// When the engine does not come up; the error shows the end of its log.
    pub async fn start() -> io::Result<Self> {
        let dir = tempfile::Builder::new().prefix("discovery-docker-").tempdir()?;
        let arguments: [OsString; 2] = ["watch.sh".into(), dir.path().into()];
        let docker = Self { process: Process::new("the Docker engine", dir, "sh", arguments).tethered() };
        fs::write(docker.dir().join("watch.sh"), WATCH)?;
        fs::write(docker.dir().join("engine.sh"), ENGINE)?;
        fs::create_dir(docker.client_config())?;
        docker.process.spawn()?;
        docker.ready().await?;
        Ok(docker)
    }

    /// Starts an engine, or says why the test is skipped when that cannot be done here: the packages are missing, or
    /// the privilege.
    ///
    /// # Panics
    ///
    /// When the engine does not come up, and when [`REQUIRE`](crate::REQUIRE) forbids to skip.
    pub async fn start_or_skip() -> Option<Self> {
        Server::Docker.or_skip(Self::start()).await
    }

    /// Makes an image of nothing but `binary`, which must be linked statically, as by
    /// [`static_binary`](crate::static_binary). In the image it is in the root directory, under its own name, and the
    /// entry point.
    ///
    /// # Errors
    ///
    /// When the file cannot be read or the image not be built.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future gives the image up; it may exist all the same.
    pub async fn build_scratch(&self, tag: &str, binary: &Path) -> io::Result<()> {
        let Some(name) = binary.file_name().and_then(OsStr::to_str) else {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("not a file: {}", binary.display()),
            ));
        };
        let context = tempfile::tempdir_in(self.dir())?;
        fs::copy(binary, context.path().join(name))?;
        let instructions =
            format!("FROM scratch\nCOPY [\"{name}\", \"/{name}\"]\nENTRYPOINT [\"/{name}\"]\n");
        fs::write(context.path().join("Dockerfile"), instructions)?;
        let mut build = self.client("docker");
        // The builder inside of the engine, which needs no plug-in of the client.
        build.env("DOCKER_BUILDKIT", "0").args(["build", "--quiet", "--tag", tag]).arg(context.path());
        run(build).await?;
        Ok(())
    }

    /// A Compose project by the name `project`, described by a compose file. Nothing runs before [`Project::up`].
    ///
    /// # Errors
    ///
    /// When the name is not one that Compose takes as it is, and when the file cannot be written.
    pub fn compose(&self, project: &str, yaml: &str) -> io::Result<Project<'_>> {
        Project::new(self, project, yaml)
    }

    /// Runs a command of the `docker` client, e.g. `["network", "ls"]`, and returns what it printed.
    ///
    /// # Errors
    ///
    /// When the command fails (with what the client said), or takes longer than a minute.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future kills the client; whether the command was carried out is then unknown.
    pub async fn run<A: AsRef<OsStr>>(&self, command: impl IntoIterator<Item = A>) -> io::Result<String> {
        let mut docker = self.client("docker");
        docker.args(command);
        run(docker).await
    }

    /// Where clients connect, as the environment variable `DOCKER_HOST` wants it.
    pub fn host(&self) -> String {
        format!("unix://{}", self.socket().display())
    }

    /// The temporary directory with all that the engine keeps.
    pub fn dir(&self) -> &Path {
        self.process.dir()
    }

    /// Everything the engine has logged.
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// A client of this engine, whatever the environment says of others.
    fn client(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        for (name, _) in env::vars_os() {
            if name.to_str().is_some_and(|name| name.starts_with("DOCKER_") || name.starts_with("COMPOSE_")) {
                command.env_remove(name);
            }
        }
        command.env("DOCKER_HOST", self.host()).env("DOCKER_CONFIG", self.client_config());
        command
    }

    fn socket(&self) -> PathBuf {
        self.dir().join("sock")
    }

    fn client_config(&self) -> PathBuf {
        self.dir().join("client")
    }

    async fn ready(&self) -> io::Result<()> {
        let deadline = Deadline::after(READY_WITHIN);
        while !self.socket().exists() || self.run(["version"]).await.is_err() {
            self.process.check()?;
            if !deadline.wait().await {
                return Err(self.process.failure(&format!("did not serve within {READY_WITHIN:?}")));
            }
        }
        Ok(())
    }
}

/// Runs a client to its end and returns what it printed.
async fn run(command: Command) -> io::Result<String> {
    client::run(&describe(&command), command.into(), printed).await
}

/// A command as somebody would type it, for errors.
fn describe(command: &Command) -> String {
    let words = [command.get_program()].into_iter().chain(command.get_args());
    let words: Vec<_> = words.map(OsStr::to_string_lossy).collect();
    format!("`{}`", words.join(" "))
}

/// Results go to standard output. What else the clients say matters only when there is no result.
fn printed(output: &Output) -> String {
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if output.status.success() { out.trim_end().to_owned() } else { format!("{out}{err}").trim().to_owned() }
}
