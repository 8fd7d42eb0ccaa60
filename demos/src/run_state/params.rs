//! Parameters of machines, and mappings between them.
//!
//! A parameter of machine `node1/3` is the key `data/params/node1/3/<name>` of its run. A mapping says that what is written
//! to a parameter of one node is written to a parameter of another as well, for all its machines.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, ensure};
use discovery::{
    Error, ErrorKind, KvHandle, Result, Revision,
    kv::{Entry, Guard, Key, Range, Txn},
    recipe::{Plan, Run},
};
use serde::{Deserialize, Serialize};

use super::topology::{Machine, Topology, check_name};

/// The most bytes of a value.
const VALUE_MAX: usize = 16 * 1024;

/// How many parameters are written in one step.
const STEP: usize = 80;

/// How many bytes are written in one step: a message of DNS carries 64 KiB.
const STEP_BYTES: usize = 32 * 1024;

/// A parameter of all machines of a node: `node1.p1`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(super) struct Port {
    pub(super) node: String,
    pub(super) param: String,
}

impl TryFrom<String> for Port {
    type Error = anyhow::Error;

    fn try_from(text: String) -> anyhow::Result<Self> {
        let (node, param) = text.split_once('.').with_context(|| format!("{text:?}: write node1.p1"))?;
        check_name("node", node)?;
        check_name("parameter", param)?;
        Ok(Self { node: node.to_owned(), param: param.to_owned() })
    }
}

impl From<Port> for String {
    fn from(port: Port) -> Self {
        format!("{}.{}", port.node, port.param)
    }
}

/// What is written to a parameter is written to these as well.
pub(super) type Mappings = BTreeMap<Port, BTreeSet<Port>>;

/// The parameters of a run.
#[derive(Clone, Debug)]
pub(super) struct Params {
    run: Run,
    kv: KvHandle,
}

/// A value, and when it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Value {
    pub(super) text: String,
    pub(super) revision: Revision,
}

impl Value {
    pub(super) fn of(entry: &Entry) -> Self {
        Self { text: String::from_utf8_lossy(&entry.value).into_owned(), revision: entry.modified }
    }
}

impl Params {
    pub(super) fn new(run: Run, kv: KvHandle) -> Self {
        Self { run, kv }
    }

    /// Where the parameters of a machine are.
    pub(super) fn of(&self, machine: &Machine) -> Result<Range> {
        Ok(Range::Children(self.run.data_key(&format!("params/{machine}"))?))
    }

    /// Where one is.
    pub(super) fn one(&self, machine: &Machine, param: &str) -> Result<Range> {
        Ok(Range::Key(self.key(machine, param)?))
    }

    pub(super) async fn get(&self, machine: &Machine, param: &str) -> Result<Option<Value>> {
        Ok(self.kv.get(&self.key(machine, param)?).await?.as_ref().map(Value::of))
    }

    pub(super) async fn all(&self, machine: &Machine) -> Result<BTreeMap<String, String>> {
        let scan = self.kv.scan(&self.of(machine)?).await?;
        Ok(named(&scan.entries))
    }

    /// Writes a parameter, and those that it is mapped to: in one step, if that can be. Of more than that, the rest follows,
    /// unless somebody writes the parameter anew meanwhile: then he writes them.
    pub(super) async fn set(&self, machine: &Machine, param: &str, value: &str) -> Result<Revision> {
        check_value(value)?;
        let picture = self.run.picture().await?;
        let machines: Vec<Machine> = picture.tasks.keys().filter_map(|task| task.parse().ok()).collect();
        if !machines.contains(machine) {
            let message = format!("run {} has no machine {machine}", self.run.id());
            return Err(Error::new(ErrorKind::NotFound, message));
        }
        let key = self.key(machine, param)?;
        let from = Port { node: machine.node.clone(), param: param.to_owned() };
        let mut mapped = Vec::new();
        for to in self.mappings().await?.get(&from).into_iter().flatten() {
            for other in machines.iter().filter(|other| other.node == to.node && *other != machine) {
                mapped.push(self.key(other, &to.param)?);
            }
        }
        let put = |txn: Txn, keys: &[Key]| keys.iter().fold(txn, |txn, key| txn.put(key, value.to_owned()));
        let step = STEP.min(STEP_BYTES / value.len());
        let (first, rest) = mapped.split_at(mapped.len().min(step - 1));
        let revision = self.run.commit(put(Txn::new().put(&key, value.to_owned()), first)).await?;
        for some in rest.chunks(step) {
            let txn = Txn::new().guard(Guard::Unmodified(key.clone(), revision));
            match self.run.commit(put(txn, some)).await {
                Err(error) if error.kind() == ErrorKind::Conflict => break,
                written => written?,
            };
        }
        Ok(revision)
    }

    pub(super) async fn mappings(&self) -> Result<Mappings> {
        let Some(entry) = self.kv.get(&self.mappings_key()?).await? else { return Ok(Mappings::new()) };
        serde_json::from_slice(&entry.value)
            .map_err(|error| Error::new(ErrorKind::Corrupt, "the mappings cannot be read").with_source(error))
    }

    fn key(&self, machine: &Machine, param: &str) -> Result<Key> {
        check_name("parameter", param).map_err(|error| Error::invalid(error.to_string()))?;
        self.run.data_key(&place(machine, param))
    }

    fn mappings_key(&self) -> Result<Key> {
        self.run.data_key(MAPPINGS)
    }
}

/// Adds parameters to what a run begins with: a value for all machines of a node each, and mappings.
pub(super) fn plan(
    mut plan: Plan,
    topology: &Topology,
    values: &BTreeMap<Port, String>,
    mappings: &Mappings,
) -> anyhow::Result<Plan> {
    let ports = values.keys().chain(mappings.keys()).chain(mappings.values().flatten());
    for port in ports {
        let is_there = topology.machines().any(|machine| machine.node == port.node);
        ensure!(is_there, "{}: there is no node {}", String::from(port.clone()), port.node);
    }
    // What is given itself comes before what is mapped to it.
    let mut all: BTreeMap<&Port, &str> = BTreeMap::new();
    for (port, value) in values {
        check_value(value).with_context(|| String::from(port.clone()))?;
        all.insert(port, value);
        for to in mappings.get(port).into_iter().flatten().filter(|to| !values.contains_key(to)) {
            all.insert(to, value);
        }
    }
    for (port, value) in all {
        for machine in topology.machines().filter(|machine| machine.node == port.node) {
            plan = plan.data(&place(&machine, &port.param), value.to_owned())?;
        }
    }
    if !mappings.is_empty() {
        plan = plan.data(MAPPINGS, serde_json::to_vec(mappings)?)?;
    }
    Ok(plan)
}

/// Where a parameter is, of what belongs to a run.
fn place(machine: &Machine, param: &str) -> String {
    format!("params/{machine}/{param}")
}

/// Where the mappings are.
const MAPPINGS: &str = "mappings";

fn check_value(value: &str) -> Result<()> {
    if value.is_empty() || value.len() > VALUE_MAX {
        let message = format!("a value of {} bytes; allowed are 1 to {VALUE_MAX}", value.len());
        return Err(Error::invalid(message));
    }
    Ok(())
}

/// The parameters of one machine, by name.
pub(super) fn named<'a>(entries: impl IntoIterator<Item = &'a Entry>) -> BTreeMap<String, String> {
    let named =
        entries.into_iter().filter_map(|entry| Some((entry.key.name()?.to_owned(), Value::of(entry).text)));
    named.collect()
}
