//! A real server as the tests of all kinds see it.

mod dns;
#[cfg(feature = "etcd")]
mod etcd;
mod zookeeper;

use std::net::SocketAddr;

use discovery::{Connector, Connectors, Discovery};

pub(crate) use self::dns::ZONE;

/// A kind of server, and one of it that belongs to a test.
pub(crate) trait Registry: Sized {
    /// As the demos call it.
    const NAME: &str;

    /// Starts one, or says why the test is skipped; fails if it must not be skipped.
    async fn start_or_skip() -> Option<Self>;

    fn connector() -> impl Connector;

    fn address(&self) -> SocketAddr;

    /// Where the demo has its tree, on a server or a proxy at `address`.
    fn locator_at(address: SocketAddr) -> String;

    fn locator(&self) -> String {
        Self::locator_at(self.address())
    }

    /// As a crash would.
    fn kill(&self);

    /// With what it held before.
    async fn restart(&self);

    /// Writes a record as a stranger does, with the server's own client; `path` begins with a slash.
    async fn write(&self, path: &str, record: &str);

    /// Removes a record in the same way.
    async fn delete(&self, path: &str);
}

/// How the demos name it to people.
pub(crate) fn name<R: Registry>(registry: &R) -> String {
    format!("{} at {}", R::NAME, registry.address())
}

/// This crate, in the process of the test.
pub(crate) async fn connect<R: Registry>(registry: &R) -> Discovery {
    Discovery::connect(&registry.locator(), &Connectors::new().with(R::connector())).await.unwrap()
}
