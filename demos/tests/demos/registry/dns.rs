//! DNS, on BIND.

use std::net::SocketAddr;

use discovery::Connector;
use discovery_testbed::NameServer;

use super::Registry;

/// The zone that services register in.
pub(crate) const ZONE: &str = "disco.test";

impl Registry for NameServer {
    const NAME: &str = "DNS";

    async fn start_or_skip() -> Option<Self> {
        Self::bind().open().start_or_skip().await
    }

    fn connector() -> impl Connector {
        discovery_dns::connector()
    }

    fn address(&self) -> SocketAddr {
        self.address()
    }

    fn locator_at(address: SocketAddr) -> String {
        // BIND is not told whom to notify, and some of what is looked for is over in a moment.
        format!("dns+zone://{address}/{ZONE}?poll_interval=50ms")
    }

    fn kill(&self) {
        self.kill().unwrap();
    }

    async fn restart(&self) {
        self.restart().await.unwrap();
    }

    async fn write(&self, path: &str, record: &str) {
        let name = entry(path);
        let strings: Vec<_> = record.as_bytes().chunks(200).map(quoted).collect();
        let text = if strings.is_empty() { "\"\"".into() } else { strings.join(" ") };
        let script = format!("update delete {name} TXT\nupdate add {name} 5 TXT {text}");
        self.nsupdate().tcp().run(&script).await.unwrap();
    }

    async fn delete(&self, path: &str) {
        self.nsupdate().run(&format!("update delete {} TXT", entry(path))).await.unwrap();
    }
}

/// The name of what other registries have at a path.
fn entry(path: &str) -> String {
    discovery_dns::entry_name(ZONE, &path.strip_prefix("/cn/").unwrap().parse().unwrap()).unwrap()
}

/// A string as zone files have it.
fn quoted(string: &[u8]) -> String {
    let text = str::from_utf8(string).unwrap().replace('\\', "\\\\").replace('"', "\\\"");
    format!("\"{text}\"")
}
