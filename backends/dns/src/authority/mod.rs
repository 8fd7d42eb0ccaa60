//! A DNS server within the program: shows what any [`Discovery`](discovery::Discovery) knows to those who have never
//! heard of it, and has zones of its own that programs register in without any server installed.
//!
//! ```text
//! server (sockets) -> engine -> message    what is asked, and may it be
//!                       |-> answer -> alias   queries
//!                       |-> transfer          AXFR, IXFR
//!                       '-> zone -> update, lease -> table -> wire
//! view (follows a Discovery) -> zone          notify (tells secondaries) -> zone
//! ```
//!
//! The sockets and the messages are our own, not those of `hickory-server`: signatures are made of the bytes as they are
//! sent, a transfer has to wait for who does not read, the port has to be free once the handle is dropped, and nothing may
//! panic, also not in a task of a library. What comes in is read with bounds on everything by `wire` and `message`, which
//! the fuzz targets drive through `engine`; answers are copied together from records that are kept as on the wire.
//!
//! Large answers to small questions: by UDP never more than 1232 bytes (512 without EDNS), one set only for ANY (RFC 8482),
//! no list of name servers and no record of other zones. There is no limit on the rate of answers, as in BIND by default.
//!
//! Everybody may ask. Transfers and updates need one of the keys; without keys they are for programs on the same
//! machine, on a listener that only they can reach.

mod alias;
mod answer;
mod config;
mod engine;
#[cfg(any(test, fuzzing))]
#[allow(unreachable_pub, reason = "the fuzz targets reach it")]
pub(crate) mod fuzz;
mod lease;
mod message;
mod notify;
mod server;
mod table;
#[cfg(test)]
mod testing;
mod transfer;
mod update;
mod view;
mod wire;
mod zone;

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    thread::available_parallelism,
};

use discovery::{Error, ErrorKind, Result};
use tokio::task::JoinSet;

pub use self::config::ZoneConfig;
use self::{engine::Engine, notify::Notifier, server::Listener};
use crate::{
    tsig::TsigKey,
    zone::{DnsZone, DnsZoneConfig},
};

/// The most UDP sockets an address has if nobody says otherwise.
const SOCKETS_MAX: usize = 4;

/// A DNS server. Dropping it stops it at once, and its ports are free.
///
/// # Example: services by name, for programs that know only DNS
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> discovery::Result<()> {
/// use discovery::{Discovery, Instance, Scope, mem::Mem};
/// use discovery_dns::{Authority, ZoneConfig};
///
/// let discovery = Discovery::new(Mem::new());
/// let authority = Authority::builder()
///     .listen("127.0.0.1:0".parse().expect("an address"))
///     .zone(ZoneConfig::view("disco.example", &discovery, Scope::everything()))
///     .start()
///     .await?;
///
/// let instance = Instance::builder("eu1/prod/cart".parse()?).endpoint("http", "10.0.0.7", 8080);
/// let registration = discovery.register(instance.build()?).await?;
/// println!("dig -p {} @127.0.0.1 cart.prod.eu1.disco.example", authority.address().port());
/// # drop(registration);
/// # Ok(()) }
/// ```
pub struct Authority {
    listeners: Vec<Listener>,
    engine: Arc<Engine>,
    /// They sweep away what a lease leaves behind when it ends, also when no other client is there.
    _attendants: Vec<DnsZone>,
    /// Ended when it is dropped.
    _tasks: JoinSet<()>,
}

impl Authority {
    /// Starts to describe one.
    pub fn builder() -> AuthorityBuilder {
        AuthorityBuilder { addresses: Vec::new(), zones: Vec::new(), keys: Vec::new(), sockets: None }
    }

    /// The first address it listens on, by UDP and TCP.
    pub fn address(&self) -> SocketAddr {
        // There is one: `start` sees to that.
        self.listeners.first().map_or_else(|| SocketAddr::from(([0; 4], 0)), Listener::address)
    }

    /// All addresses it listens on.
    pub fn addresses(&self) -> impl Iterator<Item = SocketAddr> {
        self.listeners.iter().map(Listener::address)
    }

    /// The serial of a zone now; `None` for a zone that it does not have.
    pub fn serial(&self, zone: &str) -> Option<u32> {
        let origin = crate::names::Origin::parse(zone).ok()?;
        let apex = wire::Name::from(origin.name());
        let zone = self.engine.zones().iter().find(|zone| *zone.apex() == apex)?;
        Some(zone.table().serial())
    }
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let addresses: Vec<_> = self.addresses().collect();
        let zones: Vec<_> = self.engine.zones().iter().map(|zone| zone.apex()).collect();
        write!(f, "Authority({zones:?} on {addresses:?})")
    }
}

/// Describes an [`Authority`].
#[derive(Clone, Debug)]
#[must_use]
pub struct AuthorityBuilder {
    addresses: Vec<SocketAddr>,
    zones: Vec<ZoneConfig>,
    keys: Vec<TsigKey>,
    sockets: Option<usize>,
}

impl AuthorityBuilder {
    /// An address to listen on, once more; port 0 for any that is free by UDP and TCP.
    pub fn listen(mut self, address: SocketAddr) -> Self {
        self.addresses.push(address);
        self
    }

    /// One more zone.
    pub fn zone(mut self, zone: ZoneConfig) -> Self {
        self.zones.push(zone);
        self
    }

    /// A key that transfers and updates may be signed with, once more. With a key, those that are not signed are
    /// refused; without any, those from other machines are.
    pub fn key(mut self, key: TsigKey) -> Self {
        self.keys.push(key);
        self
    }

    /// How many UDP sockets an address has; otherwise one for every core, and 4 at most.
    pub fn sockets(mut self, count: usize) -> Self {
        self.sockets = Some(count);
        self
    }

    /// Starts it. Its zones are there at once; those that show something else answer SERVFAIL until that is known.
    ///
    /// # Errors
    ///
    /// [`Invalid`](ErrorKind::Invalid) for a zone that cannot be, one that is there twice, or if there is nothing to
    /// listen on; [`Unavailable`](ErrorKind::Unavailable) if an address is in use; [`Denied`](ErrorKind::Denied) if
    /// the port is not ours to listen on.
    pub async fn start(self) -> Result<Authority> {
        if self.addresses.is_empty() {
            return Err(Error::invalid("an authority needs an address to listen on, such as 127.0.0.1:53"));
        }
        let (mut zones, mut shows, mut dynamic) = (Vec::new(), Vec::new(), Vec::new());
        for zone in self.zones {
            dynamic.extend(zone.is_dynamic().then(|| zone.name().to_owned()));
            let (zone, show) = zone.build()?;
            let zone = Arc::new(zone);
            if zones.iter().any(|other: &Arc<zone::Zone>| other.apex() == zone.apex()) {
                return Err(Error::invalid(format!("zone {:?} is there twice", zone.apex())));
            }
            shows.extend(show.map(|show| (show, zone.clone())));
            zones.push(zone);
        }
        let cores = available_parallelism().map_or(1, Into::into);
        let sockets = self.sockets.unwrap_or(cores.min(SOCKETS_MAX));
        let bind = |address| Listener::bind(address, sockets).map_err(|error| refused(address, error));
        let listeners = self.addresses.iter().copied().map(bind).collect::<Result<Vec<_>>>()?;
        let addresses: Vec<_> = listeners.iter().map(Listener::address).collect();

        let attend = |name: String| attendant(addresses[0], name, self.keys.first());
        let attendants = dynamic.into_iter().map(attend).collect::<Result<Vec<_>>>()?;
        let engine = Arc::new(Engine::new(zones, self.keys));
        let mut tasks = JoinSet::new();
        for (show, zone) in shows {
            tasks.spawn(view::follow(show, zone));
        }
        for zone in engine.zones() {
            let zone = zone.clone();
            let notifier = Notifier::new(zone.clone(), &addresses).await;
            tasks.spawn(notifier.map_err(|error| refused(addresses[0], error))?.run());
            tasks.spawn(async move { zone.keep_leases().await });
        }
        for listener in &listeners {
            listener.serve(&engine, &mut tasks);
        }
        attendants.iter().for_each(DnsZone::attend);
        Ok(Authority { listeners, engine, _attendants: attendants, _tasks: tasks })
    }
}

/// A client of a dynamic zone, within the process.
fn attendant(server: SocketAddr, zone: String, key: Option<&TsigKey>) -> Result<DnsZone> {
    let ip = match server.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    let config = DnsZoneConfig::builder().server(ip.to_string(), server.port()).zone(zone);
    let config = match key {
        Some(key) => config.key(key.clone()),
        None => config,
    };
    Ok(DnsZone::new(config.build()?))
}

fn refused(address: SocketAddr, error: std::io::Error) -> Error {
    let (kind, hint) = match error.kind() {
        std::io::ErrorKind::PermissionDenied => {
            (ErrorKind::Denied, "take a port above 1023, or allow the program that one")
        }
        std::io::ErrorKind::AddrInUse => (ErrorKind::Unavailable, "another server has it"),
        _ => (ErrorKind::Unavailable, "is it an address of this machine?"),
    };
    Error::new(kind, format!("cannot listen on {address}: {hint}")).with_source(error)
}
