//! A server and a zone of its own for every check: some count revisions, or end all leases.

use std::{net::SocketAddr, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use discovery::{
    Backend,
    conformance::{Disrupt, Disruption, Harness},
    kv::Key,
};
use discovery_dns::{Authority, Notify, TsigKey, ZoneConfig};
use discovery_testbed::{Dig, NameServer, NsUpdate, Proxy};

use crate::common::{unsigned_at, zone};

/// The zone of the embedded authority, and its key.
const ZONE: &str = "disco.test";
const KEY: (&str, &str) = ("disco-key", "c2VjcmV0IHNlY3JldCBzZWNyZXQ=");

/// A server, and a line to it that can be cut.
pub(crate) struct ZoneHarness<S> {
    server: S,
    line: Proxy,
}

/// What has a zone.
pub(crate) trait Server: Send + Sync + 'static {
    fn address(&self) -> SocketAddr;
    fn zone(&self) -> &str;
    fn key(&self) -> (&str, &str);
}

impl Server for NameServer {
    fn address(&self) -> SocketAddr {
        Self::address(self)
    }

    fn zone(&self) -> &str {
        Self::zone(self)
    }

    fn key(&self) -> (&str, &str) {
        (self.key_name(), self.key_secret())
    }
}

impl Server for Authority {
    fn address(&self) -> SocketAddr {
        Self::address(self)
    }

    fn zone(&self) -> &str {
        ZONE
    }

    fn key(&self) -> (&str, &str) {
        KEY
    }
}

/// An embedded authority with a zone of its own.
pub(crate) async fn authority() -> Authority {
    let authority = Authority::builder()
        .listen(SocketAddr::from(([127, 0, 0, 1], 0)))
        .zone(ZoneConfig::dynamic(ZONE))
        .key(TsigKey::new(KEY.0, KEY.1).unwrap());
    authority.start().await.unwrap()
}

impl<S: Server> ZoneHarness<S> {
    pub(crate) fn new(server: S) -> Self {
        Self { line: Proxy::start(server.address()).unwrap(), server }
    }

    fn client(&self, port: u16) -> Arc<dyn Backend> {
        let (name, secret) = self.server.key();
        let config = unsigned_at(self.server.zone(), SocketAddr::from(([127, 0, 0, 1], port)));
        Arc::new(zone(config.key(TsigKey::new(name, secret).unwrap()).notify(Notify::Auto)))
    }

    async fn update(&self, script: &str) {
        let (name, secret) = self.server.key();
        let nsupdate = NsUpdate::new(self.server.address(), self.server.zone()).key(name, secret);
        nsupdate.tcp().run(script).await.unwrap();
    }
}

#[async_trait]
impl<S: Server> Harness for ZoneHarness<S> {
    async fn backend(&self) -> Arc<dyn Backend> {
        self.client(self.server.address().port())
    }

    fn disrupt(&self) -> Option<&dyn Disrupt> {
        Some(self)
    }

    async fn plant(&self, key: &Key, value: Bytes) {
        let name = discovery_dns::entry_name(self.server.zone(), key).unwrap();
        let strings: Vec<_> = value.chunks(255).map(quoted).collect();
        let strings = strings.join(" ");
        self.update(&format!("update delete {name} TXT\nupdate add {name} 5 TXT {strings}")).await;
    }
}

/// A string as zone files have it.
fn quoted(string: &[u8]) -> String {
    let escaped = string.iter().map(|byte| {
        let is_plain = matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\');
        if is_plain { char::from(*byte).to_string() } else { format!("\\{byte:03}") }
    });
    format!("\"{}\"", escaped.collect::<String>())
}

#[async_trait]
impl<S: Server> Disrupt for ZoneHarness<S> {
    fn can(&self, disruption: Disruption) -> bool {
        matches!(disruption, Disruption::Cut | Disruption::Expire)
    }

    async fn backend(&self) -> Arc<dyn Backend> {
        self.client(self.line.address().port())
    }

    async fn cause(&self, disruption: Disruption) {
        match disruption {
            Disruption::Cut => self.line.refuse().await,
            // Whoever holds them: nobody else's are to be seen in a zone of its own.
            Disruption::Expire => {
                let (name, secret) = self.server.key();
                let dig = Dig::new(self.server.address()).key(name, secret);
                let records = dig.transfer(self.server.zone()).await.unwrap();
                let names = records.iter().filter_map(|record| record.split_whitespace().next());
                let leases = names.filter(|name| name.contains("._lease."));
                let script: Vec<_> = leases.map(|name| format!("update delete {name} TXT")).collect();
                if !script.is_empty() {
                    self.update(&script.join("\n")).await;
                }
            }
            other => panic!("a disruption that came later: {other:?}"),
        }
    }

    async fn heal(&self) {
        self.line.pass().await;
    }
}
