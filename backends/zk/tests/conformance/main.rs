//! The conformance suite on a real ZooKeeper.

#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "../common/mod.rs"]
mod common;
mod sessions;

use std::{
    net::SocketAddr,
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use discovery::{
    Backend,
    conformance::{Disrupt, Disruption, Harness},
    kv::Key,
};
use discovery_testbed::{Proxy, ZooKeeper};
use tokio::sync::Mutex;
use zookeeper_client as raw;

/// The server for all checks that run at the same time. The last one to end ends it too.
static SERVER: Mutex<Weak<ZooKeeper>> = Mutex::const_new(Weak::new());

/// Tells the harnesses on one server apart.
static NEXT: AtomicU64 = AtomicU64::new(0);

/// A root of its own on the server, and a line to it that can be cut.
struct ZkHarness {
    server: Arc<ZooKeeper>,
    line: Proxy,
    number: u64,
}

impl ZkHarness {
    async fn start_or_skip() -> Option<Self> {
        let mut shared = SERVER.lock().await;
        let server = match shared.upgrade() {
            Some(server) => server,
            None => Arc::new(ZooKeeper::builder().unsynced().start_or_skip().await?),
        };
        *shared = Arc::downgrade(&server);
        drop(shared);
        let line = Proxy::start(server.address()).unwrap();
        Some(Self { server, line, number: NEXT.fetch_add(1, Ordering::Relaxed) })
    }

    fn root(&self) -> String {
        format!("/cn-{}", self.number)
    }

    /// How long the sessions of clients within reach of disruptions live: tells them apart from all others.
    fn session_timeout(&self) -> Duration {
        Duration::from_millis(10_000 + self.number)
    }

    fn client(&self, address: SocketAddr, session_timeout: Duration) -> Arc<dyn Backend> {
        let options = format!("session_timeout={}ms&call_timeout=5s", session_timeout.as_millis());
        Arc::new(common::zk_at(&format!("{address}{}?{options}", self.root())))
    }
}

#[async_trait]
impl Harness for ZkHarness {
    async fn backend(&self) -> Arc<dyn Backend> {
        self.client(self.server.address(), Duration::from_secs(30))
    }

    fn disrupt(&self) -> Option<&dyn Disrupt> {
        Some(self)
    }

    async fn plant(&self, key: &Key, value: Bytes) {
        let stranger = common::stranger(&self.server.connect_string()).await;
        let path = format!("{}/{}", self.root(), key.as_str());
        match stranger.set_data(&path, &value, None).await {
            Ok(_) => {}
            Err(raw::Error::NoNode) => common::plant(&stranger, &path, &value).await,
            Err(error) => panic!("{path} cannot be written: {error}"),
        }
    }

    /// The client gives a connection up after 0.4 of it without an answer.
    fn ttl(&self) -> Duration {
        Duration::from_secs(4)
    }

    fn plants_without_limit(&self) -> bool {
        true
    }

    async fn open_watches(&self) -> Option<usize> {
        let watched = self.server.four_letter_word("wchp").await.unwrap();
        let root = self.root();
        Some(watched.lines().filter(|line| line.starts_with(&root)).count())
    }
}

#[async_trait]
impl Disrupt for ZkHarness {
    fn can(&self, disruption: Disruption) -> bool {
        matches!(disruption, Disruption::Cut | Disruption::Expire)
    }

    async fn backend(&self) -> Arc<dyn Backend> {
        self.client(self.line.address(), self.session_timeout())
    }

    async fn cause(&self, disruption: Disruption) {
        match disruption {
            Disruption::Cut => self.line.refuse().await,
            Disruption::Expire => {
                let readers = sessions::with_timeout(&self.server, self.session_timeout()).await;
                let holders = sessions::with_nodes_below(&self.server, &self.root()).await;
                for session in readers.union(&holders) {
                    sessions::end(&self.server, *session).await;
                }
                // A server that ends a session hangs up on its owner; here it may have hung up on us instead.
                self.line.cut().await;
            }
            other => panic!("ZooKeeper cannot {other:?}"),
        }
    }

    async fn heal(&self) {
        self.line.pass().await;
    }
}

discovery::conformance_tests!(ZkHarness::start_or_skip().await);
