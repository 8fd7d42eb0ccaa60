//! What nodes are called: as Compose calls containers.

use anyhow::{Context, bail};
use discovery::{ComposeName, InstanceId, ServiceName};

use super::{index::Index, rpc::Failure};

/// The service that all nodes are.
pub(super) const NODE: &str = "node";

/// The service of whoever starts nodes.
const FLEET: &str = "fleet";

/// A project: the namespace of its nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Project {
    node: ComposeName,
    fleet: ComposeName,
}

impl Project {
    pub(super) fn new(name: &str) -> anyhow::Result<Self> {
        let compose = |service| ComposeName::new(name, service, None).context("--project");
        Ok(Self { node: compose(NODE)?, fleet: compose(FLEET)? })
    }

    /// The one that has the name of the current folder.
    pub(super) fn of_folder() -> anyhow::Result<Self> {
        let folder = std::env::current_dir().context("no current folder; name the project with --project")?;
        let name = folder.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
        let project = of_folder(&name);
        if project.is_empty() {
            bail!("the folder {} makes no name for a project; choose one with --project", folder.display());
        }
        Self::new(&project)
    }

    /// The one of a container, which may be found under its name alone.
    pub(super) fn of_container(id: &InstanceId) -> Option<(Self, Index)> {
        let name: ComposeName = id.as_str().parse().ok()?;
        let project = Self::new(name.project()).ok()?;
        (name.alias() == NODE).then_some((project, index(&name)?))
    }

    pub(super) fn name(&self) -> &str {
        self.node.project()
    }

    /// The service that its nodes are registered as.
    pub(super) fn nodes(&self) -> &ServiceName {
        self.node.service()
    }

    /// The service that an `up` is registered as.
    pub(super) fn fleet(&self) -> &ServiceName {
        self.fleet.service()
    }

    pub(super) fn node(&self, index: Index) -> ComposeName {
        self.node.clone().with_index(index.into())
    }

    /// A node by its number or by its name in either spelling.
    pub(super) fn index(&self, text: &str) -> anyhow::Result<Index> {
        if let Ok(index) = text.parse() {
            return Ok(index);
        }
        let named = ComposeName::within(self.name(), text).ok();
        let index = named.filter(|name| name.alias() == NODE).and_then(|name| index(&name));
        index.with_context(|| {
            let [hyphens, underscores] = self.spellings(Index::MIN);
            format!("{text:?} is no node of {}; write 1, {hyphens} or {underscores}", self.name())
        })
    }

    /// Whether the right one has answered: an address may have been given to somebody else.
    pub(super) fn is(&self, index: Index, name: &str) -> Result<(), Failure> {
        match self.index(name) {
            Ok(here) if here == index => Ok(()),
            _ => Err(Failure::new(format!("{name} is there instead"))),
        }
    }

    /// A node's name as Compose v2 spells it, and as v1 does.
    pub(super) fn spellings(&self, index: Index) -> [String; 2] {
        let node = self.node(index);
        [node.hyphenated(), node.underscored()]
    }
}

/// The number in a name, if it is a node's.
fn index(name: &ComposeName) -> Option<Index> {
    Index::new(name.index()?.get())
}

/// Several nodes, for people.
pub(super) fn listed<'a>(nodes: impl IntoIterator<Item = &'a Index>) -> String {
    let numbers: Vec<_> = nodes.into_iter().map(ToString::to_string).collect();
    format!("node{} {}", if numbers.len() > 1 { "s" } else { "" }, numbers.join(", "))
}

/// As Compose makes a project of a folder: lower case, other characters left out.
fn of_folder(folder: &str) -> String {
    let kept = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    let name: String = folder.chars().filter(kept).map(|c| c.to_ascii_lowercase()).collect();
    name.trim_matches(['-', '_']).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_a_project_as_in_compose() {
        assert_eq!(of_folder("distributed_docker_system"), "distributed_docker_system");
        assert_eq!(of_folder("_My Project.2"), "myproject2");
        assert_eq!(of_folder("ø"), "");
    }

    #[test]
    fn a_node_has_a_number_and_two_names() {
        let project = Project::new("distributed_docker_system").unwrap();
        let third = Index::new(3).unwrap();
        let names = ["distributed_docker_system-node-3", "distributed_docker_system_node_3"];
        assert_eq!(project.spellings(third), names);
        for text in ["3", names[0], names[1], "distributed-docker-system-node-3"] {
            assert_eq!(project.index(text).unwrap(), third, "{text}");
            assert!(project.is(third, text).is_ok());
        }
        for bad in [
            "0",
            "4294967295",
            "distributed_docker_system-node-201",
            "node",
            "blue-node-3",
            "distributed_docker_system-web-3",
            "-1",
        ] {
            let error = project.index(bad).unwrap_err().to_string();
            assert!(error.contains(bad) && error.contains("_node_1"), "{error}");
            assert!(project.is(third, bad).unwrap_err().to_string().contains("instead"));
        }
    }

    #[test]
    fn projects_are_apart() {
        let (blue, green) = (Project::new("blue").unwrap(), Project::new("green").unwrap());
        assert_ne!(blue.nodes(), green.nodes());
        assert_eq!(blue.nodes().to_string(), "blue/node");
        assert!(Project::new("_x").is_err());
    }

    #[test]
    fn a_container_knows_its_project() {
        let (project, index) = Project::of_container(&"my-app-node-2".parse().unwrap()).unwrap();
        assert_eq!((project.name(), index.get()), ("my-app", 2));
        assert_eq!(Project::of_container(&"my-app-web-2".parse().unwrap()), None);
    }
}
