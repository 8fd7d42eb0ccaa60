//! Beside the raw `hickory-resolver`, on a real server: what one look at a service costs, as an expert would write it by
//! hand for this one purpose and as the backend does it, in the same process against the same server, without caches.
//!
//! A watch looks in the same way, and compares.
#![allow(missing_docs, reason = "criterion's macros make public items")]

use criterion::{Criterion, criterion_group, criterion_main};
use discovery::{Backend, Scope, ServiceName};
use discovery_dns::{Dns, DnsConfig};
use discovery_testbed::NameServer;
use futures_util::future::{join, join_all};
use hickory_resolver::{
    Resolver, TokioResolver,
    config::{ConnectionConfig, NameServerConfig, ResolverConfig, ResolverOpts},
    net::runtime::TokioRuntimeProvider,
    proto::rr::{Name, RData, RecordType},
};
use tokio::runtime::Runtime;

/// Addresses, and as many targets of SRV records, and instances of DNS-SD.
const SIZES: [usize; 2] = [3, 100];

fn zone() -> String {
    let mut lines = Vec::new();
    for size in SIZES {
        for n in 0..size {
            lines.push(format!("a{size} A 10.0.0.{n}"));
            lines.push(format!("t{n}.s{size} A 10.0.1.{n}"));
            lines.push(format!("_http._tcp.s{size} SRV 0 1 80 t{n}.s{size}"));
            lines.push(format!("t{n}.d{size} A 10.0.1.{n}"));
            lines.push(format!("_http._tcp.d{size} PTR t{n}._http._tcp.d{size}"));
            lines.push(format!("t{n}._http._tcp.d{size} SRV 0 1 80 t{n}.d{size}"));
            lines.push(format!("t{n}._http._tcp.d{size} TXT \"version=1.4.2\""));
        }
        lines.push(format!("_services._dns-sd._udp.d{size} PTR _http._tcp.d{size}"));
    }
    lines.join("\n")
}

fn name(text: &str) -> Name {
    Name::from_ascii(format!("{text}.disco.test.")).expect("a name")
}

/// As an expert would have it: no cache, one server.
fn raw(server: &NameServer) -> TokioResolver {
    let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(|mut connection| {
        connection.port = server.address().port();
        connection
    });
    let server = NameServerConfig::new(server.address().ip(), true, connections.into());
    let config = ResolverConfig::from_parts(None, Vec::new(), vec![server]);
    let mut options = ResolverOpts::default();
    options.cache_size = 0;
    options.max_active_requests = 256;
    let builder = Resolver::builder_with_config(config, TokioRuntimeProvider::default());
    builder.with_options(options).build().expect("a resolver")
}

async fn raw_addresses(resolver: &TokioResolver, name: &Name) -> usize {
    let v4 = resolver.lookup(name.clone(), RecordType::A);
    let (v4, v6) = join(v4, resolver.lookup(name.clone(), RecordType::AAAA)).await;
    v4.map_or(0, |found| found.answers().len()) + v6.map_or(0, |found| found.answers().len())
}

async fn raw_targets(resolver: &TokioResolver, name: &Name) -> usize {
    let found = resolver.lookup(name.clone(), RecordType::SRV).await.expect("it is there");
    let targets = found.answers().iter().filter_map(|record| match &record.data {
        RData::SRV(service) => Some(&service.target),
        _ => None,
    });
    join_all(targets.map(|target| raw_addresses(resolver, target))).await.iter().sum()
}

async fn raw_described(resolver: &TokioResolver, name: &Name) -> usize {
    let found = resolver.lookup(name.clone(), RecordType::PTR).await.expect("it is there");
    let instances = found.answers().iter().filter_map(|record| match &record.data {
        RData::PTR(instance) => Some(&instance.0),
        _ => None,
    });
    let each = instances.map(async |instance| {
        let text = resolver.lookup(instance.clone(), RecordType::TXT);
        let (found, text) = join(raw_targets(resolver, instance), text).await;
        text.expect("it is there");
        found
    });
    join_all(each).await.iter().sum()
}

async fn ours(dns: &Dns, service: &str) -> usize {
    let service: ServiceName = service.parse().expect("a name");
    dns.fetch(&Scope::Service(service)).await.expect("it is there").len()
}

fn looks(c: &mut Criterion) {
    let runtime = Runtime::new().expect("a runtime");
    let server = NameServer::knot().records(zone());
    let Some(server) = runtime.block_on(server.start_or_skip()) else { return };
    let resolver = raw(&server);
    let config = |options: &str| {
        let locator = format!("dns://{}/disco.test?{options}", server.address());
        DnsConfig::from_locator(&locator.parse().expect("a locator")).expect("a configuration")
    };
    for size in SIZES {
        let mut group = c.benchmark_group(format!("dns_look_{size}"));
        let dns = Dns::new(config("records=a&port=80")).expect("a resolver");
        let at = name(&format!("a{size}"));
        group.bench_function("addresses/raw", |b| {
            b.to_async(&runtime).iter(async || assert_eq!(raw_addresses(&resolver, &at).await, size));
        });
        group.bench_function("addresses/ours", |b| {
            b.to_async(&runtime).iter(async || assert_eq!(ours(&dns, &format!("a{size}")).await, size));
        });
        let dns = Dns::new(config("records=srv")).expect("a resolver");
        let at = name(&format!("_http._tcp.s{size}"));
        group.bench_function("srv/raw", |b| {
            b.to_async(&runtime).iter(async || assert_eq!(raw_targets(&resolver, &at).await, size));
        });
        group.bench_function("srv/ours", |b| {
            b.to_async(&runtime).iter(async || assert_eq!(ours(&dns, &format!("s{size}")).await, size));
        });
        let dns = Dns::new(config("records=sd")).expect("a resolver");
        let at = name(&format!("_http._tcp.d{size}"));
        group.bench_function("sd/raw", |b| {
            b.to_async(&runtime).iter(async || assert_eq!(raw_described(&resolver, &at).await, size));
        });
        group.bench_function("sd/ours", |b| {
            b.to_async(&runtime).iter(async || assert_eq!(ours(&dns, &format!("d{size}")).await, size));
        });
        group.finish();
    }
}

criterion_group!(benches, looks);
criterion_main!(benches);
