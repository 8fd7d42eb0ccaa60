//! Serving the zone, as long as nobody else does.
//!
//! The port decides: whoever has it serves. All others try again and again, so that when the one that serves ends,
//! another is in its place within a moment. It begins with what its handle knows of the zone; its serial is far ahead of
//! every one that was given before, so that all others read the zone as a whole and look whether anything was lost.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use discovery::Result;
use tokio::{
    task::JoinHandle,
    time::{self, Instant},
};

use super::Shared;
use crate::authority::{Authority, ZoneConfig};

/// About how often to try.
const AGAIN: Duration = Duration::from_millis(200);

/// How far ahead of its own copy the serial of a successor is: further than the copy can be behind.
const AHEAD: u32 = 1 << 16;

/// The task that serves, or waits to do so. Dropped, it ends, and the port is free.
#[derive(Debug)]
pub(super) struct Standby(JoinHandle<()>);

impl Standby {
    /// Tries once, so that there is a server when this returns, and goes on in the background.
    pub(super) async fn begin(shared: &Arc<Shared>, address: SocketAddr) -> Self {
        let first = serve(shared, address).await;
        Self(tokio::spawn(stand_by(shared.clone(), address, first)))
    }
}

impl Drop for Standby {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn stand_by(shared: Arc<Shared>, address: SocketAddr, first: Result<Authority>) {
    let mut attempt = first;
    loop {
        if let Ok(authority) = attempt {
            tracing::info!(zone = %shared.replica.origin, %address, "serving the zone");
            // Until it is dropped along with this task.
            let () = std::future::pending().await;
            drop(authority);
        }
        time::sleep_until(Instant::now() + AGAIN.mul_f64(0.5 + fastrand::f64())).await;
        attempt = serve(&shared, address).await;
    }
}

async fn serve(shared: &Shared, address: SocketAddr) -> Result<Authority> {
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
    authority.start().await
}
