//! A server that says what a test wants it to say.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UdpSocket},
    task::JoinSet,
    time::sleep,
};

use crate::{ports::Port, process::POLL};

/// More than any datagram.
const LARGEST: usize = 64 << 10;

/// What a query came by, and the answers go by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// A datagram each.
    Udp,
    /// A connection, on which each packet follows its length.
    Tcp,
}

/// A server for UDP and TCP, on a loopback port of its own, whose answers a closure makes up: raw packets, as DNS frames
/// them, without any knowledge of DNS. It also does to hear what a server sends by itself, such as NOTIFY.
///
/// Dropping it closes its port and all its connections.
#[derive(Debug)]
pub struct Liar {
    port: Port,
    heard: Arc<AtomicUsize>,
    /// Aborted when this value is dropped.
    _tasks: JoinSet<()>,
}

impl Liar {
    /// Starts to answer each packet with those that `answer` returns: in this order, from where the query was sent to. None
    /// is silence, and a packet that is too long for its transport (65,507 bytes by UDP, 65,535 by TCP) is not sent.
    ///
    /// # Errors
    ///
    /// When no port is free.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime.
    pub fn start(
        answer: impl Fn(&[u8], Transport) -> Vec<Vec<u8>> + Send + Sync + 'static,
    ) -> io::Result<Self> {
        let port = Port::reserve()?;
        let (socket, listener) =
            (std::net::UdpSocket::bind(port.address())?, std::net::TcpListener::bind(port.address())?);
        socket.set_nonblocking(true)?;
        listener.set_nonblocking(true)?;
        let (socket, listener) = (UdpSocket::from_std(socket)?, TcpListener::from_std(listener)?);
        let heard = Arc::new(AtomicUsize::new(0));
        let tongue = Tongue { heard: Arc::clone(&heard), answer: Arc::new(answer) };
        let mut tasks = JoinSet::new();
        tasks.spawn(datagrams(socket, tongue.clone()));
        tasks.spawn(connections(listener, tongue));
        Ok(Self { port, heard, _tasks: tasks })
    }

    /// Where clients send to and connect.
    pub fn address(&self) -> SocketAddr {
        self.port.address()
    }

    /// How many packets have come since the start.
    pub fn heard(&self) -> usize {
        self.heard.load(Ordering::Relaxed)
    }
}

type Answer = dyn Fn(&[u8], Transport) -> Vec<Vec<u8>> + Send + Sync;

#[derive(Clone)]
struct Tongue {
    /// A statistic that orders nothing else: written here, read by the handle.
    heard: Arc<AtomicUsize>,
    answer: Arc<Answer>,
}

impl Tongue {
    fn answer(&self, query: &[u8], transport: Transport) -> Vec<Vec<u8>> {
        self.heard.fetch_add(1, Ordering::Relaxed);
        (self.answer)(query, transport)
    }
}

async fn datagrams(socket: UdpSocket, tongue: Tongue) {
    let mut buffer = vec![0; LARGEST];
    loop {
        let Ok((length, client)) = socket.recv_from(&mut buffer).await else {
            sleep(POLL).await;
            continue;
        };
        for packet in tongue.answer(&buffer[..length], Transport::Udp) {
            // What cannot be sent is lost, as datagrams are.
            let _ = socket.send_to(&packet, client).await;
        }
    }
}

async fn connections(listener: TcpListener, tongue: Tongue) {
    let mut connections = JoinSet::new();
    loop {
        // Those that have ended need not be kept.
        while connections.try_join_next().is_some() {}
        match listener.accept().await {
            Ok((stream, _)) => {
                let tongue = tongue.clone();
                connections.spawn(async move {
                    // Ended by the client, in whatever manner.
                    let _ = connection(stream, tongue).await;
                });
            }
            Err(_) => sleep(POLL).await,
        }
    }
}

async fn connection(mut stream: TcpStream, tongue: Tongue) -> io::Result<()> {
    loop {
        let length = stream.read_u16().await?;
        let mut query = vec![0; length.into()];
        stream.read_exact(&mut query).await?;
        for packet in tongue.answer(&query, Transport::Tcp) {
            if let Ok(length) = u16::try_from(packet.len()) {
                stream.write_all(&[&length.to_be_bytes(), &packet[..]].concat()).await?;
            }
        }
    }
}
