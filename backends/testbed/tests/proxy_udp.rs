//! Every mode of the proxy, on datagrams.

mod common;

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use common::eventually;
use discovery_testbed::{Mode, NameServer, Proxy};
use tokio::{net::UdpSocket, task::JoinSet, time::timeout};

/// Long enough for anything local to happen, short enough to wait for nothing to happen.
const A_MOMENT: Duration = Duration::from_millis(100);

/// A server that sends back what it gets, after a byte that tells servers apart.
struct Echo {
    address: SocketAddr,
    received: Arc<AtomicUsize>,
    _task: JoinSet<()>,
}

impl Echo {
    async fn start(greeting: u8) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.expect("some port is free");
        let address = socket.local_addr().expect("it is bound");
        let received = Arc::new(AtomicUsize::new(0));
        let mut task = JoinSet::new();
        let count = Arc::clone(&received);
        task.spawn(async move {
            let mut buffer = vec![0; 1 << 16];
            loop {
                let Ok((length, client)) = socket.recv_from(&mut buffer).await else { continue };
                count.fetch_add(1, Ordering::Relaxed);
                let _ = socket.send_to(&[&[greeting], &buffer[..length]].concat(), client).await;
            }
        });
        Self { address, received, _task: task }
    }

    fn received(&self) -> usize {
        self.received.load(Ordering::Relaxed)
    }
}

/// A client that hears only of the proxy.
async fn client(proxy: &Proxy) -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").await.expect("some port is free");
    socket.connect(proxy.address()).await.expect("a loopback address can be reached");
    socket
}

async fn receive(client: &UdpSocket) -> io::Result<Vec<u8>> {
    let mut buffer = vec![0; 1 << 16];
    let length = client.recv(&mut buffer).await?;
    Ok(buffer[..length].to_vec())
}

async fn ask(client: &UdpSocket, question: &[u8]) -> io::Result<Vec<u8>> {
    client.send(question).await?;
    receive(client).await
}

async fn is_silent(client: &UdpSocket) -> bool {
    timeout(A_MOMENT, receive(client)).await.is_err()
}

#[tokio::test]
async fn passes_everything_and_tells_clients_apart() {
    let echo = Echo::start(1).await;
    let proxy = Proxy::start(echo.address).unwrap();
    let (one, two) = (client(&proxy).await, client(&proxy).await);
    // Answers wait for who asked.
    one.send(b"one").await.unwrap();
    assert_eq!(ask(&two, b"two").await.unwrap(), b"\x01two");
    assert_eq!(receive(&one).await.unwrap(), b"\x01one");
    let large = vec![7; 60_000];
    assert_eq!(ask(&one, &large).await.unwrap()[1..], large);
    assert_eq!(ask(&one, b"").await.unwrap(), [1]);
    assert_eq!((proxy.datagrams(), echo.received()), (4, 4));
    assert_eq!((proxy.accepted(), proxy.connections()), (0, 0));
}

#[tokio::test]
async fn refuse_tells_the_client_and_reaches_nobody() {
    let echo = Echo::start(1).await;
    let proxy = Proxy::start(echo.address).unwrap();
    let old = client(&proxy).await;
    for round in 1..=50 {
        assert_eq!(ask(&old, b"any").await.unwrap(), b"\x01any");
        proxy.refuse().await;
        for client in [&old, &client(&proxy).await] {
            let error = ask(client, b"lost").await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        }
        proxy.pass().await;
        assert_eq!((proxy.datagrams(), echo.received()), (round, round));
    }
}

#[tokio::test]
async fn a_black_hole_loses_datagrams() {
    let echo = Echo::start(1).await;
    let proxy = Proxy::start(echo.address).unwrap();
    let (live, new) = (client(&proxy).await, client(&proxy).await);
    ask(&live, b"before").await.unwrap();
    proxy.black_hole().await;
    for client in [&live, &new] {
        client.send(b"lost").await.unwrap();
        assert!(is_silent(client).await);
    }
    proxy.pass().await;
    for client in [&live, &new] {
        assert!(is_silent(client).await);
        assert_eq!(ask(client, b"after").await.unwrap(), b"\x01after");
    }
    assert_eq!((proxy.datagrams(), echo.received()), (5, 3));
}

#[tokio::test]
async fn a_lost_reply_is_one_to_a_request_that_arrived() {
    let echo = Echo::start(1).await;
    let proxy = Proxy::start(echo.address).unwrap();
    let client = client(&proxy).await;
    proxy.lose_replies().await;
    assert_eq!(proxy.mode(), Mode::LoseReplies);
    client.send(b"lost").await.unwrap();
    eventually("the request arrives", async || echo.received() == 1).await;
    assert!(is_silent(&client).await);
    proxy.pass().await;
    assert!(is_silent(&client).await);
    assert_eq!(ask(&client, b"after").await.unwrap(), b"\x01after");

    // What a delay holds back is under way.
    proxy.delay(Duration::ZERO, Duration::from_secs(3600)).await;
    client.send(b"lost").await.unwrap();
    eventually("the request arrives", async || echo.received() == 3).await;
    assert!(is_silent(&client).await);
    proxy.lose_replies().await;
    assert!(is_silent(&client).await);
    proxy.pass().await;
    assert!(is_silent(&client).await);
}

#[tokio::test]
async fn delay_applies_to_each_direction() {
    let echo = Echo::start(1).await;
    let proxy = Proxy::start(echo.address).unwrap();
    let client = client(&proxy).await;
    let (short, long) = (Duration::from_millis(30), Duration::from_millis(80));
    for (to_target, to_client) in [(long, Duration::ZERO), (Duration::ZERO, long), (short, long)] {
        proxy.delay(to_target, to_client).await;
        let start = Instant::now();
        assert_eq!(ask(&client, b"late").await.unwrap(), b"\x01late");
        assert!(start.elapsed() >= to_target + to_client, "{:?}", start.elapsed());
    }

    // Late, but not one after the other, and the end of a delay sets free what it held back.
    let delay = Duration::from_millis(500);
    proxy.delay(delay, Duration::ZERO).await;
    let start = Instant::now();
    for byte in 0..20 {
        client.send(&[byte]).await.unwrap();
    }
    for byte in 0..20 {
        assert_eq!(receive(&client).await.unwrap(), [1, byte]);
    }
    assert!((delay..delay * 10).contains(&start.elapsed()), "{:?}", start.elapsed());
    proxy.delay(Duration::from_secs(3600), Duration::ZERO).await;
    client.send(b"held").await.unwrap();
    assert!(is_silent(&client).await);
    proxy.pass().await;
    assert_eq!(receive(&client).await.unwrap(), b"\x01held");

    // Unless it is cut.
    proxy.delay(Duration::from_secs(3600), Duration::ZERO).await;
    client.send(b"cut").await.unwrap();
    eventually("the proxy holds it", async || proxy.datagrams() == 25).await;
    proxy.cut().await;
    proxy.pass().await;
    assert!(is_silent(&client).await);
}

#[tokio::test]
async fn retarget_moves_new_clients_and_those_that_are_cut() {
    let (one, two) = (Echo::start(1).await, Echo::start(2).await);
    let proxy = Proxy::start(one.address).unwrap();
    let old = client(&proxy).await;
    assert_eq!(ask(&old, b"").await.unwrap(), [1]);
    proxy.retarget(two.address).await;
    assert_eq!(ask(&client(&proxy).await, b"").await.unwrap(), [2]);
    assert_eq!(ask(&old, b"").await.unwrap(), [1]);
    proxy.cut().await;
    assert_eq!(ask(&old, b"").await.unwrap(), [2]);
}

#[tokio::test]
async fn a_target_that_is_down_is_silence_until_it_is_up() {
    let nobody = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = nobody.local_addr().unwrap();
    drop(nobody);
    let proxy = Proxy::start(address).unwrap();
    let client = client(&proxy).await;
    for _ in 0..3 {
        client.send(b"lost").await.unwrap();
    }
    assert!(is_silent(&client).await);
    let server = UdpSocket::bind(address).await.unwrap();
    client.send(b"arrives").await.unwrap();
    assert_eq!(receive(&server).await.unwrap(), b"arrives");
}

#[tokio::test]
async fn drop_closes_the_port() {
    let echo = Echo::start(1).await;
    let proxy = Proxy::start(echo.address).unwrap();
    let client = client(&proxy).await;
    ask(&client, b"any").await.unwrap();
    drop(proxy);
    eventually("the port is closed", async || {
        // Of two, as the first is what the second is told of.
        let _ = client.send(b"").await;
        client.send(b"").await.is_err()
    })
    .await;
}

#[tokio::test]
async fn a_real_client_works_through_it() {
    let options = NameServer::bind().records("web 60 A 127.0.0.1");
    let Some(server) = options.start_or_skip().await else { return };
    let proxy = Proxy::start(server.address()).unwrap();
    let (dig, nsupdate) = (server.dig().server(proxy.address()), server.nsupdate().server(proxy.address()));
    for dig in [dig.clone(), dig.clone().tcp()] {
        assert_eq!(dig.short("web.disco.test", "A").await.unwrap(), ["127.0.0.1"]);
    }
    assert_eq!((proxy.datagrams(), proxy.accepted()), (1, 1));
    proxy.refuse().await;
    for dig in [dig.clone(), dig.clone().tcp()] {
        let error = dig.query("web.disco.test", "A").await.unwrap_err().to_string();
        assert!(error.contains("connection refused"), "{error}");
    }
    // What was done and not confirmed.
    proxy.lose_replies().await;
    for (nsupdate, address) in [(nsupdate.clone(), "127.0.0.2"), (nsupdate.tcp(), "127.0.0.3")] {
        let (nsupdate, add) =
            (nsupdate.within(Duration::from_secs(1)), format!("add web.disco.test. 60 A {address}"));
        let error = nsupdate.run(&add).await.unwrap_err().to_string();
        assert!(error.contains("timed out"), "{error}");
        let found = server.dig().short("web.disco.test", "A").await.unwrap();
        assert!(found.iter().any(|found| found == address), "{found:?}");
    }
}
