//! Probes: DNS lists what is not serving.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use discovery_testbed::{NameServer, Port};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use crate::common::{BRISK, Follower, dns, found};

/// A server that is healthy or not, on a port of its own.
async fn http(healthy: Arc<AtomicBool>) -> (Port, tokio::task::JoinHandle<()>) {
    let port = Port::reserve().unwrap();
    let listener = TcpListener::bind(port.address()).await.unwrap();
    let task = tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = [0; 4096];
            let length = stream.read(&mut request).await.unwrap_or(0);
            let is_ok =
                healthy.load(Ordering::Relaxed) && request[..length].starts_with(b"GET /health HTTP/1.1\r\n");
            let status = if is_ok { "200 OK" } else { "503 Service Unavailable" };
            let _ =
                stream.write_all(format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n").as_bytes()).await;
        }
    });
    (port, task)
}

fn records(primary: u16, backup: u16) -> String {
    format!(
        "_http._tcp.cart SRV 1 1 {primary} p.cart\n_http._tcp.cart SRV 2 1 {backup} b.cart\n\
         p.cart A 127.0.0.1\nb.cart A 127.0.0.1"
    )
}

#[tokio::test]
async fn who_is_not_serving_is_down_and_the_next_priority_takes_over() {
    let healthy = Arc::new(AtomicBool::new(true));
    let (port, _server) = http(healthy.clone()).await;
    let other = http(Arc::new(AtomicBool::new(true))).await;
    let zone = records(port.number(), other.0.number());
    let Some(server) = NameServer::knot().records(zone).start_or_skip().await else { return };
    let dns = dns(&[server.address()], &format!("/disco.test?records=srv&probe=http:/health&{BRISK}"));
    let mut follower = Follower::start(&dns, "cart").await;
    let weights = |seen: &Follower| seen.known.iter().map(|one| one.weight()).collect::<Vec<_>>();
    follower.until("the primary to have the traffic", |seen| weights(seen) == [0, 1]).await;
    healthy.store(false, Ordering::Relaxed);
    follower.until("the backup to have the traffic", |seen| weights(seen) == [1, 0]).await;
    let primary = found(&dns, "cart").await.remove(1);
    assert!(primary.starts_with("p down"), "{primary}");
    healthy.store(true, Ordering::Relaxed);
    follower.until("the primary to be back", |seen| weights(seen) == [0, 1]).await;
}

#[tokio::test]
async fn a_connection_is_proof_enough_if_that_is_asked_for() {
    let (port, serving) = http(Arc::new(AtomicBool::new(false))).await;
    let nobody = Port::reserve().unwrap();
    let zone = records(port.number(), nobody.number());
    let Some(server) = NameServer::knot().records(zone).start_or_skip().await else { return };
    let dns = dns(&[server.address()], &format!("/disco.test?records=srv&probe=tcp&{BRISK}"));
    let mut follower = Follower::start(&dns, "cart").await;
    let up = |seen: &Follower| seen.known.iter().map(|one| one.status().to_string()).collect::<Vec<_>>();
    follower.until("one to be down", |seen| up(seen) == ["down", "up"]).await;
    serving.abort();
    follower.until("both to be down", |seen| up(seen) == ["down", "down"]).await;
}
