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
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use discovery::{Error, ErrorKind, Result};
use futures_util::{StreamExt, stream::FuturesUnordered};
use hickory_proto::op::{Message, MessageType};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UdpSocket, lookup_host},
    sync::Semaphore,
    time::{self, Instant},
};

use crate::{
    protocol::unix_time,
    tsig::{Flaw, TsigKey, Verifier},
};

/// How many requests are on their way at once.
const CONCURRENCY: usize = 32;
/// How long an unused connection is kept, and how many: servers have few (BIND: 150 for all).
const IDLE: Duration = Duration::from_secs(1);
const IDLE_MAX: usize = 1;
/// How long to wait for an answer by UDP before asking again.
const AGAIN: Duration = Duration::from_millis(500);
/// How long to ask by UDP alone, without an answer.
const SILENCE: Duration = Duration::from_millis(1500);

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
    /// The server has no address.
    Unknown(io::Error),
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

    /// Asks by UDP, again and again until there is an answer; and by TCP as well where UDP does not do: an answer is too
    /// long or cannot be believed, or packets seem not to get through.
    pub(super) async fn ask(&self, request: &Message, deadline: Instant) -> Result<Message> {
        let asking = async {
            // One for both ways: if all have one and wait for a second one, they wait for ever.
            let _permit = self.permits.acquire().await;
            let by_udp = self.ask_by_udp(request);
            let by_tcp = || self.exchange(request, |answer| Ok(Some(answer)));
            tokio::pin!(by_udp);
            let by_udp = if let Ok(answer) = time::timeout(SILENCE, &mut by_udp).await {
                answer
            } else {
                // Whichever comes first; but for a failure of TCP, which says nothing about UDP.
                tokio::select! {
                    answer = &mut by_udp => answer,
                    Ok(answer) = by_tcp() => return Ok(answer),
                }
            };
            match by_udp {
                Ok(Some(answer)) => Ok(answer),
                Ok(None) => by_tcp().await,
                Err(fault) => Err(self.error(fault)),
            }
        };
        let answer = time::timeout_at(deadline, asking).await;
        answer.unwrap_or_else(|_| Err(late())).map_err(Error::not_applied)
    }

    /// The answer by UDP; `None` if it has to be asked for in another way.
    async fn ask_by_udp(&self, request: &Message) -> Result<Option<Message>, Fault> {
        let servers = self.addresses().await?;
        // Encoded and signed once: what verifies the answer to one packet verifies it for all.
        let (packet, verifier) = self.encoded(request)?;
        let mut sockets = Vec::<Arc<UdpSocket>>::new();
        let mut answers = FuturesUnordered::new();
        let mut refusal = None;
        for round in 0.. {
            let at = round % servers.len();
            if at == sockets.len() {
                let socket = Arc::new(socket_to(servers[at]).await.map_err(Fault::Unsent)?);
                sockets.push(socket.clone());
                answers.push(answer_on(socket, request, verifier.as_ref()));
            }
            // A refusal of the last packet is told to the next one.
            let _ = sockets[at].send(&packet).await;
            let due = Instant::now() + AGAIN;
            while let Ok(Some(answer)) = time::timeout_at(due, answers.next()).await {
                match answer {
                    Ok(answer) if answer.metadata.truncation => return Ok(None),
                    Ok(answer) => return Ok(Some(answer)),
                    Err(Fault::Broken(error)) => refusal = Some(error),
                    Err(_) => return Ok(None),
                }
            }
            if answers.is_empty() && sockets.len() == servers.len() {
                break;
            }
        }
        // A lost packet is no outage; a port where nobody listens is.
        Err(Fault::Broken(refusal.unwrap_or_else(|| io::ErrorKind::ConnectionRefused.into())))
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
        take: impl FnMut(Message) -> Result<Option<T>>,
    ) -> Result<T> {
        let conversation = async {
            let _permit = self.permits.acquire().await;
            self.exchange(request, take).await
        };
        time::timeout_at(deadline, conversation).await.unwrap_or_else(|_| Err(late()))
    }

    /// The same for whoever has a permit, without a deadline.
    async fn exchange<T>(
        &self,
        request: &Message,
        mut take: impl FnMut(Message) -> Result<Option<T>>,
    ) -> Result<T> {
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
        let servers = self.addresses().await.map_err(|fault| self.error(fault))?;
        let mut failure = None;
        for server in servers {
            match TcpStream::connect(server).await {
                Ok(stream) => {
                    // A message is one write: there is nothing to wait for.
                    let _ = stream.set_nodelay(true);
                    return Ok(stream);
                }
                Err(error) => failure = Some(error),
            }
        }
        Err(self.error(Fault::Unsent(failure.unwrap_or_else(|| io::ErrorKind::NotFound.into()))))
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
        let addresses = self.addresses().await.map_err(|fault| self.error(fault))?;
        Ok(addresses[0])
    }

    /// All its addresses; at least one.
    async fn addresses(&self) -> Result<Vec<SocketAddr>, Fault> {
        if let Ok(address) = self.address.parse() {
            return Ok(vec![address]);
        }
        let found: Vec<_> = lookup_host(&self.address).await.map_err(Fault::Unknown)?.collect();
        if found.is_empty() { Err(Fault::Unknown(io::ErrorKind::NotFound.into())) } else { Ok(found) }
    }

    fn encoded(&self, request: &Message) -> Result<(Vec<u8>, Option<Verifier>), Fault> {
        let unsent = |error| Fault::Unsent(io::Error::other(error));
        let mut bytes = request.to_vec().map_err(unsent)?;
        let verifier = self.key.as_ref().map(|key| key.sign_request(&mut bytes, unix_time()));
        Ok((bytes, verifier))
    }

    fn error(&self, fault: Fault) -> Error {
        let server = &self.address;
        let broken = |error: io::Error| {
            let message = format!("the connection to {server} broke before the answer came");
            Error::new(ErrorKind::Unavailable, message).with_source(error)
        };
        match fault {
            Fault::Unknown(error) => {
                let message = format!("the server {server} has no address now; check its name");
                Error::new(ErrorKind::Unavailable, message).with_source(error).not_applied()
            }
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

/// Waits for the answer to a question that was sent, however often.
async fn answer_on(
    socket: Arc<UdpSocket>,
    request: &Message,
    verifier: Option<&Verifier>,
) -> Result<Message, Fault> {
    let mut buffer = vec![0; 4096];
    loop {
        let size = socket.recv(&mut buffer).await.map_err(Fault::Broken)?;
        // Anybody can send us packets: one that is not the answer must not keep the answer away.
        match verified(&buffer[..size], request, verifier.cloned().as_mut()) {
            Err(Fault::Nonsense) => {}
            outcome => return outcome,
        }
    }
}

/// A socket that sends to a server and hears nobody else.
pub(super) async fn socket_to(server: SocketAddr) -> io::Result<UdpSocket> {
    let any =
        if server.is_ipv4() { IpAddr::from(Ipv4Addr::UNSPECIFIED) } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(server).await?;
    Ok(socket)
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
        verifier.verify(bytes, unix_time()).map_err(Fault::Disbelieved)?;
    }
    Ok(answer)
}

pub(super) async fn send(stream: &mut TcpStream, message: &[u8]) -> io::Result<()> {
    let length = u16::try_from(message.len())
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "a message of more than 65535 bytes"))?;
    stream.write_all(&[&length.to_be_bytes(), message].concat()).await
}

pub(super) async fn receive(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut message = vec![0; stream.read_u16().await?.into()];
    stream.read_exact(&mut message).await?;
    Ok(message)
}

fn late() -> Error {
    Error::new(ErrorKind::Timeout, "no answer within the call timeout")
}

#[cfg(test)]
mod tests {
    use discovery_testbed::Port;
    use futures_util::future::join_all;
    use hickory_proto::rr::{Name, RecordType};
    use tokio::net::TcpListener;

    use super::{super::message::question, *};

    /// Answers each question on a connection.
    async fn answer_all(mut stream: TcpStream) {
        while let Ok(request) = receive(&mut stream).await {
            let request = Message::from_vec(&request).unwrap();
            let mut answer = Message::response(request.metadata.id, request.metadata.op_code);
            answer.add_queries(request.queries);
            send(&mut stream, &answer.to_vec().unwrap()).await.unwrap();
        }
    }

    #[tokio::test]
    async fn tcp_helps_out_however_many_ask_at_once() {
        let port = Port::reserve().unwrap();
        let listener = TcpListener::bind(port.address()).await.unwrap();
        let _swallows = UdpSocket::bind(port.address()).await.unwrap();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(answer_all(stream));
            }
        });
        let server = Server::new(port.address().to_string(), None);
        let question = question(&Name::root(), RecordType::SOA);
        let deadline = Instant::now() + Duration::from_secs(20);
        for answer in join_all((0..2 * CONCURRENCY).map(|_| server.ask(&question, deadline))).await {
            answer.unwrap();
        }
    }
}
