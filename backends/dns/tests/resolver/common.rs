//! What all tests of the resolver need: handles, a follower of a scope, waiting with a limit.

use std::{net::SocketAddr, time::Duration};

use discovery::{Backend, Change, Error, Result, Scope, ServiceName, Snapshot, Status, Update, Updates};
use discovery_dns::{Dns, DnsConfig};
use discovery_testbed::{NameServer, NameServerBuilder};
use futures_util::StreamExt;
use tokio::time::{Instant, sleep, timeout};

/// How long a test waits for what must happen, also on a busy machine.
pub(crate) const SOON: Duration = Duration::from_secs(30);

/// The pace of most tests: a look every 50 ms, and a deadline that a busy machine keeps.
pub(crate) const BRISK: &str = "floor=50ms&ceiling=50ms&deadline=1s";

/// A service with two instances, as this crate writes it.
pub(crate) const CART: &str = "\
    cart 5 A 127.0.0.1\n\
    1.cart 5 A 127.0.0.1\n\
    2.cart 5 A 127.0.0.2\n\
    _http._tcp.cart 5 SRV 0 3 8001 1.cart\n\
    _http._tcp.cart 5 SRV 0 1 8002 2.cart\n\
    _http._tcp.cart 5 PTR 1._http._tcp.cart\n\
    _http._tcp.cart 5 PTR 2._http._tcp.cart\n\
    1._http._tcp.cart 5 SRV 0 3 8001 1.cart\n\
    1._http._tcp.cart 5 TXT \"version=1.4.2\" \"zone=eu1-a\"\n\
    2._http._tcp.cart 5 SRV 0 1 8002 2.cart\n\
    2._http._tcp.cart 5 TXT \"\"\n\
    _services._dns-sd._udp.cart 5 PTR _http._tcp.cart\n\
    b._dns-sd._udp 5 PTR cart\n\
";

/// A resolver at some servers; `more` is what a locator has behind them.
pub(crate) fn dns(servers: &[SocketAddr], more: &str) -> Dns {
    let servers: Vec<_> = servers.iter().map(SocketAddr::to_string).collect();
    let locator = format!("dns://{}{more}", servers.join(","));
    Dns::new(DnsConfig::from_locator(&locator.parse().unwrap()).unwrap()).unwrap()
}

/// Both servers that have zones, with these records.
pub(crate) fn authorities(records: &str) -> [NameServerBuilder; 2] {
    // BIND has no more than a hundred records of a type at a name unless it is told.
    [
        NameServer::bind().option("max-records-per-type 0;").records(records),
        NameServer::knot().records(records),
    ]
}

pub(crate) fn service(text: &str) -> ServiceName {
    text.parse().unwrap()
}

pub(crate) async fn fetch(dns: &Dns, name: &str) -> Result<Snapshot> {
    dns.fetch(&Scope::Service(service(name))).await
}

/// Ids, statuses other than up, endpoints and weights of what is found.
pub(crate) async fn found(dns: &Dns, name: &str) -> Vec<String> {
    shown(&fetch(dns, name).await.unwrap())
}

pub(crate) fn shown(all: &Snapshot) -> Vec<String> {
    let one = |one: &std::sync::Arc<discovery::Instance>| {
        let endpoints: Vec<_> = one.endpoints().iter().map(|at| format!("{}={at}", at.name())).collect();
        let status = if one.status() == Status::Up { String::new() } else { format!(" {}", one.status()) };
        format!("{}{status} {} *{}", one.id(), endpoints.join(" "), one.weight())
    };
    all.iter().map(one).collect()
}

/// Waits for something that must happen.
pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    timeout(SOON, future).await.unwrap_or_else(|_| panic!("not within {SOON:?}: {what}"))
}

/// Waits until a condition holds.
pub(crate) async fn eventually(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let end = Instant::now() + SOON;
    while !condition().await {
        assert!(Instant::now() < end, "not within {SOON:?}: {what}");
        sleep(Duration::from_millis(10)).await;
    }
}

/// A watch and what it has told so far.
pub(crate) struct Follower {
    updates: Updates,
    pub(crate) known: Snapshot,
    /// Every change behind the reset, in order: ids, those of removals with a minus.
    pub(crate) changes: Vec<String>,
    /// How often it said that nothing had changed.
    pub(crate) quiet: usize,
}

impl Follower {
    /// Follows a service; returns behind the reset.
    pub(crate) async fn start(dns: &Dns, name: &str) -> Self {
        Self::of(dns.watch(&Scope::Service(service(name)), None)).await
    }

    pub(crate) async fn of(updates: Updates) -> Self {
        let mut follower = Self::quiet(updates);
        follower.next().await.unwrap();
        follower
    }

    /// Has taken nothing yet.
    pub(crate) fn quiet(updates: Updates) -> Self {
        Self { updates, known: Snapshot::default(), changes: Vec::new(), quiet: 0 }
    }

    pub(crate) async fn next(&mut self) -> Result<()> {
        let update = soon("an update", self.updates.next()).await.expect("an error before the end")?;
        let before = self.known.revision();
        match update {
            Update::Reset(all) => self.known = all,
            Update::Delta { revision, changes } => {
                self.known.apply(revision, &changes);
                self.changes.extend(changes.iter().map(|change| match change {
                    Change::Put(one) => one.id().to_string(),
                    Change::Remove(key) => format!("-{}", key.id()),
                }));
            }
            Update::Progress(revision) => {
                assert_eq!(revision, before);
                self.quiet += 1;
            }
        }
        assert!(self.known.revision() >= before);
        Ok(())
    }

    /// Takes updates until something is as wanted.
    pub(crate) async fn until(&mut self, what: &str, mut wanted: impl FnMut(&Self) -> bool) {
        let end = Instant::now() + SOON;
        while !wanted(self) {
            assert!(Instant::now() < end, "not within {SOON:?}: {what}; there is {:?}", self.known);
            self.next().await.unwrap_or_else(|error| panic!("{what}: {error:?}"));
        }
    }

    /// Takes updates until the stream fails, and checks that this is its end.
    pub(crate) async fn failure(&mut self) -> Error {
        loop {
            if let Err(error) = self.next().await {
                assert!(soon("the end", self.updates.next()).await.is_none(), "an item behind the error");
                return error;
            }
        }
    }
}
