//! Keeping an eye on the server: one task a handle, as long as there are watches or leases.
//!
//! It asks for the serial once a [poll interval](super::ZoneConfig::poll_interval), and at once when the server sends a
//! NOTIFY (RFC 1996) or this handle has written. What it hears goes to all watches; when it hears nothing any more, they
//! end. And it ends leases that fell silent, and sweeps away what they leave.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use discovery::{ErrorKind, Result};
use hickory_proto::op::{Message, MessageType, OpCode};
use tokio::{
    net::UdpSocket,
    task::JoinHandle,
    time::{self, Instant},
};

use super::{Notify, Shared, log::Work};

/// How long to wait, at most, before ending what has fallen silent: so that not all who notice do it.
const SWEEP_DELAY: Duration = Duration::from_millis(300);

/// How many polls to wait before trying again to sweep what the server has not let us.
const REFUSED_POLLS: u32 = 30;

/// The task; dropped, it ends.
#[derive(Debug)]
pub(super) struct Eye(JoinHandle<()>);

impl Eye {
    pub(super) fn open(shared: Arc<Shared>) -> Self {
        Self(tokio::spawn(
            Watchman { shared, socket: None, is_deaf: false, sweep: None, refused: None }.run(),
        ))
    }
}

impl Eye {
    /// Whether it is still there; it goes with the runtime that it was opened on.
    pub(super) fn is_open(&self) -> bool {
        !self.0.is_finished()
    }
}

impl Drop for Eye {
    fn drop(&mut self) {
        self.0.abort();
    }
}

struct Watchman {
    shared: Arc<Shared>,
    /// Where NOTIFY comes in.
    socket: Option<UdpSocket>,
    /// Whether that could not be opened, which was told.
    is_deaf: bool,
    /// When to sweep, if there is anything to be swept away.
    sweep: Option<Instant>,
    /// When the server last did not let us.
    refused: Option<Instant>,
}

impl Watchman {
    async fn run(mut self) {
        loop {
            self.listen().await;
            let began = Instant::now();
            match self.shared.replica.sync(began + self.shared.config.silence_timeout()).await {
                Ok(()) => self.tidy().await,
                Err(error) => {
                    tracing::debug!(zone = %self.shared.replica.origin, %error, "lost the server");
                    self.shared.replica.lose(error);
                }
            }
            self.rest(began).await;
        }
    }

    /// Waits until it is time to look again, or there is a reason to.
    async fn rest(&self, began: Instant) {
        let interval = self.shared.config.poll_interval();
        // Clients that were started together should not ask together for ever.
        let jitter = interval.mul_f64(0.9 + 0.2 * fastrand::f64());
        let due = self.sweep.map_or(began + jitter, |sweep| sweep.min(began + jitter));
        let notified = async {
            match &self.socket {
                Some(socket) => self.notified(socket).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = time::sleep_until(due) => {}
            () = self.shared.bell.notified() => {}
            () = notified => {}
        }
    }

    /// Ends what has fallen silent, after a moment.
    async fn tidy(&mut self) {
        let heard = self.shared.replica.heard();
        let found = self.shared.replica.look(|mirror| {
            let lapsed = heard.map(|heard| mirror.lapsed(heard)).unwrap_or_default();
            (lapsed, mirror.orphans().next().is_some())
        });
        let Some((lapsed, orphans)) = found else { return };
        let pause = self.shared.config.poll_interval() * REFUSED_POLLS;
        let is_refused = self.refused.is_some_and(|since| since.elapsed() < pause);
        if lapsed.is_empty() && !orphans || is_refused {
            self.sweep = None;
            return;
        }
        let now = Instant::now();
        let due = *self.sweep.get_or_insert_with(|| now + SWEEP_DELAY.mul_f64(fastrand::f64()));
        if now < due {
            return;
        }
        self.sweep = None;
        for (id, beat) in lapsed {
            tracing::debug!(zone = %self.shared.replica.origin, lease = %id, "a lease fell silent");
            self.take_note(self.shared.write(Work::End(id, Some(beat))).await);
            if self.refused.is_some() {
                return;
            }
        }
        if orphans {
            self.take_note(self.shared.write(Work::Sweep).await);
        }
    }

    fn take_note<T>(&mut self, outcome: Result<T>) {
        match outcome {
            Err(error) if error.kind() == ErrorKind::Denied => {
                if self.refused.is_none() {
                    tracing::warn!(zone = %self.shared.replica.origin, %error, "may not sweep; others have to");
                }
                self.refused = Some(Instant::now());
            }
            Err(_) => {}
            Ok(_) => self.refused = None,
        }
    }

    /// Opens the socket for NOTIFY, if there is to be one and is none.
    async fn listen(&mut self) {
        if self.socket.is_some() {
            return;
        }
        let address = match self.shared.config.notify() {
            Notify::Off => return,
            Notify::At(address) => address,
            Notify::Auto => {
                // The address that the server would see of us.
                let Ok(server) = self.shared.replica.server.resolve().await else { return };
                let Ok(local) = local_address(server).await else { return };
                SocketAddr::new(local, 0)
            }
        };
        match UdpSocket::bind(address).await {
            Ok(socket) => {
                let port = socket.local_addr().map_or(0, |address| address.port());
                self.shared.replica.notify_port.store(port, Ordering::Relaxed);
                self.socket = Some(socket);
                self.is_deaf = false;
            }
            Err(_) if self.is_deaf => {}
            Err(error) => {
                self.is_deaf = true;
                tracing::warn!(zone = %self.shared.replica.origin, %address, %error, "cannot listen for NOTIFY; polling");
            }
        }
    }

    /// Waits for a NOTIFY for the zone, and answers it. Whoever sends one achieves no more than that we ask the server.
    async fn notified(&self, socket: &UdpSocket) {
        let mut buffer = [0; 1500];
        loop {
            let Ok((size, from)) = socket.recv_from(&mut buffer).await else {
                // A socket that is broken is no reason to spin.
                return std::future::pending().await;
            };
            let Ok(message) = Message::from_vec(&buffer[..size]) else { continue };
            let is_notify = message.metadata.op_code == OpCode::Notify
                && message.metadata.message_type == MessageType::Query
                && message
                    .queries
                    .first()
                    .is_some_and(|query| query.name() == self.shared.replica.origin.name());
            if is_notify {
                let mut answer = Message::response(message.metadata.id, OpCode::Notify);
                answer.metadata.authoritative = true;
                answer.add_queries(message.queries);
                if let Ok(bytes) = answer.to_vec() {
                    let _ = socket.send_to(&bytes, from).await;
                }
                return;
            }
        }
    }
}

/// The address that packets to `server` go out from.
async fn local_address(server: SocketAddr) -> std::io::Result<IpAddr> {
    let any =
        if server.is_ipv4() { IpAddr::from(Ipv4Addr::UNSPECIFIED) } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(server).await?;
    Ok(socket.local_addr()?.ip())
}
