//! Find services, register yourself and follow changes, whatever store is behind.
//!
//! A [`Discovery`] is a handle on a registry: ZooKeeper (`discovery-zk`), plain memory ([`mem`]), or what somebody else
//! wrote a [`Backend`] for. What it does means the same on each of them.
//!
//! # Find, follow, register
//!
//! | to | use | it costs |
//! | --- | --- | --- |
//! | look once | [`Discovery::lookup`] | a round trip |
//! | have the live state at hand | [`Discovery::view`] | a watch, shared with all others of the scope |
//! | be told of each change | [`Discovery::watch`] | the same |
//! | be found | [`Discovery::register`] | a lease, shared with all registrations of the same ttl |
//! | compare and set | [`Discovery::kv`] | a round trip a transaction |
//! | act as one of many | [`recipe`]: elections, locks, groups, barriers | a lease, and a watch of one key |
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> discovery::Result<()> {
//! use discovery::{Connectors, Discovery, Instance, ServiceName};
//!
//! let discovery = Discovery::connect("mem://", &Connectors::new()).await?;
//! let cart: ServiceName = "eu1/prod/cart".parse()?;
//!
//! let instance = Instance::builder(cart.clone()).endpoint("http", "10.0.0.7", 8080).build()?;
//! let registration = discovery.register(instance).await?;
//!
//! let view = discovery.view(&cart).await?;
//! assert_eq!(view.snapshot().len(), 1);
//! # drop(registration);
//! # Ok(()) }
//! ```
//!
//! # What to expect when things break
//!
//! *The backend is out of reach*: views keep serving what they last knew, and [`Freshness`] says since when and why;
//! watches yield [`Event::Stale`] once, and [`Event::Live`] when it is over; registrations are
//! [`Suspect`](Phase::Suspect), then [`Lost`](Phase::Lost). Lookups fail with a
//! [transient](Error::is_transient) error. Nothing has to be restarted.
//!
//! *A lease is lost*: all registrations under it are put back under a new one, with their latest data.
//!
//! *A write's reply is lost*: the error's [`Outcome`] is `Unknown`; registrations, which are idempotent, are repeated.
//!
//! *A record makes no sense*: it is skipped, counted ([`Info::skipped`]) and logged; its siblings are served.
//!
//! # For authors of backends
//!
//! Implement [`kv::Kv`] and [`Leases`] and wrap them in [`kv::KvBackend`], or implement [`Backend`]; then run the suite
//! of the `conformance` feature. Adapters never retry and never reconnect a watch: the core does.

mod backend;
mod backoff;
pub mod balance;
mod capability;
mod client;
mod codec;
#[cfg(feature = "conformance")]
pub mod conformance;
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
pub mod recipe;
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
    lease::{Phase, RegistrationStatus},
    locator::{Host, Locator, TlsFiles},
    name::{ComposeName, Coordinate, InstanceId, ServiceName},
    registration::{Register, Registration},
    snapshot::{Change, Revision, Scope, Snapshot, Update},
    view::{Freshness, FreshnessState, View, ViewBuilder},
    watch::{Event, KeyView, Watch},
};

/// Compiles the example of the README.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
