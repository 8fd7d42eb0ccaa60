//! The page, the REST interface and the push service.

mod assets;
mod log;
mod problem;
mod push;
mod rest;

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
    time::Duration,
};

use axum::{
    Router,
    extract::Request,
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use discovery::{
    KvHandle, View,
    recipe::{Group, Run, RunStatus, Runs},
};
use futures_util::TryStreamExt;
use tokio::{task::JoinSet, time};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub(super) use self::log::Log;
use self::problem::Problem;
use super::{crew::Crew, machine, params::Params};
use crate::{backend::Registry, listen::Door, web};

/// How long the registry may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long to wait before a run that nobody supervises any more is supervised again, if there is one.
const AGAIN: Duration = Duration::from_secs(1);

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
    let mut supervised = HashSet::new();
    let mut tasks = JoinSet::new();
    let mut lists = runs.watch();
    let mut list = BTreeMap::<String, RunStatus>::new();
    loop {
        for (id, _) in list.iter().filter(|(_, status)| !status.is_over) {
            if supervised.insert(id.clone()) {
                let run = runs.run(id)?;
                tasks.spawn(async move {
                    if let Err(error) = run.supervise().await {
                        tracing::warn!("nobody looks after run {}: {error}; trying again", run.id());
                    }
                    // There may be a new one of that name; the list will soon say.
                    time::sleep(AGAIN).await;
                    run.id().to_owned()
                });
            }
        }
        tokio::select! {
            next = lists.try_next() => match next? {
                Some(next) => list = next,
                None => return Ok(()),
            },
            Some(Ok(id)) = tasks.join_next() => {
                supervised.remove(&id);
            }
        }
    }
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
