//! The nodes of a project, found through the registry; in Docker that is its own DNS.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc, time::Duration};

use anyhow::{Context, bail};
use discovery::{Instance, ServiceName, Snapshot};
use tokio::time::{self, Instant};

use super::{
    NODES,
    args::Common,
    index::Index,
    project::{NODE, Project},
    rpc::{self, Failure, NodeRpcClient, RPC},
};
use crate::backend::Registry;

/// How long a registry may take to say who is there.
const PATIENCE: Duration = Duration::from_secs(10);

/// The pause between two looks for the container that this is.
const LOOK: Duration = Duration::from_millis(200);

/// A project on a registry.
#[derive(Clone, Debug)]
pub(super) struct Net {
    pub(super) registry: Registry,
    pub(super) project: Project,
    /// How long a node may take to answer.
    pub(super) timeout: Duration,
}

impl Net {
    /// The project that was asked for, or else the one of this container or folder.
    pub(super) async fn open(common: &Common, registry: &Registry) -> anyhow::Result<Self> {
        let project = match common.named_project()? {
            Some(project) => project,
            None if registry.is_writable() => Project::of_folder()?,
            None => {
                let found = container(registry, Duration::ZERO).await?;
                found.context("this is no container of a node; name the project with --project")?.0
            }
        };
        Ok(Self { registry: registry.clone(), project, timeout: common.timeout })
    }

    /// All nodes that the registry knows.
    pub(super) async fn nodes(&self) -> anyhow::Result<BTreeMap<Index, Arc<Instance>>> {
        Ok(by_index(&lookup(&self.registry, self.project.nodes()).await?))
    }

    /// These nodes, or all if none is named.
    pub(super) async fn some(&self, named: &[String]) -> anyhow::Result<BTreeMap<Index, Arc<Instance>>> {
        let mut nodes = self.nodes().await?;
        if named.is_empty() {
            return Ok(nodes);
        }
        let named = named.iter().map(|text| {
            let index = self.project.index(text)?;
            let node = nodes.remove(&index).with_context(|| self.is_not_there(index))?;
            Ok((index, node))
        });
        named.collect()
    }

    /// Connects to a node, and makes sure that it is that one.
    pub(super) async fn node(&self, index: Index) -> anyhow::Result<NodeRpcClient> {
        let nodes = self.nodes().await?;
        let instance = nodes.get(&index).with_context(|| self.is_not_there(index))?;
        let client = async {
            let client = rpc::node(instance).await?;
            let report = client.report(rpc::within(self.timeout)).await?;
            self.project.is(index, &report.name)?;
            Ok(client)
        };
        in_time(self.timeout, client).await.with_context(|| self.project.node(index).to_string())
    }

    /// Whether an `up` answers.
    pub(super) async fn is_up(&self) -> anyhow::Result<bool> {
        let fleets = lookup(&self.registry, self.project.fleet()).await?;
        let Some(fleet) = fleets.iter().next() else { return Ok(false) };
        let call = async { Ok(rpc::fleet(fleet).await?.crew(rpc::within(self.timeout)).await?) };
        Ok(in_time(self.timeout, call).await.is_ok())
    }

    /// Whoever runs the nodes, if it is an `up`; one that has just died is none.
    pub(super) async fn fleet(&self) -> anyhow::Result<Option<rpc::FleetRpcClient>> {
        // It registers, which cannot be done here.
        if !self.registry.is_writable() {
            return Ok(None);
        }
        let fleets = lookup(&self.registry, self.project.fleet()).await?;
        let Some(fleet) = fleets.iter().next() else { return Ok(None) };
        let client = in_time(self.timeout, rpc::fleet(fleet)).await;
        Ok(client.inspect_err(|why| tracing::warn!("whoever started the nodes: {why}")).ok())
    }

    /// Whoever runs the nodes, where it takes one.
    pub(super) async fn need_fleet(&self) -> anyhow::Result<rpc::FleetRpcClient> {
        if let Some(fleet) = self.fleet().await? {
            return Ok(fleet);
        }
        if !self.registry.is_writable() {
            bail!(
                "in Docker its own commands do that: docker compose up --detach --scale {NODE}=N, docker kill NAME"
            );
        }
        let up = self.registry.command("up").unwrap_or_else(|| format!("{} up", NODES.command));
        bail!("no `up` of {} is running on {}; start it with `{up}`", self.project.name(), self.registry)
    }

    fn is_not_there(&self, index: Index) -> String {
        format!("{} is not there; `ps` says who is", self.project.node(index))
    }
}

/// The call, or why it took too long.
pub(super) async fn in_time<T>(
    patience: Duration,
    call: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    match time::timeout(patience, call).await {
        // The call has a deadline of its own, and may be first to notice.
        Ok(Err(failure)) if failure.is_late() => Err(Failure::late(patience)),
        Ok(answer) => answer,
        Err(_) => Err(Failure::late(patience)),
    }
}

/// The nodes of a snapshot; what has no number is none.
pub(super) fn by_index(snapshot: &Snapshot) -> BTreeMap<Index, Arc<Instance>> {
    snapshot
        .iter()
        .filter_map(|instance| Some((instance.id().as_str().parse().ok()?, instance.clone())))
        .collect()
}

/// Which node the container is that this runs in, as Docker's DNS has it; `None` if it is none within `patience`.
pub(super) async fn container(
    registry: &Registry,
    patience: Duration,
) -> anyhow::Result<Option<(Project, Index)>> {
    let deadline = Instant::now() + patience;
    let node: ServiceName = NODE.parse()?;
    let addresses: Vec<IpAddr> = if_addrs::get_if_addrs()
        .context("the addresses of this machine")?
        .iter()
        .map(if_addrs::Interface::ip)
        .collect();
    let is_here = |instance: &Instance| {
        let mut hosts = instance.endpoints().iter().filter(|endpoint| endpoint.name() == RPC);
        hosts.any(|endpoint| endpoint.host().parse().is_ok_and(|host| addresses.contains(&host)))
    };
    loop {
        let found = lookup(registry, &node).await;
        if let Ok(found) = &found
            && let Some(here) = found.iter().find(|instance| is_here(instance))
        {
            return Ok(Project::of_container(here.id()));
        }
        if Instant::now() >= deadline {
            return found.map(|_| None);
        }
        time::sleep(LOOK).await;
    }
}

async fn lookup(registry: &Registry, service: &ServiceName) -> anyhow::Result<Snapshot> {
    let found = time::timeout(PATIENCE, registry.discovery.lookup(service)).await;
    let found = found.with_context(|| {
        format!("{registry} has not answered within {}", humantime::format_duration(PATIENCE))
    })?;
    found.with_context(|| format!("{registry} does not say who is there"))
}
