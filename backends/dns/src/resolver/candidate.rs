//! What DNS lists of a service, before it is decided which of it are for traffic.

use std::{collections::BTreeMap, net::SocketAddr};

use discovery::{Endpoint, Instance, InstanceId, Result, ServiceName, Status};

/// How much less than the others the weightless are asked, where there are others.
const WEIGHTLESS: u32 = 100;

/// The metadata that a priority other than 0 is shown as.
const PRIORITY: &str = "srv-priority";

/// Something that DNS lists, to be an instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Candidate {
    pub(crate) id: InstanceId,
    pub(crate) endpoints: Vec<Endpoint>,
    pub(crate) priority: u16,
    pub(crate) weight: u16,
    pub(crate) text: BTreeMap<String, String>,
}

impl Candidate {
    /// One with addresses and nothing else.
    pub(crate) fn new(id: InstanceId, endpoints: Vec<Endpoint>) -> Self {
        Self { id, endpoints, priority: 0, weight: 1, text: BTreeMap::new() }
    }

    /// The addresses that tell whether it is serving: those of the endpoint of this name, or else of any.
    pub(crate) fn to_probe(&self, name: &str) -> Vec<SocketAddr> {
        let addresses = |wanted: Option<&str>| -> Vec<SocketAddr> {
            let endpoints = self.endpoints.iter();
            let wanted = endpoints.filter(|endpoint| wanted.is_none_or(|name| endpoint.name() == name));
            wanted
                .filter_map(|endpoint| Some(SocketAddr::new(endpoint.host().parse().ok()?, endpoint.port())))
                .collect()
        };
        let named = addresses(Some(name));
        if named.is_empty() { addresses(None) } else { named }
    }

    fn status(&self, is_up: bool) -> Status {
        let listed = match self.text.get("status").map(String::as_str) {
            Some("starting") => Status::Starting,
            Some("draining") => Status::Draining,
            Some("down") => Status::Down,
            _ => Status::Up,
        };
        if is_up || listed != Status::Up { listed } else { Status::Down }
    }
}

/// Puts together what is of one instance: one that has several endpoints is listed several times.
pub(crate) fn merge(listed: impl IntoIterator<Item = Candidate>) -> Vec<Candidate> {
    let mut merged = BTreeMap::<InstanceId, Candidate>::new();
    for mut one in listed {
        match merged.get_mut(&one.id) {
            Some(known) => {
                known.endpoints.append(&mut one.endpoints);
                known.priority = known.priority.min(one.priority);
                known.weight = known.weight.max(one.weight);
                for (key, value) in one.text {
                    known.text.entry(key).or_insert(value);
                }
            }
            None => {
                merged.insert(one.id.clone(), one);
            }
        }
    }
    let mut merged: Vec<_> = merged.into_values().collect();
    for one in &mut merged {
        // Servers answer in any order.
        one.endpoints.sort_unstable();
        one.endpoints.dedup();
    }
    merged
}

/// The instances that candidates are; `is_up` tells which of them answered a probe.
///
/// Only those of the best priority at which anything is up are for traffic (RFC 2782); the others are shown with a weight
/// of 0. Weights are as listed. Where all are 0, none is preferred; where some are, those get a hundredth of the least.
pub(crate) fn instances(
    service: &ServiceName,
    listed: &[Candidate],
    is_up: &[bool],
) -> Result<Vec<Instance>> {
    let status: Vec<_> = listed.iter().zip(is_up).map(|(one, up)| one.status(*up)).collect();
    let serving = listed.iter().zip(&status).filter(|(_, status)| **status == Status::Up).map(|(one, _)| one);
    let best = serving.map(|one| one.priority).min();
    let best = best.or_else(|| listed.iter().map(|one| one.priority).min());
    let chosen = || listed.iter().filter(|one| Some(one.priority) == best);
    let has_weightless = chosen().any(|one| one.weight == 0);
    let all_weightless = chosen().all(|one| one.weight == 0);
    let weight = |one: &Candidate| match u32::from(one.weight) {
        _ if Some(one.priority) != best => 0,
        _ if all_weightless => 1,
        0 => 1,
        weight if has_weightless => weight * WEIGHTLESS,
        weight => weight,
    };
    let instance = |(one, status): (&Candidate, Status)| {
        let mut builder = Instance::builder(service.clone())
            .id(one.id.clone())
            .endpoints(one.endpoints.iter().cloned())
            .weight(weight(one))
            .status(status);
        for (key, value) in &one.text {
            builder = match (key.as_str(), value.as_str()) {
                ("zone", zone) => builder.zone(zone),
                ("status", "starting" | "up" | "draining" | "down") => builder,
                (key, value) => builder.metadata(key, value),
            };
        }
        if one.priority > 0 {
            builder = builder.metadata(PRIORITY, one.priority.to_string());
        }
        builder.build()
    };
    listed.iter().zip(status).map(instance).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(id: &str, priority: u16, weight: u16) -> Candidate {
        let endpoint = Endpoint::new("http", "10.0.0.1", 80).unwrap();
        Candidate { priority, weight, ..Candidate::new(id.parse().unwrap(), vec![endpoint]) }
    }

    fn weights(listed: &[Candidate], is_up: &[bool]) -> Vec<u32> {
        let all = instances(&"a".parse().unwrap(), listed, is_up).unwrap();
        all.iter().map(Instance::weight).collect()
    }

    #[test]
    fn the_best_priority_that_is_up_has_the_traffic() {
        let listed = [candidate("a", 1, 5), candidate("b", 1, 7), candidate("c", 2, 9)];
        assert_eq!(weights(&listed, &[true; 3]), [5, 7, 0]);
        assert_eq!(weights(&listed, &[false, true, true]), [5, 7, 0]);
        assert_eq!(weights(&listed, &[false, false, true]), [0, 0, 9]);
        assert_eq!(weights(&listed, &[false; 3]), [5, 7, 0], "with nothing up, nothing changes hands");
    }

    #[test]
    fn no_weight_is_a_little_beside_others_and_as_much_among_its_like() {
        assert_eq!(weights(&[candidate("a", 0, 0), candidate("b", 0, 3)], &[true; 2]), [1, 300]);
        assert_eq!(weights(&[candidate("a", 0, 0), candidate("b", 0, 0)], &[true; 2]), [1, 1]);
    }

    #[test]
    fn one_instance_has_all_its_endpoints_in_order() {
        let mut grpc = candidate("a", 0, 2);
        grpc.endpoints = vec![Endpoint::new("grpc", "10.0.0.1", 81).unwrap()];
        let merged = merge([candidate("a", 0, 1), grpc.clone(), candidate("b", 0, 1), grpc]);
        assert_eq!(merged.len(), 2);
        let names: Vec<_> = merged[0].endpoints.iter().map(Endpoint::name).collect();
        assert_eq!((names, merged[0].weight), (vec!["grpc", "http"], 2));
    }

    #[test]
    fn text_is_metadata_and_what_a_zone_of_ours_says_besides() {
        let mut one = candidate("a", 3, 1);
        let text = [("version", "1.4"), ("zone", "eu1-a"), ("status", "draining")];
        one.text = text.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
        let found = &instances(&"a".parse().unwrap(), &[one], &[true]).unwrap()[0];
        assert_eq!((found.zone(), found.status()), (Some("eu1-a"), Status::Draining));
        let metadata: Vec<_> = found.metadata_iter().collect();
        assert_eq!(metadata, [("srv-priority", "3"), ("version", "1.4")]);
    }

    #[test]
    fn a_probe_asks_what_is_looked_for() {
        let mut one = candidate("a", 0, 1);
        one.endpoints.push(Endpoint::new("grpc", "10.0.0.2", 81).unwrap());
        one.endpoints.push(Endpoint::new("named", "db.example", 82).unwrap());
        assert_eq!(one.to_probe("grpc"), ["10.0.0.2:81".parse().unwrap()]);
        assert_eq!(one.to_probe("other").len(), 2);
    }
}
