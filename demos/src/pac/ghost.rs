//! A ghost: registered for as long as it lives, with a page that shows it and ends it.

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::State,
    http::header::CONTENT_SECURITY_POLICY,
    middleware,
    response::{Html, IntoResponse},
    routing::{get, post},
};
use discovery::{Coordinate, Endpoint, View};
use serde::Serialize;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{assets, ghost_page::Page, messages::coordinate};
use crate::{
    backend::Registry,
    listen::Door,
    presence::{Presence, Standing, Stay},
    web,
};

/// The farewell has its style and its script inside, for there will be nobody to ask for more. Nothing that comes
/// from elsewhere is in it.
const FAREWELL_POLICY: &str =
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; frame-ancestors 'none'";

#[derive(Debug)]
pub(super) struct Ghost {
    coordinate: Coordinate,
    presence: Presence,
    stay: Stay,
    door: Door,
    peers: View,
}

impl Ghost {
    /// Registers, and begins to watch the instances of the same service.
    pub(super) fn new(
        registry: &Registry,
        coordinate: Coordinate,
        stay: Stay,
        door: Door,
    ) -> discovery::Result<Self> {
        let (coordinate, presence) = super::register(registry, coordinate, door.endpoints.clone(), stay)?;
        let peers = registry.discovery.view(coordinate.service()).open();
        Ok(Self { coordinate, presence, stay, door, peers })
    }

    pub(super) fn coordinate(&self) -> &Coordinate {
        &self.coordinate
    }

    pub(super) fn url(&self) -> String {
        self.door.url()
    }

    /// What it watches.
    pub(super) fn view(&self) -> View {
        self.peers.clone()
    }

    /// Lives until `leaving`, or until its page says so; the page goes on while the registration drains.
    pub(super) async fn run(self, leaving: CancellationToken) -> anyhow::Result<()> {
        let Self { coordinate, mut presence, stay, door, peers } = self;
        let shown = Shown {
            coordinate,
            endpoints: door.endpoints,
            standing: presence.standing(),
            peers,
            leaving: leaving.clone(),
        };
        let closing = CancellationToken::new();
        let web = async { Ok(web::serve(door.listener, router(shown), closing.clone()).await?) };
        let life = async {
            tokio::select! {
                () = presence.follow() => {}
                () = leaving.cancelled() => {}
            }
            presence.leave(stay.drain).await;
            closing.cancel();
            anyhow::Ok(())
        };
        tokio::try_join!(web, life)?;
        Ok(())
    }
}

/// What the handlers share.
#[derive(Debug)]
struct Shown {
    coordinate: Coordinate,
    endpoints: Vec<Endpoint>,
    standing: watch::Receiver<Standing>,
    peers: View,
    leaving: CancellationToken,
}

impl Shown {
    fn status(&self) -> &'static str {
        self.standing.borrow().word()
    }

    /// The instances of this service, the ghost itself among them once it is registered.
    fn peers(&self) -> Vec<Coordinate> {
        self.peers.read(|snapshot, _| snapshot.iter().filter_map(|instance| coordinate(instance)).collect())
    }
}

fn router(shown: Shown) -> Router {
    Router::new()
        .route("/shutdown", post(shut_down))
        .layer(middleware::from_fn(web::same_origin_only))
        .route("/", get(page))
        .route("/state", get(state))
        .route("/healthz", get(async || "ok\n"))
        .merge(assets::of_ghost())
        .with_state(Arc::new(shown))
}

async fn page(State(shown): State<Arc<Shown>>) -> Html<String> {
    let page = Page {
        coordinate: &shown.coordinate,
        status: shown.status(),
        endpoints: &shown.endpoints,
        peers: &shown.peers(),
    };
    Html(page.render())
}

#[derive(Serialize)]
struct Report {
    coordinate: Coordinate,
    status: &'static str,
    endpoints: Vec<Endpoint>,
    peers: Vec<Coordinate>,
}

async fn state(State(shown): State<Arc<Shown>>) -> Json<Report> {
    Json(Report {
        coordinate: shown.coordinate.clone(),
        status: shown.status(),
        endpoints: shown.endpoints.clone(),
        peers: shown.peers(),
    })
}

async fn shut_down(State(shown): State<Arc<Shown>>) -> impl IntoResponse {
    tracing::info!("Stopping service {}", shown.coordinate);
    shown.leaving.cancel();
    ([(CONTENT_SECURITY_POLICY, FAREWELL_POLICY)], assets::BYE)
}
