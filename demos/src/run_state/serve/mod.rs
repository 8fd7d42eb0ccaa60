//! The page, the REST interface and the push service.

mod assets;
mod log;
mod problem;
mod push;
mod rest;

use std::{collections::HashMap, sync::Arc, time::Duration};

use axum::{
    Router,
    extract::Request,
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use discovery::{
    KvHandle, View,
    recipe::{Group, Run, Runs},
};
use futures_util::TryStreamExt;
use tokio::time;
use tokio_util::{
    sync::CancellationToken,
    task::{AbortOnDropHandle, TaskTracker},
};

pub(super) use self::log::Log;
use self::problem::Problem;
use super::{crew::Crew, machine, params::Params};
use crate::{backend::Registry, listen::Door, web};

/// How long the registry may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long those who follow have to hear that the server is going.
const GOODBYE: Duration = Duration::from_secs(2);

/// What the handlers share.
pub(super) struct Service {
    registry: Registry,
    runs: Runs,
    circle: Group,
    kv: KvHandle,
    /// Of nobody in particular: it knows whether the registry tells of changes.
    view: View,
    /// The workers of this process.
    crew: Arc<Crew>,
    /// What they say.
    log: Arc<Log>,
    closing: CancellationToken,
    sockets: TaskTracker,
}

impl Service {
    pub(super) fn new(registry: &Registry, crew: Arc<Crew>) -> discovery::Result<Self> {
        Ok(Self {
            runs: machine::runs(registry)?,
            circle: registry.discovery.group(&machine::name())?,
            kv: registry.discovery.kv()?,
            view: registry.discovery.view(machine::name()).open(),
            registry: registry.clone(),
            log: crew.log().clone(),
            crew,
            closing: CancellationToken::new(),
            sockets: TaskTracker::new(),
        })
    }

    /// Whether the registry tells of changes.
    pub(super) fn view(&self) -> View {
        self.view.clone()
    }

    /// Serves until `leaving`, and sees to it that rounds that take too long are ended.
    pub(super) async fn serve(self, door: Door, leaving: CancellationToken) -> anyhow::Result<()> {
        let service = Arc::new(self);
        let closing = service.closing.clone();
        let router = router(service.clone());
        let close = async {
            leaving.cancelled().await;
            closing.cancel();
        };
        tokio::select! {
            (served, ()) = async { tokio::join!(web::serve(door.listener, router, closing.clone()), close) } => served?,
            supervised = supervise(&service.runs) => supervised?,
        }
        service.sockets.close();
        let _ = time::timeout(GOODBYE, service.sockets.wait()).await;
        Ok(())
    }

    fn params(&self, run: Run) -> Params {
        Params::new(run, self.kv.clone())
    }
}

/// Recipes wait for a registry that is out of reach; whoever asks over HTTP wants to know.
async fn in_time(request: Request, next: Next) -> Response {
    let answer = time::timeout(PATIENCE, next.run(request)).await;
    answer.unwrap_or_else(|_| Problem::unavailable("the registry does not answer; try again").into_response())
}

/// Supervises all runs there are, and those to come.
async fn supervise(runs: &Runs) -> discovery::Result<()> {
    let mut supervised = HashMap::new();
    let mut all = runs.watch();
    while let Some(all) = all.try_next().await? {
        supervised.retain(|id, task: &mut AbortOnDropHandle<_>| all.contains_key(id) && !task.is_finished());
        for (id, status) in all.iter().filter(|(_, status)| !status.is_over) {
            if !supervised.contains_key(id) {
                let run = runs.run(id)?;
                let round = status.round;
                let task = tokio::spawn(async move {
                    if let Err(error) = run.supervise().await {
                        tracing::warn!("nobody looks after run {} in round {round}: {error}", run.id());
                    }
                });
                supervised.insert(id.clone(), AbortOnDropHandle::new(task));
            }
        }
    }
    Ok(())
}

fn router(service: Arc<Service>) -> Router {
    Router::new()
        .route("/runs", get(rest::list).post(rest::create))
        .route("/runs/{run}", get(rest::show).delete(rest::delete))
        .route("/runs/{run}/state", get(rest::state))
        .route("/runs/{run}/missing", get(rest::missing))
        .route("/runs/{run}/abort", post(rest::abort))
        .route("/runs/{run}/nodes", get(rest::nodes))
        .route(
            "/runs/{run}/nodes/{node}/{index}",
            get(rest::parameters).post(rest::complete).put(rest::add).delete(rest::remove),
        )
        .route("/runs/{run}/nodes/{node}/{index}/{param}", get(rest::parameter).put(rest::set))
        .route("/circle", get(rest::circle))
        .route("/log", get(rest::log))
        .route("/about", get(rest::about))
        .route("/registry", get(rest::registry))
        .route("/workers/{label}/kill", post(rest::kill))
        .layer(middleware::from_fn(in_time))
        .layer(middleware::from_fn(web::same_origin_only))
        .route("/healthz", get(async || "ok\n"))
        .merge(assets::pages())
        .with_state(service)
}
