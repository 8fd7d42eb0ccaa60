//! Listening for NOTIFY (RFC 1996).
//!
//! Whoever sends one achieves no more than that the server is asked for its serial. So it is not asked who sends it.

use std::{io, time::Duration};

use hickory_proto::op::{Message, MessageType, OpCode};
use tokio::{
    net::{TcpListener, TcpStream, UdpSocket},
    time,
};

use super::{config::Notify, server};
use crate::names::Origin;

/// How long somebody may take who connects to tell us something.
const PATIENCE: Duration = Duration::from_secs(2);

/// Where NOTIFY comes in.
#[derive(Debug)]
pub(super) struct Listener {
    origin: Origin,
    udp: UdpSocket,
    /// Knot notifies by TCP.
    tcp: Option<TcpListener>,
}

impl Listener {
    /// Listens as it is configured; `None` if that is not at all.
    pub(super) async fn open(
        origin: &Origin,
        notify: Notify,
        server: &server::Server,
    ) -> io::Result<Option<Self>> {
        let (udp, tcp) = match notify {
            Notify::Off => return Ok(None),
            Notify::At(address) => (UdpSocket::bind(address).await?, Some(TcpListener::bind(address).await?)),
            // At the address that the server sees of us.
            Notify::Auto => {
                let server = server.resolve().await.map_err(io::Error::other)?;
                let local = server::socket_to(server).await?.local_addr()?.ip();
                (UdpSocket::bind((local, 0)).await?, None)
            }
        };
        Ok(Some(Self { origin: origin.clone(), udp, tcp }))
    }

    pub(super) fn port(&self) -> u16 {
        self.udp.local_addr().map_or(0, |address| address.port())
    }

    /// Waits for a NOTIFY for the zone, and answers it.
    ///
    /// # Cancel safety
    ///
    /// One that is on its way may be lost; its sender repeats it.
    pub(super) async fn heard(&self) {
        let by_tcp = async {
            match &self.tcp {
                Some(listener) => self.heard_by_tcp(listener).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = self.heard_by_udp() => {}
            () = by_tcp => {}
        }
    }

    async fn heard_by_udp(&self) {
        let mut buffer = [0; 1500];
        loop {
            let Ok((size, from)) = self.udp.recv_from(&mut buffer).await else {
                // A socket that is broken is no reason to spin.
                return std::future::pending().await;
            };
            if let Some(answer) = self.answer(&buffer[..size]) {
                let _ = self.udp.send_to(&answer, from).await;
                return;
            }
        }
    }

    async fn heard_by_tcp(&self, listener: &TcpListener) {
        loop {
            let Ok((mut stream, _)) = listener.accept().await else { return std::future::pending().await };
            if let Ok(true) = time::timeout(PATIENCE, self.told(&mut stream)).await {
                return;
            }
        }
    }

    /// Whether what comes by a connection is a NOTIFY for the zone.
    async fn told(&self, stream: &mut TcpStream) -> bool {
        let Ok(message) = server::receive(stream).await else { return false };
        let Some(answer) = self.answer(&message) else { return false };
        let _ = server::send(stream, &answer).await;
        true
    }

    /// The answer to a NOTIFY for the zone.
    fn answer(&self, message: &[u8]) -> Option<Vec<u8>> {
        let message = Message::from_vec(message).ok()?;
        let is_notify = message.metadata.op_code == OpCode::Notify
            && message.metadata.message_type == MessageType::Query
            && message.queries.first()?.name() == self.origin.name();
        let mut answer = Message::response(message.metadata.id, OpCode::Notify);
        answer.metadata.authoritative = true;
        answer.add_queries(message.queries);
        is_notify.then(|| answer.to_vec().ok())?
    }
}
