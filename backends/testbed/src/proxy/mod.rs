//! A proxy for TCP and UDP that breaks connections and loses datagrams on demand.

mod association;
mod door;
mod hatch;
mod pump;

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    net::TcpStream,
    select,
    sync::{mpsc, oneshot, watch},
    task::{JoinHandle, JoinSet},
};

use self::{
    association::{Association, Associations},
    door::Door,
    hatch::Hatch,
};
use crate::ports::Port;

/// What a [`Proxy`] does with connections and datagrams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Mode {
    /// Forwards everything.
    Pass,
    /// Has no connections and refuses new ones, and datagrams, like a host whose server is down.
    Refuse,
    /// Closes nothing and forwards nothing, like a network that lost its way; new connections are accepted, and datagrams
    /// are lost.
    BlackHole,
    /// Forwards what clients send, and loses what the target sends: what was asked for is done, and nobody hears of it.
    LoseReplies,
    /// Forwards everything late.
    Delay {
        /// How late what clients send reaches the target.
        to_target: Duration,
        /// How late what the target sends reaches clients.
        to_client: Duration,
    },
}

/// A proxy in front of one target, for TCP and UDP, on a loopback port of its own.
///
/// Each client that sends datagrams is told from the others by its port, and has a port of its own towards the target
/// until half a minute has passed without any. A change of mode applies to live connections too and has taken place when its future is done. The methods
/// panic when the proxy's task has ended, which happens only together with its runtime. Dropping the proxy
/// closes its port and all its connections.
#[derive(Debug)]
pub struct Proxy {
    port: Port,
    mode: watch::Receiver<Mode>,
    counters: Arc<Counters>,
    commands: mpsc::UnboundedSender<(Command, oneshot::Sender<()>)>,
    task: JoinHandle<()>,
}

impl Proxy {
    /// Starts to pass connections on to `target`, which need not be up yet. A connection that the target refuses
    /// is accepted by the proxy and then closed; a datagram to a target that is down is lost.
    ///
    /// # Errors
    ///
    /// When no port is free.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime.
    pub fn start(target: SocketAddr) -> io::Result<Self> {
        let port = Port::reserve()?;
        let (door, hatch) = (Door::open(port.address())?, Hatch::open(port.address())?);
        let (mode_tx, mode) = watch::channel(Mode::Pass);
        let (commands, commands_rx) = mpsc::unbounded_channel();
        let counters = Arc::new(Counters::default());
        let switchboard = Switchboard {
            target,
            door,
            hatch,
            mode: mode_tx,
            counters: Arc::clone(&counters),
            connections: JoinSet::new(),
            associations: Associations::default(),
        };
        let task = tokio::spawn(switchboard.run(commands_rx));
        Ok(Self { port, mode, counters, commands, task })
    }

    /// Where clients connect and send to.
    pub fn address(&self) -> SocketAddr {
        self.port.address()
    }

    /// Forwards everything.
    pub async fn pass(&self) {
        self.set(Mode::Pass).await;
    }

    /// Closes all connections and refuses new ones, and datagrams, until another mode is set.
    pub async fn refuse(&self) {
        self.set(Mode::Refuse).await;
    }

    /// Closes nothing and forwards nothing, until another mode is set. What was sent on connections meanwhile then
    /// arrives, as after a real partition; [`cut`](Self::cut) first to lose it. Datagrams are lost.
    pub async fn black_hole(&self) {
        self.set(Mode::BlackHole).await;
    }

    /// Forwards what clients send, and loses what the target sends, also what a delay still holds back.
    pub async fn lose_replies(&self) {
        self.set(Mode::LoseReplies).await;
    }

    /// Forwards everything late.
    pub async fn delay(&self, to_target: Duration, to_client: Duration) {
        self.set(Mode::Delay { to_target, to_client }).await;
    }

    /// Sets the mode.
    pub async fn set(&self, mode: Mode) {
        self.command(Command::Set(mode)).await;
    }

    /// Closes all connections, with what is under way on them, and loses all datagrams under way; new ones are treated as
    /// the mode says.
    pub async fn cut(&self) {
        self.command(Command::Cut).await;
    }

    /// Passes new connections on to `target`, and the datagrams of new clients; live ones stay where they are, unless they
    /// are [`cut`](Self::cut).
    pub async fn retarget(&self, target: SocketAddr) {
        self.command(Command::Retarget(target)).await;
    }

    /// The present mode.
    pub fn mode(&self) -> Mode {
        *self.mode.borrow()
    }

    /// How many connections are open.
    pub fn connections(&self) -> usize {
        self.counters.open.load(Ordering::Relaxed)
    }

    /// How many connections have been accepted since the start.
    pub fn accepted(&self) -> usize {
        self.counters.accepted.load(Ordering::Relaxed)
    }

    /// How many datagrams clients have sent since the start, lost ones included but refused ones not.
    pub fn datagrams(&self) -> usize {
        self.counters.datagrams.load(Ordering::Relaxed)
    }

    async fn command(&self, command: Command) {
        let (done, is_done) = oneshot::channel();
        // A failure to send drops `done`, so one check covers both.
        let _ = self.commands.send((command, done));
        is_done.await.expect("the task of the proxy runs as long as its runtime");
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Independent statistics: written by the tasks of the proxy, read by its handle; they order nothing else.
#[derive(Debug, Default)]
struct Counters {
    accepted: AtomicUsize,
    open: AtomicUsize,
    datagrams: AtomicUsize,
}

/// Counts a connection as open while it lives.
struct Open(Arc<Counters>);

impl Open {
    fn new(counters: &Arc<Counters>) -> Self {
        counters.accepted.fetch_add(1, Ordering::Relaxed);
        counters.open.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(counters))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

#[derive(Debug)]
enum Command {
    Set(Mode),
    Cut,
    Retarget(SocketAddr),
}

/// The task of a proxy; it owns the tasks of the connections, which end with it.
struct Switchboard {
    target: SocketAddr,
    door: Door,
    hatch: Hatch,
    mode: watch::Sender<Mode>,
    counters: Arc<Counters>,
    connections: JoinSet<()>,
    associations: Associations,
}

impl Switchboard {
    async fn run(mut self, mut commands: mpsc::UnboundedReceiver<(Command, oneshot::Sender<()>)>) {
        loop {
            select! {
                command = commands.recv() => {
                    let Some((command, done)) = command else { return };
                    self.obey(command).await;
                    // Whoever stopped waiting does not need to know.
                    let _ = done.send(());
                }
                client = self.door.accept() => self.connect(client),
                (datagram, client) = self.hatch.receive() => self.deliver(datagram, client),
                Some(_) = self.connections.join_next() => {}
                () = self.associations.forget_ended() => {}
            }
        }
    }

    async fn obey(&mut self, command: Command) {
        match command {
            Command::Set(mode) => {
                self.mode.send_replace(mode);
                let turned = if mode == Mode::Refuse {
                    self.door.shut().and(self.hatch.shut())
                } else {
                    self.door.reopen().and(self.hatch.reopen())
                };
                turned.expect("a socket that is bound can stop and start to listen");
                if mode == Mode::Refuse {
                    self.cut().await;
                }
            }
            Command::Cut => self.cut().await,
            Command::Retarget(target) => self.target = target,
        }
    }

    async fn cut(&mut self) {
        self.connections.shutdown().await;
        self.associations.cut().await;
    }

    fn deliver(&mut self, datagram: Vec<u8>, client: SocketAddr) {
        self.counters.datagrams.fetch_add(1, Ordering::Relaxed);
        // What is on its way when the world goes dark is lost, unlike what is sent on a connection.
        if *self.mode.borrow() == Mode::BlackHole {
            return;
        }
        if let Err(datagram) = self.associations.deliver(datagram, client) {
            let (socket, mode) = (self.hatch.socket(), self.mode.subscribe());
            self.associations.begin(datagram, Association { client, target: self.target, socket, mode });
        }
    }

    fn connect(&mut self, client: TcpStream) {
        let open = Open::new(&self.counters);
        let (target, mode) = (self.target, self.mode.subscribe());
        self.connections.spawn(async move {
            // Either side going away in whatever manner ends the connection; there is nobody to tell but the peer.
            let _ = pump::forward(client, target, mode).await;
            drop(open);
        });
    }
}
