//! Real servers and a fault proxy for TCP and UDP, for the tests of the discovery crates.
//!
//! Servers come from the packages of the machine and run on loopback ports in temporary directories; a test
//! owns the handle of its server and everything ends with it. Where a server is not installed the test is
//! skipped with a message, unless [`REQUIRE`] says that skipping is a failure. The crate knows nothing of
//! discovery: it hands out addresses.
//!
//! ```no_run
//! # async fn test() -> std::io::Result<()> {
//! use discovery_testbed::{Proxy, ZooKeeper};
//!
//! let Some(zk) = ZooKeeper::start_or_skip().await else { return Ok(()) };
//! let proxy = Proxy::start(zk.address())?;
//! // ... connect a client to `proxy.address()` ...
//! proxy.black_hole().await;
//! // ... the client notices ...
//! zk.kill()?;
//! zk.restart().await?;
//! proxy.pass().await;
//! # Ok(())
//! # }
//! ```
//!
//! [`Etcd`] is used in the same way, and so are [`ZooKeeperEnsemble`] and [`EtcdCluster`], several servers that elect a
//! leader. DNS servers are [`NameServer`] (BIND and Knot, which hold a zone) and [`Dnsmasq`] (a resolver); a [`Liar`]
//! answers what no real one would.
//!
//! Another kind of server is a module beside `zk` and `etcd`: it reserves [`Port`]s, writes what the server reads into
//! a temporary directory, hands that and a command to a `Process`, says (`Serve`, and `Member` if there are leaders) how to
//! tell that the server really serves, and names itself in [`Server`].

mod agent;
mod certificates;
mod client;
mod dns;
mod etcd;
mod liar;
mod ports;
mod process;
mod proxy;
mod quorum;
mod require;
mod zk;

pub use agent::Agent;
pub use certificates::{Certificates, Identity};
pub use dns::{Answer, Dig, Dnsmasq, DnsmasqBuilder, NameServer, NameServerBuilder, NsUpdate};
pub use etcd::{Etcd, EtcdBuilder, EtcdCluster, EtcdCtl};
pub use liar::{Liar, Transport};
pub use ports::Port;
pub use proxy::{Mode, Proxy};
pub use require::{REQUIRE, Server};
pub use zk::{Role, ZkCli, ZooKeeper, ZooKeeperBuilder, ZooKeeperEnsemble};
