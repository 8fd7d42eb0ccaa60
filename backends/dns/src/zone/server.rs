//! The server that a zone is on: one request, one answer, by UDP or by TCP.
//!
//! Nothing is tried twice in here but a question by UDP, whose packets may get lost. A connection serves one request at a
//! time and is kept for the next one for a moment; a request that has to wait for another takes a connection of its own.
//!
//! An answer is believed only if it carries the id of the request, is of its kind, and, where there is a key, is signed
//! with it.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{Mutex, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use discovery::{Error, ErrorKind, Result};
use hickory_proto::op::{Message, MessageType};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UdpSocket, lookup_host},
    sync::Semaphore,
    time::{self, Instant},
};

use crate::tsig::{Flaw, TsigKey, Verifier};

/// How many requests are on their way at once.
const CONCURRENCY: usize = 32;
/// How long an unused connection is kept: less than any server waits before it closes it.
const IDLE: Duration = Duration::from_secs(4);
/// How many unused connections are kept.
const IDLE_MAX: usize = 4;
/// How long to wait for an answer by UDP before asking again.
const AGAIN: Duration = Duration::from_millis(500);

/// A server, by the name or address and the port that it was given by.
#[derive(Debug)]
pub(crate) struct Server {
    address: String,
    key: Option<TsigKey>,
    idle: Mutex<Vec<Idle>>,
    permits: Semaphore,
}

#[derive(Debug)]
struct Idle {
    stream: TcpStream,
    since: Instant,
}

/// What happens to a request before its answer is there.
enum Fault {
    /// It never left.
    Unsent(io::Error),
    /// It may have arrived.
    Broken(io::Error),
    /// An answer came, but none to be believed.
    Disbelieved(Flaw),
    /// An answer came that is no DNS message, or does not belong to the request.
    Nonsense,
}

impl Server {
    pub(super) fn new(address: String, key: Option<TsigKey>) -> Self {
        Self { address, key, idle: Mutex::default(), permits: Semaphore::new(CONCURRENCY) }
    }

    /// Asks by UDP, again and again until there is an answer.
    pub(super) async fn ask(&self, request: &Message, deadline: Instant) -> Result<Message> {
        let asking = async {
            let answer = {
                let _permit = self.permits.acquire().await;
                let server = self.resolve().await?;
                self.ask_at(server, request).await.map_err(|fault| self.error(fault))?
            };
            // Too long for a packet, or for the server's limit of packets (response rate limiting).
            if answer.metadata.truncation { self.call(request, deadline).await } else { Ok(answer) }
        };
        let answer = time::timeout_at(deadline, asking).await;
        answer.unwrap_or_else(|_| Err(late())).map_err(Error::not_applied)
    }

    async fn ask_at(&self, server: SocketAddr, request: &Message) -> Result<Message, Fault> {
        let local =
            if server.is_ipv4() { IpAddr::from(Ipv4Addr::UNSPECIFIED) } else { Ipv6Addr::UNSPECIFIED.into() };
        let socket = UdpSocket::bind((local, 0)).await.map_err(Fault::Unsent)?;
        socket.connect(server).await.map_err(Fault::Unsent)?;
        let (bytes, mut verifier) = self.encoded(request)?;
        let mut buffer = vec![0; 4096];
        loop {
            // A lost packet is no outage; a port where nobody listens is. What is asked again is the same question, so that
            // an answer to it that is late is one.
            socket.send(&bytes).await.map_err(Fault::Broken)?;
            let again = Instant::now() + AGAIN;
            while let Ok(received) = time::timeout_at(again, socket.recv(&mut buffer)).await {
                let size = received.map_err(Fault::Broken)?;
                // Anybody can send us packets: one that is not the answer must not keep the answer away.
                match verified(&buffer[..size], request, verifier.as_mut()) {
                    Err(Fault::Nonsense) => {}
                    answer => return answer,
                }
            }
        }
    }

    /// Sends a request by TCP and waits for the one message that answers it.
    pub(super) async fn call(&self, request: &Message, deadline: Instant) -> Result<Message> {
        self.converse(request, deadline, |answer| Ok(Some(answer))).await
    }

    /// Sends a request by TCP and hands each message of the answer on, until that has what it wants.
    pub(super) async fn converse<T>(
        &self,
        request: &Message,
        deadline: Instant,
        mut take: impl FnMut(Message) -> Result<Option<T>>,
    ) -> Result<T> {
        let conversation = async {
            let _permit = self.permits.acquire().await;
            let mut stream = self.connection().await?;
            let (bytes, mut verifier) = self.encoded(request).map_err(|fault| self.error(fault))?;
            send(&mut stream, &bytes).await.map_err(|error| self.error(Fault::Broken(error)))?;
            loop {
                let bytes = receive(&mut stream).await.map_err(|error| self.error(Fault::Broken(error)))?;
                let answer = verified(&bytes, request, verifier.as_mut());
                if let Some(taken) = take(answer.map_err(|fault| self.error(fault))?)? {
                    if let Some(verifier) = &verifier {
                        verifier.finish().map_err(|flaw| self.error(Fault::Disbelieved(flaw)))?;
                    }
                    self.keep(stream);
                    return Ok(taken);
                }
            }
        };
        time::timeout_at(deadline, conversation).await.unwrap_or_else(|_| Err(late()))
    }

    /// A connection that is good as far as one can see.
    async fn connection(&self) -> Result<TcpStream> {
        while let Some(idle) = self.idle().pop() {
            // Anything to be read here is an end, or an answer to nothing.
            let quiet = matches!(idle.stream.try_read(&mut [0; 1]), Err(error) if error.kind() == io::ErrorKind::WouldBlock);
            if quiet && idle.since.elapsed() < IDLE {
                return Ok(idle.stream);
            }
        }
        let server = self.resolve().await?;
        let stream = TcpStream::connect(server).await.map_err(|error| self.error(Fault::Unsent(error)))?;
        // A message is one write: there is nothing to wait for.
        let _ = stream.set_nodelay(true);
        Ok(stream)
    }

    fn keep(&self, stream: TcpStream) {
        let mut idle = self.idle();
        idle.retain(|idle| idle.since.elapsed() < IDLE);
        if idle.len() < IDLE_MAX {
            idle.push(Idle { stream, since: Instant::now() });
        }
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Idle>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where the server is now.
    pub(super) async fn resolve(&self) -> Result<SocketAddr> {
        if let Ok(address) = self.address.parse() {
            return Ok(address);
        }
        let unknown = || {
            let message = format!("the server {} has no address now; check its name", self.address);
            Error::new(ErrorKind::Unavailable, message).not_applied()
        };
        let mut found = lookup_host(&self.address).await.map_err(|error| unknown().with_source(error))?;
        found.next().ok_or_else(unknown)
    }

    fn encoded(&self, request: &Message) -> Result<(Vec<u8>, Option<Verifier>), Fault> {
        let unsent = |error| Fault::Unsent(io::Error::other(error));
        let mut bytes = request.to_vec().map_err(unsent)?;
        let verifier = self.key.as_ref().map(|key| key.sign_request(&mut bytes, now()));
        Ok((bytes, verifier))
    }

    fn error(&self, fault: Fault) -> Error {
        let server = &self.address;
        let broken = |error: io::Error| {
            let message = format!("the connection to {server} broke before the answer came");
            Error::new(ErrorKind::Unavailable, message).with_source(error)
        };
        match fault {
            Fault::Unsent(error) => Error::new(
                ErrorKind::Unavailable,
                format!("{server} cannot be reached; is it a DNS server that is up?"),
            )
            .with_source(error)
            .not_applied(),
            Fault::Broken(error) if error.kind() == io::ErrorKind::ConnectionRefused => Error::new(
                ErrorKind::Unavailable,
                format!("nobody listens at {server}; is the DNS server up?"),
            )
            .with_source(error)
            .not_applied(),
            Fault::Broken(error) => broken(error),
            Fault::Nonsense => Error::new(
                ErrorKind::Unavailable,
                format!("what {server} answered does not belong to the request"),
            ),
            Fault::Disbelieved(flaw) => self.disbelieved(flaw),
        }
    }

    fn disbelieved(&self, flaw: Flaw) -> Error {
        let server = &self.address;
        let key = self.key.as_ref().map(|key| format!("{key:?}")).unwrap_or_default();
        // What a server says of our key comes without proof; but then it has not done what it was asked to.
        let denied = |why: &str| Error::new(ErrorKind::Denied, format!("{server} {why}"));
        match flaw {
            Flaw::Key => denied(&format!("does not know {key}; check its name and algorithm")),
            Flaw::Signature => denied(&format!("does not accept {key}; check its secret")),
            Flaw::Time => Error::new(
                ErrorKind::Unavailable,
                format!("the clocks here and of {server} are more than five minutes apart; set them"),
            )
            .not_applied(),
            Flaw::Missing | Flaw::Malformed => Error::new(
                ErrorKind::Denied,
                format!(
                    "{server} answers without a signature by {key}; check that it knows the key, and has the zone"
                ),
            ),
        }
    }
}

/// The answer, if it is one to be believed.
fn verified(bytes: &[u8], request: &Message, verifier: Option<&mut Verifier>) -> Result<Message, Fault> {
    let answer = Message::from_vec(bytes).map_err(|_| Fault::Nonsense)?;
    let fits = answer.metadata.id == request.metadata.id
        && answer.metadata.message_type == MessageType::Response
        && answer.metadata.op_code == request.metadata.op_code;
    // Later messages of a transfer, and answers to updates, may leave the question out.
    let asked = answer.queries.is_empty() || answer.queries == request.queries;
    if !fits || !asked {
        return Err(Fault::Nonsense);
    }
    if let Some(verifier) = verifier {
        verifier.verify(bytes, now()).map_err(Fault::Disbelieved)?;
    }
    Ok(answer)
}

async fn send(stream: &mut TcpStream, message: &[u8]) -> io::Result<()> {
    let length = u16::try_from(message.len())
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "a message of more than 65535 bytes"))?;
    stream.write_all(&[&length.to_be_bytes(), message].concat()).await
}

async fn receive(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut message = vec![0; stream.read_u16().await?.into()];
    stream.read_exact(&mut message).await?;
    Ok(message)
}

/// The time of signatures: seconds since 1970.
pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

fn late() -> Error {
    Error::new(ErrorKind::Timeout, "no answer within the call timeout")
}
