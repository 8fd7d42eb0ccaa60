//! Who may connect and who may see what.

use std::fs;

use discovery::{Connectors, ErrorKind, Locator, kv::Txn};
use discovery_testbed::ZooKeeper;
use discovery_zk::{Access, Auth, Tls, Zk, ZkConfig};

use crate::common::*;

#[tokio::test]
async fn what_a_creator_owns_is_nobody_elses() {
    let Some(server) = ZooKeeper::start_or_skip().await else { return };
    let at = server.connect_string();
    let me = zk_at(&format!("me:s%40cret@{at}/cn?acl=creator"));
    let k = key("a/1");
    kv(&me).commit(Txn::new().put(&k, "x")).await.unwrap();
    let address = server.address();
    let config = ZkConfig::builder()
        .server(address.ip().to_string(), address.port())
        .chroot("cn")
        .auth(Auth::digest("me", "s@cret"))
        .access(Access::Creator);
    let me_again = Zk::new(config.build().unwrap());
    kv(&me_again).commit(Txn::new().put(&k, "y")).await.unwrap();
    let lease = leases(&me_again).grant(STEADY).await.unwrap().id;
    kv(&me_again).commit(Txn::new().put_leased(&key("a/2"), "z", lease)).await.unwrap();
    assert_eq!(listed(&me, &everything()).await, ["a/1=y", "a/2=z"]);

    for other in [zk_at(&format!("{at}/cn")), zk_at(&format!("me:wrong@{at}/cn?acl=creator"))] {
        assert_eq!(kv(&other).get(&k).await.unwrap_err().kind(), ErrorKind::Denied);
        let error = kv(&other).commit(Txn::new().put(&key("b"), "x")).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Denied, "{error:?}");
        assert!(!format!("{error} {error:?}").contains("wrong"), "{error:?}");
    }
}

#[tokio::test]
async fn sasl_admits_who_knows_the_password() {
    let Some(server) = ZooKeeper::builder().sasl("alice", "wonder land").start_or_skip().await else {
        return;
    };
    let at = server.connect_string();
    let alice = zk_at(&format!("alice:wonder%20land@{at}/cn?auth=sasl&acl=creator"));
    kv(&alice).commit(Txn::new().put(&key("a"), "x")).await.unwrap();
    assert_eq!(listed(&alice, &everything()).await, ["a=x"]);
    let lease = leases(&alice).grant(STEADY).await.unwrap().id;
    kv(&alice).commit(Txn::new().put_leased(&key("b"), "x", lease)).await.unwrap();
    for nobody in [format!("alice:wrong@{at}/cn?auth=sasl"), format!("{at}/cn")] {
        let error = kv(&zk_at(&nobody)).get(&key("a")).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Denied, "{nobody}: {error:?}");
    }
}

#[tokio::test]
async fn tls_shows_and_asks_for_certificates() {
    let Some(server) = ZooKeeper::builder().tls().start_or_skip().await else { return };
    let certificates = server.certificates().unwrap();
    let (authority, client) = (certificates.authority(), certificates.client());
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = dir.path().join(name);
        fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let ca = file("ca.pem", authority);
    let identity = format!(
        "tls_cert={}&tls_key={}",
        file("client.pem", client.certificate()),
        file("client.key", client.key())
    );
    let at = server.connect_string();
    let locator: Locator = format!("zk://{at}/cn?tls_ca={ca}&{identity}&acl=creator").parse().unwrap();
    let connected = Connectors::new().with(discovery_zk::connector()).connect(&locator).await.unwrap();
    // The server opens its TLS port behind the one that the testbed waits for.
    eventually("a first write", async || {
        connected.kv().unwrap().commit(Txn::new().put(&key("a"), "x")).await.is_ok()
    })
    .await;

    let address = server.address();
    let tls = Tls::new(authority).unwrap().identity(client.certificate(), client.key()).unwrap();
    let config = ZkConfig::builder().server(address.ip().to_string(), address.port()).chroot("cn").tls(tls);
    assert_eq!(listed(&Zk::new(config.build().unwrap()), &everything()).await, ["a=x"]);

    let other = discovery_testbed::Certificates::generate().unwrap();
    let wrong = file("other.pem", other.authority());
    for refused in [format!("{at}?tls_ca={ca}"), format!("{at}?tls_ca={wrong}&{identity}"), at.clone()] {
        let error =
            kv(&zk_at(&format!("{refused}{}", if refused == at { "/cn?connect_timeout=2s" } else { "" })))
                .get(&key("a"))
                .await
                .unwrap_err();
        assert!(error.is_transient(), "{refused}: {error:?}");
    }

    let mismatch = Tls::new(authority).unwrap().identity(client.certificate(), other.client().key()).unwrap();
    let config = ZkConfig::builder().server(address.ip().to_string(), address.port()).tls(mismatch);
    let error = kv(&Zk::new(config.build().unwrap())).get(&key("a")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error:?}");
}
