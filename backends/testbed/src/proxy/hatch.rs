//! A UDP socket that can refuse datagrams without giving up its port.

use std::{
    io,
    net::{SocketAddr, UdpSocket},
    sync::Arc,
};

use rustix::net::{connect, connect_unspec};
use tokio::time::sleep;

use crate::process::POLL;

/// More than any datagram.
const LARGEST: usize = 64 << 10;

/// The UDP port of a proxy.
///
/// A socket that is connected takes datagrams from its peer only; all others are refused, as where nobody listens. So it
/// is shut by connecting it to itself. Why it is not closed for that is told at [`Door`](super::door::Door).
pub(super) struct Hatch {
    socket: Arc<tokio::net::UdpSocket>,
    address: SocketAddr,
    buffer: Vec<u8>,
}

impl Hatch {
    pub(super) fn open(address: SocketAddr) -> io::Result<Self> {
        let socket = UdpSocket::bind(address)?;
        socket.set_nonblocking(true)?;
        let socket = Arc::new(tokio::net::UdpSocket::from_std(socket)?);
        Ok(Self { socket, address, buffer: vec![0; LARGEST] })
    }

    /// Takes datagrams again, if it was shut.
    pub(super) fn reopen(&mut self) -> io::Result<()> {
        Ok(connect_unspec(&self.socket)?)
    }

    /// Refuses datagrams; those that wait to be received are lost.
    pub(super) fn shut(&mut self) -> io::Result<()> {
        connect(&self.socket, &self.address)?;
        while self.socket.try_recv(&mut self.buffer).is_ok() {}
        Ok(())
    }

    /// The next datagram, and who sent it; never ready while the hatch is shut.
    pub(super) async fn receive(&mut self) -> (Vec<u8>, SocketAddr) {
        loop {
            match self.socket.recv_from(&mut self.buffer).await {
                Ok((length, client)) => return (self.buffer[..length].to_vec(), client),
                // A client that has left its port refuses what was sent to it.
                Err(_) => sleep(POLL).await,
            }
        }
    }

    /// The socket, for replies.
    pub(super) fn socket(&self) -> Arc<tokio::net::UdpSocket> {
        Arc::clone(&self.socket)
    }
}
