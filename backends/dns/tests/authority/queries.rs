//! `dig` asks, and prints what it should.

use discovery_dns::ZoneConfig;
use discovery_testbed::NsUpdate;

use crate::{ZONE, dig, dynamic, has_programs, local, nsupdate};

const SOA: &str = "disco.test. 5 IN SOA ns.disco.test. hostmaster.disco.test. 2 60 10 86400 5";

/// Name, type, code and flags, records, and those of the authority section.
type Case = (&'static str, &'static str, &'static str, &'static [&'static str], &'static [&'static str]);

#[tokio::test]
async fn dig_prints_what_is_expected() {
    if !has_programs() {
        return;
    }
    let authority = dynamic().await;
    nsupdate(&authority)
        .run(
            "add cart.disco.test. 5 A 10.0.0.7\nadd cart.disco.test. 5 AAAA fd00::7\n\
             add _http._tcp.cart.disco.test. 7 SRV 0 1 8080 cart.disco.test.\n\
             add 1f._http._tcp.cart.disco.test. 7 TXT \"version=1.4\" \"zone=a\"\n\
             add _http._tcp.cart.disco.test. 7 PTR 1f._http._tcp.cart.disco.test.\n\
             add www.disco.test. 9 CNAME cart.disco.test.\n\
             add mail.disco.test. 9 MX 10 cart.disco.test.\n\
             add odd.disco.test. 9 TYPE65400 \\# 3 010203\n\
             add sub.disco.test. 9 NS ns.elsewhere.test.",
        )
        .await
        .unwrap();
    let cases: [Case; 14] = [
        ("cart.disco.test", "A", "NOERROR qr aa rd", &["cart.disco.test. 5 IN A 10.0.0.7"], &[]),
        ("CaRt.disco.TEST", "AAAA", "NOERROR qr aa rd", &["CaRt.disco.TEST. 5 IN AAAA fd00::7"], &[]),
        ("cart.disco.test", "TXT", "NOERROR qr aa rd", &[], &[SOA]),
        ("_tcp.cart.disco.test", "A", "NOERROR qr aa rd", &[], &[SOA]),
        ("nothing.disco.test", "A", "NXDOMAIN qr aa rd", &[], &[SOA]),
        (
            "_http._tcp.cart.disco.test",
            "SRV",
            "NOERROR qr aa rd",
            &["_http._tcp.cart.disco.test. 7 IN SRV 0 1 8080 cart.disco.test."],
            &[],
        ),
        (
            "_http._tcp.cart.disco.test",
            "PTR",
            "NOERROR qr aa rd",
            &["_http._tcp.cart.disco.test. 7 IN PTR 1f._http._tcp.cart.disco.test."],
            &[],
        ),
        (
            "1f._http._tcp.cart.disco.test",
            "TXT",
            "NOERROR qr aa rd",
            &["1f._http._tcp.cart.disco.test. 7 IN TXT \"version=1.4\" \"zone=a\""],
            &[],
        ),
        (
            "www.disco.test",
            "A",
            "NOERROR qr aa rd",
            &["www.disco.test. 9 IN CNAME cart.disco.test.", "cart.disco.test. 5 IN A 10.0.0.7"],
            &[],
        ),
        ("mail.disco.test", "MX", "NOERROR qr aa rd", &["mail.disco.test. 9 IN MX 10 cart.disco.test."], &[]),
        (
            "odd.disco.test",
            "TYPE65400",
            "NOERROR qr aa rd",
            &["odd.disco.test. 9 IN TYPE65400 \\# 3 010203"],
            &[],
        ),
        ("x.sub.disco.test", "A", "NOERROR qr rd", &[], &["sub.disco.test. 9 IN NS ns.elsewhere.test."]),
        (ZONE, "SOA", "NOERROR qr aa rd", &[SOA], &[]),
        ("elsewhere.test", "A", "REFUSED qr rd", &[], &[]),
    ];
    for dig in [dig(&authority), dig(&authority).tcp(), dig(&authority).option("+noedns")] {
        for (name, kind, head, records, authorities) in &cases {
            let answer = dig.query(name, kind).await.unwrap();
            assert_eq!(format!("{} {}", answer.rcode, answer.flags), *head, "{name} {kind}");
            assert_eq!(answer.records, *records, "{name} {kind}");
            assert_eq!(answer.authority, *authorities, "{name} {kind}");
        }
    }
}

#[tokio::test]
async fn what_dig_can_ask_beside_that() {
    if !has_programs() {
        return;
    }
    let authority = dynamic().await;
    let many: Vec<_> = (0..100).map(|n| format!("add many.disco.test. 5 A 10.0.0.{n}")).collect();
    nsupdate(&authority).run(&many.join("\n")).await.unwrap();
    let dig = dig(&authority);
    let whole = dig.query("many.disco.test", "A").await.unwrap();
    assert_eq!(whole.records.len(), 100, "by TCP after a truncated answer");
    let cut = dig.clone().option("+ignore").query("many.disco.test", "A").await.unwrap();
    assert!(cut.flags.contains("tc") && cut.records.len() < 100, "{cut:?}");
    let bad = dig.clone().option("+edns=1").option("+noednsnegotiation").query(ZONE, "SOA").await.unwrap();
    assert_eq!(bad.rcode, "BADVERS");
    let chaos = dig.clone().option("-c").option("CH").query("version.bind", "TXT").await.unwrap();
    assert_eq!(chaos.rcode, "REFUSED");
    let status = dig.clone().option("+opcode=status").query(ZONE, "SOA").await.unwrap();
    assert_eq!(status.rcode, "NOTIMP");
    for option in ["+nsid", "+cookie", "+subnet=10.0.0.0/8", "+dnssec", "+keepalive", "+padding=128"] {
        let answer = dig.clone().option(option).query(ZONE, "SOA").await.unwrap();
        assert_eq!((answer.rcode.as_str(), answer.records.len()), ("NOERROR", 1), "{option}: {answer:?}");
    }
}

#[tokio::test]
async fn the_longest_zone_that_fits_answers() {
    if !has_programs() {
        return;
    }
    let zones = local().zone(ZoneConfig::dynamic("a.test")).zone(ZoneConfig::dynamic("b.a.test"));
    let authority = zones.start().await.unwrap();
    let update = |zone: &str| NsUpdate::to(authority.address(), zone);
    update("b.a.test").run("add x.b.a.test. 5 A 10.0.0.1").await.unwrap();
    assert_eq!(dig(&authority).short("x.b.a.test", "A").await.unwrap(), ["10.0.0.1"]);
    let negative = dig(&authority).query("y.a.test", "A").await.unwrap();
    assert!(negative.authority[0].starts_with("a.test."), "{negative:?}");
}
