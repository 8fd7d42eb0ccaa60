//! Where a project has its parts: their names in the registry, and how to be found under one of them.

use std::{fmt, sync::Arc, time::Duration};

use axum::{
    Router,
    extract::Request,
    middleware::{self, Next},
    response::Response,
};
use discovery::{Instance, InstanceBuilder, Owner, Scope, ServiceName, View};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::args::{Common, DEFAULT_PROJECT};
use crate::{
    backend::Registry,
    listen::{Door, hostname},
    presence::{Presence, Stay},
    web,
};

/// How much longer than a lease another may hold our place before we give up: a dead one has lost it by then, also where
/// the registry gives leases more time than they ask for, and takes some to end them.
const STANDBY: Duration = Duration::from_secs(10);

/// What a project consists of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Part {
    Rng,
    Hasher,
    Worker,
    Store,
    Webui,
}

impl Part {
    pub(super) const ALL: [Self; 5] = [Self::Rng, Self::Hasher, Self::Worker, Self::Store, Self::Webui];

    /// Its label below the project.
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Rng => "rng",
            Self::Hasher => "hasher",
            Self::Worker => "worker",
            Self::Store => "store",
            Self::Webui => "webui",
        }
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}

/// A project in a registry.
#[derive(Clone, Debug)]
pub(super) struct Site {
    registry: Registry,
    project: ServiceName,
    /// Of the parts, in the order of [`Part::ALL`].
    names: Arc<[ServiceName]>,
    stay: Stay,
}

impl Site {
    pub(super) fn new(registry: Registry, common: &Common) -> anyhow::Result<Self> {
        let project = ServiceName::from_labels([&common.project])?;
        let names =
            Part::ALL.iter().map(|part| project.child(part.label())).collect::<discovery::Result<_>>()?;
        Ok(Self { registry, project, names, stay: common.stay })
    }

    pub(super) fn registry(&self) -> &Registry {
        &self.registry
    }

    pub(super) fn project(&self) -> &ServiceName {
        &self.project
    }

    /// The command for one more of a part, whose name takes the place of `PART`; `None` where nobody else can join.
    pub(super) fn command(&self) -> Option<String> {
        let role = match self.project.labels().next() {
            Some(project) if project != DEFAULT_PROJECT => format!("PART --project {project}"),
            _ => "PART".to_owned(),
        };
        self.registry.command(&role)
    }

    /// All instances of a part.
    pub(super) fn view(&self, part: Part) -> View {
        self.registry.discovery.view(self.name(part)).open()
    }

    /// All instances of all parts.
    pub(super) fn all(&self) -> View {
        self.registry.discovery.view(Scope::Subtree(self.project.clone())).open()
    }

    /// What is registered of any part: also where it runs, so that people can find it.
    pub(super) fn instance(&self, part: Part) -> InstanceBuilder {
        Instance::builder(self.name(part))
            .metadata("host", hostname())
            .metadata("pid", std::process::id().to_string())
    }

    /// Registers in the background.
    pub(super) fn register(&self, instance: Instance) -> discovery::Result<Presence> {
        self.register_as(instance, Owner::random())
    }

    /// The same as somebody who may have been there before, and died.
    fn register_as(&self, instance: Instance, owner: Owner) -> discovery::Result<Presence> {
        let register = self.registry.discovery.register(instance).owner(owner);
        Ok(Presence::new(&self.registry, register.ttl(self.stay.ttl).start()?))
    }

    /// Says how it goes. Returns only if another has our place and keeps it. Cancel safe.
    pub(super) async fn follow(&self, presence: &mut Presence) -> anyhow::Error {
        presence.follow_unless_taken(self.stay.ttl * 2 + STANDBY).await;
        let service = presence.key().service();
        anyhow::anyhow!("there is a {service} already; stop that one, or choose another --project")
    }

    /// Drains and deregisters, as well as the registry lets us.
    pub(super) async fn leave(&self, presence: Presence) {
        presence.leave(self.stay.drain).await;
    }

    /// Serves over HTTP and is registered until `leaving`; goes on serving while the registration drains.
    pub(super) async fn serve(
        &self,
        instance: InstanceBuilder,
        door: Door,
        router: Router,
        leaving: CancellationToken,
    ) -> anyhow::Result<()> {
        self.serve_as(Owner::random(), instance, door, router, leaving).await
    }

    /// The same as somebody who may have been there before, and died: what the registry still has of him is replaced.
    pub(super) async fn serve_as(
        &self,
        owner: Owner,
        instance: InstanceBuilder,
        door: Door,
        router: Router,
        leaving: CancellationToken,
    ) -> anyhow::Result<()> {
        let instance = instance.endpoints(door.endpoints).build()?;
        let mut presence = self.register_as(instance, owner)?;
        let closing = CancellationToken::new();
        let router = router.layer(middleware::from_fn(log));
        let web = async { Ok(web::serve(door.listener, router, closing.clone()).await?) };
        let life = async {
            let ended = tokio::select! {
                refused = self.follow(&mut presence) => Err(refused),
                () = leaving.cancelled() => Ok(()),
            };
            self.leave(presence).await;
            closing.cancel();
            ended
        };
        tokio::try_join!(web, life).map(drop)
    }

    fn name(&self, part: Part) -> ServiceName {
        self.names[part as usize].clone()
    }
}

/// For whoever wants to see each request: `RUST_LOG=demos=debug`.
async fn log(request: Request, next: Next) -> Response {
    let (began, what) = (Instant::now(), format!("{} {}", request.method(), request.uri()));
    let answer = next.run(request).await;
    tracing::debug!("{what}: {} after {:.3} s", answer.status().as_u16(), began.elapsed().as_secs_f64());
    answer
}
