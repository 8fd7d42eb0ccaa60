//! A Compose project and what can happen to it.

use std::{ffi::OsStr, fs, io, process::Command};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::{Container, Docker, describe, printed, run};
use crate::client;

/// What Compose is told to leave nothing of a project, at once.
const DOWN: [&str; 5] = ["down", "--volumes", "--remove-orphans", "--timeout", "0"];

/// How many lines of the log of each container a failing test shows.
const LOG_TAIL: &str = "40";

/// A Compose project, made by [`Docker::compose`]. Dropping it ends and removes its containers and networks; when the
/// test panics the ends of their logs are shown before.
///
/// Commands are those of the `docker-compose` and `docker` clients, and return when these do. With version 1 of Compose
/// that is after the containers were started, not after they serve.
#[derive(Debug)]
pub struct Project<'docker> {
    docker: &'docker Docker,
    name: String,
    /// Where the compose file is.
    dir: TempDir,
}

impl<'docker> Project<'docker> {
    pub(super) fn new(docker: &'docker Docker, name: &str, yaml: &str) -> io::Result<Self> {
        // Version 1 drops all other characters silently, and nobody would find the containers.
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_".contains(&byte);
        if name.is_empty() || !name.bytes().all(plain) {
            let what = format!("a project's name consists of a-z, 0-9, - and _, so it cannot be {name:?}");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
        }
        let dir = tempfile::tempdir_in(docker.dir())?;
        fs::write(dir.path().join("compose.yml"), yaml)?;
        Ok(Self { docker, name: name.to_owned(), dir })
    }

    /// The project's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Creates and starts everything that the compose file describes and that does not run yet.
    ///
    /// # Errors
    ///
    /// When Compose fails; the error shows what it said.
    pub async fn up(&self) -> io::Result<()> {
        self.compose(["up", "--detach", "--no-build"]).await
    }

    /// Adds or removes replicas of a service until there are `replicas`; those with the highest numbers go first.
    ///
    /// # Errors
    ///
    /// When Compose fails; the error shows what it said.
    pub async fn scale(&self, service: &str, replicas: usize) -> io::Result<()> {
        let scale = format!("{service}={replicas}");
        // Only this service, or the others would be scaled back to what the file says.
        self.compose([
            "up",
            "--detach",
            "--no-build",
            "--no-deps",
            "--no-recreate",
            "--scale",
            &scale,
            service,
        ])
        .await
    }

    /// Ends and removes containers, networks and volumes; [`up`](Self::up) makes new ones.
    ///
    /// # Errors
    ///
    /// When Compose fails; the error shows what it said.
    pub async fn down(&self) -> io::Result<()> {
        self.compose(DOWN).await
    }

    /// The containers of a service, in the order of their numbers, whether they run or not.
    ///
    /// # Errors
    ///
    /// When the engine does not answer, or a container is removed while it is looked at.
    pub async fn containers(&self, service: &str) -> io::Result<Vec<Container>> {
        let labels = [("project", &*self.name), ("service", service), ("oneoff", "False")]
            .map(|(label, value)| format!("--filter=label=com.docker.compose.{label}={value}"));
        let command = ["ps", "--all", "--quiet", "--no-trunc"].into_iter();
        let ids = self.docker.run(command.chain(labels.iter().map(String::as_str))).await?;
        Container::inspect(self.docker, &ids).await
    }

    /// Ends a container as a crash would (SIGKILL). It stays, without an address, for [`start`](Self::start).
    ///
    /// # Errors
    ///
    /// When the container does not run.
    pub async fn kill(&self, container: &Container) -> io::Result<()> {
        self.act(["kill", container.id()]).await
    }

    /// Ends the first process of a container with SIGKILL from outside, as a crash does. Unlike [`kill`](Self::kill),
    /// which the engine takes for somebody's wish, it is followed by what the `restart` of the compose file says.
    ///
    /// # Errors
    ///
    /// When the container does not run.
    pub fn crash(&self, container: &Container) -> io::Result<()> {
        let first = first_process(container)?;
        let first = first.ok_or_else(|| io::Error::other(format!("{} does not run", container.name())))?;
        Ok(kill_process(first, Signal::KILL)?)
    }

    /// Ends a container in order: SIGTERM, and SIGKILL after the `stop_grace_period` of the compose file, 10 s by
    /// default. A program that handles SIGTERM ends by it; as the first process of its container, no other does.
    ///
    /// # Errors
    ///
    /// When the container cannot be stopped.
    pub async fn stop(&self, container: &Container) -> io::Result<()> {
        self.act(["stop", container.id()]).await
    }

    /// Starts a container that was killed or stopped. Its address may be another one.
    ///
    /// # Errors
    ///
    /// When the container cannot be started.
    pub async fn start(&self, container: &Container) -> io::Result<()> {
        self.act(["start", container.id()]).await
    }

    /// Freezes a container: it keeps its address and its connections, and answers nothing.
    ///
    /// # Errors
    ///
    /// When the container does not run, or is paused already.
    pub async fn pause(&self, container: &Container) -> io::Result<()> {
        self.act(["pause", container.id()]).await
    }

    /// Lets a paused container go on.
    ///
    /// # Errors
    ///
    /// When the container is not paused.
    pub async fn unpause(&self, container: &Container) -> io::Result<()> {
        self.act(["unpause", container.id()]).await
    }

    /// Takes a container off a network, which has the name that it has in the compose file, such as `default`.
    ///
    /// # Errors
    ///
    /// When the container is not on it.
    pub async fn disconnect(&self, container: &Container, network: &str) -> io::Result<()> {
        self.act(["network", "disconnect", &self.network(network), container.id()]).await
    }

    /// Puts a container on a network, where `aliases` are its names beside its own. Compose gave it the name of its
    /// service as one, which it has lost by [`disconnect`](Self::disconnect).
    ///
    /// # Errors
    ///
    /// When the container is on it already.
    pub async fn connect(&self, container: &Container, network: &str, aliases: &[&str]) -> io::Result<()> {
        let network = self.network(network);
        let aliases = aliases.iter().flat_map(|alias| ["--alias", *alias]);
        self.act(["network", "connect"].into_iter().chain(aliases).chain([&*network, container.id()])).await
    }

    /// Runs a program in a container that runs, e.g. `["/program", "argument"]`, and returns what it printed.
    ///
    /// # Errors
    ///
    /// When the program cannot be run or fails, with what it printed, or takes longer than a minute.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves the program running.
    pub async fn exec<A: AsRef<OsStr>>(
        &self,
        container: &Container,
        command: impl IntoIterator<Item = A>,
    ) -> io::Result<String> {
        let mut docker = self.docker.client("docker");
        docker.args(["exec", container.id()]).args(command);
        run(docker).await
    }

    /// Everything a container has printed, over all its starts: on standard output, then on standard error.
    ///
    /// # Errors
    ///
    /// When the container does not exist.
    pub async fn logs(&self, container: &Container) -> io::Result<String> {
        let mut docker = self.docker.client("docker");
        docker.args(["logs", container.id()]);
        client::run(&describe(&docker), docker.into(), |output| {
            [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes)).concat()
        })
        .await
    }

    /// The full name of a network of the compose file.
    fn network(&self, network: &str) -> String {
        format!("{}_{network}", self.name)
    }

    async fn act<'a>(&self, command: impl IntoIterator<Item = &'a str>) -> io::Result<()> {
        self.docker.run(command).await.map(|_| ())
    }

    async fn compose<'a>(&self, command: impl IntoIterator<Item = &'a str>) -> io::Result<()> {
        run(self.compose_command(command)).await.map(|_| ())
    }

    fn compose_command<'a>(&self, command: impl IntoIterator<Item = &'a str>) -> Command {
        let mut compose = self.docker.client("docker-compose");
        compose.current_dir(self.dir.path()).args(["--project-name", &self.name, "--file", "compose.yml"]);
        compose.args(command);
        compose
    }
}

/// The first process of a container, as this machine counts. The engine counts otherwise, in a namespace of its own.
fn first_process(container: &Container) -> io::Result<Option<Pid>> {
    for entry in fs::read_dir("/proc")? {
        let dir = entry?.path();
        let read = |file| fs::read_to_string(dir.join(file)).unwrap_or_default();
        // One that has just ended has none of these.
        let is_of_container = read("cgroup").contains(container.id());
        let is_first = read("status").lines().any(|line| line.starts_with("NSpid:") && line.ends_with("\t1"));
        if is_of_container && is_first {
            let pid = dir.file_name().and_then(OsStr::to_str).and_then(|name| name.parse().ok());
            return Ok(pid.and_then(Pid::from_raw));
        }
    }
    Ok(None)
}

impl Drop for Project<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let logs = self.compose_command(["logs", "--no-color", "--tail", LOG_TAIL]).output();
            let logs = logs.map_or_else(|error| error.to_string(), |output| printed(&output));
            eprintln!("--- ends of the logs of {} ---\n{logs}\n---", self.name);
        }
        match self.compose_command(DOWN).output() {
            Ok(output) if output.status.success() => {}
            Ok(output) => eprintln!("could not remove {}: {}", self.name, printed(&output)),
            Err(error) => eprintln!("could not remove {}: {error}", self.name),
        }
    }
}
