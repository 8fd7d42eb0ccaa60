//! Where in DNS a service may be found: the ways to it, the best first.

use discovery::{ComposeName, ServiceName};
use hickory_proto::rr::Name;

use super::{
    DnsConfig, Records,
    names::{below, of_service},
};

/// One place to look for a service, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// DNS-SD below the domain of a service: its types of service are listed there.
    Sd { domain: Name },
    /// DNS-SD of one type of service: instances are listed at `name`. The service is the type.
    SdType { name: Name, domain: Name },
    /// SRV records at `name`; targets within `domain` are instances by their own name.
    Srv { name: Name, domain: Name, endpoint: Endpoint },
    /// The addresses of a name, each an instance.
    Addresses { name: Name },
    /// The addresses of a name in Docker's DNS, which knows the containers behind them.
    Containers { name: Name, of: Whose },
    /// The containers of a service by their own names, counted from 1.
    Replicas { stems: Vec<String> },
}

/// What the endpoints behind a way are called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Endpoint {
    /// As the configuration says.
    Configured,
    /// Like the service.
    Named(String),
}

/// Which of the containers with an address count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Whose {
    /// All. They are told apart by their whole names.
    All,
    /// All but those of other projects.
    NotOfOthers(ComposeName),
    /// Those of this service of this project alone.
    Ours(ComposeName),
}

impl Way {
    /// Whether the answers are Docker's: their time to live says nothing, it is always the same.
    pub(super) fn is_docker(&self) -> bool {
        matches!(self, Self::Containers { .. } | Self::Replicas { .. })
    }
}

/// All ways to a service, the best first.
pub(crate) fn ways(config: &DnsConfig, service: &ServiceName) -> Vec<Way> {
    let mut ways = Vec::new();
    if let Some(domain) = config.domain() {
        plain(config, service, domain, &mut ways);
        return ways;
    }
    for domain in config.search() {
        plain(config, service, domain, &mut ways);
    }
    if with_addresses(config) {
        compose(service, &mut ways);
    }
    ways
}

fn with_addresses(config: &DnsConfig) -> bool {
    config.port().is_some() && matches!(config.records(), Records::Auto | Records::Addresses)
}

/// In a domain, under the name as it is.
fn plain(config: &DnsConfig, service: &ServiceName, domain: &Name, ways: &mut Vec<Way>) {
    let Some(own) = of_service(domain, service) else { return };
    let mut labels = service.labels();
    // A service of one label may be a type of service by itself, such as `ldap`.
    let single = labels.next().filter(|_| labels.next().is_none());
    let of_type = single.and_then(|label| Some((label, below(domain, [&*format!("_{label}"), "_tcp"])?)));
    if matches!(config.records(), Records::Auto | Records::Sd) {
        ways.push(Way::Sd { domain: own.clone() });
        ways.extend(of_type.clone().map(|(_, name)| Way::SdType { name, domain: domain.clone() }));
    }
    if matches!(config.records(), Records::Auto | Records::Srv) {
        let name = below(&own, [&*format!("_{}", config.endpoint()), "_tcp"]);
        ways.extend(name.map(|name| Way::Srv { name, domain: own.clone(), endpoint: Endpoint::Configured }));
        ways.extend(of_type.map(|(label, name)| Way::Srv {
            name,
            domain: domain.clone(),
            endpoint: Endpoint::Named(label.into()),
        }));
    }
    if with_addresses(config) {
        // In the root there are names of Docker: a service, or a service on a network.
        let may_be_docker = domain.is_root() && service.labels().count() <= 2;
        if single.is_some() && may_be_docker {
            ways.extend(below(&own, ["tasks"]).into_iter().flat_map(containers));
        }
        if may_be_docker {
            ways.extend(containers(own));
        } else {
            ways.push(Way::Addresses { name: own });
        }
    }
}

/// As Compose names services of a project and their containers.
fn compose(service: &ServiceName, ways: &mut Vec<Way>) {
    let Ok(folded) = ComposeName::of(service, None) else { return };
    let mut spelled = Vec::new();
    for project in spellings(folded.project()) {
        for alias in spellings(folded.alias()) {
            spelled.extend(ComposeName::new(&project, &alias, None));
        }
    }
    let root = Name::root();
    let find = |text: String| below(&root, text.split('.'));
    // A Swarm's `service` has one address for all; `tasks.service` has those of all containers.
    ways.extend(spelled.iter().filter_map(|name| find(name.tasks())).flat_map(containers));
    for name in &spelled {
        let Some(found) = find(name.on_network(&name.default_network())) else { continue };
        ways.push(Way::Containers { name: found.clone(), of: Whose::NotOfOthers(name.clone()) });
        ways.push(Way::Addresses { name: found });
    }
    // On a network that several projects share, the alias is everybody's.
    for alias in spellings(folded.alias()) {
        ways.extend(find(alias).map(|name| Way::Containers { name, of: Whose::Ours(folded.clone()) }));
    }
    let mut stems: Vec<_> = spelled.iter().flat_map(|name| [name.hyphenated(), name.underscored()]).collect();
    stems.sort();
    stems.dedup();
    ways.push(Way::Replicas { stems });
}

/// A name that may be Docker's, or somebody else's who knows nothing of containers.
fn containers(name: Name) -> [Way; 2] {
    [Way::Containers { name: name.clone(), of: Whose::All }, Way::Addresses { name }]
}

/// A label as it may be in Docker: names of services have no underscores, those of projects there do.
fn spellings(label: &str) -> Vec<String> {
    let mut all = vec![label.to_owned()];
    if label.contains('-') {
        all.push(label.replace('-', "_"));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(locator: &str, service: &str) -> Vec<String> {
        let config = DnsConfig::from_locator(&format!("dns://127.0.0.1{locator}").parse().unwrap()).unwrap();
        let ways = ways(&config, &service.parse().unwrap());
        let text = ways.iter().map(|way| match way {
            Way::Sd { domain } => format!("sd {domain}"),
            Way::SdType { name, .. } => format!("sd {name}"),
            Way::Srv { name, .. } => format!("srv {name}"),
            Way::Addresses { name } => format!("a {name}"),
            Way::Containers { name, .. } => format!("containers {name}"),
            Way::Replicas { stems } => format!("replicas {}", stems.join(" ")),
        });
        text.collect()
    }

    #[test]
    fn in_a_domain_a_service_has_one_name() {
        assert_eq!(
            text("/d.example?port=80&endpoint=grpc", "eu1/prod/cart"),
            [
                "sd cart.prod.eu1.d.example.",
                "srv _grpc._tcp.cart.prod.eu1.d.example.",
                "a cart.prod.eu1.d.example."
            ]
        );
        assert_eq!(text("/d.example?records=sd", "blue/database"), ["sd database.blue.d.example."]);
        assert_eq!(
            text("/d.example?records=srv", "blue/database"),
            ["srv _http._tcp.database.blue.d.example."]
        );
        assert_eq!(
            text("/d.example", "ldap"),
            [
                "sd ldap.d.example.",
                "sd _ldap._tcp.d.example.",
                "srv _http._tcp.ldap.d.example.",
                "srv _ldap._tcp.d.example."
            ]
        );
    }

    #[test]
    fn without_a_domain_it_may_be_one_of_compose() {
        assert_eq!(
            text("?port=80&records=a", "blue/database"),
            [
                "containers database.blue.",
                "a database.blue.",
                "containers tasks.blue_database.",
                "a tasks.blue_database.",
                "containers database.blue_default.",
                "a database.blue_default.",
                "containers database.",
                "replicas blue-database blue_database"
            ]
        );
        assert_eq!(
            text("?port=80&records=a", "database"),
            ["containers tasks.database.", "a tasks.database.", "containers database.", "a database."]
        );
        assert_eq!(text("?port=80&records=a", "eu1/prod/cart"), ["a cart.prod.eu1."]);
        let spelled = text("?port=80&records=a", "my-app/web");
        assert!(spelled.contains(&"containers web.my_app_default.".into()), "{spelled:?}");
        assert!(spelled[spelled.len() - 1].contains("my_app_web"), "{spelled:?}");
        assert_eq!(text("?records=srv", "blue/database"), ["srv _http._tcp.database.blue."]);
    }
}
