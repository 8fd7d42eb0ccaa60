//! The servers: BIND, and the embedded authority on threads of its own.

use std::{net::SocketAddr, time::Duration};

use data_encoding::BASE64;
use discovery::Discovery;
use discovery_dns::{Authority, DnsZone, DnsZoneConfig, Notify, TsigKey, ZoneConfig};
use discovery_testbed::{NameServer, NameServerBuilder};
use tokio::runtime::Runtime;

const ZONE: &str = "disco.test";
const KEY: (&str, &str) = ("disco-key", "c2VjcmV0IHNlY3JldCBzZWNyZXQ=");

/// What serves the zone.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    Bind,
    Embedded,
}

impl Kind {
    pub(crate) const ALL: [Self; 2] = [Self::Bind, Self::Embedded];

    /// As it is called in the names of benchmarks.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Bind => "bind",
            Self::Embedded => "embedded",
        }
    }
}

#[allow(clippy::large_enum_variant, reason = "there are two of them")]
pub(crate) enum Server {
    Bind(NameServer),
    Embedded { authority: Option<Authority>, runtime: Option<Runtime> },
}

impl Server {
    /// An empty zone. BIND sends NOTIFY to `listener`; the embedded authority to whoever asks for it.
    pub(crate) async fn start(kind: Kind, listener: Option<SocketAddr>) -> Option<Self> {
        match kind {
            Kind::Bind => {
                let builder = listener.into_iter().fold(NameServer::bind(), NameServerBuilder::also_notify);
                builder.start_or_skip().await.map(Self::Bind)
            }
            Kind::Embedded => {
                let runtime = Runtime::new().expect("a runtime");
                let authority = Authority::builder()
                    .listen("127.0.0.1:0".parse().expect("an address"))
                    .zone(ZoneConfig::dynamic(ZONE))
                    .key(TsigKey::new(KEY.0, KEY.1).expect("a key"));
                let authority = runtime.spawn(authority.start()).await.expect("it does not panic");
                Some(Self::Embedded {
                    authority: Some(authority.expect("a free port")),
                    runtime: Some(runtime),
                })
            }
        }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        match self {
            Self::Bind(server) => server.address(),
            Self::Embedded { authority, .. } => authority.as_ref().expect("it runs").address(),
        }
    }

    pub(crate) fn zone(&self) -> &str {
        match self {
            Self::Bind(server) => server.zone(),
            Self::Embedded { .. } => ZONE,
        }
    }

    /// The name of the key, and its secret.
    pub(crate) fn key(&self) -> (&str, Vec<u8>) {
        let (name, secret) = self.key_text();
        (name, BASE64.decode(secret.as_bytes()).expect("base64"))
    }

    fn key_text(&self) -> (&str, &str) {
        match self {
            Self::Bind(server) => (server.key_name(), server.key_secret()),
            Self::Embedded { .. } => KEY,
        }
    }

    /// A client of ours, with what is default; told of changes at an address, if the server has to know it.
    pub(crate) fn client(&self, notify: Option<SocketAddr>) -> Discovery {
        let (name, secret) = self.key_text();
        let config = DnsZoneConfig::builder()
            .server(self.address().ip().to_string(), self.address().port())
            .zone(self.zone())
            .key(TsigKey::new(name, secret).expect("a key"));
        let config = match (self, notify) {
            (Self::Bind(_), Some(address)) => config.notify(Notify::At(address)),
            _ => config,
        };
        Discovery::new(DnsZone::new(config.build().expect("a configuration")))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Self::Embedded { authority, runtime } = self {
            drop(authority.take());
            // It may be dropped where nothing may block.
            if let Some(runtime) = runtime.take() {
                runtime.shutdown_timeout(Duration::ZERO);
            }
        }
    }
}
