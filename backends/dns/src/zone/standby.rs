//! Serving the zone, as long as nobody else does.
//!
//! The port decides: whoever has it serves. All others keep their copies of the zone fresh and try again and again, so
//! that when the one that serves ends, another is in its place within a moment. It begins with its copy; its serial is far
//! ahead of every one that was given before, so that all others read the zone as a whole and look whether anything was
//! lost. Who knows nothing of the zone, or knows that its copy is old, lets others go first.

use std::{
    net::{SocketAddr, TcpListener},
    sync::Arc,
    time::Duration,
};

use discovery::Result;
use hickory_proto::rr::RecordType;
use tokio::{
    sync::OnceCell,
    task::JoinHandle,
    time::{self, Instant},
};

use super::{Shared, message};
use crate::authority::{Authority, ZoneConfig};

/// About how often to try.
const AGAIN: Duration = Duration::from_millis(200);
/// How long to let others go first: longer than it takes them to try again.
const AFTER_YOU: Duration = Duration::from_millis(600);

/// How far ahead of its own copy the serial of a successor is: further than the copy can be behind.
const AHEAD: u32 = 1 << 16;

/// The task that serves, or waits to do so. Dropped, it ends, and the port is free.
#[derive(Debug)]
pub(super) struct Standby(JoinHandle<()>);

impl Standby {
    /// Waits until it has begun, which it does once.
    pub(super) async fn ready(once: &Arc<OnceCell<Self>>, shared: &Arc<Shared>, address: SocketAddr) {
        if once.initialized() {
            return;
        }
        let (once, shared) = (once.clone(), shared.clone());
        // In a task: somebody who begins it and is not polled any more would hold up all others.
        let begun = tokio::spawn(async move {
            once.get_or_init(|| Self::begin(&shared, address)).await;
        });
        // Fails only when the runtime ends.
        let _ = begun.await;
    }

    /// Sees to it that there is a server, unless something is in the way, and goes on in the background.
    async fn begin(shared: &Arc<Shared>, address: SocketAddr) -> Self {
        let first = if is_served(shared).await { Ok(None) } else { serve(shared, address).await };
        Self(tokio::spawn(stand_by(shared.clone(), address, first)))
    }
}

impl Drop for Standby {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn stand_by(shared: Arc<Shared>, address: SocketAddr, first: Result<Option<Authority>>) {
    // It keeps the copy fresh.
    let _eye = shared.eye();
    let (mut attempt, mut is_told) = (first, false);
    loop {
        match attempt {
            Ok(Some(authority)) => {
                tracing::info!(zone = %shared.replica.origin, %address, "serving the zone");
                // Until it is dropped along with this task.
                let () = std::future::pending().await;
                drop(authority);
            }
            Ok(None) => is_told = false,
            Err(error) if !is_told => {
                is_told = true;
                tracing::warn!(zone = %shared.replica.origin, %address, %error, "cannot serve the zone; trying again");
            }
            Err(_) => {}
        }
        time::sleep(AGAIN.mul_f64(0.5 + fastrand::f64())).await;
        if is_free(address) && is_outdated(&shared) {
            time::sleep(AFTER_YOU).await;
        }
        attempt = serve(&shared, address).await;
    }
}

/// Whether somebody serves the zone; nobody does who has not answered for so long that all others had their turn.
async fn is_served(shared: &Shared) -> bool {
    let question = message::query(&shared.replica.origin, RecordType::SOA, None);
    let last = Instant::now() + AFTER_YOU;
    while Instant::now() < last {
        if shared.replica.server.ask(&question, last).await.is_ok() {
            return true;
        }
        time::sleep(AGAIN / 4).await;
    }
    false
}

/// Whether more is known of the zone than what is here of it.
fn is_outdated(shared: &Shared) -> bool {
    let known = shared.replica.look(|mirror| mirror.head().map_or(0, |head| head.number));
    known.is_none_or(|known| known < shared.replica.floor())
}

/// Whether nobody has a port. Costs less than to try to serve, and is no promise.
fn is_free(address: SocketAddr) -> bool {
    TcpListener::bind(address).is_ok()
}

/// Serves the zone; `None` if somebody else does.
async fn serve(shared: &Shared, address: SocketAddr) -> Result<Option<Authority>> {
    if !is_free(address) {
        return Ok(None);
    }
    let zone = ZoneConfig::dynamic(&shared.replica.origin.to_string());
    let known = shared.replica.look(|mirror| (mirror.serial(), shared.projection().content(mirror)));
    let zone = match known {
        Some((serial, content)) => zone.serial(serial.wrapping_add(AHEAD)).content(content),
        None => zone,
    };
    let authority = Authority::builder().listen(address).zone(zone);
    let authority = match shared.config.key() {
        Some(key) => authority.key(key.clone()),
        None => authority,
    };
    authority.start().await.map(Some)
}
