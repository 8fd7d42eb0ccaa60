//! Who may do what, and what is said to who may not.

use std::time::Duration;

use discovery::{Error, ErrorKind, Outcome, kv::Txn};
use discovery_dns::{DnsZone, TsigKey};
use discovery_testbed::{NameServer, Proxy};
use futures_util::StreamExt;
use tokio::time::sleep;

use crate::common::{
    Follower, bind, config, config_at, discovery, eventually, everything, key, knot, kv, leases, listed,
    name, on, reconfigure, unsigned_at, zone,
};

/// Why this handle is refused, whatever it tries.
async fn refusal(zone: &DnsZone) -> Error {
    let error = kv(zone).get(&key("a")).await.unwrap_err();
    let write = kv(zone).commit(Txn::new().put(&key("a"), "1")).await.unwrap_err();
    let watch = Follower::start(zone, &everything()).await.err().unwrap();
    let lease = leases(zone).grant(Duration::from_secs(10)).await.unwrap_err();
    let kinds = [&write, &watch, &lease].map(Error::kind);
    assert_eq!(kinds, [error.kind(); 3], "{error}; {write}; {watch}; {lease}");
    assert_eq!([&write, &lease].map(Error::outcome), [Outcome::NotApplied; 2], "{write}; {lease}");
    error
}

fn with_key(server: &NameServer, name: &str, secret: &str, algorithm: &str) -> DnsZone {
    let key = TsigKey::new(name, secret).unwrap().algorithm(algorithm).unwrap();
    zone(unsigned_at(server.zone(), server.address()).key(key))
}

async fn a_wrong_key_is_denied(server: NameServer) {
    let (name, secret) = (server.key_name(), server.key_secret());
    for (zone, parts) in [
        (with_key(&server, "other", secret, "hmac-sha256"), ["other", "name"]),
        (with_key(&server, name, "d3Jvbmc=", "hmac-sha256"), [name, "secret"]),
        (with_key(&server, name, secret, "hmac-sha512"), [name, "algorithm"]),
        (zone(unsigned_at(server.zone(), server.address())), ["key", "allow"]),
    ] {
        let error = refusal(&zone).await;
        assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
        for part in parts {
            assert!(error.to_string().contains(part), "{part}: {error}");
        }
        assert!(!format!("{error:?}").contains(secret), "{error:?}");
    }
}

#[tokio::test]
async fn a_wrong_key_is_denied_by_bind() {
    let Some(server) = bind().await else { return };
    a_wrong_key_is_denied(server).await;
}

#[tokio::test]
async fn a_wrong_key_is_denied_by_knot() {
    let Some(server) = knot().await else { return };
    a_wrong_key_is_denied(server).await;
}

#[tokio::test]
async fn without_a_key_where_none_is_wanted() {
    for server in
        [NameServer::bind().open().start_or_skip().await, NameServer::knot().open().start_or_skip().await]
    {
        let Some(server) = server else { return };
        let zone = zone(unsigned_at(server.zone(), server.address()));
        kv(&zone).commit(Txn::new().put(&key("a"), "1")).await.unwrap();
        assert_eq!(listed(&zone, &everything()).await, ["a=1"]);
    }
}

/// Who is refused tries again, and at the pace that it was told to.
#[tokio::test]
async fn a_refusal_is_no_reason_to_hurry() {
    let Some(server) = bind().await else { return };
    let line = Proxy::start(server.address()).unwrap();
    let key = TsigKey::new("other", server.key_secret()).unwrap();
    let refused = config_at(&server, line.address()).key(key).poll_interval(Duration::from_secs(1));
    let discovery = discovery(zone(refused));
    let mut watch = discovery.watch("eu1/prod/cart".parse::<discovery::ServiceName>().unwrap());
    let mut registration = {
        let cart = "eu1/prod/cart".parse().unwrap();
        let instance = discovery::Instance::builder(cart).build().unwrap();
        discovery.register(instance).start().unwrap()
    };
    let status = registration.wait_for(|status| status.cause.is_some()).await;
    assert_eq!(status.cause.unwrap().kind(), ErrorKind::Denied);
    let told = tokio::time::timeout(Duration::from_secs(2), async { while watch.next().await.is_some() {} });
    let _ = told.await;
    let before = line.accepted() + line.datagrams();
    // Watched for thirty of its longest pauses: the back-off of the tests goes up to a tenth of a second.
    sleep(Duration::from_secs(3)).await;
    let asked = line.accepted() + line.datagrams() - before;
    assert!(asked < 150, "{asked} requests within three seconds");
}

/// A server with a second key, whose clients may read and not write; and a handle with that key.
async fn with_a_reader() -> Option<(NameServer, DnsZone)> {
    let server = bind().await?;
    let secret = "cmVhZGVyIHJlYWRlciByZWFkZXI=";
    reconfigure(&server, |config| {
        let both = config.replace("allow-transfer {", "allow-transfer { key \"reader\";");
        format!("key \"reader\" {{ algorithm hmac-sha256; secret \"{secret}\"; }};\n{both}")
    })
    .await;
    let reader = with_key(&server, "reader", secret, "hmac-sha256");
    Some((server, reader))
}

/// How many updates a BIND has denied, as its log tells.
fn denials(server: &NameServer) -> usize {
    server.log().lines().filter(|line| line.contains("update '") && line.ends_with("denied")).count()
}

#[tokio::test]
async fn who_may_only_read_reads_and_watches() {
    let Some((server, reader)) = with_a_reader().await else { return };
    let zone = on(&server);
    let mut follower = Follower::start(&reader, &everything()).await.unwrap();
    kv(&zone).commit(Txn::new().put(&key("a"), "1")).await.unwrap();
    follower.until("it is seen", |it| it.value("a").is_some()).await;
    assert_eq!(listed(&reader, &everything()).await, ["a=1"]);
    let write = kv(&reader).commit(Txn::new().put(&key("a"), "2")).await.unwrap_err();
    let lease = leases(&reader).grant(Duration::from_secs(10)).await.unwrap_err();
    for error in [write, lease] {
        assert_eq!((error.kind(), error.outcome()), (ErrorKind::Denied, Outcome::NotApplied), "{error}");
        assert!(error.to_string().contains("allows updates"), "{error}");
    }
    // What it may not sweep away it leaves to others, and goes on to watch.
    let lease = leases(&zone).grant(Duration::from_secs(1)).await.unwrap().id;
    kv(&zone).commit(Txn::new().put_leased(&key("b"), "1", lease)).await.unwrap();
    follower.until("it is seen", |it| it.value("b").is_some()).await;
    drop(zone);
    let before = denials(&server);
    eventually("its sweep is denied", async || denials(&server) > before).await;
    let zone = on(&server);
    let other = Follower::start(&zone, &everything()).await.unwrap();
    follower.until("it is swept away", |it| it.value("b").is_none()).await;
    drop(other);
    kv(&zone).commit(Txn::new().put(&key("a"), "3")).await.unwrap();
    follower.until("it is seen", |it| it.value("a") == Some(b"3")).await;
}

/// Whoever was not allowed to sweep, for a time, does it when it is.
#[tokio::test]
async fn who_may_write_again_sweeps_again() {
    let Some(server) = bind().await else { return };
    let zone = on(&server);
    let mut follower = Follower::start(&zone, &everything()).await.unwrap();
    let away = on(&server);
    let lease = leases(&away).grant(Duration::from_secs(2)).await.unwrap().id;
    kv(&away).commit(Txn::new().put_leased(&key("a"), "1", lease)).await.unwrap();
    follower.until("it is seen", |it| it.value("a").is_some()).await;
    drop(away);
    reconfigure(&server, |config| config.replace("allow-update {", "allow-update { !any;")).await;
    eventually("it is refused", async || kv(&zone).commit(Txn::new().put(&key("b"), "1")).await.is_err())
        .await;
    let before = denials(&server);
    eventually("its sweep is denied", async || denials(&server) > before).await;
    reconfigure(&server, |config| config.replace("allow-update { !any;", "allow-update {")).await;
    eventually("it is swept away", async || {
        server.dig().short(&name(&server, "a"), "TXT").await.unwrap().is_empty()
    })
    .await;
}

#[tokio::test]
async fn a_server_that_refuses_transfers_says_so() {
    let Some(server) = bind().await else { return };
    reconfigure(&server, |config| config.replace("allow-transfer {", "allow-transfer { !any;")).await;
    let zone = on(&server);
    for error in [
        kv(&zone).get(&key("a")).await.unwrap_err(),
        kv(&zone).commit(Txn::new().put(&key("a"), "1")).await.unwrap_err(),
        Follower::start(&zone, &everything()).await.err().unwrap(),
    ] {
        assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
        assert!(error.to_string().contains("transfers"), "{error}");
    }
}

#[tokio::test]
async fn a_server_without_the_zone_says_so() {
    for server in [bind().await, knot().await] {
        let Some(server) = server else { return };
        let error = refusal(&zone(config(&server).zone("other.test"))).await;
        // Knot does not sign an answer about what it does not know.
        assert!(error.to_string().contains("the zone"), "{error}");
    }
}
