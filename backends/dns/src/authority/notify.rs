//! Tells secondaries that there is something new (RFC 1996).
//!
//! One that has not answered yet is told again a few times, then left alone until the next change. Changes that come
//! meanwhile are told by one message, once it has answered.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use tokio::{
    net::UdpSocket,
    time::{Instant, sleep_until},
};
use tracing::debug;

use super::{
    wire::{Rr, code},
    zone::Zone,
};

/// How long who asked for it is notified.
const SUBSCRIBED: Duration = Duration::from_secs(60);
/// How many may have asked.
const SUBSCRIBERS_MAX: usize = 1024;
/// How long the first answer is waited for; each time twice as long.
const PATIENCE: Duration = Duration::from_millis(500);
const ATTEMPTS: u32 = 5;
/// How long a secondary is left alone before it is told of the next change. Who asked for it is told at once.
const REST: Duration = Duration::from_millis(100);

/// Those that asked to be notified, and until when.
#[derive(Debug, Default)]
pub(crate) struct Subscribers(HashMap<SocketAddr, Instant>);

impl Subscribers {
    /// From now on for a while. If there are too many already, not at all: who asks regularly misses nothing.
    pub(crate) fn add(&mut self, address: SocketAddr, now: Instant) {
        if self.0.len() >= SUBSCRIBERS_MAX && !self.0.contains_key(&address) {
            self.expire(now);
            if self.0.len() >= SUBSCRIBERS_MAX {
                return;
            }
        }
        self.0.insert(address, now + SUBSCRIBED);
    }

    fn now(&mut self, now: Instant) -> Vec<SocketAddr> {
        self.expire(now);
        self.0.keys().copied().collect()
    }

    fn expire(&mut self, now: Instant) {
        self.0.retain(|_, end| *end > now);
    }
}

/// A message that has not been answered.
#[derive(Debug)]
struct Open {
    id: u16,
    serial: u32,
    attempts: u32,
    again: Instant,
}

/// What somebody knows.
#[derive(Debug)]
struct Told {
    serial: u32,
    /// When it may be told the next.
    again: Instant,
}

/// Notifies all that want to know of a zone.
#[derive(Debug)]
pub(crate) struct Notifier {
    zone: Arc<Zone>,
    sockets: Vec<UdpSocket>,
    open: HashMap<SocketAddr, Open>,
    told: HashMap<SocketAddr, Told>,
}

impl Notifier {
    /// One that sends from the addresses that the authority listens on: secondaries want to know who tells them.
    pub(crate) async fn new(zone: Arc<Zone>, addresses: &[SocketAddr]) -> std::io::Result<Self> {
        let mut sockets = Vec::new();
        for is_v4 in [true, false] {
            let own = addresses.iter().map(SocketAddr::ip).find(|own| own.is_ipv4() == is_v4);
            let any = if is_v4 { IpAddr::V4(Ipv4Addr::UNSPECIFIED) } else { Ipv6Addr::UNSPECIFIED.into() };
            match UdpSocket::bind((own.unwrap_or(any), 0)).await {
                Ok(socket) => sockets.push(socket),
                // A machine may have only one of the two.
                Err(error) if own.is_some() => return Err(error),
                Err(_) => {}
            }
        }
        Ok(Self { zone, sockets, open: HashMap::new(), told: HashMap::new() })
    }

    /// Does so for as long as it is polled. All are told once at the start.
    pub(crate) async fn run(mut self) {
        let mut serials = self.zone.serials();
        loop {
            let serial = self.tell(Instant::now()).await;
            // Who has not answered yet is told again, not anew.
            let later =
                self.told.iter().filter(|(to, told)| told.serial != serial && !self.open.contains_key(to));
            let later = later.map(|(_, told)| told.again);
            let again = self.open.values().map(|open| open.again).chain(later).min();
            let again = async {
                match again {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                _ = serials.changed() => {}
                () = again => {}
                (from, id) = answered(&self.sockets) => self.close(from, id),
            }
        }
    }

    /// Sends what is to be sent now; returns the serial that this is about.
    async fn tell(&mut self, now: Instant) -> u32 {
        let soa = self.zone.table().soa().clone();
        let serial = super::table::serial_of(&soa);
        let mut targets = self.zone.secondaries().to_vec();
        // Who has asked for the serial knows it.
        targets.extend(self.zone.subscribers().now(now));
        self.open.retain(|target, _| targets.contains(target));
        self.told.retain(|target, _| targets.contains(target));
        for target in targets {
            match self.open.get_mut(&target) {
                None if self
                    .told
                    .get(&target)
                    .is_some_and(|told| told.serial == serial || told.again > now) =>
                {
                    continue;
                }
                None => {
                    let open = Open { id: fastrand::u16(..), serial, attempts: 1, again: now + PATIENCE };
                    self.open.insert(target, open);
                }
                Some(open) if open.again > now => continue,
                Some(open) if open.attempts < ATTEMPTS => {
                    open.serial = serial;
                    open.again = now + PATIENCE * 2_u32.pow(open.attempts);
                    open.attempts += 1;
                }
                Some(open) => {
                    debug!(%target, zone = ?self.zone.apex(), "no answer to a NOTIFY");
                    let serial = open.serial;
                    self.finish(target, serial, now);
                    continue;
                }
            }
            let Some(open) = self.open.get(&target) else { continue };
            let message = message(open.id, &soa);
            let socket = self
                .sockets
                .iter()
                .find(|socket| socket.local_addr().is_ok_and(|own| own.is_ipv4() == target.is_ipv4()));
            if let Some(socket) = socket {
                // If it fails, it is tried again like one that got lost.
                let _ = socket.send_to(&message, target).await;
            }
        }
        serial
    }

    fn close(&mut self, from: SocketAddr, id: u16) {
        if let Some(open) = self.open.get(&from).filter(|open| open.id == id) {
            let serial = open.serial;
            self.finish(from, serial, Instant::now());
        }
    }

    fn finish(&mut self, target: SocketAddr, serial: u32, now: Instant) {
        self.open.remove(&target);
        let is_secondary = self.zone.secondaries().contains(&target);
        let again = if is_secondary { now + REST } else { now };
        self.told.insert(target, Told { serial, again });
    }
}

/// Who has answered, and to which message.
async fn answered(sockets: &[UdpSocket]) -> (SocketAddr, u16) {
    let receive = |socket| async move {
        let socket: &UdpSocket = socket;
        loop {
            let mut answer = [0; 512];
            // Errors are those of earlier messages: nobody listens there.
            if let Ok((4.., from)) = socket.recv_from(&mut answer).await
                && answer[2] & 0x80 != 0
            {
                return (from, u16::from_be_bytes([answer[0], answer[1]]));
            }
            tokio::task::yield_now().await;
        }
    };
    match sockets {
        [one] => receive(one).await,
        [one, other, ..] => tokio::select! {
            answer = receive(one) => answer,
            answer = receive(other) => answer,
        },
        [] => std::future::pending().await,
    }
}

fn message(id: u16, soa: &Rr) -> Vec<u8> {
    let mut message = Vec::with_capacity(128);
    message.extend(id.to_be_bytes());
    // Opcode 4, authoritative; one question, and the new SOA record as a hint.
    message.extend([0x24, 0, 0, 1, 0, 1, 0, 0, 0, 0]);
    message.extend(&*soa.name);
    message.extend(code::SOA.to_be_bytes());
    message.extend(code::IN.to_be_bytes());
    soa.emit(&mut message);
    message
}
