//! The whole tree below a server: each asks those below, whenever it is asked.

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::{
    Json,
    extract::{Query, State},
    http::{
        HeaderMap, StatusCode,
        header::{ACCEPT, CONTENT_TYPE},
    },
    response::{IntoResponse, Response, Sse, sse},
};
use futures_util::{StreamExt, future::join_all, stream};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::time;

use super::{
    server::{Server, accepts},
    target::Target,
};

/// How often it is looked whether something has changed below; what changes here is told at once.
const LOOK: Duration = Duration::from_millis(250);

/// How long those below may take to answer, at most.
const ANSWER: Duration = Duration::from_secs(1);

/// Who has less time than that asks nobody below.
const HURRY: Duration = Duration::from_millis(50);

/// More than the tree below any server.
const TREE_MAX: usize = 1 << 20;

/// How often a connection that has nothing to say proves that it lives.
const HEARTBEAT: Duration = Duration::from_secs(10);

/// What a server says to those below when it asks them.
#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct Asked {
    /// How long it waits, in milliseconds.
    within: Option<u64>,
    /// Who asks already, from the top on: a circle has to end.
    #[serde(default)]
    via: String,
}

impl Asked {
    /// What is left for those below, so that the answer is in time however slow they are.
    fn left(&self) -> Duration {
        self.within.map_or(ANSWER, |within| ANSWER.min(Duration::from_millis(within)) * 3 / 4)
    }
}

/// The tree as it is, or, as server-sent events, whenever it changes.
pub(super) async fn tree(
    State(server): State<Arc<Server>>,
    Query(asked): Query<Asked>,
    headers: HeaderMap,
) -> Response {
    if !accepts(&headers, "text/event-stream") {
        return Json(picture(&server, &asked).await).into_response();
    }
    let bell = server.supervisor.bell();
    let closing = server.closing.clone();
    let pictures = stream::unfold((server, bell, None), |(server, mut bell, told)| async move {
        loop {
            let now = picture(&server, &Asked::default()).await;
            if told.as_ref() != Some(&now) {
                let event = sse::Event::default().data(now.to_string());
                return Some((Ok::<_, Infallible>(event), (server, bell, Some(now))));
            }
            // Whichever comes first; the bell goes on for as long as the server does.
            let _ = time::timeout(LOOK, bell.changed()).await;
        }
    });
    let pictures = pictures.take_until(closing.cancelled_owned());
    Sse::new(pictures).keep_alive(sse::KeepAlive::new().interval(HEARTBEAT)).into_response()
}

async fn picture(server: &Server, asked: &Asked) -> Value {
    let targets = server.supervisor.sorted();
    let below = join_all(targets.iter().map(|target| below(server, target, asked))).await;
    let targets: Vec<_> = targets
        .iter()
        .zip(below)
        .map(|(target, below)| {
            let mut report = json!(target.report());
            report["below"] = below.unwrap_or_default();
            report
        })
        .collect();
    json!({
        "label": server.label,
        "status": server.status().as_u16(),
        "forced": server.forced().map(|status| status.as_u16()),
        "registry": server.supervisor.registry().to_string(),
        "since": humantime::format_rfc3339_millis(server.since).to_string(),
        "pid": std::process::id(),
        "targets": targets,
    })
}

/// What a target says of itself, if it is one like us.
async fn below(server: &Server, target: &Target, asked: &Asked) -> Option<Value> {
    use super::machine::State;
    let (within, is_again) = (asked.left(), asked.via.split('.').any(|id| id == server.id));
    let answers = matches!(target.state(), State::Running | State::Pending | State::Error | State::Stuck);
    if is_again || within < HURRY || !answers {
        return None;
    }
    let via = if asked.via.is_empty() { server.id.clone() } else { format!("{}.{}", asked.via, server.id) };
    let asked = target.urls().into_iter().map(async |url| {
        let url = format!("{url}/tree?within={}&via={via}", within.as_millis());
        let asked = server.supervisor.http().get(url).header(ACCEPT, "application/json");
        let response = asked.timeout(within).send().await.ok()?;
        let tree: Value = serde_json::from_slice(&read(response).await?).ok()?;
        tree["targets"].is_array().then_some(tree)
    });
    // There is one, unless another one has just died.
    join_all(asked).await.into_iter().flatten().next()
}

/// The body of an answer that may be a tree.
async fn read(mut response: reqwest::Response) -> Option<Vec<u8>> {
    let kind = response.headers().get(CONTENT_TYPE)?;
    if kind.as_bytes() != b"application/json" {
        return None;
    }
    let mut body = Vec::new();
    while let Some(part) = response.chunk().await.ok()? {
        body.extend_from_slice(&part);
        if body.len() > TREE_MAX {
            return None;
        }
    }
    Some(body)
}

/// What can be done to a server of the tree.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
enum Deed {
    /// Makes it answer with 500.
    Fail,
    /// Lets it say what is true again.
    Heal,
    /// Asks it to end.
    Kill,
    /// Kills its process.
    Crash,
    /// Starts it.
    Provision,
}

/// Something to do, and to whom: the targets on the way down.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct Act {
    path: Vec<String>,
    deed: Deed,
}

/// Does it, or lets those below do it.
pub(super) async fn act(State(server): State<Arc<Server>>, Json(act): Json<Act>) -> Response {
    match perform(&server, act).await {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err(error) => {
            (StatusCode::BAD_GATEWAY, Json(json!({ "error": format!("{error:#}") }))).into_response()
        }
    }
}

async fn perform(server: &Server, Act { path, deed }: Act) -> anyhow::Result<()> {
    let Some((first, rest)) = path.split_first() else {
        match deed {
            Deed::Fail => server.force(500),
            Deed::Heal => server.force(0),
            _ => anyhow::bail!("the top has nobody above to do this"),
        }
        return Ok(());
    };
    let target = server.supervisor.find(first)?;
    if rest.is_empty() {
        tracing::info!("{first}: {deed:?} by hand");
        return match deed {
            Deed::Fail => target.command("httpStatus?code=500").await,
            Deed::Heal => target.command("httpStatus?code=0").await,
            Deed::Kill => target.command("kill").await,
            Deed::Crash => target.crush(),
            Deed::Provision => {
                target.provision();
                Ok(())
            }
        };
    }
    let url = target.urls().into_iter().next_back().unwrap_or_default();
    let act = serde_json::to_vec(&Act { path: rest.to_vec(), deed })?;
    let asked =
        server.supervisor.http().post(format!("{url}/act")).header("content-type", "application/json");
    let answer = asked.body(act).timeout(ANSWER * 3).send().await?;
    let status = answer.status();
    if !status.is_success() {
        let reason: Value = serde_json::from_slice(&answer.bytes().await?).unwrap_or_default();
        anyhow::bail!("{}", reason["error"].as_str().unwrap_or(status.as_str()));
    }
    Ok(())
}
