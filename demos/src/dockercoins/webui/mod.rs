//! The web server with the page: what the original's answers, and what goes on, told as it happens.

mod assets;
mod meter;
mod observer;
mod picture;
mod push;

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::{Path, State},
    http::{
        StatusCode,
        header::{CONTENT_TYPE, LOCATION},
    },
    middleware,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde_json::json;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use self::{
    observer::{Observer, Past},
    picture::Picture,
};
use super::{
    demo::Crew,
    site::{Part, Site},
};
use crate::{listen::Door, web};

/// What the handlers share.
#[derive(Debug)]
struct Webui {
    picture: watch::Receiver<Arc<Picture>>,
    past: Past,
    crew: Option<Arc<Crew>>,
    leaving: CancellationToken,
}

/// Serves until `leaving`. Where there is a crew, the page can have more of a part, or fewer.
pub(super) async fn run(
    site: &Site,
    door: Door,
    crew: Option<Arc<Crew>>,
    leaving: CancellationToken,
) -> anyhow::Result<()> {
    let observer = Observer::new(site, crew.is_some())?;
    let (picture, past) = (observer.picture(), observer.past());
    let webui = Webui { picture, past, crew, leaving: leaving.clone() };
    tokio::select! {
        ended = site.serve(site.instance(Part::Webui), door, router(webui), leaving) => ended,
        never = observer.run() => never,
    }
}

fn router(webui: Webui) -> Router {
    Router::new()
        .route("/scale/{part}/{count}", post(scale))
        .layer(middleware::from_fn(web::same_origin_only))
        .route("/", get(redirect))
        .route("/json", get(original))
        .route("/state", get(state))
        .route("/events", get(push::events))
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .merge(assets::pages())
        .with_state(Arc::new(webui))
}

async fn redirect() -> impl IntoResponse {
    let text = "Found. Redirecting to /index.html";
    (StatusCode::FOUND, [(LOCATION, "/index.html"), (CONTENT_TYPE, "text/plain; charset=utf-8")], text)
}

/// What the original answers, the count being a text; but where the original keeps silent, this one says what is wrong.
async fn original(State(webui): State<Arc<Webui>>) -> Response {
    let picture = webui.picture.borrow().clone();
    if let Some(trouble) = &picture.trouble {
        return (StatusCode::SERVICE_UNAVAILABLE, Json(json!({ "error": trouble }))).into_response();
    }
    #[expect(clippy::cast_precision_loss, reason = "milliseconds since the epoch are exact in 53 bits")]
    let now = picture.now as f64 / 1000.0;
    let hashes = picture.hashes.map(|hashes| hashes.to_string());
    Json(json!({ "coins": picture.coins, "hashes": hashes, "now": now })).into_response()
}

async fn state(State(webui): State<Arc<Webui>>) -> Json<Picture> {
    Json(Picture::clone(&webui.picture.borrow()))
}

/// Whether there is something to show, not just somebody who could.
async fn ready(State(webui): State<Arc<Webui>>) -> Response {
    match &webui.picture.borrow().trouble {
        None => "ok\n".into_response(),
        Some(trouble) => (StatusCode::SERVICE_UNAVAILABLE, format!("{trouble}\n")).into_response(),
    }
}

async fn scale(State(webui): State<Arc<Webui>>, Path((part, count)): Path<(Part, usize)>) -> Response {
    let Some(crew) = &webui.crew else {
        let advice =
            "what runs here was started by others; start more of it, or stop some, as it was started\n";
        return (StatusCode::NOT_FOUND, advice).into_response();
    };
    match crew.scale(part, count) {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err(error) => (StatusCode::UNPROCESSABLE_ENTITY, format!("{error:#}\n")).into_response(),
    }
}
