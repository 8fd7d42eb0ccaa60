//! The state machine that runs replace, as it was: one node per machine that has not reported, one call after the other.
//!
//! Written to its disadvantage nowhere: calls that only find out that a directory is there already are left out, although
//! the original makes them.

use discovery_benches::workloads::IN_FLIGHT;
use futures_util::{StreamExt, stream};
use zookeeper_client as zk;

use crate::registry::permanent;

/// How many machines are of one kind, which is a directory.
const PER_NODE: usize = 10;

/// One of many machines: which kind, and which of them.
pub(crate) fn machine(n: usize) -> String {
    format!("node{}/{}", n / PER_NODE + 1, n % PER_NODE + 1)
}

/// Why a completion came to nothing.
#[derive(Debug)]
#[allow(dead_code, reason = "they are printed")]
pub(crate) enum Trouble {
    InTransition,
    OtherState(String),
    Client(zk::Error),
}

impl From<zk::Error> for Trouble {
    fn from(error: zk::Error) -> Self {
        Self::Client(error)
    }
}

/// A worker's view of a run.
#[derive(Clone)]
pub(crate) struct Original {
    client: zk::Client,
    run: String,
    marks: String,
    transaction: String,
}

impl Original {
    pub(crate) fn new(client: zk::Client, worker: &str, run: &str) -> Self {
        let run = format!("/runs/{run}");
        let marks = format!("{run}/state-machine-nodes");
        Self { client, marks, run, transaction: format!("/buddy-circle/transactions/{worker}") }
    }

    /// Creates the run, as fast as that goes.
    pub(crate) async fn create(&self, machines: usize, state: &str) {
        for dir in ["/buddy-circle/transactions", &*self.marks] {
            self.client.mkdir(dir, &permanent()).await.expect("the server is up");
        }
        let topology: Vec<_> = (0..machines).map(machine).collect();
        for (node, value) in [("topology", &*topology.join(" ")), ("state", state)] {
            let path = format!("{}/{node}", self.run);
            self.client.create(&path, value.as_bytes(), &permanent()).await.expect("a new run");
        }
        for n in (0..machines).step_by(PER_NODE) {
            let (node, _) = split(&self.marks, &machine(n));
            self.client.create(&node, b"", &permanent()).await.expect("a new run");
        }
        let marks: Vec<_> = topology.iter().map(|machine| format!("{}/{machine}", self.marks)).collect();
        let options = permanent();
        let created = stream::iter(&marks).map(|mark| self.client.create(mark, b"", &options));
        created
            .buffer_unordered(IN_FLIGHT)
            .for_each(async |created| {
                let _ = created.expect("a new run");
            })
            .await;
    }

    /// Completes a state for a machine; whether that moved the run.
    pub(crate) async fn complete(&self, machine: &str, from: &str, to: &str) -> Result<bool, Trouble> {
        if self.client.check_stat(&self.transition()).await?.is_some() {
            return Err(Trouble::InTransition);
        }
        let (state, _) = self.client.get_data(&self.state()).await?;
        if state != from.as_bytes() {
            return Err(Trouble::OtherState(String::from_utf8_lossy(&state).into_owned()));
        }
        let (node, mark) = split(&self.marks, machine);
        self.delete(&mark).await?;
        if self.children(&node).await?.is_none_or(|count| count == 0) {
            self.delete(&node).await?;
        }
        if self.children(&self.marks).await? != Some(0) {
            return Ok(false);
        }
        self.create_node(&self.transaction, b"", zk::CreateMode::Persistent).await?;
        self.create_node(&format!("{}/run", self.transaction), b"", zk::CreateMode::Ephemeral).await?;
        self.create_node(&self.transition(), to.as_bytes(), zk::CreateMode::Persistent).await?;
        self.transit().await?;
        Ok(true)
    }

    /// Completes the move that `/transition` tells of.
    async fn transit(&self) -> Result<(), Trouble> {
        let path = format!("{}/topology", self.run);
        let (topology, _) = self.client.get_data(&path).await?;
        self.set(&path, &topology).await?;
        let topology = String::from_utf8_lossy(&topology);
        let mut last = String::new();
        for machine in topology.split(' ') {
            let (node, mark) = split(&self.marks, machine);
            if node != last {
                self.create_node(&node, b"", zk::CreateMode::Persistent).await?;
                last = node;
            }
            self.create_node(&mark, b"", zk::CreateMode::Persistent).await?;
        }
        let (next, _) = self.client.get_data(&self.transition()).await?;
        self.delete(&self.transition()).await?;
        self.delete(&format!("{}/run", self.transaction)).await?;
        self.delete(&self.transaction).await?;
        self.set(&self.state(), &next).await
    }

    fn transition(&self) -> String {
        format!("{}/transition", self.run)
    }

    fn state(&self) -> String {
        format!("{}/state", self.run)
    }

    /// Creates a node, which may be there.
    async fn create_node(&self, path: &str, data: &[u8], mode: zk::CreateMode) -> Result<(), Trouble> {
        match self.client.create(path, data, &mode.with_acls(zk::Acls::anyone_all())).await {
            Ok(_) | Err(zk::Error::NodeExists) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Deletes a node, which may be gone.
    async fn delete(&self, path: &str) -> Result<(), Trouble> {
        match self.client.delete(path, None).await {
            Ok(()) | Err(zk::Error::NoNode) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// How many children a node has; `None` if there is no such node.
    async fn children(&self, path: &str) -> Result<Option<usize>, Trouble> {
        match self.client.list_children(path).await {
            Ok(children) => Ok(Some(children.len())),
            Err(zk::Error::NoNode) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Writes a node on condition that it is not written meanwhile.
    async fn set(&self, path: &str, data: &[u8]) -> Result<(), Trouble> {
        let stat = self.client.check_stat(path).await?.ok_or(zk::Error::NoNode)?;
        self.client.set_data(path, data, Some(stat.version)).await?;
        Ok(())
    }
}

/// The directory and the mark of a machine.
fn split(marks: &str, machine: &str) -> (String, String) {
    let node = machine.split('/').next().unwrap_or_default();
    (format!("{marks}/{node}"), format!("{marks}/{machine}"))
}
