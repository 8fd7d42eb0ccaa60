//! Clocks that are apart: signatures are of their time.

use std::{path::Path, process::Command};

use discovery::{Backend, ErrorKind, Outcome, kv::Txn};
use discovery_dns::TsigKey;
use discovery_testbed::REQUIRE;

use crate::common::{bind, key, knot, kv, on, unsigned_at, zone};

/// What the client on another clock has to know: address, name and secret of the key.
const ORDER: &str = "DISCOVERY_TEST_CLOCK";
const FAKETIME: &str = "/usr/bin/faketime";

/// Runs the client below on a clock that is off, or says that it cannot.
fn client_is_told(order: &str) -> bool {
    if !Path::new(FAKETIME).exists() {
        let required = std::env::var(REQUIRE).is_ok_and(|required| !required.is_empty());
        assert!(!required, "{FAKETIME} is required: install faketime");
        eprintln!("skipped: there is no {FAKETIME}; install faketime");
        return false;
    }
    let mut client = Command::new(FAKETIME);
    client.args(["-f", "+20m"]).arg(std::env::current_exe().unwrap());
    client.args(["clocks::client_on_another_clock", "--exact", "--ignored", "--nocapture"]);
    let status = client.env(ORDER, order).env("FAKETIME_DONT_FAKE_MONOTONIC", "1").status().unwrap();
    assert!(status.success(), "the client says why");
    true
}

#[tokio::test]
async fn clocks_that_are_apart_are_told_of() {
    for server in [bind().await, knot().await] {
        let Some(server) = server else { return };
        let order = format!("{} {} {}", server.address(), server.key_name(), server.key_secret());
        let told = tokio::task::spawn_blocking(move || client_is_told(&order)).await.unwrap();
        if told {
            assert!(kv(&on(&server)).get(&key("a")).await.unwrap().is_none(), "was not written");
        }
    }
}

#[tokio::test]
#[ignore = "for the test above, which runs it on another clock"]
async fn client_on_another_clock() {
    let Ok(order) = std::env::var(ORDER) else { return };
    let [address, name, secret] = order.split(' ').collect::<Vec<_>>()[..] else { panic!("{order}") };
    let tsig = TsigKey::new(name, secret).unwrap();
    let zone = zone(unsigned_at("disco.test", address.parse().unwrap()).key(tsig));
    let read = kv(&zone).get(&key("a")).await.unwrap_err();
    let write = kv(&zone).commit(Txn::new().put(&key("a"), "1")).await.unwrap_err();
    let lease = zone.leases().unwrap().grant(std::time::Duration::from_secs(10)).await.unwrap_err();
    for error in [read, write, lease] {
        assert_eq!((error.kind(), error.outcome()), (ErrorKind::Unavailable, Outcome::NotApplied), "{error}");
        assert!(error.to_string().contains("clocks"), "{error}");
    }
}
