//! Loopback ports that stay ours from the moment they are picked.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket},
    ops::Range,
};

/// Below the range from which Linux takes the ports of outgoing connections (32768 and up), so that while a
/// server is down nobody is given its port by chance. It also rules out the self-connect: a client that keeps
/// dialling a dead port of that range sooner or later gets the same number as its own source port, and the
/// kernel then connects the socket to itself.
const CANDIDATES: Range<u16> = 10_000..32_000;

/// How many candidates are tried before giving up; each is free with a high probability.
const ATTEMPTS: usize = 200;

/// How often a server is started, each time on other ports, before its ports being taken is reported.
const STARTS: usize = 5;

/// Starts a server, and again on other ports when a stranger took one after it was reserved.
pub(crate) async fn retry<T, F>(start: impl Fn() -> F) -> io::Result<T>
where
    F: Future<Output = io::Result<T>>,
{
    for _ in 1..STARTS {
        match start().await {
            Err(error) if was_taken(&error) => {}
            result => return result,
        }
    }
    start().await
}

/// Whether a start failed, by what the log in the error says, because a port was taken.
fn was_taken(error: &io::Error) -> bool {
    // In the words of the kernel (`strerror`), which Java, Go and C programs all repeat; only the case differs. BIND has
    // words of its own, one for TCP and one for UDP.
    let error = error.to_string().to_lowercase();
    ["address already in use", "address in use", "interface ignored"]
        .iter()
        .any(|words| error.contains(words))
}

/// The address on which a reservation is held. Servers listen on `127.0.0.1`, so the two never meet.
const TOKEN_ADDRESS: Ipv4Addr = Ipv4Addr::new(127, 63, 0, 1);

/// A port on `127.0.0.1`, for TCP and UDP, reserved for as long as this value lives.
///
/// The reservation is a socket of the same number on another loopback address. It keeps every other test
/// process that picks ports this way from taking the number, also while the server that owns it is down, and
/// the kernel releases it however the process ends. A stranger can still take the port, so a server that
/// cannot bind should be started again on another one.
#[derive(Debug)]
pub struct Port {
    number: u16,
    _token: UdpSocket,
}

impl Port {
    /// Reserves a port on which nobody listens.
    ///
    /// # Errors
    ///
    /// When no free port was found after many attempts.
    pub fn reserve() -> io::Result<Self> {
        (0..ATTEMPTS).find_map(|_| Self::try_reserve(fastrand::u16(CANDIDATES)).ok()).ok_or_else(|| {
            io::Error::other(format!(
                "no free loopback port found in {CANDIDATES:?} after {ATTEMPTS} attempts"
            ))
        })
    }

    fn try_reserve(number: u16) -> io::Result<Self> {
        let token = UdpSocket::bind((TOKEN_ADDRESS, number))?;
        let port = Self { number, _token: token };
        // Not by binding it: a child that another thread forks just now would hold on to the port until it execs.
        match TcpStream::connect(port.address()) {
            Ok(_) => return Err(io::ErrorKind::AddrInUse.into()),
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
            Err(error) => return Err(error),
        }
        if port.refuses_datagrams()? { Ok(port) } else { Err(io::ErrorKind::AddrInUse.into()) }
    }

    /// Whether nobody listens with UDP: a datagram to a closed port on loopback is refused before `send` returns.
    fn refuses_datagrams(&self) -> io::Result<bool> {
        let probe = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        probe.connect(self.address())?;
        probe.send(&[])?;
        Ok(probe.take_error()?.is_some_and(|error| error.kind() == io::ErrorKind::ConnectionRefused))
    }

    /// The port's number.
    pub fn number(&self) -> u16 {
        self.number
    }

    /// The port as an address on `127.0.0.1`.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.number))
    }
}

#[cfg(test)]
mod tests {
    use std::{cell::Cell, net::TcpListener};

    use super::*;

    #[test]
    fn a_reserved_port_is_not_handed_out_again() {
        let port = Port::reserve().unwrap();
        assert!(Port::try_reserve(port.number()).is_err());
    }

    #[test]
    fn a_port_that_a_stranger_uses_is_not_handed_out() {
        let port = Port::reserve().unwrap();
        let _stranger =
            TcpListener::bind(port.address()).expect("a reservation does not keep the port from servers");
        let number = port.number();
        drop(port);
        assert!(Port::try_reserve(number).is_err());

        let port = Port::reserve().unwrap();
        let _stranger = UdpSocket::bind(port.address()).unwrap();
        let number = port.number();
        drop(port);
        assert!(Port::try_reserve(number).is_err());
    }

    #[tokio::test]
    async fn a_start_is_tried_again_only_when_a_port_was_taken() {
        let port = Port::reserve().unwrap();
        let _stranger = TcpListener::bind(port.address()).unwrap();
        let taken = TcpListener::bind(port.address()).unwrap_err().to_string();
        for (failure, starts) in [(taken, STARTS), ("out of memory".to_owned(), 1)] {
            let (count, failure) = (&Cell::new(0), &failure);
            let start = || async move {
                count.set(count.get() + 1);
                Err::<(), _>(io::Error::other(format!("the log ends with: {failure}")))
            };
            let error = retry(start).await.unwrap_err().to_string();
            assert!(error.contains(failure), "{error}");
            assert_eq!(count.get(), starts);
        }
        assert_eq!(retry(|| async { Ok("up") }).await.unwrap(), "up");
    }
}
