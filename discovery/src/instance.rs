//! One running copy of a service.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};

use crate::{Endpoint, Error, InstanceId, Result, ServiceName};

/// Which instance: its service and its id.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InstanceKey {
    service: ServiceName,
    id: InstanceId,
}

impl InstanceKey {
    /// The key of instance `id` of `service`.
    pub fn new(service: ServiceName, id: InstanceId) -> Self {
        Self { service, id }
    }

    /// The service.
    pub fn service(&self) -> &ServiceName {
        &self.service
    }

    /// The id within the service.
    pub fn id(&self) -> &InstanceId {
        &self.id
    }
}

/// `service/id`.
impl fmt::Display for InstanceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.service, self.id)
    }
}

/// Whether an instance wants traffic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Status {
    /// Registered, not serving yet.
    Starting,
    /// Serving.
    #[default]
    Up,
    /// Finishing what it has, wanting nothing new; about to leave.
    Draining,
    /// Registered, known not to serve.
    Down,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Starting => "starting",
            Self::Up => "up",
            Self::Draining => "draining",
            Self::Down => "down",
        })
    }
}

/// One running copy of a service: where it is and what it says of itself.
///
/// # Example: describe an instance
///
/// ```
/// use discovery::Instance;
///
/// let cart = Instance::builder("eu1/prod/cart".parse()?)
///     .endpoint("http", "10.0.0.7", 8080)
///     .metadata("version", "1.4.2")
///     .weight(3)
///     .zone("eu1-a")
///     .build()?;
/// assert_eq!(cart.endpoint("http").unwrap().to_string(), "10.0.0.7:8080");
/// # Ok::<(), discovery::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Instance {
    key: InstanceKey,
    endpoints: Box<[Endpoint]>,
    /// Sorted by key. A view may hold very many instances: a map would take several times the memory.
    metadata: Box<[(Box<str>, Box<str>)]>,
    zone: Option<Box<str>>,
    incarnation: u64,
    weight: u32,
    status: Status,
}

impl Instance {
    /// Starts an instance of `service`, with a random id, no endpoint, weight 1 and status [`Status::Up`].
    pub fn builder(service: ServiceName) -> InstanceBuilder {
        InstanceBuilder {
            service,
            id: None,
            endpoints: Vec::new(),
            metadata: BTreeMap::new(),
            zone: None,
            incarnation: 0,
            weight: 1,
            status: Status::default(),
            error: None,
        }
    }

    /// A builder that starts from this instance, id and incarnation included.
    pub fn to_builder(&self) -> InstanceBuilder {
        InstanceBuilder {
            service: self.key.service.clone(),
            id: Some(self.key.id.clone()),
            endpoints: self.endpoints.to_vec(),
            metadata: self.metadata.iter().cloned().collect(),
            zone: self.zone.clone(),
            incarnation: self.incarnation,
            weight: self.weight,
            status: self.status,
            error: None,
        }
    }

    /// The same instance under another service.
    pub(crate) fn in_service(&self, service: ServiceName) -> Self {
        Self { key: InstanceKey::new(service, self.key.id.clone()), ..self.clone() }
    }

    /// Service and id together.
    pub fn key(&self) -> &InstanceKey {
        &self.key
    }

    /// The service.
    pub fn service(&self) -> &ServiceName {
        &self.key.service
    }

    /// The id within the service.
    pub fn id(&self) -> &InstanceId {
        &self.key.id
    }

    /// All endpoints, in the order in which they were given.
    pub fn endpoints(&self) -> &[Endpoint] {
        &self.endpoints
    }

    /// The first endpoint of that name.
    pub fn endpoint(&self, name: &str) -> Option<&Endpoint> {
        self.endpoints.iter().find(|endpoint| endpoint.name() == name)
    }

    /// The value under `key` in the metadata.
    pub fn metadata(&self, key: &str) -> Option<&str> {
        let found = self.metadata.binary_search_by(|(known, _)| (**known).cmp(key)).ok()?;
        Some(&self.metadata[found].1)
    }

    /// All metadata, sorted by key.
    pub fn metadata_iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.metadata.iter().map(|(key, value)| (&**key, &**value))
    }

    /// The share of traffic it wants, relative to its siblings; 0 wants none.
    pub fn weight(&self) -> u32 {
        self.weight
    }

    /// The failure domain it runs in, if it says.
    pub fn zone(&self) -> Option<&str> {
        self.zone.as_deref()
    }

    /// Whether it wants traffic.
    pub fn status(&self) -> Status {
        self.status
    }

    /// Tells successive lives of one id apart: a registration draws one and keeps it however often it has to
    /// register again; a record that somebody else wrote has the revision at which it was created. 0 until then.
    pub fn incarnation(&self) -> u64 {
        self.incarnation
    }
}

/// Builds an [`Instance`]; [`build`](InstanceBuilder::build) reports the first thing that is wrong.
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until `build`"]
pub struct InstanceBuilder {
    service: ServiceName,
    id: Option<InstanceId>,
    endpoints: Vec<Endpoint>,
    metadata: BTreeMap<Box<str>, Box<str>>,
    zone: Option<Box<str>>,
    incarnation: u64,
    weight: u32,
    status: Status,
    error: Option<Error>,
}

impl InstanceBuilder {
    /// Sets the id; without it a random one is drawn.
    pub fn id(mut self, id: InstanceId) -> Self {
        self.id = Some(id);
        self
    }

    /// Adds an endpoint; see [`Endpoint::new`] for what is allowed.
    pub fn endpoint(mut self, name: &str, host: &str, port: u16) -> Self {
        match Endpoint::new(name, host, port) {
            Ok(endpoint) => self.endpoints.push(endpoint),
            Err(error) => self.error = self.error.or(Some(error)),
        }
        self
    }

    /// Replaces all endpoints.
    pub fn endpoints(mut self, endpoints: impl IntoIterator<Item = Endpoint>) -> Self {
        self.endpoints = endpoints.into_iter().collect();
        self
    }

    /// Sets one metadata value.
    pub fn metadata(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.metadata.insert(key.into().into(), value.into().into());
        self
    }

    /// Sets the share of traffic; 1 unless told.
    pub fn weight(mut self, weight: u32) -> Self {
        self.weight = weight;
        self
    }

    /// Sets the failure domain.
    pub fn zone(mut self, zone: impl Into<String>) -> Self {
        self.zone = Some(zone.into().into());
        self
    }

    /// Sets the status.
    pub fn status(mut self, status: Status) -> Self {
        self.status = status;
        self
    }

    /// Sets the incarnation; a registration does this by itself.
    pub fn incarnation(mut self, incarnation: u64) -> Self {
        self.incarnation = incarnation;
        self
    }

    /// The instance.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) if the service is the root or an endpoint was refused.
    pub fn build(self) -> Result<Instance> {
        if let Some(error) = self.error {
            return Err(error);
        }
        if self.service.is_root() {
            return Err(Error::invalid("the root holds no instances; give the service a name"));
        }
        Ok(Instance {
            key: InstanceKey::new(self.service, self.id.unwrap_or_else(InstanceId::random)),
            endpoints: self.endpoints.into(),
            metadata: self.metadata.into_iter().collect(),
            zone: self.zone,
            incarnation: self.incarnation,
            weight: self.weight,
            status: self.status,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_builder_reports_its_first_error() {
        let error = Instance::builder("a".parse().unwrap())
            .endpoint("http", "", 1)
            .endpoint("http", "a", 0)
            .build()
            .unwrap_err();
        assert!(error.to_string().contains("host"), "{error}");
        assert!(Instance::builder(ServiceName::root()).build().is_err());
    }

    #[test]
    fn to_builder_keeps_everything() {
        let one = Instance::builder("a/b".parse().unwrap())
            .endpoint("http", "::1", 1)
            .endpoint("http", "127.0.0.1", 1)
            .metadata("k", "v")
            .weight(0)
            .zone("z")
            .status(Status::Draining)
            .incarnation(7)
            .build()
            .unwrap();
        assert_eq!(one.to_builder().build().unwrap(), one);
    }
}
