//! Finds out whether what DNS lists is serving. DNS lists what is paused, unhealthy, or not serving yet.

use std::{
    collections::HashMap,
    io,
    net::SocketAddr,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use futures_util::future::join_all;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::Semaphore,
    time::{self, Instant},
};

use super::{DnsConfig, Probe, candidate::Candidate};

/// How many probes are under way at a time.
const IN_FLIGHT: usize = 256;
/// How many results are kept; more are looked through for old ones.
const KEPT: usize = 4096;

/// Probes, and what the last ones found.
#[derive(Debug)]
pub(crate) struct Probes {
    probe: Probe,
    timeout: Duration,
    /// How long a result is as good as a new one: several may watch the same addresses.
    good_for: Duration,
    endpoint: String,
    in_flight: Semaphore,
    results: Mutex<HashMap<SocketAddr, (Instant, bool)>>,
}

impl Probes {
    pub(crate) fn new(config: &DnsConfig) -> Self {
        Self {
            probe: config.probe().clone(),
            timeout: config.probe_timeout(),
            good_for: config.floor() / 2,
            endpoint: config.endpoint().into(),
            in_flight: Semaphore::new(IN_FLIGHT),
            results: Mutex::default(),
        }
    }

    /// Which of the candidates are serving: at one address at least.
    pub(crate) async fn check(&self, listed: &[Candidate]) -> Vec<bool> {
        if self.probe == Probe::None {
            return vec![true; listed.len()];
        }
        let checks = listed.iter().map(async |one| {
            let addresses = one.to_probe(&self.endpoint);
            let up = join_all(addresses.iter().map(|address| self.is_up(*address))).await;
            // What has no address that could be probed is believed.
            up.is_empty() || up.contains(&true)
        });
        join_all(checks).await
    }

    async fn is_up(&self, address: SocketAddr) -> bool {
        let _permit = self.in_flight.acquire().await;
        let known = self.results().get(&address).copied();
        if let Some((when, up)) = known
            && when.elapsed() < self.good_for
        {
            return up;
        }
        let probed = match time::timeout(self.timeout, self.attempt(address)).await {
            Ok(result) => result,
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        };
        if let Err(error) = &probed {
            tracing::debug!(%address, %error, "probe failed");
        }
        let mut results = self.results();
        if results.len() >= KEPT {
            results.retain(|_, (when, _)| when.elapsed() < self.good_for);
        }
        results.insert(address, (Instant::now(), probed.is_ok()));
        probed.is_ok()
    }

    async fn attempt(&self, address: SocketAddr) -> io::Result<()> {
        let mut stream = TcpStream::connect(address).await?;
        let Probe::Http(path) = &self.probe else { return Ok(()) };
        let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        // As much as tells the status: "HTTP/1.1 200".
        let mut head = [0; 12];
        stream.read_exact(&mut head).await?;
        if is_serving(&head) {
            Ok(())
        } else {
            Err(io::Error::other(String::from_utf8_lossy(&head).into_owned()))
        }
    }

    fn results(&self) -> std::sync::MutexGuard<'_, HashMap<SocketAddr, (Instant, bool)>> {
        self.results.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether an answer begins with a status of 200 to 399.
fn is_serving(head: &[u8; 12]) -> bool {
    head.starts_with(b"HTTP/1.") && matches!(head[8..], [b' ', b'2' | b'3', b'0'..=b'9', b'0'..=b'9'])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_hundred_to_three_hundred_and_ninety_nine_is_serving() {
        for good in [b"HTTP/1.1 200", b"HTTP/1.0 204", b"HTTP/1.1 302"] {
            assert!(is_serving(good));
        }
        for bad in [b"HTTP/1.1 503", b"HTTP/1.1 404", b"HTTP/1.1 100", b"SSH-2.0-Open", b"HTTP/1.1 2x0"] {
            assert!(!is_serving(bad));
        }
    }
}
