//! The endpoints of the original, and what came later.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU16, Ordering},
    },
    time::SystemTime,
};

use axum::{
    Json, Router,
    extract::{Query, State, rejection::QueryRejection},
    http::{HeaderMap, StatusCode, header::ACCEPT},
    middleware,
    response::{IntoResponse, Response},
    routing::{any, get, post},
};
use serde::Deserialize;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::{assets, supervisor::Supervisor, tree};
use crate::web;

/// What the handlers share.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) supervisor: Supervisor,
    /// Which one it is among all that ask each other.
    pub(super) id: String,
    /// What `/` answers with instead; 0 for nothing.
    forced: AtomicU16,
    /// Where it listens, or the service that it is.
    pub(super) label: String,
    pub(super) since: SystemTime,
    /// Ends this server, and leaves its targets alone.
    pub(super) killed: CancellationToken,
    /// Ends this server, and its targets.
    pub(super) leaving: CancellationToken,
    pub(super) closing: CancellationToken,
}

impl Server {
    pub(super) fn new(supervisor: Supervisor, label: String, leaving: CancellationToken) -> Self {
        Self {
            supervisor,
            id: format!("{:016x}", fastrand::u64(..)),
            forced: AtomicU16::new(0),
            label,
            since: SystemTime::now(),
            killed: CancellationToken::new(),
            leaving,
            closing: CancellationToken::new(),
        }
    }

    /// What `/` answers with.
    pub(super) fn status(&self) -> StatusCode {
        match self.forced() {
            Some(forced) => forced,
            None if self.supervisor.is_well() => StatusCode::OK,
            None => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    pub(super) fn forced(&self) -> Option<StatusCode> {
        StatusCode::from_u16(self.forced.load(Ordering::Relaxed)).ok()
    }

    /// Makes `/` answer with this; 0 for what is true.
    pub(super) fn force(&self, code: u16) {
        self.forced.store(code, Ordering::Relaxed);
        tracing::info!("answering with {}", if code == 0 { "what is true".into() } else { code.to_string() });
    }
}

pub(super) fn router(server: Arc<Server>) -> Router {
    Router::new()
        .route("/httpStatus", any(http_status))
        .route("/kill", any(kill))
        .route("/provision", any(provision))
        .route("/act", post(tree::act))
        .layer(middleware::from_fn(web::same_origin_only))
        .route("/state", any(state))
        .route("/tree", get(tree::tree))
        .route("/page", get(async || assets::INDEX))
        .merge(assets::pages())
        .fallback(root)
        .with_state(server)
}

/// As in the original: whatever nobody else answers. A browser is shown the page, with the same status.
async fn root(State(server): State<Arc<Server>>, headers: HeaderMap) -> Response {
    let status = server.status();
    if accepts(&headers, "text/html") {
        return (status, assets::INDEX).into_response();
    }
    match server.forced() {
        None if status == StatusCode::OK => version().into_response(),
        _ => status.into_response(),
    }
}

/// Version, revision and build, as far as the build knows them.
fn version() -> String {
    let revision = option_env!("SIMPLE_REVISION").unwrap_or("unknown");
    let build = if cfg!(debug_assertions) { "debug" } else { "release" };
    format!("{},{revision},{build}", env!("CARGO_PKG_VERSION"))
}

async fn state(State(server): State<Arc<Server>>, headers: HeaderMap) -> Response {
    let targets = server.supervisor.reports();
    if accepts(&headers, "application/json") {
        return Json(json!({ "targets": targets })).into_response();
    }
    let line = |text: String, target: &super::target::Report| {
        text + &format!("{}\t{}\n", target.target, target.state)
    };
    targets.iter().fold(String::new(), line).into_response()
}

#[derive(Deserialize)]
struct Code {
    code: u16,
}

async fn http_status(
    State(server): State<Arc<Server>>,
    code: Result<Query<Code>, QueryRejection>,
) -> Response {
    match code {
        Ok(Query(Code { code })) if code == 0 || (200..600).contains(&code) => {
            server.force(code);
            StatusCode::OK.into_response()
        }
        _ => (StatusCode::BAD_REQUEST, "code: a status from 200 to 599 is wanted, or 0 for none\n")
            .into_response(),
    }
}

#[derive(Deserialize)]
struct Extent {
    /// Whether the targets are to end as well.
    #[serde(default)]
    tree: bool,
}

async fn kill(
    State(server): State<Arc<Server>>,
    extent: Result<Query<Extent>, QueryRejection>,
) -> StatusCode {
    if extent.is_ok_and(|Query(extent)| extent.tree) {
        server.leaving.cancel();
    } else {
        server.killed.cancel();
    }
    StatusCode::OK
}

#[derive(Deserialize)]
struct Which {
    target: String,
}

async fn provision(
    State(server): State<Arc<Server>>,
    which: Result<Query<Which>, QueryRejection>,
) -> Response {
    let Ok(Query(Which { target })) = which else {
        return (StatusCode::BAD_REQUEST, "target: the target to start is wanted\n").into_response();
    };
    match server.supervisor.find(&target) {
        Ok(target) => {
            target.provision();
            StatusCode::OK.into_response()
        }
        Err(error) => (StatusCode::NOT_FOUND, format!("{error}\n")).into_response(),
    }
}

/// Whether somebody asks for a kind of answer by its name.
pub(super) fn accepts(headers: &HeaderMap, kind: &str) -> bool {
    let accepted = headers.get(ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    accepted.split(',').any(|each| each.split(';').next().unwrap_or_default().trim() == kind)
}
