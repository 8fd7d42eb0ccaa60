//! Names in DNS, built and taken apart. Always as [`Name`], never as text, which the client library would hold to the
//! rules of host names: names with underscores would not even be asked for.

use data_encoding::BASE32_DNSSEC;
use discovery::{InstanceId, ServiceName};
use hickory_proto::rr::Name;

use crate::names::fnv1a;

/// The most bytes of a name on the wire.
const NAME_MAX: usize = 255;
/// How much of a name is kept in an id that cannot hold it as it is.
const STEM_MAX: usize = 40;

/// `labels` in front of a domain, the most specific first; `None` if that is too long for a name.
pub(super) fn below<'a>(domain: &'a Name, labels: impl IntoIterator<Item = &'a str>) -> Option<Name> {
    let labels = labels.into_iter().map(str::as_bytes).chain(domain.iter());
    let name = Name::from_labels(labels).ok()?;
    (name.len() <= NAME_MAX).then_some(name)
}

/// The name of a service in a domain: `cart.prod.eu1.disco.example`.
pub(super) fn of_service(domain: &Name, service: &ServiceName) -> Option<Name> {
    below(domain, service.labels().rev())
}

/// The labels of a name in front of a domain, the most specific first; `None` for a name outside of it.
pub(super) fn relative<'a>(domain: &Name, name: &'a Name) -> Option<Vec<&'a [u8]>> {
    let length = usize::from(name.num_labels()).checked_sub(usize::from(domain.num_labels()))?;
    domain.zone_of(name).then(|| name.iter().take(length).collect())
}

/// The service that a name in a domain is of; `None` for a name that no service can have.
pub(super) fn to_service(domain: &Name, name: &Name) -> Option<ServiceName> {
    let labels = relative(domain, name)?;
    let labels: Option<Vec<_>> = labels.into_iter().rev().map(|label| str::from_utf8(label).ok()).collect();
    ServiceName::from_labels(labels?).ok().filter(|service| !service.is_root())
}

/// A name as a host in an endpoint: text without the last dot.
pub(super) fn to_host(name: &Name) -> String {
    name.to_ascii().trim_end_matches('.').to_ascii_lowercase()
}

/// An id for what has a name of any kind, always the same for the same name: the name itself if it can be an id, else
/// what is readable of it and a digest.
pub(super) fn to_id(name: &[u8]) -> Option<InstanceId> {
    if let Some(id) = str::from_utf8(name).ok().and_then(|text| text.parse().ok()) {
        return Some(id);
    }
    let folded = name.to_ascii_lowercase();
    let readable = |byte: &u8| if byte.is_ascii_alphanumeric() { char::from(*byte) } else { '-' };
    let stem: String = folded.iter().take(STEM_MAX).map(readable).collect();
    // The ids of one service are few, and nobody gains from making two alike.
    let digest = BASE32_DNSSEC.encode(&fnv1a(&folded).to_be_bytes());
    let id = format!("{}-{digest}", stem.trim_matches('-'));
    id.trim_matches('-').parse().ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn name(text: &str) -> Name {
        Name::from_ascii(text).unwrap()
    }

    #[test]
    fn names_with_underscores_are_names() {
        let service = below(&Name::root(), ["distributed_docker_system_node_1"]).unwrap();
        assert_eq!(service.to_ascii(), "distributed_docker_system_node_1.");
        assert!(service.is_fqdn());
    }

    #[test]
    fn services_are_read_back_from_names() {
        let domain = name("disco.example.");
        let service = "eu1/prod/cart".parse().unwrap();
        let full = of_service(&domain, &service).unwrap();
        assert_eq!(full.to_ascii(), "cart.prod.eu1.disco.example.");
        assert_eq!(to_service(&domain, &full), Some(service));
        for other in ["disco.example.", "_http._tcp.disco.example.", "cart.example.", "example."] {
            assert_eq!(to_service(&domain, &name(other)), None, "{other}");
        }
    }

    #[test]
    fn what_is_too_long_has_no_name() {
        let domain = name(&["d".repeat(60), "e".repeat(60)].join("."));
        let service = ["x".repeat(60), "y".repeat(60)].join("/").parse().unwrap();
        assert!(of_service(&domain, &service).is_some());
        assert!(below(&of_service(&domain, &service).unwrap(), ["_services", "_dns-sd"]).is_none());
    }

    #[test]
    fn ids_are_names_where_they_can_be() {
        let id = |text: &str| to_id(text.as_bytes()).unwrap().to_string();
        assert_eq!(id("1F"), "1f");
        assert_eq!(id("My Web. Server"), id("my web. server"));
        assert!(id("My Web. Server").starts_with("my-web--server-"));
        assert_ne!(id("a b"), id("a.b"));
    }

    proptest! {
        #[test]
        fn every_name_has_an_id(bytes in prop::collection::vec(any::<u8>(), 1..64)) {
            prop_assert!(to_id(&bytes).is_some());
        }
    }
}
