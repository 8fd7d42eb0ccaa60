//! The server: one page, and a socket that tells it who is there.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use axum::{
    Json, Router,
    extract::{State, WebSocketUpgrade},
    middleware,
    response::Response,
    routing::get,
};
use discovery::{Coordinate, Scope, View};
use serde::Serialize;
use tokio::{sync::watch, time};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    FIRST, assets,
    messages::{Fold, Ghost, Message},
    socket,
};
use crate::{
    backend::Registry,
    listen::Door,
    presence::{Presence, Standing, Stay},
    web,
};

/// How long a ghost is still shown that was there before an outage and is not behind it. When the registry is away
/// for longer than the leases last, it comes back without the ghosts, who live all the same and only have to notice
/// first. Longer than they pause between attempts.
const HOLD: Duration = Duration::from_secs(15);

/// How long our departure may take to be seen, and then the sockets to say goodbye.
const GOODBYE: Duration = Duration::from_secs(2);

/// Frames from browsers are ignored; there is no use in receiving large ones.
const FRAME_MAX: usize = 4096;

#[derive(Debug)]
pub(super) struct Server {
    presence: Presence,
    stay: Stay,
    door: Door,
    watched: Arc<Watched>,
}

/// What the handlers share.
#[derive(Debug)]
pub(super) struct Watched {
    registry: Registry,
    coordinate: Coordinate,
    standing: watch::Receiver<Standing>,
    view: View,
    closing: CancellationToken,
    sockets: TaskTracker,
}

impl Server {
    /// Registers, and begins to watch the services of the same tag and region.
    pub(super) fn new(
        registry: &Registry,
        coordinate: Coordinate,
        stay: Stay,
        door: Door,
    ) -> discovery::Result<Self> {
        let (coordinate, presence) = super::register(registry, coordinate, door.endpoints.clone(), stay)?;
        let scope = Scope::Subtree(coordinate.service().parent());
        let watched = Watched {
            registry: registry.clone(),
            coordinate,
            standing: presence.standing(),
            view: registry.discovery.view(scope).removal_guard(0, HOLD).distrust_empty().open(),
            closing: CancellationToken::new(),
            sockets: TaskTracker::new(),
        };
        Ok(Self { presence, stay, door, watched: Arc::new(watched) })
    }

    pub(super) fn url(&self) -> String {
        self.door.url()
    }

    /// What it watches.
    pub(super) fn view(&self) -> View {
        self.watched.view.clone()
    }

    /// Serves until `leaving`; the sockets go on while the registration drains.
    pub(super) async fn run(self, leaving: CancellationToken) -> anyhow::Result<()> {
        let Self { mut presence, stay, door, watched } = self;
        let closing = watched.closing.clone();
        let web = async { Ok(web::serve(door.listener, router(watched.clone()), closing.clone()).await?) };
        let life = async {
            tokio::select! {
                () = presence.follow() => {}
                () = leaving.cancelled() => {}
            }
            let key = presence.key().clone();
            presence.leave(stay.drain).await;
            // Once it is seen that we have left, so are all who left before. In an outage nothing is seen.
            let mut view = watched.view.clone();
            let seen =
                view.wait_for(|snapshot, freshness| !freshness.is_live() || snapshot.get(&key).is_none());
            let _ = time::timeout(GOODBYE, seen).await;
            closing.cancel();
            watched.sockets.close();
            let _ = time::timeout(GOODBYE, watched.sockets.wait()).await;
            anyhow::Ok(())
        };
        tokio::select! {
            ended = async { tokio::try_join!(web, life) } => ended.map(drop),
            () = log(&watched) => Ok(()),
        }
    }
}

fn router(watched: Arc<Watched>) -> Router {
    Router::new()
        .route("/messages", get(messages))
        .layer(middleware::from_fn(web::same_origin_only))
        .route("/", get(async || assets::INDEX))
        .route("/state", get(state))
        .route("/healthz", get(async || "ok\n"))
        .merge(assets::of_server())
        .with_state(watched)
}

async fn messages(State(watched): State<Arc<Watched>>, upgrade: WebSocketUpgrade) -> Response {
    let token = watched.sockets.token();
    upgrade.max_message_size(FRAME_MAX).on_upgrade(async move |socket| {
        tracing::info!("a page is connected; {} in all", watched.sockets.len());
        socket::serve(socket, &watched).await;
        drop(token);
        tracing::info!("a page is gone; {} left", watched.sockets.len());
    })
}

#[derive(Serialize)]
struct Report {
    coordinate: Coordinate,
    status: &'static str,
    registry: String,
    /// Whether the registry tells of every change; if not, since when it does not.
    live: bool,
    since: u64,
    /// How many of the ghosts were gone behind an outage, and are waited for.
    held: usize,
    ghosts: Vec<Ghost>,
    sockets: usize,
}

async fn state(State(watched): State<Arc<Watched>>) -> Json<Report> {
    let hidden = watched.coordinate.service();
    Json(watched.view.read(|snapshot, freshness| {
        Report {
            coordinate: watched.coordinate.clone(),
            status: watched.standing.borrow().word(),
            registry: watched.registry.to_string(),
            live: freshness.is_live(),
            since: web::epoch_millis(SystemTime::now() - freshness.since().elapsed()),
            held: freshness.held(),
            ghosts: snapshot
                .iter()
                .filter(|instance| instance.service() != hidden)
                .filter_map(|instance| Ghost::of(instance))
                .collect(),
            sockets: watched.sockets.len(),
        }
    }))
}

impl Watched {
    /// What a page of its own is told first.
    pub(super) fn hello(&self) -> Message {
        Message::Hello { registry: self.registry.to_string(), command: self.registry.command(FIRST) }
    }

    /// Tells a page of its own, or the log, what is known and what changes.
    pub(super) fn follow(&self) -> Follower {
        Follower { view: self.view.clone(), fold: Fold::new(self.coordinate.service().clone()), fresh: true }
    }

    pub(super) fn closing(&self) -> &CancellationToken {
        &self.closing
    }
}

/// One reader of the view. Whoever is slow finds the latest state when he looks again: nothing piles up for him.
#[derive(Debug)]
pub(super) struct Follower {
    view: View,
    fold: Fold,
    fresh: bool,
}

impl Follower {
    /// What to tell next; `None` when nothing will change any more. Cancel safe.
    pub(super) async fn next(&mut self) -> Option<Vec<Message>> {
        // The first look waits for nothing.
        if !std::mem::take(&mut self.fresh) {
            self.view.changed().await.ok()?;
        }
        Some(self.look())
    }

    /// What there is to tell now, if anything.
    pub(super) fn look(&mut self) -> Vec<Message> {
        self.fold.look(&self.view)
    }
}

/// Logs who comes and goes, for as long as it is polled.
async fn log(watched: &Watched) {
    let mut follower = watched.follow();
    while let Some(messages) = follower.next().await {
        for message in messages {
            match message {
                Message::Created(ghost) => tracing::info!("Service {} is created", ghost.coordinate()),
                Message::Changed(ghost) => {
                    tracing::info!("Service {} has changed and is {}", ghost.coordinate(), ghost.status());
                }
                Message::Removed { coordinate } => tracing::info!("Service {coordinate} was removed"),
                // Of no interest here, or told elsewhere.
                Message::Hello { .. }
                | Message::Ready
                | Message::Heartbeat { .. }
                | Message::Stale { .. }
                | Message::Live => {}
            }
        }
    }
    std::future::pending::<()>().await;
}
