//! The names that Compose gives to services and their containers.

use std::{fmt, num::NonZeroU32, str::FromStr};

use super::{InstanceId, ServiceName};
use crate::{Error, Result};

/// A service of a Compose project, or one container of it: `project_service_1` as Compose v1 spells it, and
/// `project-service-1` as v2 does.
///
/// The project is the namespace: `database` of `blue` and `database` of `green` are the two services `blue/database`
/// and `green/database`, and the index of the container is the id of the instance. Names of services have no
/// underscores, so [`service`](ComposeName::service) has hyphens for them; the spellings keep what was given.
///
/// Where a hyphen or an underscore may belong to either, text alone cannot tell the project from the service: parsing
/// takes the last word for the service. [`within`](ComposeName::within) is exact, because it is told the project.
///
/// # Example: a container, its service and its other names
///
/// ```
/// use discovery::ComposeName;
///
/// let node: ComposeName = "distributed_docker_system_node_1".parse()?;
/// assert_eq!(node.service().to_string(), "distributed-docker-system/node");
/// assert_eq!(node.instance().unwrap().as_str(), "1");
/// assert_eq!(node.hyphenated(), "distributed_docker_system-node-1");
/// assert_eq!(node.tasks(), "tasks.distributed_docker_system_node");
/// assert_eq!(node.on_network("backend"), "node.backend");
/// # Ok::<(), discovery::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ComposeName {
    service: ServiceName,
    index: Option<NonZeroU32>,
    project: Box<str>,
    alias: Box<str>,
}

impl ComposeName {
    /// A service of a project, or with an index one of its containers.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) for a project or service that Compose would not have: allowed
    /// are letters, digits, `-` and `_`, the latter two not at an end.
    pub fn new(project: &str, service: &str, index: Option<NonZeroU32>) -> Result<Self> {
        let labels = [project, service].map(|word| word.replace('_', "-"));
        let name = ServiceName::from_labels(labels).map_err(|error| {
            Error::invalid(format!("service {service:?} of project {project:?}, with _ as -: {error}"))
        })?;
        let [project, alias] = [project, service].map(|word| word.to_ascii_lowercase().into());
        Ok(Self { service: name, index, project, alias })
    }

    /// A container, or a service, by its name in either spelling, in a project that is known.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) for a name that does not begin with the project.
    pub fn within(project: &str, text: &str) -> Result<Self> {
        let folded = |text: &str| text.to_ascii_lowercase().replace('_', "-");
        // What precedes the rest is as long in every spelling.
        let rest = folded(text)
            .strip_prefix(&folded(project))
            .and_then(|rest| rest.strip_prefix('-').map(str::len))
            .and_then(|length| text.get(text.len() - length..))
            .ok_or_else(|| Error::invalid(format!("compose name {text:?} is not of project {project:?}")))?;
        let (service, index) = split_index(rest);
        Self::new(&text[..project.len()], service, index)
    }

    /// The name of a service of two labels, and of an instance whose id is an index, as Compose v2 would have it.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) unless `service` has exactly two labels (project, service)
    /// and the id is a number from 1.
    pub fn of(service: &ServiceName, instance: Option<&InstanceId>) -> Result<Self> {
        let mut labels = service.labels();
        let (Some(project), Some(alias), None) = (labels.next(), labels.next(), labels.next()) else {
            let n = service.labels().count();
            return Err(Error::invalid(format!(
                "service name {service} has {n} labels; a compose name needs two: project/service"
            )));
        };
        let index = instance.map(|id| {
            parse_index(id.as_str()).ok_or_else(|| {
                Error::invalid(format!("instance id {id} is no index of a container; allowed are 1, 2, …"))
            })
        });
        Self::new(project, alias, index.transpose()?)
    }

    /// The service: `project/service`.
    pub fn service(&self) -> &ServiceName {
        &self.service
    }

    /// The instance, if the name is of one container: its index.
    pub fn instance(&self) -> Option<InstanceId> {
        // A number is a label.
        self.index.and_then(|index| index.to_string().parse().ok())
    }

    /// The project as it was given.
    pub fn project(&self) -> &str {
        &self.project
    }

    /// The service within its project as it was given: the alias that its containers have on their networks.
    pub fn alias(&self) -> &str {
        &self.alias
    }

    /// Which of the service's containers, counted from 1.
    pub fn index(&self) -> Option<NonZeroU32> {
        self.index
    }

    /// The same service with the index of a container.
    #[must_use]
    pub fn with_index(self, index: NonZeroU32) -> Self {
        Self { index: Some(index), ..self }
    }

    /// As Compose v1 spells it: `project_service_1`.
    pub fn underscored(&self) -> String {
        self.joined('_')
    }

    /// As Compose v2 spells it: `project-service-1`.
    pub fn hyphenated(&self) -> String {
        self.joined('-')
    }

    /// The network that a project has unless it says otherwise: `project_default`.
    pub fn default_network(&self) -> String {
        format!("{}_default", self.project)
    }

    /// The service as others find it on a network: `service.network`.
    pub fn on_network(&self, network: &str) -> String {
        format!("{}.{network}", self.alias)
    }

    /// What a Swarm answers with the addresses of all tasks for, where the service's own name has one for all:
    /// `tasks.project_service`.
    pub fn tasks(&self) -> String {
        format!("tasks.{}_{}", self.project, self.alias)
    }

    fn joined(&self, separator: char) -> String {
        let name = format!("{}{separator}{}", self.project, self.alias);
        self.index.map_or(name.clone(), |index| format!("{name}{separator}{index}"))
    }
}

/// Either spelling, told apart by what is in front of the last word.
impl FromStr for ComposeName {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let forms = "write project-service, project-service-1 or the same with _";
        let (name, index) = split_index(text);
        let separator = match index {
            Some(_) => text[name.len()..].chars().next(),
            None => name.chars().rev().find(|c| matches!(c, '-' | '_')),
        };
        let (project, service) = separator
            .and_then(|separator| name.rsplit_once(separator))
            .ok_or_else(|| Error::invalid(format!("compose name {text:?} has no project; {forms}")))?;
        Self::new(project, service, index)
            .map_err(|error| Error::invalid(format!("compose name {text:?}: {error}")))
    }
}

/// As Compose v2 spells it, which is the one in use.
impl fmt::Display for ComposeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.hyphenated())
    }
}

/// The index at the end of a name, and what is in front of it.
fn split_index(text: &str) -> (&str, Option<NonZeroU32>) {
    match text.rsplit_once(['-', '_']) {
        Some((name, index)) => match parse_index(index) {
            Some(index) => (name, Some(index)),
            None => (text, None),
        },
        None => (text, None),
    }
}

/// A number as Compose writes it: without zeros in front.
fn parse_index(text: &str) -> Option<NonZeroU32> {
    let is_plain = !text.starts_with(['0', '+']);
    text.parse().ok().filter(|_| is_plain)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn name(text: &str) -> ComposeName {
        text.parse().unwrap()
    }

    fn index(n: u32) -> Option<NonZeroU32> {
        NonZeroU32::new(n)
    }

    #[test]
    fn both_spellings_are_one_container() {
        for text in ["blue_database_1", "blue-database-1"] {
            let name = name(text);
            assert_eq!(name.service().to_string(), "blue/database");
            assert_eq!(name.index(), index(1));
            assert_eq!(
                (name.underscored(), name.hyphenated()),
                ("blue_database_1".into(), "blue-database-1".into())
            );
        }
        assert_ne!(name("blue_database_1").service(), name("green_database_1").service());
    }

    #[test]
    fn a_name_without_an_index_is_a_service() {
        let service = name("blue-database");
        assert_eq!((service.project(), service.alias(), service.index()), ("blue", "database", None));
        assert_eq!(service.default_network(), "blue_default");
        assert_eq!(service.on_network("backend"), "database.backend");
        assert_eq!(service.clone().with_index(NonZeroU32::MIN), name("blue_database_1"));
        assert_eq!(name("a-b-01").index(), None, "no index has zeros in front");
    }

    #[test]
    fn the_project_tells_what_the_text_cannot() {
        let guessed = name("my-app-data-base-2");
        assert_eq!((guessed.project(), guessed.alias()), ("my-app-data", "base"));
        for project in ["my-app", "my_app", "My_App"] {
            let known = ComposeName::within(project, "my-app-data-base-2").unwrap();
            assert_eq!((known.project(), known.alias(), known.index()), ("my-app", "data-base", index(2)));
        }
        let mixed = name("my_app-web_ui-1");
        assert_eq!((mixed.project(), mixed.alias()), ("my_app", "web_ui"));
        assert_eq!(mixed.service().to_string(), "my-app/web-ui");
        assert!(ComposeName::within("green", "blue_database_1").is_err());
        assert!(ComposeName::within("blu", "blue_database_1").is_err());
    }

    #[test]
    fn services_and_instances_lead_back() {
        let service = "blue/database".parse().unwrap();
        let second = ComposeName::of(&service, Some(&"2".parse().unwrap())).unwrap();
        assert_eq!(second.to_string(), "blue-database-2");
        assert_eq!((second.service(), second.instance()), (&service, Some("2".parse().unwrap())));
        for bad in ["0", "1f", "01", "99999999999"] {
            assert!(ComposeName::of(&service, Some(&bad.parse().unwrap())).is_err(), "{bad}");
        }
        assert!(ComposeName::of(&"database".parse().unwrap(), None).is_err());
        assert!(ComposeName::of(&"a/b/c".parse().unwrap(), None).is_err());
    }

    #[test]
    fn anything_else_is_refused_with_the_forms() {
        for bad in
            ["", "database", "_database", "blue_", "blue__1", "1", "-1", "blue database_1", "ø_b_1", "a.b_1"]
        {
            let error = bad.parse::<ComposeName>().unwrap_err().to_string();
            assert!(error.contains("compose name"), "{bad:?}: {error}");
        }
    }

    proptest! {
        #[test]
        fn spellings_parse_back(
            project in "[a-z0-9]{1,5}", alias in "[a-z]{1,5}", n in prop::option::of(1..100_u32),
        ) {
            let name = ComposeName::new(&project, &alias, n.and_then(NonZeroU32::new)).unwrap();
            for text in [name.underscored(), name.hyphenated(), name.to_string()] {
                prop_assert_eq!(&text.parse::<ComposeName>().unwrap(), &name);
            }
        }

        #[test]
        fn with_the_project_every_name_parses_back(
            project in "[a-z0-9]([a-z0-9_-]{0,6}[a-z0-9])?", alias in "[a-z]([a-z0-9_-]{0,6}[a-z])?",
            n in prop::option::of(1..100_u32),
        ) {
            let name = ComposeName::new(&project, &alias, n.and_then(NonZeroU32::new)).unwrap();
            for text in [name.underscored(), name.hyphenated()] {
                prop_assert_eq!(&ComposeName::within(&project, &text).unwrap(), &name);
            }
        }

        #[test]
        fn a_service_of_two_labels_has_one(project in "[a-z0-9]{1,9}", alias in "[a-z0-9]{1,9}", n in 1..100_u32) {
            let service = ServiceName::from_labels([&project, &alias]).unwrap();
            let id = n.to_string().parse().unwrap();
            let name = ComposeName::of(&service, Some(&id)).unwrap();
            prop_assert_eq!(name.service(), &service);
            prop_assert_eq!(name.instance(), Some(id));
        }

        #[test]
        fn parsing_never_panics(project in ".{0,6}", text in ".{0,12}") {
            let _ = text.parse::<ComposeName>();
            let _ = ComposeName::within(&project, &text);
        }
    }
}
