//! A server and a zone of its own for every check: some count revisions, or end all leases.

use std::{net::SocketAddr, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use discovery::{
    Backend,
    conformance::{Disrupt, Disruption, Harness},
    kv::Key,
};
use discovery_dns::Notify;
use discovery_testbed::{NameServer, Proxy};

use crate::common::{config_at, zone};

/// A server, and a line to it that can be cut.
pub(crate) struct ZoneHarness {
    server: NameServer,
    line: Proxy,
}

impl ZoneHarness {
    pub(crate) fn new(server: NameServer) -> Self {
        Self { line: Proxy::start(server.address()).unwrap(), server }
    }

    fn client(&self, address: SocketAddr) -> Arc<dyn Backend> {
        Arc::new(zone(config_at(&self.server, address).notify(Notify::Auto)))
    }
}

#[async_trait]
impl Harness for ZoneHarness {
    async fn backend(&self) -> Arc<dyn Backend> {
        self.client(self.server.address())
    }

    fn disrupt(&self) -> Option<&dyn Disrupt> {
        Some(self)
    }

    async fn plant(&self, key: &Key, value: Bytes) {
        let name = discovery_dns::entry_name(self.server.zone(), key).unwrap();
        let strings: Vec<_> = value.chunks(255).map(quoted).collect();
        let script = format!("update delete {name} TXT\nupdate add {name} 5 TXT {}", strings.join(" "));
        self.server.nsupdate().tcp().run(&script).await.unwrap();
    }
}

fn quoted(string: &[u8]) -> String {
    let escaped = string.iter().map(|byte| {
        let is_plain = matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\');
        if is_plain { char::from(*byte).to_string() } else { format!("\\{byte:03}") }
    });
    format!("\"{}\"", escaped.collect::<String>())
}

#[async_trait]
impl Disrupt for ZoneHarness {
    fn can(&self, disruption: Disruption) -> bool {
        matches!(disruption, Disruption::Cut | Disruption::Expire)
    }

    async fn backend(&self) -> Arc<dyn Backend> {
        self.client(self.line.address())
    }

    async fn cause(&self, disruption: Disruption) {
        match disruption {
            Disruption::Cut => self.line.refuse().await,
            // Whoever holds them: nobody else's are to be seen in a zone of its own.
            Disruption::Expire => {
                let zone = self.server.zone();
                let records = self.server.dig().transfer(zone).await.unwrap();
                let names = records.iter().filter_map(|record| record.split_whitespace().next());
                let leases: Vec<_> = names.filter(|name| name.contains("._lease.")).collect();
                let script: Vec<_> = leases.iter().map(|name| format!("update delete {name} TXT")).collect();
                if !script.is_empty() {
                    self.server.nsupdate().run(&script.join("\n")).await.unwrap();
                }
            }
            other => panic!("a disruption that came later: {other:?}"),
        }
    }

    async fn heal(&self) {
        self.line.pass().await;
    }
}
