//! What is found, in zones that are a table: those that this crate writes, and what Docker says.

use std::{
    collections::{HashMap, HashSet},
    net::IpAddr,
    time::Duration,
};

use async_trait::async_trait;
use discovery::{Backend, Error, ErrorKind, Instance, Result, Scope, Snapshot, Status};
use hickory_proto::rr::{
    Name, RData, Record, RecordType,
    rdata::{A, PTR, SRV},
};
use proptest::prelude::*;

use super::{Dns, DnsConfig, answer::Answer, wire::Ask};
use crate::{names::Origin, records};

/// Answers from a table; what is not in it does not exist, and what is `silent` is never answered.
#[derive(Debug, Default)]
struct Table {
    records: HashMap<(Name, RecordType), Vec<RData>>,
    silent: HashSet<RecordType>,
    /// Names below which alone anything is told.
    knows: Option<Name>,
}

impl Table {
    fn of(records: impl IntoIterator<Item = Record>) -> Self {
        let mut table = Self::default();
        for record in records {
            table.add(&record.name, record.data);
        }
        table
    }

    fn add(&mut self, name: &Name, data: RData) {
        let known = self.records.entry((name.to_lowercase(), data.record_type())).or_default();
        if !known.contains(&data) {
            known.push(data);
        }
    }

    /// Docker with these containers: their names, their aliases and their address on a network.
    fn docker(network: &str, containers: &[(&str, &str, &str)]) -> Self {
        let mut table = Self::default();
        for (container, aliases, address) in containers {
            let address: std::net::Ipv4Addr = address.parse().unwrap();
            for alias in aliases.split(' ').chain([*container]) {
                for text in [format!("{alias}."), format!("{alias}.{network}.")] {
                    table.add(&name(&text), RData::A(A(address)));
                }
            }
            let pointer = PTR(name(&format!("{container}.{network}.")));
            table.add(&Name::from(IpAddr::V4(address)), RData::PTR(pointer));
        }
        table
    }
}

#[async_trait]
impl Ask for Table {
    async fn ask(&self, name: &Name, kind: RecordType) -> Result<Answer> {
        if self.silent.contains(&kind) {
            return std::future::pending().await;
        }
        if self.knows.as_ref().is_some_and(|domain| !domain.zone_of(name)) {
            return Err(Error::new(ErrorKind::Denied, "as told"));
        }
        let data = self.records.get(&(name.to_lowercase(), kind)).cloned().unwrap_or_default();
        Ok(Answer { data, ttl: Some(Duration::from_secs(600)), extra: Vec::new() })
    }
}

fn name(text: &str) -> Name {
    Name::from_ascii(text).unwrap()
}

fn dns(options: &str, table: Table) -> Dns {
    let locator = format!("dns://127.0.0.1{options}").parse().unwrap();
    Dns::asking(DnsConfig::from_locator(&locator).unwrap(), table)
}

async fn find(dns: &Dns, service: &str) -> Snapshot {
    dns.fetch(&Scope::Service(service.parse().unwrap())).await.unwrap()
}

/// Ids and first endpoints.
async fn found(dns: &Dns, service: &str) -> Vec<String> {
    let all = find(dns, service).await;
    all.iter().map(|one| format!("{} {}", one.id(), one.endpoints()[0])).collect()
}

/// A zone of ours with these instances in it.
fn zone(instances: &[Instance]) -> Table {
    let origin = Origin::parse("disco.test").unwrap();
    Table::of(instances.iter().flat_map(|one| records::of_instance(&origin, one, 5)))
}

fn cart(id: &str) -> discovery::InstanceBuilder {
    Instance::builder("eu1/prod/cart".parse().unwrap()).id(id.parse().unwrap())
}

#[tokio::test]
async fn a_zone_of_ours_is_read_in_full() {
    let all = [
        cart("1")
            .endpoint("http", "10.0.0.1", 80)
            .metadata("version", "1.4")
            .weight(3)
            .zone("a")
            .build()
            .unwrap(),
        cart("2")
            .endpoint("grpc", "10.0.0.2", 81)
            .endpoint("http", "10.0.0.2", 80)
            .endpoint("http", "10.0.0.3", 80)
            .endpoint("http", "fd00::2", 80)
            .build()
            .unwrap(),
        cart("3")
            .endpoint("metrics", "10.0.0.4", 9090)
            .metadata("zone", "b")
            .metadata("flag", "")
            .build()
            .unwrap(),
        cart("4").endpoint("http", "10.0.0.5", 80).status(Status::Draining).build().unwrap(),
    ];
    let dns = dns("/disco.test", zone(&all));
    let found: Vec<_> = find(&dns, "eu1/prod/cart").await.iter().map(|one| (**one).clone()).collect();
    let third =
        cart("3").endpoint("metrics", "10.0.0.4", 9090).zone("b").metadata("flag", "").build().unwrap();
    assert_eq!(found, [all[0].clone(), all[1].clone(), third]);
    assert_eq!(dns.info().skipped(), 0);
}

#[tokio::test]
async fn a_domain_that_lists_its_services_can_be_looked_at_as_a_whole() {
    let other =
        Instance::builder("eu1/db".parse().unwrap()).id("x".parse().unwrap()).endpoint("sql", "10.0.0.9", 1);
    let all = [cart("1").endpoint("http", "10.0.0.1", 80).build().unwrap(), other.build().unwrap()];
    for options in ["/disco.test", "/disco.test?records=sd"] {
        let dns = dns(options, zone(&all));
        for (scope, expected) in
            [(Scope::everything(), 2), (subtree("eu1"), 2), (subtree("eu1/prod"), 1), (subtree("eu2"), 0)]
        {
            assert_eq!(dns.fetch(&scope).await.unwrap().len(), expected, "{scope}");
        }
    }
    for options in ["", "/disco.test", "/disco.test?records=srv"] {
        let error = dns(options, Table::default()).fetch(&Scope::everything()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{options}");
    }
    let empty = dns("/disco.test?records=sd", Table::default());
    assert!(empty.fetch(&Scope::everything()).await.unwrap().is_empty());
}

fn subtree(text: &str) -> Scope {
    Scope::Subtree(text.parse().unwrap())
}

#[tokio::test]
async fn a_host_outside_of_the_domain_keeps_its_name_where_the_server_does_not_know_it() {
    let there = [cart("1").endpoint("http", "db_1.example", 80).build().unwrap()];
    let mut table = zone(&there);
    table.knows = Some(name("disco.test."));
    assert_eq!(found(&dns("/disco.test", table), "eu1/prod/cart").await, ["1 db_1.example:80"]);
}

#[tokio::test]
async fn targets_of_any_name_have_ids_that_stay() {
    let mut table = Table::default();
    let service = name("_http._tcp.cart.disco.test.");
    for (target, port) in
        [("cart-0.cart.disco.test.", 80), ("Big_Host.example.", 80), ("big_host.example.", 81)]
    {
        table.add(&service, RData::SRV(SRV::new(0, 1, port, name(target))));
        table.add(&name(target), RData::A(A::new(10, 0, 0, 1)));
    }
    let dns = dns("/disco.test", table);
    let ids = found(&dns, "cart").await;
    assert_eq!(ids.len(), 3, "{ids:?}");
    assert!(ids.contains(&"cart-0 10.0.0.1:80".into()), "{ids:?}");
    assert_eq!(ids.iter().filter(|id| id.starts_with("big-host-example")).count(), 2, "{ids:?}");
    assert_eq!(found(&dns, "cart").await, ids);
}

#[tokio::test]
async fn decidedly_no_service_is_none() {
    let mut table = Table::default();
    table.add(&name("_http._tcp.cart.disco.test."), RData::SRV(SRV::new(0, 0, 0, Name::root())));
    assert!(find(&dns("/disco.test", table), "cart").await.is_empty());
}

const BLUE: &[(&str, &str, &str)] = &[
    ("blue_database_1", "database", "10.0.1.1"),
    ("blue_database_2", "database", "10.0.1.2"),
    ("blue_web_1", "web", "10.0.1.3"),
];

#[tokio::test(start_paused = true)]
async fn containers_are_known_by_their_index() {
    let dns = dns("?port=5432", Table::docker("blue_default", BLUE));
    assert_eq!(found(&dns, "blue/database").await, ["1 10.0.1.1:5432", "2 10.0.1.2:5432"]);
    assert_eq!(
        found(&dns, "database").await,
        ["blue-database-1 10.0.1.1:5432", "blue-database-2 10.0.1.2:5432"]
    );
    assert!(find(&dns, "green/database").await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn docker_that_leaves_some_questions_unanswered_is_understood() {
    let mut table = Table::docker("blue_default", BLUE);
    table.silent = [RecordType::SRV, RecordType::TXT].into();
    let dns = dns("?port=5432", table);
    assert_eq!(found(&dns, "blue/database").await.len(), 2);
    let looked = super::Look::look(&*dns.0, &Scope::Service("blue/database".parse().unwrap())).await.unwrap();
    assert_eq!(looked.ttl, Some(Duration::ZERO), "a time to live of 600 s says nothing");
}

#[tokio::test(start_paused = true)]
async fn projects_are_apart_on_a_network_that_they_share() {
    let both = [
        ("blue_database_1", "database", "10.0.2.1"),
        ("blue-database-2", "database", "10.0.2.2"),
        ("green_database_1", "database", "10.0.2.3"),
        ("my_app-database-1", "database", "10.0.2.4"),
        ("stranger", "database", "10.0.2.5"),
    ];
    let dns = dns("?port=1&records=a", Table::docker("shared", &both));
    assert_eq!(found(&dns, "blue/database").await, ["1 10.0.2.1:1", "2 10.0.2.2:1"]);
    assert_eq!(found(&dns, "green/database").await, ["1 10.0.2.3:1"]);
    assert_eq!(found(&dns, "my-app/database").await, ["1 10.0.2.4:1"]);
    assert_eq!(find(&dns, "database").await.len(), 5);
    assert_eq!(find(&dns, "shared/database").await.len(), 5, "a network is a namespace too");
}

#[tokio::test(start_paused = true)]
async fn who_joins_the_network_of_a_project_is_not_of_it() {
    let joined = [
        ("blue_database_1", "database", "10.0.1.1"),
        ("green_database_1", "database", "10.0.1.2"),
        ("named", "database", "10.0.1.3"),
    ];
    let dns = dns("?port=1&records=a", Table::docker("blue_default", &joined));
    assert_eq!(found(&dns, "blue/database").await, ["1 10.0.1.1:1", "named 10.0.1.3:1"]);
}

#[tokio::test(start_paused = true)]
async fn replicas_are_counted_where_there_is_nothing_but_their_names() {
    let mut table = Table::default();
    for index in [1_u8, 2, 4, 5, 6, 9] {
        let container = format!(
            "blue{}web{}{index}.",
            ["_", "-"][usize::from(index) % 2],
            ["_", "-"][usize::from(index) % 2]
        );
        table.add(&name(&container), RData::A(A::new(10, 0, 3, index)));
    }
    let ids: Vec<_> = find(&dns("?port=1&records=a", table), "blue/web")
        .await
        .iter()
        .map(|one| one.id().to_string())
        .collect();
    assert_eq!(ids, ["1", "2", "4", "5", "6"], "nobody looks behind a gap of two");
}

#[tokio::test(start_paused = true)]
async fn silence_is_no_emptiness() {
    let mut table = Table::docker("blue_default", BLUE);
    table.silent = [RecordType::AAAA].into();
    let half = dns("?port=1&records=a", table);
    let scope = Scope::Service("blue/database".parse().unwrap());
    assert_eq!(
        half.fetch(&scope).await.unwrap_err().kind(),
        ErrorKind::Timeout,
        "half of a service is not the service"
    );
    let mut table = Table::docker("blue_default", BLUE);
    table.silent = [RecordType::AAAA].into();
    assert_eq!(found(&dns("?port=1&records=a&family=4", table), "blue/database").await.len(), 2);
}

fn any_instance() -> impl Strategy<Value = Instance> {
    let endpoint = ("(http|grpc|db)", "10\\.0\\.[0-9]\\.[0-9]", 1..u16::MAX);
    let endpoints = prop::collection::btree_set(endpoint, 1..4);
    let metadata = prop::collection::btree_map("[a-y]{1,5}", "[ -~]{0,9}", 0..4);
    (0..20_u32, endpoints, metadata, 1..99_u32).prop_map(|(id, endpoints, metadata, weight)| {
        let builder = metadata.into_iter().fold(cart(&id.to_string()), |builder, (key, value)| {
            if key == "status" { builder } else { builder.metadata(key, value) }
        });
        let builder =
            endpoints.iter().fold(builder, |builder, (name, host, port)| builder.endpoint(name, host, *port));
        builder.weight(weight).build().unwrap()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn what_a_zone_of_ours_says_is_what_is_found(instance in any_instance()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let found = runtime.block_on(async { find(&dns("/disco.test", zone(std::slice::from_ref(&instance))), "eu1/prod/cart").await });
        prop_assert_eq!(found.iter().map(|one| (**one).clone()).collect::<Vec<_>>(), [instance]);
    }
}
