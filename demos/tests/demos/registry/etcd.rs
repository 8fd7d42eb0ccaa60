//! etcd.

use std::net::SocketAddr;

use discovery::Connector;
use discovery_testbed::Etcd;

use super::Registry;

impl Registry for Etcd {
    const NAME: &str = "etcd";

    async fn start_or_skip() -> Option<Self> {
        Self::start_or_skip().await
    }

    fn connector() -> impl Connector {
        discovery_etcd::connector()
    }

    fn address(&self) -> SocketAddr {
        self.address()
    }

    fn locator_at(address: SocketAddr) -> String {
        format!("etcd://{address}/cn")
    }

    fn kill(&self) {
        self.kill().unwrap();
    }

    async fn restart(&self) {
        self.restart().await.unwrap();
    }

    async fn write(&self, path: &str, record: &str) {
        self.cli().run(["put", path, record]).await.unwrap();
    }

    async fn delete(&self, path: &str) {
        self.cli().run(["del", path]).await.unwrap();
    }
}
