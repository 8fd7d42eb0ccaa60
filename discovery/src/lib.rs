//! Find services, register yourself and follow changes, whatever store is behind.

mod backend;
mod backoff;
mod capability;
mod client;
mod codec;
mod connect;
mod endpoint;
mod error;
mod instance;
pub mod kv;
pub mod layer;
mod lease;
mod locator;
pub mod mem;
mod name;
mod registration;
mod snapshot;
mod view;
mod watch;

pub use crate::{
    backend::{Backend, Claim, Grant, LeaseId, Leases, OnConflict, Owner, Registrar, Updates},
    backoff::Backoff,
    capability::{Capabilities, Delivery, Info, Resume},
    client::{Discovery, KvHandle},
    connect::{Connector, Connectors},
    endpoint::Endpoint,
    error::{Error, ErrorKind, Outcome, Result},
    instance::{Instance, InstanceBuilder, InstanceKey, Status},
    locator::{Host, Locator},
    name::{Coordinate, InstanceId, ServiceName},
    registration::{Phase, Register, Registration, RegistrationStatus},
    snapshot::{Change, Revision, Scope, Snapshot, Update},
    view::{Freshness, FreshnessState, View, ViewBuilder},
    watch::{Event, Watch},
};
