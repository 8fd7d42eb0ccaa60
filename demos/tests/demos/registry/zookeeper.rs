//! `ZooKeeper`.

use std::net::SocketAddr;

use discovery::Connector;
use discovery_testbed::ZooKeeper;

use super::Registry;

impl Registry for ZooKeeper {
    const NAME: &str = "ZooKeeper";

    async fn start_or_skip() -> Option<Self> {
        Self::start_or_skip().await
    }

    fn connector() -> impl Connector {
        discovery_zk::connector()
    }

    fn address(&self) -> SocketAddr {
        self.address()
    }

    fn locator_at(address: SocketAddr) -> String {
        format!("zk://{address}/cn")
    }

    fn kill(&self) {
        self.kill().unwrap();
    }

    async fn restart(&self) {
        self.restart().await.unwrap();
    }

    async fn write(&self, path: &str, record: &str) {
        self.cli().run(["create", path, record]).await.unwrap();
    }

    async fn delete(&self, path: &str) {
        self.cli().run(["delete", path]).await.unwrap();
    }
}
