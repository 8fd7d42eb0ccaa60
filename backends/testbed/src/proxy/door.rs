//! A listening socket that can stop to listen without giving up its port.

use std::{future::pending, io, net::SocketAddr};

use rustix::net::{Shutdown, listen, shutdown};
use tokio::{
    net::{TcpListener, TcpStream},
    time::sleep,
};

use crate::process::POLL;

/// How many connections the kernel holds until the proxy takes them.
const BACKLOG: i32 = 1024;

/// The port of a proxy.
///
/// Shutting a listening socket down makes Linux refuse connections while the port stays bound, until `listen`.
/// Closing the socket would not do for refusing: a child that another thread forks at that moment has a copy,
/// which goes on to listen until the child execs, and meanwhile keeps the port from being bound again.
pub(super) struct Door {
    socket: std::net::TcpListener,
    /// The same socket as the runtime knows it, while it listens. Registered anew each time, since the runtime
    /// remembers for good that a socket was shut down.
    listener: Option<TcpListener>,
}

impl Door {
    pub(super) fn open(address: SocketAddr) -> io::Result<Self> {
        let socket = std::net::TcpListener::bind(address)?;
        socket.set_nonblocking(true)?;
        let mut door = Self { socket, listener: None };
        door.reopen()?;
        Ok(door)
    }

    /// Accepts connections again, if it was shut.
    pub(super) fn reopen(&mut self) -> io::Result<()> {
        if self.listener.is_none() {
            listen(&self.socket, BACKLOG)?;
            self.listener = Some(TcpListener::from_std(self.socket.try_clone()?)?);
        }
        Ok(())
    }

    /// Refuses connections, also those that wait to be accepted.
    pub(super) fn shut(&mut self) -> io::Result<()> {
        if self.listener.take().is_some() {
            shutdown(&self.socket, Shutdown::Read)?;
        }
        Ok(())
    }

    /// The next connection; never ready while the door is shut.
    pub(super) async fn accept(&self) -> TcpStream {
        let Some(listener) = &self.listener else { return pending().await };
        loop {
            match listener.accept().await {
                Ok((client, _)) => return client,
                // Out of file descriptors, or a client that left already: neither is the end of the proxy.
                Err(_) => sleep(POLL).await,
            }
        }
    }
}
