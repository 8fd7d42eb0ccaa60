//! What others see of an instance: addresses, SRV (RFC 2782) and DNS-SD (RFC 6763).
//!
//! Of the instance `1f` of `eu1/prod/cart` with an endpoint `http` at 10.0.0.7:8080, in the zone `disco.example`:
//!
//! ```text
//! cart.prod.eu1.disco.example                         A    10.0.0.7
//! 1f.cart.prod.eu1.disco.example                      A    10.0.0.7
//! _http._tcp.cart.prod.eu1.disco.example              SRV  0 1 8080 1f.cart.prod.eu1.disco.example
//! _http._tcp.cart.prod.eu1.disco.example              PTR  1f._http._tcp.cart.prod.eu1.disco.example
//! 1f._http._tcp.cart.prod.eu1.disco.example           SRV  0 1 8080 1f.cart.prod.eu1.disco.example
//! 1f._http._tcp.cart.prod.eu1.disco.example           TXT  "version=1.4.2"
//! _services._dns-sd._udp.cart.prod.eu1.disco.example  PTR  _http._tcp.cart.prod.eu1.disco.example
//! b._dns-sd._udp.disco.example                        PTR  cart.prod.eu1.disco.example
//! ```
//!
//! Only instances that are up and want traffic are among the records that several share; the others can be found by
//! their own names.

use std::{collections::BTreeMap, net::IpAddr};

use discovery::{Endpoint, Instance, Status};
use hickory_proto::rr::{
    Name, RData, Record,
    rdata::{A, AAAA, PTR, SRV, TXT},
};

use crate::names::Origin;

/// The most bytes of a string in a TXT record.
const STRING_MAX: usize = 255;

/// The records that an instance has in a zone.
pub(crate) fn of_instance(origin: &Origin, instance: &Instance, ttl: u32) -> Vec<Record> {
    let domain = origin.service(instance.service());
    let hosts = Hosts::of(origin, instance);
    let shown = instance.status() == Status::Up && instance.weight() > 0;
    let mut out = Records { ttl, records: Vec::new() };

    for (address, name) in &hosts.addresses {
        out.address(name, *address);
        if shown {
            out.address(&domain, *address);
        }
    }
    let mut types = BTreeMap::<&str, Vec<&Endpoint>>::new();
    for endpoint in instance.endpoints() {
        types.entry(endpoint.name()).or_default().push(endpoint);
    }
    for (label, endpoints) in types {
        let Some(service) = prefixed(&domain, &[format!("_{label}").as_str(), "_tcp"]) else { continue };
        let Some(own) = prefixed(&service, &[instance.id().as_str()]) else { continue };
        for endpoint in endpoints {
            let Some(target) = hosts.target(endpoint) else { continue };
            out.srv(&own, instance.weight(), endpoint.port(), &target);
            if shown {
                out.srv(&service, instance.weight(), endpoint.port(), &target);
            }
        }
        out.push(&own, RData::TXT(description(instance)));
        if shown {
            out.ptr(&service, &own);
            if let Some(types) = prefixed(&domain, &["_services", "_dns-sd", "_udp"]) {
                out.ptr(&types, &service);
            }
            out.ptr(&list(origin), &domain);
        }
    }
    out.records
}

/// The name of the records that list all services of a zone (RFC 6763, section 11).
pub(crate) fn list(origin: &Origin) -> Name {
    origin.below(["b", "_dns-sd", "_udp"])
}

/// The hosts of an instance, and the names that SRV records call them by.
struct Hosts {
    addresses: Vec<(IpAddr, Name)>,
}

impl Hosts {
    /// The first address has the name of the instance; others have one more label in front.
    fn of(origin: &Origin, instance: &Instance) -> Self {
        let name = origin.instance(instance.key());
        let mut addresses: Vec<(IpAddr, Name)> = Vec::new();
        for endpoint in instance.endpoints() {
            let Ok(address) = endpoint.host().parse::<IpAddr>() else { continue };
            if addresses.iter().any(|(known, _)| *known == address) {
                continue;
            }
            let name = match addresses.len() {
                0 => Some(name.clone()),
                n => prefixed(&name, &[format!("host{}", n + 1).as_str()]),
            };
            addresses.extend(name.map(|name| (address, name)));
        }
        Self { addresses }
    }

    /// What an SRV record for the endpoint points at; `None` for what no record can express.
    fn target(&self, endpoint: &Endpoint) -> Option<Name> {
        if let Ok(address) = endpoint.host().parse::<IpAddr>() {
            return self.addresses.iter().find(|(known, _)| *known == address).map(|(_, name)| name.clone());
        }
        let mut name = Name::from_ascii(endpoint.host()).ok()?;
        name.set_fqdn(true);
        Some(name)
    }
}

/// Gathers records, each once.
struct Records {
    ttl: u32,
    records: Vec<Record>,
}

impl Records {
    fn address(&mut self, name: &Name, address: IpAddr) {
        let data = match address {
            IpAddr::V4(address) => RData::A(A(address)),
            IpAddr::V6(address) => RData::AAAA(AAAA(address)),
        };
        self.push(name, data);
    }

    fn srv(&mut self, name: &Name, weight: u32, port: u16, target: &Name) {
        let weight = u16::try_from(weight).unwrap_or(u16::MAX);
        self.push(name, RData::SRV(SRV::new(0, weight, port, target.clone())));
    }

    fn ptr(&mut self, name: &Name, target: &Name) {
        self.push(name, RData::PTR(PTR(target.clone())));
    }

    fn push(&mut self, name: &Name, data: RData) {
        let record = Record::from_rdata(name.clone(), self.ttl, data);
        if !self.records.contains(&record) {
            self.records.push(record);
        }
    }
}

/// Metadata as DNS-SD has them (RFC 6763, section 6): `key=value`, and an empty string if there are none. What does not
/// fit is left out. Status and zone go along where no metadata is called the same.
fn description(instance: &Instance) -> TXT {
    let status = (instance.status() != Status::Up).then(|| ("status", instance.status().to_string()));
    let zone = instance.zone().map(|zone| ("zone", zone.to_owned()));
    let own = status.into_iter().chain(zone).filter(|(key, _)| instance.metadata(key).is_none());
    let metadata = instance.metadata_iter().map(|(key, value)| (key, value.to_owned()));
    let is_key = |key: &str| !key.is_empty() && key.chars().all(|c| matches!(c, ' '..='~') && c != '=');
    let strings: Vec<String> = metadata
        .chain(own)
        .filter(|(key, _)| is_key(key))
        .map(|(key, value)| format!("{key}={value}"))
        .filter(|string| string.len() <= STRING_MAX)
        .collect();
    TXT::new(if strings.is_empty() { vec![String::new()] } else { strings })
}

/// `labels` in front of a name; `None` if that is no name any more.
fn prefixed(name: &Name, labels: &[&str]) -> Option<Name> {
    let labels = labels.iter().map(|label| label.as_bytes()).chain(name.iter());
    let name = Name::from_labels(labels).ok()?;
    (name.len() <= 255).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin() -> Origin {
        Origin::parse("z").unwrap()
    }

    fn records(instance: discovery::InstanceBuilder) -> Vec<String> {
        let instance = instance.id("1f".parse().unwrap()).build().unwrap();
        let records = of_instance(&origin(), &instance, 5);
        records.iter().map(|one| format!("{} {} {}", one.name, one.record_type(), one.data)).collect()
    }

    fn cart() -> discovery::InstanceBuilder {
        Instance::builder("eu1/prod/cart".parse().unwrap())
    }

    #[test]
    fn a_plain_instance_is_found_in_every_way() {
        let expected = [
            "1f.cart.prod.eu1.z. A 10.0.0.7",
            "cart.prod.eu1.z. A 10.0.0.7",
            "1f._http._tcp.cart.prod.eu1.z. SRV 0 3 8080 1f.cart.prod.eu1.z.",
            "_http._tcp.cart.prod.eu1.z. SRV 0 3 8080 1f.cart.prod.eu1.z.",
            "1f._http._tcp.cart.prod.eu1.z. TXT version=1.4zone=eu1-a",
            "_http._tcp.cart.prod.eu1.z. PTR 1f._http._tcp.cart.prod.eu1.z.",
            "_services._dns-sd._udp.cart.prod.eu1.z. PTR _http._tcp.cart.prod.eu1.z.",
            "b._dns-sd._udp.z. PTR cart.prod.eu1.z.",
        ];
        let instance =
            cart().endpoint("http", "10.0.0.7", 8080).metadata("version", "1.4").weight(3).zone("eu1-a");
        assert_eq!(records(instance), expected);
    }

    #[test]
    fn who_wants_no_traffic_is_found_by_its_own_name_only() {
        for instance in [cart().status(Status::Draining), cart().weight(0)] {
            let records = records(instance.endpoint("http", "::1", 80));
            assert!(records.iter().all(|record| record.starts_with("1f.")), "{records:?}");
            assert!(records[0].ends_with("AAAA ::1"), "{records:?}");
        }
    }

    #[test]
    fn every_address_has_a_name_and_a_host_name_is_its_own() {
        let instance = cart()
            .endpoint("http", "10.0.0.7", 80)
            .endpoint("http", "10.0.0.8", 80)
            .endpoint("db", "db_1.example", 5432)
            .endpoint("odd", "fe80::1%eth0", 1);
        let records = records(instance);
        assert!(records.contains(&"host2.1f.cart.prod.eu1.z. A 10.0.0.8".into()), "{records:?}");
        assert!(
            records.contains(&"_http._tcp.cart.prod.eu1.z. SRV 0 1 80 host2.1f.cart.prod.eu1.z.".into()),
            "{records:?}"
        );
        assert!(records.contains(&"_db._tcp.cart.prod.eu1.z. SRV 0 1 5432 db_1.example.".into()));
    }

    #[test]
    fn what_no_record_can_say_is_left_out() {
        let instance = cart()
            .endpoint(&"e".repeat(63), "10.0.0.7", 80)
            .endpoint("http", "10.0.0.7", 80)
            .metadata("a=b", "1")
            .metadata("", "1")
            .metadata("long", "x".repeat(300))
            .weight(1_000_000);
        let records = records(instance);
        assert!(!records.iter().any(|record| record.contains("eee")), "{records:?}");
        assert!(records.contains(&"1f._http._tcp.cart.prod.eu1.z. TXT ".into()), "{records:?}");
        assert!(records.iter().any(|record| record.contains("SRV 0 65535 80")), "{records:?}");
    }
}
