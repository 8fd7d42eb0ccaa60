//! The datagrams of one client, there and back.

use std::{
    collections::{HashMap, VecDeque},
    future::pending,
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use tokio::{
    net::UdpSocket,
    select,
    sync::{mpsc, watch},
    task::JoinSet,
    time::{Instant, sleep},
};

use super::{
    Mode,
    pump::{Direction, Fate, until},
};

/// An association ends when its client has neither sent nor been sent anything for this long.
const IDLE: Duration = Duration::from_secs(30);

/// More than any datagram.
const LARGEST: usize = 64 << 10;

/// The clients that send datagrams, and a task for each.
#[derive(Default)]
pub(super) struct Associations {
    clients: HashMap<SocketAddr, mpsc::UnboundedSender<Vec<u8>>>,
    tasks: JoinSet<SocketAddr>,
}

impl Associations {
    /// Hands a datagram to the association that has begun with `client`, or gives it back.
    pub(super) fn deliver(&self, datagram: Vec<u8>, client: SocketAddr) -> Result<(), Vec<u8>> {
        let Some(sender) = self.clients.get(&client) else { return Err(datagram) };
        sender.send(datagram).map_err(|mpsc::error::SendError(datagram)| datagram)
    }

    /// Begins an association with its first datagram.
    pub(super) fn begin(&mut self, datagram: Vec<u8>, association: Association) {
        let (sender, from_client) = mpsc::unbounded_channel();
        // It cannot be full, and its other end is here.
        let _ = sender.send(datagram);
        let client = association.client;
        self.clients.insert(client, sender);
        self.tasks.spawn(async move {
            // What cannot be sent is lost; there is nobody to tell.
            let _ = association.run(from_client).await;
            client
        });
    }

    /// Forgets the next association that ends.
    pub(super) async fn forget_ended(&mut self) {
        match self.tasks.join_next().await {
            // Its client may have begun another meanwhile.
            Some(Ok(client)) if self.clients.get(&client).is_some_and(mpsc::UnboundedSender::is_closed) => {
                self.clients.remove(&client);
            }
            Some(_) => {}
            None => pending().await,
        }
    }

    /// Loses everything under way.
    pub(super) async fn cut(&mut self) {
        self.clients.clear();
        self.tasks.shutdown().await;
    }
}

/// One client.
pub(super) struct Association {
    pub(super) client: SocketAddr,
    pub(super) target: SocketAddr,
    /// Where the client sends to, and hears from.
    pub(super) socket: Arc<UdpSocket>,
    pub(super) mode: watch::Receiver<Mode>,
}

impl Association {
    /// Passes datagrams on as the mode says, until there are none for a while.
    async fn run(mut self, mut from_client: mpsc::UnboundedReceiver<Vec<u8>>) -> io::Result<()> {
        // Connected, so that only the target can send to it.
        let target = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        target.connect(self.target).await?;
        let (mut up, mut down) = (Line::new(Direction::ToTarget), Line::new(Direction::ToClient));
        let mut buffer = vec![0; LARGEST];
        loop {
            // Looked at again before every single datagram, so that a new mode holds for what is under way.
            let mode = *self.mode.borrow_and_update();
            let (up_due, down_due) = (up.due(mode), down.due(mode));
            let is_idle = up.held.is_empty() && down.held.is_empty();
            select! {
                biased;
                changed = self.mode.changed() => if changed.is_err() {
                    return Ok(());
                },
                () = until(up_due) => if let Some(datagram) = up.next() {
                    // A target that is down refuses the next datagram for the last.
                    let _ = target.send(&datagram).await;
                },
                () = until(down_due) => if let Some(datagram) = down.next() {
                    self.socket.send_to(&datagram, self.client).await?;
                },
                datagram = from_client.recv() => match datagram {
                    Some(datagram) => up.hold(datagram),
                    None => return Ok(()),
                },
                received = target.recv(&mut buffer) => if let Ok(length) = received {
                    down.hold(buffer[..length].to_vec());
                },
                () = sleep(IDLE), if is_idle => return Ok(()),
            }
        }
    }
}

/// One direction, with what a delay holds back.
struct Line {
    direction: Direction,
    held: VecDeque<(Instant, Vec<u8>)>,
}

impl Line {
    fn new(direction: Direction) -> Self {
        Self { direction, held: VecDeque::new() }
    }

    fn hold(&mut self, datagram: Vec<u8>) {
        self.held.push_back((Instant::now(), datagram));
    }

    fn next(&mut self) -> Option<Vec<u8>> {
        Some(self.held.pop_front()?.1)
    }

    /// When the next datagram is to be passed on; those that are not to be are lost.
    fn due(&mut self, mode: Mode) -> Option<Instant> {
        let fate = self.direction.fate(mode);
        if !matches!(fate, Fate::Passes(_)) {
            self.held.clear();
        }
        fate.due(self.held.front().map(|(arrived, _)| *arrived))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_association_that_is_idle_ends_and_is_forgotten() {
        let socket = Arc::new(UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap());
        let client = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap().local_addr().unwrap();
        let (_mode, mode) = watch::channel(Mode::Pass);
        let target = socket.local_addr().unwrap();
        let mut associations = Associations::default();
        associations.begin(Vec::new(), Association { client, target, socket, mode });
        assert_eq!(associations.deliver(Vec::new(), client), Ok(()));
        let start = Instant::now();
        associations.forget_ended().await;
        assert_eq!(start.elapsed().as_secs(), IDLE.as_secs());
        assert_eq!(associations.deliver(vec![1], client), Err(vec![1]));
        assert!(associations.clients.is_empty());
    }
}
