//! Being registered, and saying how that goes.

use std::time::Duration;

use discovery::{Coordinate, Endpoint, Instance, Phase, Registration, RegistrationStatus};
use tokio::{sync::watch, time};

use super::{args::Stay, messages};
use crate::backend::Registry;

/// How much longer than the drain the registry may take to let us go.
const PATIENCE: Duration = Duration::from_secs(3);

/// One instance's place in the registry.
#[derive(Debug)]
pub(super) struct Presence {
    coordinate: Coordinate,
    registry: Registry,
    registration: Registration,
    /// Read by the handlers of the web server.
    standing: watch::Sender<Standing>,
    /// What was last told of how it stands.
    told: Phase,
    drain: Duration,
}

impl Presence {
    /// Registers in the background: the registry need not be there yet.
    pub(super) fn start(
        registry: &Registry,
        coordinate: Coordinate,
        endpoints: Vec<Endpoint>,
        stay: Stay,
    ) -> discovery::Result<Self> {
        let mut builder = Instance::builder(coordinate.service().clone()).endpoints(endpoints);
        if let Some(id) = coordinate.instance() {
            builder = builder.id(id.clone());
        }
        let instance = builder.build()?;
        let coordinate = messages::coordinate(&instance).unwrap_or(coordinate);
        Ok(Self {
            coordinate,
            registry: registry.clone(),
            registration: registry.discovery.register(instance).ttl(stay.ttl).start()?,
            standing: watch::Sender::new(Standing::Is(Phase::Pending)),
            told: Phase::Pending,
            drain: stay.drain,
        })
    }

    /// The whole one, with the id of the instance.
    pub(super) fn coordinate(&self) -> &Coordinate {
        &self.coordinate
    }

    /// How it stands, now and later.
    pub(super) fn standing(&self) -> watch::Receiver<Standing> {
        self.standing.subscribe()
    }

    /// Says how it goes, for as long as it is polled.
    pub(super) async fn follow(&mut self) {
        loop {
            let status = self.registration.changed().await;
            self.tell(&status);
            self.standing.send_replace(Standing::Is(status.phase));
        }
    }

    /// Drains and deregisters, as well as the registry lets us.
    pub(super) async fn leave(self) {
        self.standing.send_replace(Standing::Draining);
        let Self { coordinate, registry, registration, told, drain, .. } = self;
        let known = registration.status().is_active();
        let departure = async {
            // Nobody can see the drain of what is not known to be registered.
            if known { registration.drain(drain).await } else { registration.deregister().await }
        };
        match time::timeout(drain + PATIENCE, departure).await {
            Ok(Ok(())) if told == Phase::Pending => tracing::info!("{coordinate} was never registered"),
            Ok(Ok(())) => tracing::info!("{coordinate} has left"),
            Ok(Err(error)) => {
                tracing::warn!(%error, "{coordinate} leaves without a word; its lease will end");
            }
            Err(_) => {
                tracing::warn!("{registry} does not answer; the lease of {coordinate} will end by itself");
            }
        }
    }

    /// Tells of turns, not of each attempt. Whether the registry can be reached at all is told elsewhere, once for
    /// all.
    fn tell(&mut self, status: &RegistrationStatus) {
        let Self { coordinate, registry, .. } = self;
        let why = status.cause.as_ref().map(ToString::to_string).unwrap_or_default();
        match (self.told, status.phase) {
            (Phase::Lost, Phase::Active) => tracing::info!("{coordinate} is registered again"),
            (Phase::Pending | Phase::Refused, Phase::Active) => {
                tracing::info!("Connected, using coordinate {coordinate}");
            }
            (Phase::Active, Phase::Lost) => {
                tracing::warn!("the registration of {coordinate} is lost; putting it back ({why})");
            }
            (Phase::Pending | Phase::Active | Phase::Lost, Phase::Refused) => {
                tracing::error!("{registry} refuses {coordinate}; trying again ({why})");
            }
            _ => return,
        }
        self.told = status.phase;
    }
}

/// How an instance stands, in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    Is(Phase),
    Draining,
}

impl Standing {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Is(Phase::Pending) => "pending",
            Self::Is(Phase::Active) => "active",
            Self::Is(Phase::Suspect) => "suspect",
            Self::Is(Phase::Refused) => "refused",
            Self::Draining => "draining",
            Self::Is(_) => "lost",
        }
    }
}
