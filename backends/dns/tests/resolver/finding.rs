//! What is found in zones of real servers.

use discovery::{Backend, ErrorKind, Scope};
use discovery_testbed::NameServer;

use crate::common::{CART, authorities, dns, fetch, found, service, shown};

#[tokio::test]
async fn dns_sd_has_it_all() {
    for server in authorities(CART) {
        let Some(server) = server.start_or_skip().await else { continue };
        for options in ["", "?records=sd", "?port=1"] {
            let dns = dns(&[server.address()], &format!("/disco.test{options}"));
            let all = fetch(&dns, "cart").await.unwrap();
            assert_eq!(shown(&all), ["1 http=127.0.0.1:8001 *3", "2 http=127.0.0.2:8002 *1"], "{options}");
            let first = all.iter().next().unwrap();
            assert_eq!((first.metadata("version"), first.zone()), (Some("1.4.2"), Some("eu1-a")));
            let whole = dns.fetch(&Scope::everything()).await.unwrap();
            assert_eq!(whole, all);
        }
    }
}

#[tokio::test]
async fn each_kind_of_record_can_be_asked_for_alone() {
    for server in authorities(CART) {
        let Some(server) = server.start_or_skip().await else { continue };
        let at = |options: &str| dns(&[server.address()], &format!("/disco.test?{options}"));
        let instances = ["1 http=127.0.0.1:8001 *3", "2 http=127.0.0.2:8002 *1"];
        assert_eq!(found(&at("records=srv"), "cart").await, instances);
        assert_eq!(
            found(&at("records=a&port=80&endpoint=web"), "cart").await,
            ["127-0-0-1 web=127.0.0.1:80 *1"]
        );
        assert!(found(&at("records=srv&endpoint=grpc"), "cart").await.is_empty());
        let error = at("records=srv").fetch(&Scope::everything()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
    }
}

#[tokio::test]
async fn the_best_priority_has_the_traffic() {
    let records = "\
        _http._tcp.cart SRV 10 0 80 a\n_http._tcp.cart SRV 10 0 80 b\n_http._tcp.cart SRV 20 5 80 c\n\
        a A 10.0.0.1\nb A 10.0.0.2\nc A 10.0.0.3\nc AAAA fd00::3";
    for server in authorities(records) {
        let Some(server) = server.start_or_skip().await else { continue };
        let dns = dns(&[server.address()], "/disco.test");
        let all = fetch(&dns, "cart").await.unwrap();
        let weights: Vec<_> = all.iter().map(|one| one.weight()).collect();
        assert_eq!(weights.iter().sum::<u32>(), 2, "{:?}", shown(&all));
        let backup = all.iter().find(|one| one.weight() == 0).unwrap();
        assert_eq!((backup.endpoints().len(), backup.metadata("srv-priority")), (2, Some("20")));
    }
}

#[tokio::test]
async fn a_type_of_service_is_a_service_of_one_label() {
    let records = "\
        _ldap._tcp SRV 0 1 389 ldap1\nldap1 A 10.0.0.1\n\
        _printer._tcp PTR My\\032Printer._printer._tcp\nMy\\032Printer._printer._tcp SRV 0 1 515 ldap1\n\
        My\\032Printer._printer._tcp TXT \"note=2nd floor\"";
    for server in authorities(records) {
        let Some(server) = server.start_or_skip().await else { continue };
        let dns = dns(&[server.address()], "/disco.test");
        assert_eq!(found(&dns, "ldap").await, ["ldap1 ldap=10.0.0.1:389 *1"]);
        let printers = fetch(&dns, "printer").await.unwrap();
        let printer = printers.iter().next().unwrap();
        assert!(printer.id().as_str().starts_with("my-printer-"), "{printer:?}");
        assert_eq!((printer.endpoints()[0].name(), printer.metadata("note")), ("printer", Some("2nd floor")));
    }
}

#[tokio::test]
async fn names_with_underscores_and_aliases_are_followed() {
    let records = "\
        _http._tcp.cart SRV 0 1 80 project_cart_1\nproject_cart_1 CNAME host_1\nhost_1 A 10.0.0.1\n\
        web CNAME web2\nweb2 CNAME web3\nweb3 A 10.0.0.3";
    // BIND has no address at a name with an underscore within.
    let Some(server) = NameServer::knot().records(records).start_or_skip().await else { return };
    let dns = dns(&[server.address()], "/disco.test?port=81");
    assert_eq!(found(&dns, "cart").await.len(), 1);
    assert_eq!(found(&dns, "web").await, ["10-0-0-3 http=10.0.0.3:81 *1"]);
}

#[tokio::test]
async fn an_answer_that_fits_no_datagram_comes_all_the_same() {
    let records = (0..300).map(|n| {
        let (high, low) = (n / 200, n % 200);
        format!("many A 10.0.{high}.{low}\n_http._tcp.srv SRV 0 1 80 t{n}\nt{n} A 10.1.{high}.{low}\n")
    });
    let records: String = records.collect();
    for server in authorities(&records) {
        let Some(server) = server.start_or_skip().await else { continue };
        let dns = dns(&[server.address()], "/disco.test?port=80&deadline=20s");
        assert_eq!(fetch(&dns, "many").await.unwrap().len(), 300);
        assert_eq!(fetch(&dns, "srv").await.unwrap().len(), 300);
    }
}

#[tokio::test]
async fn not_there_is_empty_and_not_ours_is_an_error() {
    for server in authorities("there TXT here") {
        let Some(server) = server.start_or_skip().await else { continue };
        let ours = dns(&[server.address()], "/disco.test?port=80");
        // NXDOMAIN, and no data.
        for name in ["no/such/thing", "there"] {
            assert!(fetch(&ours, name).await.unwrap().is_empty(), "{name}");
        }
        let theirs = dns(&[server.address()], "/example.org?port=80");
        let error = fetch(&theirs, "cart").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
        assert!(error.to_string().starts_with("dns: fetch: "), "{error}");
    }
}

#[tokio::test]
async fn a_name_that_is_too_long_for_the_domain_is_nowhere() {
    let Some(server) = NameServer::knot().start_or_skip().await else { return };
    let dns = dns(&[server.address()], "/disco.test?port=80");
    let long = ["a".repeat(63), "b".repeat(63)].join("/");
    assert!(fetch(&dns, &long).await.unwrap().is_empty());
    assert_eq!(dns.fetch(&Scope::Service(service("/"))).await.unwrap_err().kind(), ErrorKind::Invalid);
}
