//! What is said where nobody can be talked to, and what is not confused with what.

use std::{net::SocketAddr, path::Path, time::Duration};

use discovery::{Backend, Error, ErrorKind, Outcome, kv::Txn};
use discovery_etcd::{Etcd as Backed, EtcdConfig, Tls};
use discovery_testbed::{Certificates, Etcd, Port, ZooKeeper};
use discovery_zk::{Zk, ZkConfig};
use futures_util::FutureExt;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::Instant,
};

use crate::common::{etcd, etcd_at, eventually, key, kv, soon, stranger};

/// What a handle at this locator is told.
async fn told(locator: &str) -> Error {
    let etcd = etcd_at(locator);
    let error = kv(&etcd).commit(Txn::new().put(&key("a"), "1")).await.unwrap_err();
    assert_eq!(error.outcome(), Outcome::NotApplied, "{error}");
    error
}

#[tokio::test]
async fn nobody_there_is_worth_waiting_for() {
    let nobody = Port::reserve().unwrap();
    let error = told(&format!("{}/cn", nobody.address())).await;
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.is_transient());
    let text = error.to_string();
    assert!(text.contains(&nobody.address().to_string()) && text.contains("Connection refused"), "{text}");
    let error = told("no-such-host.invalid/cn").await;
    assert!(error.is_transient() && error.to_string().contains("no-such-host.invalid"), "{error}");
}

#[tokio::test]
async fn a_server_that_does_not_answer_is_given_up_in_time() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let start = Instant::now();
    let error = told(&format!("{}/cn?connect_timeout=300ms", silent.local_addr().unwrap())).await;
    assert!(start.elapsed() < Duration::from_secs(5));
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(error.to_string().contains("does not answer within 300ms"), "{error}");
}

/// etcd 2 was a server for HTTP/1, and so is nearly anything that somebody might take for an etcd.
#[tokio::test]
async fn a_server_of_another_kind_is_told_from_one_that_is_down() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tokio::spawn(async move {
        loop {
            let (mut client, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let mut greeting = [0; 24];
                client.read_exact(&mut greeting).await.unwrap();
                let answer = b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\n400 Bad Request";
                client.write_all(answer).await.unwrap();
                // Until the client goes: a connection that is reset loses what was sent on it.
                let _ = client.read_to_end(&mut Vec::new()).await;
            });
        }
    });
    let error = told(&format!("{address}/cn")).await;
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    assert!(error.to_string().contains("etcd of 3.4 or later"), "{error}");
    server.abort();
}

/// A line that makes a server say that it is of another version.
async fn disguised(server: &Etcd) -> SocketAddr {
    let version = stranger(&server.connect_string()).await.status().await.unwrap().version().to_owned();
    let (_, patch) = version.rsplit_once('.').unwrap();
    let older = format!("3.3.{patch}");
    assert_eq!(version.len(), older.len(), "{version}");
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, target) = (listener.local_addr().unwrap(), server.address());
    tokio::spawn(async move {
        loop {
            let (client, _) = listener.accept().await.unwrap();
            let (mut from_client, mut to_client) = client.into_split();
            let (mut from_server, mut to_server) = TcpStream::connect(target).await.unwrap().into_split();
            tokio::spawn(async move { tokio::io::copy(&mut from_client, &mut to_server).await });
            let (version, older) = (version.clone(), older.clone());
            tokio::spawn(async move {
                let mut buffer = vec![0; 64 * 1024];
                while let Ok(read @ 1..) = from_server.read(&mut buffer).await {
                    let bytes = &mut buffer[..read];
                    if let Some(at) = bytes.windows(version.len()).position(|part| part == version.as_bytes())
                    {
                        bytes[at..at + older.len()].copy_from_slice(older.as_bytes());
                    }
                    if to_client.write_all(bytes).await.is_err() {
                        break;
                    }
                }
            });
        }
    });
    address
}

#[tokio::test]
async fn a_server_that_is_too_old_is_named_with_its_version() {
    let Some(server) = Etcd::builder().unsynced().start_or_skip().await else { return };
    let old = disguised(&server).await;
    let error = told(&format!("{old}/cn")).await;
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    assert!(
        error.to_string().contains("is etcd 3.3.") && error.to_string().contains("3.4 or later"),
        "{error}"
    );
    // One that is not fit does not keep us from another that is; and one that is down may be fit tomorrow.
    let etcd = etcd(&format!("{old},{}", server.address()));
    kv(&etcd).commit(Txn::new().put(&key("a"), "1")).await.unwrap();
    let nobody = Port::reserve().unwrap();
    let error = told(&format!("{old},{}/cn", nobody.address())).await;
    assert!(error.is_transient() && error.to_string().contains("is etcd 3.3."), "{error}");
}

/// Files for a locator.
fn written(dir: &Path, certificates: &Certificates) -> String {
    let file = |name: &str, text: &str| {
        let path = dir.join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let ca = file("ca.pem", certificates.authority());
    let certificate = file("client.pem", certificates.client().certificate());
    let key = file("client.key", certificates.client().key());
    format!("tls_ca={ca}&tls_cert={certificate}&tls_key={key}")
}

#[tokio::test]
async fn tls_by_locator_and_by_builder() {
    let Some(server) = Etcd::builder().unsynced().tls().start_or_skip().await else { return };
    let certificates = server.certificates().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let by_locator = etcd_at(&format!("{}/cn?{}", server.address(), written(dir.path(), certificates)));
    kv(&by_locator).commit(Txn::new().put(&key("a"), "1")).await.unwrap();

    let client = certificates.client();
    let tls = Tls::new(certificates.authority()).unwrap();
    let tls = tls.identity(client.certificate(), client.key()).unwrap();
    let config = EtcdConfig::builder().server("localhost", server.address().port()).namespace("cn").tls(tls);
    let by_builder = Backed::new(config.build().unwrap());
    assert!(kv(&by_builder).get(&key("a")).await.unwrap().is_some());
}

#[tokio::test]
async fn tls_and_users_go_together() {
    let Some(server) = Etcd::builder().unsynced().tls().auth("me", "s3cret").start_or_skip().await else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let files = written(dir.path(), server.certificates().unwrap());
    let etcd = etcd_at(&format!("me:s3cret@{}/cn?{files}", server.address()));
    kv(&etcd).commit(Txn::new().put(&key("a"), "1")).await.unwrap();
    let error = told(&format!("me:wrong@{}/cn?{files}", server.address())).await;
    assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
}

#[tokio::test]
async fn what_is_wrong_with_certificates_is_told() {
    let Some(server) = Etcd::builder().unsynced().tls().start_or_skip().await else { return };
    let Some(plain) = Etcd::builder().unsynced().start_or_skip().await else { return };
    let (dir, foreign) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let files = written(dir.path(), server.certificates().unwrap());
    let foreign = written(foreign.path(), &Certificates::generate().unwrap());
    let (ca, _) = files.split_once("&tls_cert").unwrap();
    let (_, foreign_identity) = foreign.split_once('&').unwrap();
    for (locator, kind, part) in [
        (format!("{}/cn?{foreign}", server.address()), ErrorKind::Denied, "tls_ca"),
        (format!("{}/cn?{ca}", server.address()), ErrorKind::Denied, "tls_cert"),
        (format!("{}/cn?{ca}&{foreign_identity}", server.address()), ErrorKind::Denied, "tls_cert"),
        (format!("{}/cn?{files}", plain.address()), ErrorKind::Unavailable, "does it speak TLS?"),
        (format!("{}/cn", server.address()), ErrorKind::Unavailable, "if it wants TLS, set tls_ca"),
    ] {
        let error = told(&locator).await;
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().contains(part), "{error}");
    }
}

/// The process has one TLS provider, and both client libraries are content with it.
#[tokio::test]
async fn zookeeper_and_etcd_with_tls_in_one_process() {
    let Some(server) = Etcd::builder().unsynced().tls().start_or_skip().await else { return };
    let Some(zk) = ZooKeeper::builder().unsynced().tls().start_or_skip().await else { return };
    let (dir, zk_dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let files = written(dir.path(), server.certificates().unwrap());
    let zk_files = written(zk_dir.path(), zk.certificates().unwrap());
    let etcd = etcd_at(&format!("{}/cn?{files}", server.address()));
    let locator = format!("zk://{}/cn?{zk_files}", zk.address());
    let zk = Zk::new(ZkConfig::from_locator(&locator.parse().unwrap()).unwrap());
    for backend in [&etcd as &dyn Backend, &zk] {
        let kv = backend.kv().unwrap();
        kv.commit(Txn::new().put(&key("a"), "1")).await.unwrap();
        assert!(kv.get(&key("a")).await.unwrap().is_some());
    }
}

#[tokio::test]
async fn a_handle_outlives_the_runtime_that_it_was_first_used_on() {
    let Some(server) = Etcd::builder().unsynced().start_or_skip().await else { return };
    let etcd = etcd(&server.connect_string());
    let first = etcd.clone();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            kv(&first).commit(Txn::new().put(&key("a"), "1")).await.unwrap();
            // More than are sent at a time, and stopped on their way.
            for n in 0..20 {
                let new = key(&format!("b/{n}"));
                let stopped = kv(&first).commit(Txn::new().absent(&new).put(&new, "1"));
                assert!(stopped.now_or_never().is_none());
            }
        });
    })
    .join()
    .unwrap();
    eventually("it works again", async || kv(&etcd).get(&key("a")).await.is_ok()).await;
    let new = key("c");
    soon("to be created", kv(&etcd).commit(Txn::new().absent(&new).put(&new, "1"))).await.unwrap();
}

/// A connection that was lost while nobody looked costs nobody an error: what was certainly not sent is sent again.
#[tokio::test]
async fn the_first_call_behind_a_restart_is_answered() {
    let Some(server) = Etcd::builder().unsynced().start_or_skip().await else { return };
    let etcd = etcd(&server.connect_string());
    let new = key("a");
    kv(&etcd).commit(Txn::new().absent(&new).put(&new, "1")).await.unwrap();
    for n in 0..3 {
        server.restart().await.unwrap();
        match n {
            0 => assert!(kv(&etcd).get(&new).await.unwrap().is_some()),
            1 => assert!(kv(&etcd).commit(Txn::new().put(&new, "2")).await.is_ok()),
            _ => assert!(etcd.leases().unwrap().grant(Duration::from_secs(5)).await.is_ok()),
        }
    }
}
