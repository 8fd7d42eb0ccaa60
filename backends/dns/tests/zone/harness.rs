//! A server and a zone of its own for every check: some count revisions, or end all leases.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use discovery::{
    Backend,
    conformance::{Disrupt, Disruption, Harness},
    kv::Key,
};
use discovery_dns::{DnsZone, DnsZoneConfig, DnsZoneConfigBuilder, TsigKey};
use discovery_testbed::{NameServer, Proxy};

/// How clients of a server are set up for tests: one that polls often, so that nothing takes long.
pub(crate) fn config(server: &NameServer, port: u16) -> DnsZoneConfigBuilder {
    let key = TsigKey::new(server.key_name(), server.key_secret()).unwrap();
    DnsZoneConfig::builder()
        .server("127.0.0.1", port)
        .zone(server.zone())
        .key(key)
        .poll_interval(Duration::from_millis(50))
        .silence_timeout(Duration::from_secs(2))
}

/// A server, and a line to it that can be cut.
pub(crate) struct ZoneHarness {
    server: NameServer,
    line: Proxy,
}

impl Drop for ZoneHarness {
    fn drop(&mut self) {
        if true { eprintln!("LOG {}", self.server.log().lines().filter(|l| !l.contains("approved") && !l.contains("updating zone") && !l.contains("transfer of")).collect::<Vec<_>>().join("\n")); }
    }
}

impl ZoneHarness {
    pub(crate) fn new(server: NameServer) -> Self {
        Self { line: Proxy::start(server.address()).unwrap(), server }
    }

    fn client(&self, port: u16) -> Arc<dyn Backend> {
        Arc::new(DnsZone::new(config(&self.server, port).build().unwrap()))
    }
}

#[async_trait]
impl Harness for ZoneHarness {
    async fn backend(&self) -> Arc<dyn Backend> {
        self.client(self.server.address().port())
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
        self.client(self.line.address().port())
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
