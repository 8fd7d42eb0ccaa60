//! The stores that recipes are measured on.

use discovery::{Discovery, ServiceName, mem::Mem};
use discovery_benches::workloads::connect;
use discovery_testbed::{Etcd, ZooKeeper};
use etcd_client as etcd;
use zookeeper_client as zk;

use crate::server::{self, Server};

/// What stores there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Mem,
    Zk,
    Etcd,
    DnsEmbedded,
    DnsBind,
}

impl Kind {
    pub(crate) const ALL: [Self; 5] = [Self::Mem, Self::Zk, Self::Etcd, Self::DnsEmbedded, Self::DnsBind];

    /// As it is called in the names of groups.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Mem => "mem",
            Self::Zk => "zk",
            Self::Etcd => "etcd",
            Self::DnsEmbedded => "dns_embedded",
            Self::DnsBind => "dns_bind",
        }
    }
}

/// A store that runs.
#[allow(clippy::large_enum_variant, reason = "there is one at a time")]
pub(crate) enum Registry {
    Mem(Mem),
    Zk(ZooKeeper),
    Etcd(Etcd),
    Dns(Server),
}

impl Registry {
    pub(crate) async fn start(kind: Kind) -> Option<Self> {
        match kind {
            Kind::Mem => Some(Self::Mem(Mem::new())),
            Kind::Zk => ZooKeeper::start_or_skip().await.map(Self::Zk),
            Kind::Etcd => Etcd::start_or_skip().await.map(Self::Etcd),
            Kind::DnsEmbedded => Server::start(server::Kind::Embedded, None).await.map(Self::Dns),
            Kind::DnsBind => Server::start(server::Kind::Bind, None).await.map(Self::Dns),
        }
    }

    /// A process: a handle of its own.
    pub(crate) async fn process(&self) -> Discovery {
        match self {
            Self::Mem(mem) => Discovery::new(mem.clone()),
            Self::Zk(zk) => {
                connect(discovery_zk::connector(), &format!("zk://{}/ours", zk.connect_string())).await
            }
            Self::Etcd(etcd) => {
                connect(discovery_etcd::connector(), &format!("etcd://{}/ours", etcd.connect_string())).await
            }
            Self::Dns(server) => server.client(None),
        }
    }
}

/// A session of the raw client.
pub(crate) async fn raw_zk(server: &ZooKeeper) -> zk::Client {
    zk::Client::connect(&server.connect_string()).await.expect("the server is up")
}

/// A connection of the raw client.
pub(crate) async fn raw_etcd(server: &Etcd) -> etcd::Client {
    let client = etcd::Client::connect([server.connect_string()], None).await;
    let mut client = client.expect("a valid address");
    // It connects with the first request only.
    client.status().await.expect("the server is up");
    client
}

pub(crate) fn permanent() -> zk::CreateOptions<'static> {
    zk::CreateMode::Persistent.with_acls(zk::Acls::anyone_all())
}

/// What the recipe in hand is called.
pub(crate) fn name() -> ServiceName {
    "eu1/prod/thing".parse().expect("a valid name")
}
