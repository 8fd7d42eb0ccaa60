//! The two directions of one connection.

use std::{collections::VecDeque, future::pending, io, net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    select,
    sync::watch,
    time::{Instant, sleep_until},
};

use super::Mode;

/// Passes bytes on between `client` and `target` as the mode says, until both have no more to say or one fails.
pub(super) async fn forward(
    client: TcpStream,
    target: SocketAddr,
    mut mode: watch::Receiver<Mode>,
) -> io::Result<()> {
    // A black hole must not reach the target at all.
    if mode.wait_for(|mode| *mode != Mode::BlackHole).await.is_err() {
        return Ok(());
    }
    let target = TcpStream::connect(target).await?;
    client.set_nodelay(true)?;
    target.set_nodelay(true)?;
    let (from_client, to_client) = client.into_split();
    let (from_target, to_target) = target.into_split();
    let up = Pump { from: from_client, to: to_target, direction: Direction::ToTarget, mode: mode.clone() };
    let down = Pump { from: from_target, to: to_client, direction: Direction::ToClient, mode };
    tokio::try_join!(up.run(), down.run())?;
    Ok(())
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Direction {
    ToTarget,
    ToClient,
}

/// What becomes of what is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// It is passed on, this long after it came.
    Passes(Duration),
    /// It waits until the mode changes; datagrams do not.
    Waits,
    /// It is dropped.
    IsLost,
}

impl Direction {
    pub(super) fn fate(self, mode: Mode) -> Fate {
        match (mode, self) {
            (Mode::Pass, _) | (Mode::LoseReplies, Self::ToTarget) => Fate::Passes(Duration::ZERO),
            (Mode::Delay { to_target, .. }, Self::ToTarget) => Fate::Passes(to_target),
            (Mode::Delay { to_client, .. }, Self::ToClient) => Fate::Passes(to_client),
            (Mode::LoseReplies, Self::ToClient) => Fate::IsLost,
            (Mode::BlackHole | Mode::Refuse, _) => Fate::Waits,
        }
    }
}

impl Fate {
    /// When to pass on what came at `arrived`, if at all.
    pub(super) fn due(self, arrived: Option<Instant>) -> Option<Instant> {
        match self {
            Self::Passes(delay) => Some(arrived? + delay),
            Self::Waits | Self::IsLost => None,
        }
    }
}

/// One direction of a connection.
struct Pump {
    from: OwnedReadHalf,
    to: OwnedWriteHalf,
    direction: Direction,
    mode: watch::Receiver<Mode>,
}

impl Pump {
    /// How much a delay may hold back; then the sender has to wait, as on a slow line.
    const CAPACITY: usize = 4 << 20;

    async fn run(mut self) -> io::Result<()> {
        let mut held: VecDeque<(Instant, Vec<u8>)> = VecDeque::new();
        let mut held_bytes = 0;
        let mut buffer = vec![0; 64 << 10];
        let mut at_end = false;
        while !(at_end && held.is_empty()) {
            // Looked at again before every single read and write, so that a new mode holds for what is under way.
            let fate = self.direction.fate(*self.mode.borrow_and_update());
            if fate == Fate::IsLost {
                held.clear();
                held_bytes = 0;
            }
            let due = fate.due(held.front().map(|(arrived, _)| *arrived));
            select! {
                biased;
                changed = self.mode.changed() => if changed.is_err() {
                    return Ok(());
                },
                () = until(due) => if let Some((_, bytes)) = held.pop_front() {
                    held_bytes -= bytes.len();
                    self.to.write_all(&bytes).await?;
                },
                // Left unread, bytes and the end of the stream stay with the kernel until a black hole is over.
                read = self.from.read(&mut buffer), if !at_end && fate != Fate::Waits && held_bytes < Self::CAPACITY => {
                    let length = read?;
                    at_end = length == 0;
                    if !at_end && fate != Fate::IsLost {
                        held_bytes += length;
                        held.push_back((Instant::now(), buffer[..length].to_vec()));
                    }
                }
            }
        }
        self.to.shutdown().await
    }
}

/// Never, if there is nothing due.
pub(super) async fn until(due: Option<Instant>) {
    match due {
        None => pending().await,
        // A timer would round up to the next millisecond, which passing on must not cost.
        Some(due) if due <= Instant::now() => {}
        Some(due) => sleep_until(due).await,
    }
}
