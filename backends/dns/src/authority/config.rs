//! What a zone is made of.

use std::{net::SocketAddr, time::Duration};

use discovery::{Discovery, Error, Result, Scope};
use hickory_proto::rr::{Name as LibraryName, Record};

use super::{
    lease::{self, Bounds},
    table::{Limits, Table},
    view::Show,
    wire::{Data, Name, Rr, code},
    zone::{LEASE_MAX, LEASE_MIN, Zone},
};
use crate::names::Origin;

/// How long secondaries wait before they look, look again, and give up; and how long a negative answer holds.
const REFRESH: u32 = 60;
const RETRY: u32 = 10;
const EXPIRE: u32 = 86_400;

/// A zone of an [`Authority`](crate::Authority): what is in it and how it is served.
///
/// # Example: a zone that programs register in, with a secondary
///
/// ```
/// use std::time::Duration;
/// use discovery_dns::ZoneConfig;
///
/// let zone = ZoneConfig::dynamic("disco.example")
///     .lease(Duration::from_secs(1), Duration::from_secs(60))
///     .secondary("10.0.0.2:53".parse()?);
/// # let _ = zone;
/// # Ok::<(), std::net::AddrParseError>(())
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct ZoneConfig {
    name: String,
    shows: Option<(Discovery, Scope)>,
    name_server: Option<String>,
    serial: Option<u32>,
    ttl: Duration,
    stale_ttl: Duration,
    stale_for: Option<Duration>,
    lease_min: Duration,
    lease_max: Duration,
    records_max: usize,
    journal_max: usize,
    secondaries: Vec<SocketAddr>,
    content: Vec<(Record, Option<Duration>)>,
}

impl ZoneConfig {
    /// A zone of its own that updates fill (RFC 2136). It is kept in memory only: behind a restart it is empty, and
    /// whoever registers has to do so again.
    pub fn dynamic(name: &str) -> Self {
        Self::new(name, None)
    }

    /// A zone that shows what is registered in `scope`, whatever backend has it. Updates are refused.
    pub fn view(name: &str, discovery: &Discovery, scope: impl Into<Scope>) -> Self {
        Self::new(name, Some((discovery.clone(), scope.into())))
    }

    fn new(name: &str, shows: Option<(Discovery, Scope)>) -> Self {
        Self {
            name: name.to_owned(),
            shows,
            name_server: None,
            serial: None,
            ttl: Duration::from_secs(5),
            stale_ttl: Duration::from_secs(1),
            stale_for: None,
            lease_min: LEASE_MIN,
            lease_max: LEASE_MAX,
            records_max: 1_000_000,
            journal_max: 100_000,
            secondaries: Vec::new(),
            content: Vec::new(),
        }
    }

    /// What the zone calls its server, in its SOA and NS records; otherwise `ns` in the zone.
    pub fn name_server(mut self, name: &str) -> Self {
        self.name_server = Some(name.to_owned());
        self
    }

    /// The serial to start with. Otherwise it is the time, so that secondaries find it newer than before a restart:
    /// as long as there are fewer than 100 changes a second on average, and no 248 days between.
    pub fn serial(mut self, serial: u32) -> Self {
        self.serial = Some(serial);
        self
    }

    /// The TTL of what is known to be so, and of negative answers: 5 seconds. For a dynamic zone, that of SOA and NS
    /// only: the other records have their own.
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = ttl;
        self
    }

    /// Of a view: what is told while the backend is out of reach. Answers then have the TTL `ttl`, 1 second, and from
    /// `bound` on there are none: SERVFAIL. Without a bound, the default, they go on. Before it was ever in reach
    /// there are none.
    pub fn stale(mut self, ttl: Duration, bound: Option<Duration>) -> Self {
        self.stale_ttl = ttl;
        self.stale_for = bound;
        self
    }

    /// Of a dynamic zone: what is granted at least and at most to who asks for a lease (RFC 9664): 1 second and 1
    /// hour. Records without a lease stay until they are removed.
    pub fn lease(mut self, min: Duration, max: Duration) -> Self {
        self.lease_min = min;
        self.lease_max = max;
        self
    }

    /// Of a dynamic zone: the most records it may have, a million. An update beyond that is refused.
    pub fn records_max(mut self, records: usize) -> Self {
        self.records_max = records;
        self
    }

    /// How many records of changes are kept for incremental transfers: 100,000. Who has missed more gets the whole.
    pub fn journal_max(mut self, records: usize) -> Self {
        self.journal_max = records;
        self
    }

    /// A server to be notified of changes (RFC 1996), once more. It may be out of reach, and is told again then.
    ///
    /// BIND takes no zone with more than 100 records of a type at a name, such as the addresses of a large service or the
    /// list of 101 services, unless its option `max-records-per-type` says so; 0 is no limit.
    pub fn secondary(mut self, address: SocketAddr) -> Self {
        self.secondaries.push(address);
        self
    }

    /// What a dynamic zone holds from the beginning, and how long that lives unless it is asked for again.
    pub(crate) fn content(mut self, records: Vec<(Record, Option<Duration>)>) -> Self {
        self.content = records;
        self
    }

    /// Whether updates fill it.
    pub(crate) fn is_dynamic(&self) -> bool {
        self.shows.is_none()
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The zone, and what it is to show.
    pub(crate) fn build(self) -> Result<(Zone, Option<Show>)> {
        let origin = Origin::parse(&self.name)?;
        if self.lease_min > self.lease_max {
            return Err(Error::invalid("the shortest lease is longer than the longest"));
        }
        let server = match &self.name_server {
            Some(name) => {
                let mut parsed = LibraryName::from_ascii(name)
                    .map_err(|_| Error::invalid(format!("name server {name:?} is not a domain name")))?;
                parsed.set_fqdn(true);
                parsed
            }
            None => origin.below(["ns"]),
        };
        let ttl = seconds(self.ttl);
        let apex = Name::from(origin.name());
        let serial = self.serial.unwrap_or_else(serial_now);
        let soa = Rr {
            name: apex.clone(),
            kind: code::SOA,
            ttl,
            data: soa_data(&server, &origin.below(["hostmaster"]), serial, ttl),
        };
        let records = if self.shows.is_some() { usize::MAX } else { self.records_max };
        let limits = Limits { records, journal: self.journal_max };
        let content: Vec<_> = self
            .content
            .iter()
            .filter_map(|(record, lease)| Some((Rr::from_library(record)?, *lease)))
            .collect();
        let table = Table::with_server(soa, &(&server).into(), limits)
            .holding(content.iter().map(|(rr, _)| rr.clone()));
        let bounds = Bounds { min: self.lease_min, max: self.lease_max };
        let zone = Zone::new(table, self.shows.is_none(), bounds, self.secondaries);
        let lent = content.into_iter().filter_map(|(rr, lease)| {
            Some((lease::Key { name: rr.name, kind: rr.kind, data: rr.data }, lease?))
        });
        zone.lend(lent.collect());
        let show = self.shows.map(|(discovery, scope)| Show {
            discovery,
            scope,
            origin,
            ttl,
            stale_ttl: seconds(self.stale_ttl),
            stale_for: self.stale_for,
        });
        Ok((zone, show))
    }
}

fn seconds(duration: Duration) -> u32 {
    u32::try_from(duration.as_secs()).unwrap_or(u32::MAX)
}

/// Counts hundredths of a second, round and round.
fn serial_now() -> u32 {
    let now = std::time::SystemTime::now().duration_since(std::time::SystemTime::UNIX_EPOCH);
    let hundredths = now.map_or(0, |since| since.as_millis() / 10);
    u32::try_from(hundredths % (1 << 32)).unwrap_or_default()
}

fn soa_data(server: &LibraryName, mailbox: &LibraryName, serial: u32, minimum: u32) -> Data {
    let mut data = Name::from(server).to_vec();
    data.extend(&*Name::from(mailbox));
    for number in [serial, REFRESH, RETRY, EXPIRE, minimum] {
        data.extend(number.to_be_bytes());
    }
    data.into()
}
