//! Being registered, and saying how that goes.

use std::time::Duration;

use discovery::{ErrorKind, Instance, InstanceKey, Phase, Registration, RegistrationStatus, Status};
use tokio::{
    sync::watch,
    time::{self, Instant},
};

use crate::backend::{Registry, parse_delay, parse_ttl};

/// How much longer than the drain the registry may take to let us go.
const PATIENCE: Duration = Duration::from_secs(3);

/// How to be registered, and how to leave: the flags of every demo that has them.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct Stay {
    /// How long the registration outlives a process that dies, such as 500ms or 10s; the registry may round it up
    #[arg(long, global = true, value_name = "TIME", default_value = "10s", value_parser = parse_ttl)]
    pub(crate) ttl: Duration,

    /// How long to be seen as draining before leaving, such as 0s or 1s
    #[arg(long, global = true, value_name = "TIME", default_value = "1s", value_parser = parse_delay)]
    pub(crate) drain: Duration,
}

/// One instance's place in the registry.
#[derive(Debug)]
pub(crate) struct Presence {
    registry: Registry,
    registration: Registration,
    /// What people call it.
    name: String,
    /// Whether nobody has to be told that all is well.
    is_quiet: bool,
    /// What was last told of how it stands.
    told: Phase,
    /// Whether the registry has ever had it.
    was_there: bool,
    /// Read by whoever shows it.
    standing: watch::Sender<Standing>,
    /// Since when another holds our place.
    taken: Option<Instant>,
}

impl Presence {
    /// What there is to say of a registration that has just begun, in the background: the registry need not be there
    /// yet.
    pub(crate) fn new(registry: &Registry, registration: Registration) -> Self {
        Self {
            registry: registry.clone(),
            name: registration.key().to_string(),
            registration,
            is_quiet: false,
            told: Phase::Pending,
            was_there: false,
            standing: watch::Sender::new(Standing::Is(Phase::Pending)),
            taken: None,
        }
    }

    /// The same under the name that people know.
    pub(crate) fn named(self, name: String) -> Self {
        Self { name, ..self }
    }

    /// The same where there are many: says only what is not as it should be.
    pub(crate) fn quiet(self) -> Self {
        Self { is_quiet: true, ..self }
    }

    pub(crate) fn key(&self) -> &InstanceKey {
        self.registration.key()
    }

    /// How it stands, now and later.
    pub(crate) fn standing(&self) -> watch::Receiver<Standing> {
        self.standing.subscribe()
    }

    /// Says how it goes, for as long as it is polled. Cancel safe.
    pub(crate) async fn follow(&mut self) {
        loop {
            let status = self.registration.changed().await;
            self.take(&status);
        }
    }

    /// The same, until another has held our place for so long that it will keep it. Cancel safe.
    pub(crate) async fn follow_unless_taken(&mut self, patience: Duration) {
        loop {
            let changed = self.registration.changed();
            let status = match self.taken {
                None => changed.await,
                Some(since) => match time::timeout_at(since + patience, changed).await {
                    Ok(status) => status,
                    Err(_) => return,
                },
            };
            self.take(&status);
        }
    }

    /// Says in the registry how we are; later, if the registry does not answer now.
    pub(crate) async fn set(&self, status: Status) {
        let updated = async {
            let instance: Instance = self.registration.instance().to_builder().status(status).build()?;
            self.registration.update(instance).await
        };
        if let Ok(Err(error)) = time::timeout(PATIENCE, updated).await {
            tracing::warn!(%error, "the registry does not take it that {} is {status}", self.name);
        }
    }

    /// Drains and deregisters, as well as the registry lets us; for whom nobody calls, there is no drain.
    pub(crate) async fn leave(self, drain: Duration) {
        self.standing.send_replace(Standing::Draining);
        let Self { registry, registration, name, is_quiet, was_there, .. } = self;
        // It may have come about since it was last told of.
        let was_there = was_there || registration.status().revision.is_some();
        let departure = async {
            // Nobody can see the drain of what is not known to be registered.
            if !drain.is_zero() && registration.status().is_active() {
                registration.drain(drain).await
            } else {
                registration.deregister().await
            }
        };
        match time::timeout(drain + PATIENCE, departure).await {
            Ok(Ok(())) if is_quiet => {}
            Ok(Ok(())) if !was_there => tracing::info!("{name} was never registered"),
            Ok(Ok(())) => tracing::info!("{name} has left"),
            Ok(Err(error)) => tracing::warn!(%error, "{name} leaves without a word; its lease will end"),
            Err(_) => tracing::warn!("{registry} does not answer; the lease of {name} will end by itself"),
        }
    }

    /// Leaves without a word, as a crash does: the lease ends by itself.
    pub(crate) fn abandon(self) {
        self.registration.detach();
    }

    fn take(&mut self, status: &RegistrationStatus) {
        let is_taken = status.phase == Phase::Refused
            && status.cause.as_ref().is_some_and(|cause| cause.kind() == ErrorKind::Conflict);
        self.was_there |= status.is_active();
        self.taken = is_taken.then(|| self.taken.unwrap_or_else(Instant::now));
        self.tell(status);
        self.standing.send_replace(Standing::Is(status.phase));
    }

    /// Tells of turns, not of each attempt. Whether the registry can be reached at all is told elsewhere, once for
    /// all.
    fn tell(&mut self, status: &RegistrationStatus) {
        let Self { registry, name, .. } = self;
        let why = status.cause.as_ref().map(ToString::to_string).unwrap_or_default();
        match (self.told, status.phase) {
            (Phase::Pending, Phase::Active) if self.is_quiet => {}
            (Phase::Pending | Phase::Refused, Phase::Active) => tracing::info!("{name} is registered"),
            (Phase::Lost, Phase::Active) => tracing::info!("{name} is registered again"),
            (Phase::Active, Phase::Lost) => {
                tracing::warn!("the registration of {name} is lost; putting it back ({why})");
            }
            (Phase::Pending | Phase::Active | Phase::Lost, Phase::Refused) if self.taken.is_some() => {
                tracing::warn!("another has the place of {name}; waiting for it to go ({why})");
            }
            (Phase::Pending | Phase::Active | Phase::Lost, Phase::Refused) => {
                tracing::error!("{registry} refuses {name}; trying again ({why})");
            }
            _ => return,
        }
        self.told = status.phase;
    }
}

/// How an instance stands, in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    Is(Phase),
    Draining,
}

impl Standing {
    pub(crate) fn word(self) -> &'static str {
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
