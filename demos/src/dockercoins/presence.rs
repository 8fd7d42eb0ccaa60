//! Being registered, and saying how that goes.

use std::time::Duration;

use discovery::{ErrorKind, Instance, InstanceKey, Phase, Registration, RegistrationStatus, Status};
use tokio::time::{self, Instant};

use super::args::Stay;
use crate::backend::Registry;

/// How much longer than the drain the registry may take to let us go.
const PATIENCE: Duration = Duration::from_secs(3);

/// How many times as long as its lease another may hold our place before we give up: a dead one has lost it by then.
const STANDBY: u32 = 2;

/// One instance's place in the registry.
#[derive(Debug)]
pub(super) struct Presence {
    registry: Registry,
    registration: Registration,
    stay: Stay,
    /// What was last told of how it stands.
    told: Phase,
    /// Since when another holds our place.
    taken: Option<Instant>,
}

impl Presence {
    /// Registers in the background: the registry need not be there yet.
    pub(super) fn start(registry: &Registry, instance: Instance, stay: Stay) -> discovery::Result<Self> {
        Ok(Self {
            registry: registry.clone(),
            registration: registry.discovery.register(instance).ttl(stay.ttl).start()?,
            stay,
            told: Phase::Pending,
            taken: None,
        })
    }

    pub(super) fn key(&self) -> &InstanceKey {
        self.registration.key()
    }

    /// Says how it goes. Returns only if another has our place and keeps it. Cancel safe.
    pub(super) async fn follow(&mut self) -> anyhow::Error {
        loop {
            let changed = self.registration.changed();
            let status = match self.taken {
                None => Ok(changed.await),
                Some(since) => time::timeout_at(since + self.stay.ttl * STANDBY, changed).await,
            };
            let Ok(status) = status else {
                let service = self.key().service();
                return anyhow::anyhow!(
                    "there is a {service} already; stop that one, or choose another --project"
                );
            };
            let is_taken = status.phase == Phase::Refused
                && status.cause.as_ref().is_some_and(|cause| cause.kind() == ErrorKind::Conflict);
            self.taken = is_taken.then(|| self.taken.unwrap_or_else(Instant::now));
            self.tell(&status);
        }
    }

    /// Says in the registry how we are; later, if the registry does not answer now.
    pub(super) async fn set(&self, status: Status) {
        let updated = async {
            let instance = self.registration.instance().to_builder().status(status).build()?;
            self.registration.update(instance).await
        };
        if let Ok(Err(error)) = time::timeout(PATIENCE, updated).await {
            tracing::warn!(%error, "the registry does not take it that {} is {status}", self.key());
        }
    }

    /// Drains and deregisters, as well as the registry lets us.
    pub(super) async fn leave(self) {
        let drain = self.stay.drain;
        self.leave_within(drain).await;
    }

    /// The same without a drain, for whom nobody calls.
    pub(super) async fn leave_at_once(self) {
        self.leave_within(Duration::ZERO).await;
    }

    async fn leave_within(self, drain: Duration) {
        let Self { registry, registration, told, .. } = self;
        let key = registration.key().clone();
        let departure = async {
            // Nobody can see the drain of what is not known to be registered.
            if !drain.is_zero() && registration.status().is_active() {
                registration.drain(drain).await
            } else {
                registration.deregister().await
            }
        };
        match time::timeout(drain + PATIENCE, departure).await {
            Ok(Ok(())) if told == Phase::Pending => tracing::info!("{key} was never registered"),
            Ok(Ok(())) => tracing::info!("{key} has left"),
            Ok(Err(error)) => tracing::warn!(%error, "{key} leaves without a word; its lease will end"),
            Err(_) => tracing::warn!("{registry} does not answer; the lease of {key} will end by itself"),
        }
    }

    /// Tells of turns, not of each attempt.
    fn tell(&mut self, status: &RegistrationStatus) {
        let key = self.registration.key();
        let why = status.cause.as_ref().map(ToString::to_string).unwrap_or_default();
        match (self.told, status.phase) {
            (Phase::Lost, Phase::Active) => tracing::info!("{key} is registered again"),
            (Phase::Pending | Phase::Refused, Phase::Active) => tracing::info!("{key} is registered"),
            (Phase::Active, Phase::Lost) => {
                tracing::warn!("the registration of {key} is lost; putting it back ({why})");
            }
            (Phase::Pending | Phase::Active | Phase::Lost, Phase::Refused) if self.taken.is_some() => {
                tracing::warn!("another has the place of {key}; waiting for it to go ({why})");
            }
            (Phase::Pending | Phase::Active | Phase::Lost, Phase::Refused) => {
                tracing::error!("{} refuses {key}; trying again ({why})", self.registry);
            }
            _ => return,
        }
        self.told = status.phase;
    }
}
