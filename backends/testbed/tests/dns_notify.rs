//! Servers that tell others what changed: NOTIFY and secondaries.

mod common;

use std::time::{Duration, Instant};

use common::eventually;
use discovery_testbed::{Liar, NameServer, NameServerBuilder, Port, Transport};
use tokio::sync::mpsc;

const WEB: &str = "web.disco.test";

/// Every test is about both.
fn servers() -> [NameServerBuilder; 2] {
    [NameServer::bind(), NameServer::knot()]
}

/// The operation in a header, where queries have 0.
const NOTIFY: u8 = 4;

/// A server of nothing that confirms what it is told, and passes it on to the test.
fn listener() -> (Liar, mpsc::UnboundedReceiver<(Transport, Vec<u8>)>) {
    let (sender, heard) = mpsc::unbounded_channel();
    let listener = Liar::start(move |packet, transport| {
        let _ = sender.send((transport, packet.to_vec()));
        let mut reply = packet.to_vec();
        reply[2] |= 0x80;
        vec![reply]
    });
    (listener.expect("some port is free"), heard)
}

#[tokio::test]
async fn a_listener_hears_of_a_change_soon() {
    let ways = [(Transport::Udp, Duration::from_secs(1)), (Transport::Tcp, Duration::from_secs(2))];
    for (options, (by, within)) in servers().into_iter().zip(ways) {
        let (listener, mut heard) = listener();
        let Some(server) = options.also_notify(listener.address()).start_or_skip().await else { continue };
        for round in 0..3 {
            // What was told of the start, or again as the answer was late.
            while heard.try_recv().is_ok() {}
            let start = Instant::now();
            server.nsupdate().run(&format!("add {WEB}. 60 A 127.0.0.{round}")).await.unwrap();
            let (transport, packet) = heard.recv().await.unwrap();
            assert!(start.elapsed() < within, "{:?}", start.elapsed());
            assert_eq!((transport, packet[2] >> 3), (by, NOTIFY));
        }
    }
}

#[tokio::test]
async fn a_listener_hears_of_another_content() {
    for options in servers() {
        let (listener, mut heard) = listener();
        let Some(server) = options.serial(100).also_notify(listener.address()).start_or_skip().await else {
            continue;
        };
        for serial in [200, 3] {
            while heard.try_recv().is_ok() {}
            server.reload_zone("", serial).await.unwrap();
            assert_eq!(heard.recv().await.unwrap().1[2] >> 3, NOTIFY);
        }
    }
}

#[tokio::test]
async fn a_secondary_follows_its_primary() {
    for (primary, secondary) in servers().into_iter().zip(servers()).chain(servers().into_iter().zip({
        let [bind, knot] = servers();
        [knot, bind]
    })) {
        let port = Port::reserve().unwrap();
        let primary = primary.zone("eu1.test").records("web 60 A 127.0.0.1").also_notify(port.address());
        let Some(primary) = primary.start_or_skip().await else { continue };
        let address = port.address();
        let Some(secondary) = secondary.secondary_of(&primary).port(port).start_or_skip().await else {
            continue;
        };
        assert_eq!((secondary.zone(), secondary.address()), (primary.zone(), address));
        assert_eq!(secondary.key_secret(), primary.key_secret());
        assert_eq!(secondary.serial().await.unwrap(), 1);

        let has = async |address: &str| {
            secondary.dig().short("web.eu1.test", "A").await.unwrap().iter().any(|found| found == address)
        };
        primary.nsupdate().run("add web.eu1.test. 60 A 127.0.0.2").await.unwrap();
        eventually("the secondary has what was added", async || has("127.0.0.2").await).await;
        assert_eq!(secondary.dig().transfer("eu1.test").await.unwrap().len(), 6);
        assert!(secondary.dig().without_key().transfer("eu1.test").await.is_err());
        assert!(secondary.reload_zone("", 7).await.unwrap_err().to_string().contains("primary"));

        // It knows its zone while the primary is down, and begins anew without it.
        primary.kill().unwrap();
        secondary.kill().unwrap();
        secondary.restart().await.unwrap();
        assert!(has("127.0.0.2").await);
        primary.restart().await.unwrap();
        secondary.wipe().await.unwrap();
        assert!(has("127.0.0.2").await);
    }
}

#[tokio::test]
async fn a_secondary_that_is_not_told_asks() {
    for (primary, secondary) in servers().into_iter().zip(servers()) {
        let Some(primary) = primary.start_or_skip().await else { continue };
        let secondary = secondary.secondary_of(&primary).start().await.unwrap();
        primary.nsupdate().run(&format!("add {WEB}. 60 A 127.0.0.1")).await.unwrap();
        eventually("the secondary has asked", async || secondary.serial().await.unwrap() == 2).await;
    }
}
