//! The whole tree below a server: each asks those below, whenever it is asked.

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::{
    Json,
    extract::State,
    http::{HeaderMap, StatusCode, header::ACCEPT},
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

/// How long those below may take to answer.
const ANSWER: Duration = Duration::from_secs(1);

/// How often a connection that has nothing to say proves that it lives.
const HEARTBEAT: Duration = Duration::from_secs(10);

/// The tree as it is, or, as server-sent events, whenever it changes.
pub(super) async fn tree(State(server): State<Arc<Server>>, headers: HeaderMap) -> Response {
    if !accepts(&headers, "text/event-stream") {
        return Json(picture(&server).await).into_response();
    }
    let bell = server.supervisor.bell();
    let closing = server.closing.clone();
    let pictures = stream::unfold((server, bell, None), |(server, mut bell, told)| async move {
        loop {
            let now = picture(&server).await;
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

async fn picture(server: &Server) -> Value {
    let targets = server.supervisor.sorted();
    let below = join_all(targets.iter().map(|target| below(server, target))).await;
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
async fn below(server: &Server, target: &Target) -> Option<Value> {
    use super::machine::State;
    if !matches!(target.state(), State::Running | State::Pending | State::Error) {
        return None;
    }
    // The first is the only one, unless another one has just died.
    for url in target.urls() {
        let asked = server.supervisor.http().get(format!("{url}/tree")).header(ACCEPT, "application/json");
        let Ok(response) = asked.timeout(ANSWER).send().await else { continue };
        let bytes = response.bytes().await.ok()?;
        return serde_json::from_slice(&bytes).ok().filter(|answer: &Value| answer["targets"].is_array());
    }
    None
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
