//! Find services, register yourself and follow changes, whatever store is behind.

mod backend;
mod capability;
mod codec;
mod connect;
mod endpoint;
mod error;
mod instance;
pub mod kv;
mod locator;
pub mod mem;
mod name;
mod snapshot;

pub use crate::{
    backend::{Backend, Claim, Grant, LeaseId, Leases, OnConflict, Owner, Registrar, Updates},
    capability::{Capabilities, Delivery, Info, Resume},
    connect::{Connector, Connectors},
    endpoint::Endpoint,
    error::{Error, ErrorKind, Outcome, Result},
    instance::{Instance, InstanceBuilder, InstanceKey, Status},
    locator::{Host, Locator},
    name::{Coordinate, InstanceId, ServiceName},
    snapshot::{Change, Revision, Scope, Snapshot, Update},
};
