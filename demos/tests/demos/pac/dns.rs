//! What is special about DNS, and all that is not: on BIND, and without any server.

use discovery::ServiceName;
use discovery_testbed::{Dig, NameServer, Port};
use rustix::process::Signal;

use crate::{
    demo::Demo,
    eventually,
    pac::processes::{ghost, server_on, tests_on},
    pac::socket::Socket,
    registry::ZONE,
};

tests_on!(NameServer);

#[tokio::test]
async fn whoever_asks_dns_finds_the_ghosts_by_name() {
    let Some(bind) = NameServer::bind().open().start_or_skip().await else { return };
    let server = server_on(&bind, 0, &[]).await;
    let ghost = ghost(&bind, &["--coordinate", "1f.blinky.test.local"]).await;
    let mut socket = Socket::open(&server).await;
    socket.until("the ghost", |socket| socket.shows("1f.blinky.test.local")).await;

    let dig = bind.dig();
    for name in ["blinky.test.local", "1f.blinky.test.local"] {
        assert_eq!(dig.short(&format!("{name}.{ZONE}"), "A").await.unwrap(), ["127.0.0.1"]);
    }
    let service = format!("_http._tcp.blinky.test.local.{ZONE}");
    let expected = format!("0 1 {} 1f.blinky.test.local.{ZONE}.", ghost.port());
    assert_eq!(dig.short(&service, "SRV").await.unwrap(), [expected]);
    assert_eq!(dig.short(&service, "PTR").await.unwrap(), [format!("1f.{service}.")]);

    ghost.signal(Signal::TERM);
    socket.until("its departure", |socket| !socket.shows("blinky")).await;
    let gone = dig.query(&format!("blinky.test.local.{ZONE}"), "A").await.unwrap();
    assert_eq!(gone.rcode, "NXDOMAIN");
}

/// Processes that have a zone among themselves, at an address that nobody else has.
struct Family {
    port: Port,
}

impl Family {
    fn new() -> Self {
        Self { port: Port::reserve().unwrap() }
    }

    async fn start(&self, args: &[&str]) -> Demo {
        let locator = format!("dns+zone://{}/cn.internal?serve=true", self.port.address());
        Demo::start(["pac"].iter().chain(args).chain(&["--backend", &locator])).await
    }

    fn dig(&self) -> Dig {
        Dig::new(self.port.address())
    }
}

#[tokio::test]
async fn without_a_server_the_first_one_serves_and_the_others_take_over() {
    let family = Family::new();
    let blinky = family.start(&["ghost", "blinky", "--ttl", "4s"]).await;
    eventually("it is registered", async || blinky.state().await["status"] == "active").await;
    let server = family.start(&["server", "--port", "0", "--drain", "0s"]).await;
    let inky = family.start(&["ghost", "inky", "--ttl", "20s"]).await;
    let mut socket = Socket::open(&server).await;
    socket.until("both ghosts", |socket| socket.shows("blinky") && socket.shows("inky")).await;
    let inkys = family.dig().short("inky.test.local.cn.internal", "A").await.unwrap();
    assert_eq!(inkys, ["127.0.0.1"]);

    // The one that serves: it dies, and with it goes what it held; but not what the others know.
    blinky.signal(Signal::KILL);
    socket.until("blinky's lease has ended", |socket| !socket.shows("blinky")).await;
    let inky_is = inky.coordinate().await;
    assert_eq!((socket.count("created", &inky_is), socket.count("removed", &inky_is)), (1, 0));
    assert_eq!(family.dig().short("inky.test.local.cn.internal", "A").await.unwrap(), inkys);

    let pinky = family.start(&["ghost", "pinky"]).await;
    socket.until("pinky", |socket| socket.shows("pinky")).await;
    drop((pinky, server));
    eventually("inky is alone, and serves", async || {
        let pacman: ServiceName = "local/test/pacman".parse().unwrap();
        let name = format!("{}.cn.internal", pacman.labels().rev().collect::<Vec<_>>().join("."));
        let answer = family.dig().option("+tries=1").option("+timeout=1").query(&name, "A").await;
        answer.is_ok_and(|answer| answer.rcode == "NXDOMAIN")
    })
    .await;
}
