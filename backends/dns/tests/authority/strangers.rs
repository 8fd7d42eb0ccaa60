//! Programs that have never heard of this crate: `getent` and `curl` find a service by its name.
//!
//! The resolver of the system asks port 53 of what `/etc/resolv.conf` says, so this runs in namespaces of its own.

use std::{env, process::Command};

use discovery::{Discovery, Instance, Scope, mem::Mem};
use discovery_dns::{Authority, ZoneConfig};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use crate::{ZONE, client::ask, client::query, until};

const INSIDE: &str = "DISCOVERY_TEST_INSIDE";
const NAME: &str = "cart.prod.eu1.disco.test";

#[test]
fn the_system_finds_a_service_by_its_name() {
    let unshare = || {
        let mut unshare = Command::new("unshare");
        unshare.args(["--map-root-user", "--net", "--mount", "--"]);
        unshare
    };
    let may = unshare().args(["ip", "link", "set", "lo", "up"]).output();
    if !may.is_ok_and(|output| output.status.success()) || Command::new("curl").arg("-V").output().is_err() {
        eprintln!("skipped: no namespaces here, or no ip or curl");
        return;
    }
    let this = env::current_exe().unwrap();
    let inside =
        unshare().arg(this).args(["--exact", "strangers::inside", "--ignored"]).env(INSIDE, "1").output();
    let inside = inside.unwrap();
    let said = String::from_utf8_lossy(&inside.stdout) + String::from_utf8_lossy(&inside.stderr);
    assert!(inside.status.success(), "{said}");
    assert!(said.contains("1 passed"), "{said}");
}

fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "the other test runs it, in namespaces of its own"]
async fn inside() {
    if env::var_os(INSIDE).is_none() {
        return;
    }
    run("ip", &["link", "set", "lo", "up"]);
    let dir = tempfile::tempdir().unwrap();
    for (file, content) in
        [("resolv.conf", "nameserver 127.0.0.1\n"), ("nsswitch.conf", "hosts: files dns\n")]
    {
        let ours = dir.path().join(file);
        std::fs::write(&ours, content).unwrap();
        run("mount", &["--bind", ours.to_str().unwrap(), &format!("/etc/{file}")]);
    }

    let discovery = Discovery::new(Mem::new());
    let zone = ZoneConfig::view(ZONE, &discovery, Scope::everything());
    let authority =
        Authority::builder().listen("127.0.0.1:53".parse().unwrap()).zone(zone).start().await.unwrap();
    let listener = TcpListener::bind("127.0.0.7:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let instance = Instance::builder("eu1/prod/cart".parse().unwrap()).endpoint("http", "127.0.0.7", port);
    let _registration = discovery.register(instance.build().unwrap()).await.unwrap();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let _ = stream.read(&mut [0; 1024]).await;
            let _ = stream.write_all(b"HTTP/1.0 200 OK\r\n\r\nhello from the cart").await;
        }
    });
    let name = format!("{NAME}.");
    let question = query(&name, hickory_proto::rr::RecordType::A);
    until("the service is there", async || !ask(authority.address(), &question).await.answers.is_empty())
        .await;

    let found = run("getent", &["hosts", NAME]);
    assert_eq!(found.split_whitespace().collect::<Vec<_>>(), ["127.0.0.7", NAME]);
    let page =
        run("curl", &["--silent", "--show-error", "--max-time", "10", &format!("http://{NAME}:{port}/")]);
    assert_eq!(page, "hello from the cart");
}
