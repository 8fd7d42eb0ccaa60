//! Sockets: UDP, several per address, and TCP.
//!
//! Handle and tasks share the sockets, and whoever drops the handle closes them: the ports are free at once, whenever the
//! runtime gets round to ending the tasks.

use std::{
    future::poll_fn,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, BufReader, ReadBuf},
    net::{TcpListener, TcpStream, UdpSocket},
    sync::Semaphore,
    task::JoinSet,
    time::timeout,
};
use tracing::debug;

use super::{
    engine::{Engine, Outcome, Peer},
    message::Transport,
};
use crate::protocol::unix_time;

/// How many TCP connections there are at once; more wait.
const CONNECTIONS_MAX: usize = 512;
/// How long a connection may be idle, and how long a message may take to be sent.
const IDLE: Duration = Duration::from_secs(30);
/// How long a pause is when no connection can be accepted (no descriptor left).
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How many ports are tried if any will do.
const PORT_ATTEMPTS: usize = 32;
/// How much a UDP socket may hold that has come in and was not looked at.
const RECEIVE_BUFFER: usize = 1 << 20;

/// A socket that its task uses and that is closed from outside. Locked for one call that does not wait, so closing it takes
/// no longer than such a call.
#[derive(Debug)]
struct Shared<T>(Arc<Mutex<Option<T>>>);

impl<T> Shared<T> {
    fn new(socket: T) -> Self {
        Self(Arc::new(Mutex::new(Some(socket))))
    }

    /// Calls `call` with the socket; `None` if it is closed.
    fn with<R>(&self, call: impl FnOnce(&T) -> R) -> Option<R> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(call)
    }

    fn close(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

impl<T> Clone for Shared<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

/// The sockets of one address, closed when it is dropped.
#[derive(Debug)]
pub(crate) struct Listener {
    address: SocketAddr,
    udp: Vec<Shared<UdpSocket>>,
    tcp: Shared<TcpListener>,
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.udp.iter().for_each(Shared::close);
        self.tcp.close();
    }
}

impl Listener {
    /// Binds `count` UDP sockets and a TCP socket; with port 0 to any port that both have free.
    pub(crate) fn bind(address: SocketAddr, count: usize) -> io::Result<Self> {
        let attempts = if address.port() == 0 { PORT_ATTEMPTS } else { 1 };
        let mut outcome = Self::try_bind(address, count);
        for _ in 1..attempts {
            if outcome.is_ok() {
                break;
            }
            outcome = Self::try_bind(address, count);
        }
        outcome
    }

    fn try_bind(address: SocketAddr, count: usize) -> io::Result<Self> {
        let tcp = bind_tcp(address)?;
        let address = tcp.local_addr()?;
        // The first one alone, so that a port of somebody else's is not shared.
        drop(bind_udp(address, Sharing::Alone)?);
        let udp = (0..count.max(1))
            .map(|_| bind_udp(address, Sharing::Siblings).map(Shared::new))
            .collect::<io::Result<_>>()?;
        Ok(Self { address, udp, tcp: Shared::new(tcp) })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Starts the tasks that answer.
    pub(crate) fn serve(&self, engine: &Arc<Engine>, tasks: &mut JoinSet<()>) {
        let is_loopback = self.address.ip().to_canonical().is_loopback();
        for socket in &self.udp {
            tasks.spawn(serve_udp(socket.clone(), engine.clone(), is_loopback));
        }
        tasks.spawn(serve_tcp(self.tcp.clone(), engine.clone(), is_loopback));
    }
}

/// Whether a UDP socket shares its port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sharing {
    Alone,
    Siblings,
}

fn bind_udp(address: SocketAddr, sharing: Sharing) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    #[cfg(unix)]
    socket.set_reuse_port(sharing == Sharing::Siblings)?;
    // As much as the system allows: a burst should not get lost.
    let _ = socket.set_recv_buffer_size(RECEIVE_BUFFER);
    socket.bind(&address.into())?;
    UdpSocket::from_std(socket.into())
}

fn bind_tcp(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(1024)?;
    TcpListener::from_std(socket.into())
}

async fn serve_udp(socket: Shared<UdpSocket>, engine: Arc<Engine>, is_loopback: bool) {
    let mut input = vec![0; usize::from(u16::MAX)];
    let mut output = Vec::with_capacity(2048);
    loop {
        let received = poll_fn(|context| receive(&socket, context, &mut input)).await;
        let (length, address) = match received {
            Some(Ok(received)) => received,
            // An answer that nobody wanted any more.
            Some(Err(_)) => continue,
            None => return,
        };
        let is_local = is_loopback && address.ip().to_canonical().is_loopback();
        let peer = Peer { address, transport: Transport::Udp, is_local };
        if let Outcome::Answer = engine.handle(&input[..length], peer, &mut output) {
            // A full buffer loses it, as the network may.
            socket.with(|socket| drop(socket.try_send_to(&output, address)));
        }
    }
}

/// The next message; `None` once the socket is gone.
fn receive(
    socket: &Shared<UdpSocket>,
    context: &mut Context<'_>,
    input: &mut [u8],
) -> Poll<Option<io::Result<(usize, SocketAddr)>>> {
    let mut buffer = ReadBuf::new(input);
    match socket.with(|socket| socket.poll_recv_from(context, &mut buffer)) {
        Some(received) => {
            received.map(|address| Some(address.map(|address| (buffer.filled().len(), address))))
        }
        None => Poll::Ready(None),
    }
}

async fn serve_tcp(listener: Shared<TcpListener>, engine: Arc<Engine>, is_loopback: bool) {
    let seats = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    loop {
        let Ok(seat) = seats.clone().acquire_owned().await else { return };
        let accepted = poll_fn(|context| match listener.with(|listener| listener.poll_accept(context)) {
            Some(accepted) => accepted.map(Some),
            None => Poll::Ready(None),
        });
        match accepted.await {
            Some(Ok((stream, address))) => {
                let is_local = is_loopback && address.ip().to_canonical().is_loopback();
                let peer = Peer { address, transport: Transport::Tcp, is_local };
                let engine = engine.clone();
                connections.spawn(async move {
                    if let Err(error) = converse(stream, peer, &engine).await {
                        debug!(%error, peer = %address, "connection ended");
                    }
                    drop(seat);
                });
            }
            Some(Err(error)) => {
                debug!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
            None => return,
        }
        while connections.try_join_next().is_some() {}
    }
}

/// Answers one message after the other. Who does not read what it asked for is not waited for.
async fn converse(stream: TcpStream, peer: Peer, engine: &Engine) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut stream = BufReader::new(stream);
    let (mut input, mut output, mut pending) = (Vec::new(), Vec::new(), Vec::new());
    loop {
        // What is there already is answered in one go.
        if stream.buffer().len() < 2 && !pending.is_empty() {
            send(&mut stream, &mut pending).await?;
        }
        let length = match timeout(IDLE, stream.read_u16()).await? {
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            Err(error) => return Err(error),
        };
        input.resize(length.into(), 0);
        if stream.buffer().len() < input.len() {
            send(&mut stream, &mut pending).await?;
        }
        timeout(IDLE, stream.read_exact(&mut input)).await??;
        match engine.handle(&input, peer, &mut output) {
            Outcome::Silence => {}
            Outcome::Answer => frame(&output, &mut pending),
            Outcome::Transfer(mut transfer) => {
                while transfer.next(unix_time, &mut output) {
                    frame(&output, &mut pending);
                    send(&mut stream, &mut pending).await?;
                }
            }
        }
        if pending.len() > usize::from(u16::MAX) {
            send(&mut stream, &mut pending).await?;
        }
    }
}

/// Appends a message with its length in front.
fn frame(message: &[u8], pending: &mut Vec<u8>) {
    // No message is made longer.
    let length = u16::try_from(message.len()).unwrap_or(u16::MAX);
    pending.extend(length.to_be_bytes());
    pending.extend(message);
}

async fn send(stream: &mut BufReader<TcpStream>, pending: &mut Vec<u8>) -> io::Result<()> {
    timeout(IDLE, stream.write_all(pending)).await??;
    pending.clear();
    Ok(())
}
