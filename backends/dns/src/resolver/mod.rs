//! Finds services in any DNS. What it asks for and what it makes of the answers is in the documentation of [`Dns`].

mod answer;
mod candidate;
mod config;
mod find;
mod names;
mod poll;
mod probe;
mod route;
#[cfg(test)]
mod tests;
mod watch;
mod ways;
mod wire;

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use async_trait::async_trait;
use discovery::{
    Backend, Capabilities, Delivery, Error, ErrorKind, Info, Leases, Locator, Registrar, Result, Resume,
    Revision, Scope, ServiceName, Snapshot, Updates, kv::Kv,
};
use futures_util::{StreamExt, TryStreamExt, future::join_all, stream};
use tokio::time;

pub use self::config::{DnsConfig, DnsConfigBuilder, Family, Probe, Records};
use self::{
    find::{Found, Search},
    poll::Pace,
    probe::Probes,
    route::Routes,
    watch::{Look, Looked, Watches},
    ways::{Way, ways},
    wire::{Ask, Wire},
};
use crate::error::{SCHEME, named};

/// How many services of a subtree are looked at together.
const TOGETHER: usize = 16;

#[doc = include_str!("../../docs/resolver.md")]
#[derive(Clone)]
pub struct Dns(Arc<Resolver>);

struct Resolver {
    config: DnsConfig,
    info: Info,
    ask: Box<dyn Ask>,
    routes: Routes,
    probes: Probes,
    watches: Arc<Watches>,
    /// Whether the domain was ever seen to list its services. Written once by whoever sees it; nothing hangs on when
    /// others learn of it, so relaxed ordering will do.
    lists_services: AtomicBool,
}

impl Dns {
    /// A resolver. Asks nothing yet.
    ///
    /// # Errors
    ///
    /// [`Other`](discovery::ErrorKind::Other) if the DNS client cannot be made.
    pub fn new(config: DnsConfig) -> Result<Self> {
        let wire = Wire::new(&config).map_err(|error| error.on_backend(SCHEME))?;
        Ok(Self::asking(config, wire))
    }

    /// A resolver that gets its answers from anywhere.
    fn asking(config: DnsConfig, ask: impl Ask) -> Self {
        let mut capabilities = Capabilities::default();
        capabilities.delivery = Delivery::Poll;
        capabilities.resume = Resume::Never;
        capabilities.detects_silence_within =
            config.ceiling().mul_f64(1.0 + config.jitter()) + config.deadline() + config.probe_timeout();
        Self(Arc::new(Resolver {
            info: Info::new(SCHEME, config.to_string(), capabilities),
            routes: Routes::new(config.deadline() / 4),
            probes: Probes::new(&config),
            ask: Box::new(ask),
            watches: Arc::default(),
            lists_services: AtomicBool::new(false),
            config,
        }))
    }

    /// Makes the open watches of a service look at once: for whoever cannot connect to what DNS said. However often it is
    /// called, they look no more often than the [floor](DnsConfig::floor) allows.
    pub fn refresh(&self, service: &ServiceName) {
        self.0.watches.ring(service);
    }
}

/// The resolver of a locator with the scheme `dns`.
pub(crate) fn connect(locator: &Locator) -> Result<Dns> {
    Dns::new(DnsConfig::from_locator(locator)?)
}

impl Resolver {
    /// The instances of a service, and how long that holds.
    async fn service(&self, service: &ServiceName) -> Result<Found> {
        if service.is_root() {
            return Err(Error::invalid("the root is no service; name one, or watch the subtree"));
        }
        let ways = ways(&self.config, service);
        self.routes.find(service, ways.len(), |way| self.search().follow(service, &ways[way])).await
    }

    /// What the domain lists of a subtree.
    async fn subtree(&self, scope: &Scope) -> Result<Vec<(ServiceName, Found)>> {
        let may = matches!(self.config.records(), Records::Auto | Records::Sd);
        let Some(domain) = self.config.domain().filter(|_| may) else {
            return Err(unlisted(
                "services can be listed only in a domain, as in dns://server/domain?records=sd",
            ));
        };
        let (services, ttl) = self.search().browse(domain).await?;
        if !services.is_empty() {
            self.lists_services.store(true, Ordering::Relaxed);
        } else if self.config.records() == Records::Auto && !self.lists_services.load(Ordering::Relaxed) {
            return Err(unlisted(
                "the domain lists no services; if it is to, and is only empty, say records=sd",
            ));
        }
        let listing = Found { ttl, ..Found::default() };
        let found = services.into_iter().filter(|service| scope.contains(service)).map(async |service| {
            let Some(domain) = names::of_service(domain, &service) else {
                return Ok((service, Found::default()));
            };
            let found = self.search().follow(&service, &Way::Sd { domain }).await?;
            Ok::<_, Error>((service, found))
        });
        let mut all: Vec<_> = stream::iter(found).buffered(TOGETHER).try_collect().await?;
        all.push((scope.service().clone(), listing));
        Ok(all)
    }

    fn search(&self) -> Search<'_> {
        Search::new(&*self.ask, &self.config, &self.info)
    }
}

fn unlisted(message: &str) -> Error {
    Error::new(ErrorKind::Unsupported, message)
}

#[async_trait]
impl Look for Resolver {
    async fn look(&self, scope: &Scope) -> Result<Looked> {
        let ask = async {
            match scope {
                Scope::Service(service) => Ok(vec![(service.clone(), self.service(service).await?)]),
                Scope::Subtree(_) => self.subtree(scope).await,
            }
        };
        let deadline = self.config.deadline();
        let found = time::timeout(deadline, ask).await.unwrap_or_else(|_| {
            Err(Error::new(
                ErrorKind::Timeout,
                format!("no answer for {scope} within the deadline of {deadline:?}"),
            ))
        })?;
        let probes = join_all(found.iter().map(|(_, found)| self.probes.check(&found.listed))).await;
        let mut looked = Looked::default();
        for ((service, found), is_up) in found.iter().zip(&probes) {
            looked.ttl = looked.ttl.into_iter().chain(found.ttl).min();
            looked.instances.extend(candidate::instances(service, &found.listed, is_up)?);
        }
        Ok(looked)
    }
}

#[async_trait]
impl Backend for Dns {
    fn info(&self) -> &Info {
        &self.0.info
    }

    async fn fetch(&self, scope: &Scope) -> Result<Snapshot> {
        let looked = self.0.look(scope).await.map_err(named("fetch"))?;
        Ok(Snapshot::new(Revision(1), looked.instances.into_iter().map(Arc::new)))
    }

    fn watch(&self, scope: &Scope, after: Option<Revision>) -> Updates {
        let pace = Pace::of(&self.0.config);
        watch::watch(self.0.clone(), self.0.watches.clone(), pace, scope.clone(), after)
    }

    fn registrar(&self) -> Option<&dyn Registrar> {
        None
    }

    fn leases(&self) -> Option<&dyn Leases> {
        None
    }

    fn kv(&self) -> Option<&dyn Kv> {
        None
    }
}

impl fmt::Debug for Dns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Dns").field(&self.0.config).finish()
    }
}

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resolver")
            .field("config", &self.config)
            .field("ask", &self.ask)
            .finish_non_exhaustive()
    }
}
