//! Follows one way to a service: asks what it takes, and makes candidates of the answers.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    net::IpAddr,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use discovery::{ComposeName, Endpoint, Error, ErrorKind, Info, InstanceId, Result, ServiceName};
use futures_util::future::{try_join, try_join_all};
use hickory_proto::rr::{
    Name, RData, RecordType,
    rdata::{SRV, TXT},
};

use super::{
    DnsConfig, Family,
    answer::Answer,
    candidate::{Candidate, merge},
    names,
    ways::{self, Way, Whose},
    wire::Ask,
};

/// How many replicas are asked for at a time; where the last of them are not there, none is expected behind them.
const REPLICAS: u32 = 4;
const REPLICAS_MISSING: usize = 2;
/// The most replicas that are asked for.
const REPLICAS_MAX: u32 = 1024;

/// What was found.
#[derive(Clone, Debug, Default)]
pub(crate) struct Found {
    pub(crate) listed: Vec<Candidate>,
    /// How long it holds, where that is told.
    pub(crate) ttl: Option<Duration>,
}

/// A look along one way.
pub(crate) struct Search<'a> {
    ask: &'a dyn Ask,
    config: &'a DnsConfig,
    info: &'a Info,
    heard: Mutex<Heard>,
}

/// What the answers so far have said besides what they were asked for. Locked for moments only.
#[derive(Default)]
struct Heard {
    ttl: Option<Duration>,
    unasked: HashMap<(Name, RecordType), Vec<RData>>,
}

impl<'a> Search<'a> {
    pub(crate) fn new(ask: &'a dyn Ask, config: &'a DnsConfig, info: &'a Info) -> Self {
        Self { ask, config, info, heard: Mutex::default() }
    }

    /// Follows a way to its end. Whatever cannot be told on it makes the whole an error: part of a service is not the
    /// service.
    pub(crate) async fn follow(self, service: &ServiceName, way: &Way) -> Result<Found> {
        let listed = match way {
            Way::Sd { domain } => self.described(domain).await?,
            Way::SdType { name, domain } => {
                let listed = self.pointers(name).await?;
                let endpoint = service.labels().next_back().unwrap_or_default();
                try_join_all(listed.iter().map(|one| self.instance(name, one, domain, endpoint)))
                    .await?
                    .concat()
            }
            Way::Srv { name, domain, endpoint } => {
                let endpoint = match endpoint {
                    ways::Endpoint::Configured => self.config.endpoint(),
                    ways::Endpoint::Named(name) => name,
                };
                self.targets(self.services(name).await?, domain, endpoint, None).await?
            }
            Way::Addresses { name } => self.alone(&self.addresses(name).await?)?,
            Way::Containers { name, of } => self.containers(name, of).await?,
            Way::Replicas { stems } => self.replicas(stems).await?,
        };
        let ttl = self.heard().ttl.filter(|_| !way.is_docker() || listed.is_empty());
        // Docker's time to live is always the same and always too long.
        let ttl = if way.is_docker() && !listed.is_empty() { Some(Duration::ZERO) } else { ttl };
        Ok(Found { listed: merge(listed), ttl })
    }

    /// The services at or below one, as far as the domain lists what it has, and how long that holds. `None` if the
    /// domain lists nothing.
    pub(crate) async fn browse(self, domain: &Name) -> Result<(Vec<ServiceName>, Option<Duration>)> {
        let Some(listing) = names::below(domain, ["b", "_dns-sd", "_udp"]) else {
            return Ok(Default::default());
        };
        let listed = self.pointers(&listing).await?;
        let services = listed.iter().filter_map(|name| {
            let service = names::to_service(domain, name);
            if service.is_none() && name != domain {
                self.skip(name, "no service can have that name");
            }
            service
        });
        let mut services: Vec<_> = services.collect();
        services.sort();
        services.dedup();
        let ttl = self.heard().ttl;
        Ok((services, ttl))
    }

    /// All that DNS-SD has below the domain of a service, of each type that is listed, and of the one looked for.
    async fn described(&self, domain: &Name) -> Result<Vec<Candidate>> {
        let own_type = format!("_{}", self.config.endpoint());
        let (Some(listing), Some(own)) = (
            names::below(domain, ["_services", "_dns-sd", "_udp"]),
            names::below(domain, [&*own_type, "_tcp"]),
        ) else {
            return Ok(Vec::new());
        };
        let (types, instances) = try_join(self.pointers(&listing), self.pointers(&own)).await?;
        let others = types.into_iter().filter(|name| *name != own).collect::<HashSet<_>>();
        let listed = others.into_iter().map(async |name| {
            let instances = self.pointers(&name).await?;
            Ok::<_, Error>((name, instances))
        });
        let mut listed = try_join_all(listed).await?;
        listed.push((own, instances));
        let mut found = Vec::new();
        for (name, instances) in &listed {
            let endpoint = name.iter().next().and_then(|label| str::from_utf8(label).ok()?.strip_prefix('_'));
            let endpoint = endpoint.filter(|endpoint| Endpoint::new(endpoint, "::1", 1).is_ok());
            let Some(endpoint) = endpoint else {
                self.skip(name, "no endpoint can be called like its type");
                continue;
            };
            found.extend(instances.iter().map(|one| self.instance(name, one, domain, endpoint)));
        }
        Ok(try_join_all(found).await?.concat())
    }

    /// One instance that DNS-SD lists under its type.
    async fn instance(
        &self,
        of_type: &Name,
        name: &Name,
        domain: &Name,
        endpoint: &str,
    ) -> Result<Vec<Candidate>> {
        let id = match names::relative(of_type, name).as_deref() {
            Some([label]) => names::to_id(label),
            _ => names::to_id(names::to_host(name).as_bytes()),
        };
        let (services, texts) = try_join(self.services(name), self.ask(name, RecordType::TXT)).await?;
        let mut listed = self.targets(services, domain, endpoint, id).await?;
        let text = self.text(name, &texts);
        for one in &mut listed {
            one.text.clone_from(&text);
        }
        Ok(listed)
    }

    /// What SRV records point at. Without an id, each target is an instance by its own name.
    async fn targets(
        &self,
        records: Vec<SRV>,
        domain: &Name,
        endpoint: &str,
        id: Option<InstanceId>,
    ) -> Result<Vec<Candidate>> {
        let found = records.iter().map(async |record| {
            let id = id.clone().or_else(|| self.id_of(domain, record));
            let mut endpoints = Vec::new();
            for host in self.hosts(&record.target).await? {
                match Endpoint::new(endpoint, &host, record.port) {
                    Ok(endpoint) => endpoints.push(endpoint),
                    Err(error) => self.skip(&record.target, &error.to_string()),
                }
            }
            let found = id.filter(|_| !endpoints.is_empty()).map(|id| Candidate {
                priority: record.priority,
                weight: record.weight,
                ..Candidate::new(id, endpoints)
            });
            Ok::<_, Error>(found)
        });
        Ok(try_join_all(found).await?.into_iter().flatten().collect())
    }

    /// The id of a target: below the domain of the service its own label; elsewhere its whole name, with the port, for
    /// there may be several on a host.
    #[allow(clippy::unused_self, reason = "beside its siblings")]
    fn id_of(&self, domain: &Name, record: &SRV) -> Option<InstanceId> {
        match names::relative(domain, &record.target).as_deref() {
            Some([.., label]) => names::to_id(label),
            _ => names::to_id(format!("{}:{}", names::to_host(&record.target), record.port).as_bytes()),
        }
    }

    /// The addresses of a target; its name, where the server refuses to tell addresses of names outside of its domain.
    async fn hosts(&self, target: &Name) -> Result<Vec<String>> {
        match self.addresses(target).await {
            Ok(addresses) => {
                if addresses.is_empty() {
                    tracing::debug!(%target, "a target without address");
                }
                Ok(addresses.iter().map(IpAddr::to_string).collect())
            }
            Err(error)
                if error.kind() == ErrorKind::Denied
                    && self.config.domain().is_some_and(|domain| !domain.zone_of(target)) =>
            {
                Ok(vec![names::to_host(target)])
            }
            Err(error) => Err(error),
        }
    }

    /// Each address an instance, with the port of the configuration.
    fn alone(&self, addresses: &[IpAddr]) -> Result<Vec<Candidate>> {
        addresses.iter().map(|address| self.candidate(address_id(*address)?, *address)).collect()
    }

    fn candidate(&self, id: InstanceId, address: IpAddr) -> Result<Candidate> {
        let port = self.config.port().unwrap_or_default();
        let endpoint = Endpoint::new(self.config.endpoint(), &address.to_string(), port)?;
        Ok(Candidate::new(id, vec![endpoint]))
    }

    /// The containers behind a name: Docker knows which container has an address.
    async fn containers(&self, name: &Name, of: &Whose) -> Result<Vec<Candidate>> {
        let addresses = self.addresses(name).await?;
        let found = addresses.iter().map(async |address| {
            let known = self.pointers(&Name::from(*address)).await?;
            let container = known.iter().find_map(|name| match name.iter().collect::<Vec<_>>()[..] {
                [container, _network] => str::from_utf8(container).ok().map(str::to_owned),
                _ => None,
            });
            match identify(container.as_deref(), of, *address)? {
                Some(id) => self.candidate(id, *address).map(Some),
                None => Ok(None),
            }
        });
        Ok(try_join_all(found).await?.into_iter().flatten().collect())
    }

    /// The containers of a service by their own names, in every spelling, until some are missing.
    async fn replicas(&self, stems: &[String]) -> Result<Vec<Candidate>> {
        let mut found = Vec::new();
        for first in (1..REPLICAS_MAX).step_by(REPLICAS as usize) {
            let block = (first..first + REPLICAS).map(async |index| {
                let spelled = stems.iter().filter_map(|stem| {
                    let separator = if stem.contains('_') { '_' } else { '-' };
                    names::below(&Name::root(), [&*format!("{stem}{separator}{index}")])
                });
                let spelled: Vec<_> = spelled.collect();
                let addresses = try_join_all(spelled.iter().map(|name| self.addresses(name))).await?.concat();
                let id: InstanceId = index.to_string().parse()?;
                addresses
                    .into_iter()
                    .map(|address| self.candidate(id.clone(), address))
                    .collect::<Result<Vec<_>>>()
            });
            let block = try_join_all(block).await?;
            let missing = block.iter().rev().take_while(|one| one.is_empty()).count();
            found.extend(block.into_iter().flatten());
            if missing >= REPLICAS_MISSING {
                break;
            }
        }
        Ok(found)
    }

    async fn addresses(&self, name: &Name) -> Result<Vec<IpAddr>> {
        let nothing = async || Ok(Vec::new());
        let (v4, v6) = match self.config.family() {
            Family::Both => try_join(self.ask(name, RecordType::A), self.ask(name, RecordType::AAAA)).await?,
            Family::V4 => try_join(self.ask(name, RecordType::A), nothing()).await?,
            Family::V6 => try_join(nothing(), self.ask(name, RecordType::AAAA)).await?,
        };
        let addresses = v4.into_iter().chain(v6).filter_map(|data| match data {
            RData::A(address) => Some(IpAddr::V4(address.0)),
            RData::AAAA(address) => Some(IpAddr::V6(address.0)),
            _ => None,
        });
        let mut addresses: Vec<_> = addresses.collect();
        addresses.sort_unstable();
        addresses.dedup();
        Ok(addresses)
    }

    async fn pointers(&self, name: &Name) -> Result<Vec<Name>> {
        let data = self.ask(name, RecordType::PTR).await?;
        let pointer = |data| match data {
            RData::PTR(target) => Some(target.0),
            _ => None,
        };
        Ok(data.into_iter().filter_map(pointer).collect())
    }

    async fn services(&self, name: &Name) -> Result<Vec<SRV>> {
        let data = self.ask(name, RecordType::SRV).await?;
        let service = |data| match data {
            // A target that is the root says that there is decidedly no such service.
            RData::SRV(record) if !record.target.is_root() => Some(record),
            _ => None,
        };
        Ok(data.into_iter().filter_map(service).collect())
    }

    /// Metadata (RFC 6763, section 6): of a key that is there twice the first counts.
    fn text(&self, name: &Name, records: &[RData]) -> BTreeMap<String, String> {
        let mut text = BTreeMap::new();
        for string in records.iter().filter_map(strings).flat_map(|record| record.txt_data.iter()) {
            let Ok(string) = str::from_utf8(string) else {
                self.skip(name, "a string that is not UTF-8");
                continue;
            };
            let (key, value) = string.split_once('=').unwrap_or((string, ""));
            if !key.is_empty() {
                text.entry(key.to_owned()).or_insert_with(|| value.to_owned());
            }
        }
        text
    }

    /// The data of a type at a name: what came along with an earlier answer, or what the servers say.
    async fn ask(&self, name: &Name, kind: RecordType) -> Result<Vec<RData>> {
        let unasked = self.heard().unasked.remove(&(name.to_lowercase(), kind));
        if let Some(data) = unasked {
            return Ok(data);
        }
        let answer = self.ask.ask(name, kind).await?;
        Ok(self.hear(answer))
    }

    fn hear(&self, answer: Answer) -> Vec<RData> {
        let mut heard = self.heard();
        heard.ttl = heard.ttl.into_iter().chain(answer.ttl).min();
        for record in answer.extra {
            let kind = record.record_type();
            if matches!(kind, RecordType::A | RecordType::AAAA | RecordType::SRV | RecordType::TXT) {
                heard.ttl = heard.ttl.into_iter().chain([Duration::from_secs(record.ttl.into())]).min();
                let known = heard.unasked.entry((record.name.to_lowercase(), kind)).or_default();
                if !known.contains(&record.data) {
                    known.push(record.data);
                }
            }
        }
        answer.data
    }

    fn heard(&self) -> std::sync::MutexGuard<'_, Heard> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Passes over what cannot be understood. It comes again with every look, so it is not said loudly.
    fn skip(&self, name: &Name, why: &str) {
        tracing::debug!(%name, why, "record skipped");
        self.info.count_skipped();
    }
}

fn strings(data: &RData) -> Option<&TXT> {
    match data {
        RData::TXT(text) => Some(text),
        _ => None,
    }
}

/// The id of a container; `None` if it is not one of those that count.
fn identify(container: Option<&str>, of: &Whose, address: IpAddr) -> Result<Option<InstanceId>> {
    let by_name = |container: &str| names::to_id(container.replace('_', "-").as_bytes());
    let index = |container: &str, ours: &ComposeName| {
        let name = ComposeName::within(ours.project(), container).ok()?;
        name.instance().filter(|_| name.service() == ours.service())
    };
    let id = match (container, of) {
        (None, Whose::Ours(_)) => None,
        (None, _) => Some(address_id(address)?),
        (Some(container), Whose::All) => by_name(container),
        (Some(container), Whose::Ours(ours)) => index(container, ours),
        (Some(container), Whose::NotOfOthers(ours)) => {
            let is_like_ours = container.parse::<ComposeName>().is_ok_and(|other| {
                other.index().is_some()
                    && format!("-{}", other.service().labels().collect::<Vec<_>>().join("-"))
                        .ends_with(&format!("-{}", ours.alias().replace('_', "-")))
            });
            index(container, ours).or_else(|| by_name(container).filter(|_| !is_like_ours))
        }
    };
    Ok(id)
}

/// The id of what has only an address: the address.
fn address_id(address: IpAddr) -> Result<InstanceId> {
    match address {
        IpAddr::V4(address) => address.to_string().replace('.', "-").parse(),
        IpAddr::V6(address) => format!("{:032x}", address.to_bits()).parse(),
    }
}
