//! The commands of the sample on one registry, in one project.

use rustix::process::{Pid, Signal, kill_process};

use crate::{
    demo::{Demo, Done},
    eventually,
    registry::Registry,
};

#[derive(Clone, Debug)]
pub(crate) struct Net {
    locator: String,
    project: String,
}

impl Net {
    pub(crate) fn on<R: Registry>(registry: &R) -> Self {
        Self::at(registry.locator())
    }

    pub(crate) fn at(locator: String) -> Self {
        Self { locator, project: "my_app".into() }
    }

    /// Another project on the same registry.
    pub(crate) fn project(&self, name: &str) -> Self {
        Self { project: name.into(), ..self.clone() }
    }

    /// Starts nodes, and waits until all answer.
    pub(crate) async fn up(&self, size: u32) -> Demo {
        let up = self.start(&["up", &size.to_string(), "--ttl", "1s"]);
        self.all_answer(size).await;
        up
    }

    /// Waits until so many nodes are there, and all answer, know and reach each other.
    pub(crate) async fn all_answer(&self, size: u32) {
        let summary = format!("{size} of {size} answer");
        eventually(&summary, async || {
            let done = self.run(&["ping"]).await;
            done.code == Some(0) && done.out.contains(&summary) && !done.out.contains("is unknown to")
        })
        .await;
    }

    /// Starts a command that does not end by itself, or that is talked to.
    pub(crate) fn start(&self, args: &[&str]) -> Demo {
        Demo::spawn(self.whole(args))
    }

    /// Runs a command to its end.
    pub(crate) async fn run(&self, args: &[&str]) -> Done {
        Done::of(&self.whole(args)).await
    }

    /// Runs a command that is to succeed; returns what it printed.
    pub(crate) async fn ok(&self, args: &[&str]) -> String {
        self.run(args).await.ok()
    }

    /// Runs a command that is to fail for this reason; returns what it printed.
    pub(crate) async fn fails(&self, args: &[&str], reason: &str) -> String {
        self.run(args).await.fails(reason)
    }

    /// Does something to the process of a node from outside.
    pub(crate) async fn signal(&self, node: u32, what: Signal) {
        signal(self.pid(node).await, what);
    }

    /// The process of a node.
    pub(crate) async fn pid(&self, node: u32) -> Pid {
        let ps = self.ok(&["ps"]).await;
        let name = format!("{}-node-{node} ", self.project);
        let line = ps.lines().find(|line| line.starts_with(&name)).unwrap();
        Pid::from_raw(line.rsplit(' ').next().unwrap().parse().unwrap()).unwrap()
    }

    fn whole<'a>(&'a self, args: &[&'a str]) -> Vec<&'a str> {
        [&["nodes"], args, &["--backend", &self.locator, "--project", &self.project]].concat()
    }
}

pub(crate) fn signal(process: Pid, what: Signal) {
    kill_process(process, what).unwrap();
}
