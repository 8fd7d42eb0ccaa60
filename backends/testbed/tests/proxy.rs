//! Every mode of the proxy, on new and on live connections.

mod common;

use std::{
    io,
    net::SocketAddr,
    time::{Duration, Instant},
};

use common::eventually;
use discovery_testbed::{Mode, Proxy, ZooKeeper};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy, split},
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::timeout,
};

/// Long enough for anything local to happen, short enough to wait for nothing to happen.
const A_MOMENT: Duration = Duration::from_millis(100);

/// A server that sends back what it gets, after a greeting byte that tells servers apart.
struct Echo {
    address: SocketAddr,
    _tasks: JoinSet<()>,
}

impl Echo {
    async fn start(greeting: u8) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("some port is free");
        let address = listener.local_addr().expect("it is bound");
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let Ok((mut stream, _)) = listener.accept().await else { continue };
                connections.spawn(async move {
                    stream.write_all(&[greeting]).await?;
                    let (mut from, mut to) = split(stream);
                    copy(&mut from, &mut to).await?;
                    to.shutdown().await
                });
            }
        });
        Self { address, _tasks: tasks }
    }
}

/// Connects and takes the greeting.
async fn connect(proxy: &Proxy) -> (TcpStream, u8) {
    let mut stream = TcpStream::connect(proxy.address()).await.expect("the proxy accepts");
    let greeting = stream.read_u8().await.expect("the server greets");
    (stream, greeting)
}

async fn echo(stream: &mut TcpStream, byte: u8) -> io::Result<u8> {
    stream.write_u8(byte).await?;
    stream.read_u8().await
}

async fn is_closed(stream: &mut TcpStream) -> bool {
    !matches!(stream.read(&mut [0]).await, Ok(1..))
}

#[tokio::test]
async fn passes_everything_and_counts() {
    let echo_server = Echo::start(1).await;
    let proxy = Proxy::start(echo_server.address).unwrap();
    assert_eq!((proxy.mode(), proxy.accepted(), proxy.connections()), (Mode::Pass, 0, 0));
    let (first, _) = connect(&proxy).await;
    let (second, _) = connect(&proxy).await;
    assert_eq!((proxy.accepted(), proxy.connections()), (2, 2));

    // More than any buffer on the way, and a half-closed connection delivers the rest.
    let sent: Vec<u8> = (0..9_000_000_u32).map(|n| n.to_le_bytes()[0]).collect();
    let (mut from, mut to) = first.into_split();
    let writer = tokio::spawn({
        let sent = sent.clone();
        async move {
            to.write_all(&sent).await.unwrap();
            to.shutdown().await.unwrap();
        }
    });
    let mut received = Vec::new();
    from.read_to_end(&mut received).await.unwrap();
    writer.await.unwrap();
    assert!(received == sent);

    drop(second);
    eventually("both connections are closed", async || proxy.connections() == 0).await;
    assert_eq!(proxy.accepted(), 2);
}

#[tokio::test]
async fn cut_closes_live_connections_and_accepts_new_ones() {
    let echo_server = Echo::start(1).await;
    let proxy = Proxy::start(echo_server.address).unwrap();
    let (mut old, _) = connect(&proxy).await;
    proxy.cut().await;
    assert_eq!(proxy.connections(), 0);
    assert!(is_closed(&mut old).await);
    let (mut new, _) = connect(&proxy).await;
    assert_eq!(echo(&mut new, 7).await.unwrap(), 7);
}

#[tokio::test]
async fn refuse_closes_live_connections_and_refuses_new_ones() {
    let echo_server = Echo::start(1).await;
    let proxy = Proxy::start(echo_server.address).unwrap();
    for _ in 0..50 {
        let (mut old, _) = connect(&proxy).await;
        proxy.refuse().await;
        assert!(is_closed(&mut old).await);
        let error = TcpStream::connect(proxy.address()).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        proxy.pass().await;
        let (mut new, _) = connect(&proxy).await;
        assert_eq!(echo(&mut new, 7).await.unwrap(), 7);
    }
}

#[tokio::test]
async fn black_hole_closes_nothing_and_forwards_nothing() {
    let echo_server = Echo::start(1).await;
    let proxy = Proxy::start(echo_server.address).unwrap();
    let (mut live, _) = connect(&proxy).await;
    proxy.black_hole().await;
    assert!(timeout(A_MOMENT, echo(&mut live, 7)).await.is_err());
    let mut new = TcpStream::connect(proxy.address()).await.unwrap();
    assert!(timeout(A_MOMENT, new.read_u8()).await.is_err());
    assert_eq!(proxy.connections(), 2);

    // A healed partition delivers what was sent meanwhile.
    proxy.pass().await;
    assert_eq!(live.read_u8().await.unwrap(), 7);
    assert_eq!(new.read_u8().await.unwrap(), 1);

    proxy.black_hole().await;
    live.write_u8(8).await.unwrap();
    proxy.refuse().await;
    assert!(is_closed(&mut live).await && is_closed(&mut new).await);
}

#[tokio::test]
async fn delay_applies_to_each_direction_of_live_connections() {
    let echo_server = Echo::start(1).await;
    let proxy = Proxy::start(echo_server.address).unwrap();
    let (mut live, _) = connect(&proxy).await;
    let (short, long) = (Duration::from_millis(30), Duration::from_millis(80));
    for (to_target, to_client) in [(long, Duration::ZERO), (Duration::ZERO, long), (short, long)] {
        proxy.delay(to_target, to_client).await;
        let start = Instant::now();
        assert_eq!(echo(&mut live, 7).await.unwrap(), 7);
        assert!(start.elapsed() >= to_target + to_client, "{:?}", start.elapsed());
    }

    // Late, but not one after the other: 20 messages take one delay, not 20.
    let delay = Duration::from_millis(500);
    proxy.delay(delay, Duration::ZERO).await;
    let start = Instant::now();
    for byte in 0..20 {
        live.write_u8(byte).await.unwrap();
        tokio::task::yield_now().await;
    }
    for byte in 0..20 {
        assert_eq!(live.read_u8().await.unwrap(), byte);
    }
    assert!((delay..delay * 10).contains(&start.elapsed()), "{:?}", start.elapsed());

    // The end of a delay sets free what it held back.
    proxy.delay(Duration::from_secs(3600), Duration::ZERO).await;
    live.write_u8(9).await.unwrap();
    assert!(timeout(A_MOMENT, live.read_u8()).await.is_err());
    proxy.pass().await;
    assert_eq!(live.read_u8().await.unwrap(), 9);
}

#[tokio::test]
async fn lost_replies_are_those_to_requests_that_arrived() {
    let echo_server = Echo::start(1).await;
    let proxy = Proxy::start(echo_server.address).unwrap();
    let (mut live, _) = connect(&proxy).await;
    proxy.lose_replies().await;
    assert!(timeout(A_MOMENT, echo(&mut live, 7)).await.is_err());
    let mut new = TcpStream::connect(proxy.address()).await.unwrap();
    assert!(timeout(A_MOMENT, echo(&mut new, 8)).await.is_err());
    assert_eq!((proxy.mode(), proxy.connections()), (Mode::LoseReplies, 2));

    // The connections live on, without what was lost.
    proxy.pass().await;
    for stream in [&mut live, &mut new] {
        assert!(timeout(A_MOMENT, stream.read_u8()).await.is_err());
        assert_eq!(echo(stream, 9).await.unwrap(), 9);
    }
    // What a delay holds back is under way.
    proxy.delay(Duration::ZERO, Duration::from_secs(3600)).await;
    assert!(timeout(A_MOMENT, echo(&mut live, 10)).await.is_err());
    proxy.lose_replies().await;
    assert!(timeout(A_MOMENT, live.read_u8()).await.is_err());
    proxy.pass().await;
    assert!(timeout(A_MOMENT, live.read_u8()).await.is_err());
    assert_eq!(echo(&mut live, 11).await.unwrap(), 11);
}

#[tokio::test]
async fn retarget_moves_new_connections_only() {
    let (one, two) = (Echo::start(1).await, Echo::start(2).await);
    let proxy = Proxy::start(one.address).unwrap();
    let (mut old, greeting) = connect(&proxy).await;
    assert_eq!(greeting, 1);
    proxy.retarget(two.address).await;
    assert_eq!(connect(&proxy).await.1, 2);
    assert_eq!(echo(&mut old, 7).await.unwrap(), 7);
}

#[tokio::test]
async fn a_target_that_is_down_closes_the_connection() {
    let echo_server = Echo::start(1).await;
    let address = echo_server.address;
    drop(echo_server);
    let proxy = Proxy::start(address).unwrap();
    let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
    assert!(is_closed(&mut stream).await);
}

#[tokio::test]
async fn drop_closes_the_port_and_the_connections() {
    let echo_server = Echo::start(1).await;
    let proxy = Proxy::start(echo_server.address).unwrap();
    let (mut live, _) = connect(&proxy).await;
    let address = proxy.address();
    drop(proxy);
    assert!(is_closed(&mut live).await);
    eventually("the port is closed", async || TcpStream::connect(address).await.is_err()).await;
}

#[tokio::test]
async fn a_real_client_works_through_it() {
    let Some(zk) = ZooKeeper::start_or_skip().await else { return };
    let proxy = Proxy::start(zk.address()).unwrap();
    let cli = zk.cli().connect_string(proxy.address().to_string());
    assert_eq!(cli.run(["create", "/via", "proxy"]).await.unwrap(), "Created /via");
    proxy.refuse().await;
    assert!(cli.run(["get", "/via"]).await.is_err());
    proxy.pass().await;
    assert_eq!(cli.run(["get", "/via"]).await.unwrap(), "proxy");
}
