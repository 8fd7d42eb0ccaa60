//! Whatever can be asked for can be followed as well: by WebSocket, or as server-sent events.
//!
//! Each message has the whole value and, where the registry has one for it, a number that grows. Who comes back with the
//! number of the last one that he saw (`?after=`, or `Last-Event-ID`) does not hear that one again. Who is slow misses values
//! in between, never the last.

use std::{convert::Infallible, time::Duration};

use axum::{
    extract::{
        FromRequestParts, Query,
        ws::{CloseFrame, Message as Frame, WebSocket, WebSocketUpgrade, close_code},
    },
    http::{HeaderMap, StatusCode, header::ACCEPT, request::Parts},
    response::{IntoResponse, Response, Sse, sse},
};
use futures_util::{Stream, StreamExt, stream::BoxStream};
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use tokio::time;

use super::{Service, problem::Problem};

/// How often a connection that has nothing to say proves that it lives.
const HEARTBEAT: Duration = Duration::from_secs(10);

/// A client that takes nothing for so long, or does not answer that it is there, is gone.
const GONE: Duration = Duration::from_secs(35);

/// A value of a resource, with its number if it has one.
pub(super) type Told = discovery::Result<(Option<u64>, Json)>;

/// What a client can be told of one resource: values, whose numbers grow. The end means that it was deleted.
pub(super) type Values = BoxStream<'static, Told>;

/// What a client wants: an answer, or a connection that goes on.
pub(super) enum Wish {
    Answer,
    Socket(WebSocketUpgrade, After),
    Events(After),
}

/// The number of the last value that the client has seen.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
pub(super) struct After {
    after: Option<u64>,
}

impl Wish {
    /// The number of the last value that the client has seen.
    pub(super) fn after(&self) -> Option<u64> {
        match self {
            Self::Answer => None,
            Self::Socket(_, after) | Self::Events(after) => after.after,
        }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Wish {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Response> {
        let Query(mut after) = Query::<After>::from_request_parts(parts, state)
            .await
            .map_err(|_| Problem::bad_request("after: a number is wanted").into_response())?;
        let text = |headers: &HeaderMap, name: &str| {
            headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
        };
        if let Ok(last) = text(&parts.headers, "last-event-id").parse() {
            after.after = Some(last);
        }
        if text(&parts.headers, "upgrade").eq_ignore_ascii_case("websocket") {
            let upgrade = WebSocketUpgrade::from_request_parts(parts, state).await;
            return upgrade.map(|upgrade| Self::Socket(upgrade, after)).map_err(IntoResponse::into_response);
        }
        if text(&parts.headers, ACCEPT.as_str()).contains("text/event-stream") {
            return Ok(Self::Events(after));
        }
        Ok(Self::Answer)
    }
}

/// A message.
#[derive(Debug, Serialize)]
struct Message<'a> {
    path: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    seq: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<Json>,
    /// Whether it was deleted: the last message.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    gone: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// Tells a client of the values of `path`, for as long as both are there.
pub(super) fn follow(wish: Wish, service: &Service, path: String, values: Values) -> Response {
    let closing = service.closing.clone();
    match wish {
        Wish::Answer => StatusCode::NOT_ACCEPTABLE.into_response(),
        Wish::Socket(upgrade, after) => {
            let token = service.sockets.token();
            upgrade.max_message_size(4096).on_upgrade(async move |mut socket| {
                let messages = messages(path, after, values);
                let told = tokio::select! {
                    told = tell(&mut socket, messages) => told,
                    () = closing.cancelled() => close(&mut socket, close_code::AWAY, "the server is going").await,
                };
                if let Err(error) = told {
                    tracing::debug!(%error, "a follower's socket broke");
                }
                drop(token);
            })
        }
        Wish::Events(after) => {
            let events = messages(path, after, values).map(|(seq, text)| {
                let event = sse::Event::default().data(text);
                Ok::<_, Infallible>(match seq {
                    Some(seq) => event.id(seq.to_string()),
                    None => event,
                })
            });
            let events = events.take_until(closing.cancelled_owned());
            Sse::new(events).keep_alive(sse::KeepAlive::new().interval(HEARTBEAT)).into_response()
        }
    }
}

/// The messages as text, with their numbers.
fn messages(path: String, after: After, values: Values) -> impl Stream<Item = (Option<u64>, String)> + Send {
    let mut seen = after.after;
    let mut failed = false;
    let ends = futures_util::stream::once(async { None });
    let items = values.map(Some).chain(ends);
    items.filter_map(move |item| {
        let message = |seq, value, gone, error| {
            let message = Message { path: &path, seq, value, gone, error };
            // Fails only for maps whose keys are no text.
            Some((seq, serde_json::to_string(&message).unwrap_or_default()))
        };
        let told = match item {
            // Only what is exactly what was seen is no news: a smaller number is of another history.
            Some(Ok((Some(seq), _))) if seen.take() == Some(seq) => None,
            Some(Ok((seq, value))) => {
                seen = None;
                message(seq, Some(value), false, None)
            }
            Some(Err(error)) => {
                failed = true;
                message(None, None, false, Some(error.to_string()))
            }
            // Behind an error, nobody knows.
            None if failed => None,
            None => message(None, None, true, None),
        };
        std::future::ready(told)
    })
}

async fn tell(
    socket: &mut WebSocket,
    messages: impl Stream<Item = (Option<u64>, String)>,
) -> Result<(), axum::Error> {
    let mut messages = std::pin::pin!(messages);
    let mut heartbeat = time::interval_at(time::Instant::now() + HEARTBEAT, HEARTBEAT);
    heartbeat.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
    let mut heard = time::Instant::now();
    loop {
        let frame = tokio::select! {
            message = messages.next() => match message {
                Some((_, text)) => Frame::text(text),
                // The last message said why.
                None => return close(socket, close_code::NORMAL, "that is all").await,
            },
            _ = heartbeat.tick() => {
                if heard.elapsed() > GONE {
                    return Ok(());
                }
                Frame::Ping(axum::body::Bytes::new())
            }
            frame = socket.recv() => match frame {
                Some(Ok(Frame::Close(_))) | None => return Ok(()),
                // Whatever else a client says is not for us, but that it does.
                Some(Ok(_)) => {
                    heard = time::Instant::now();
                    continue;
                }
                Some(Err(error)) => return Err(error),
            },
        };
        time::timeout(GONE, socket.send(frame)).await.map_err(axum::Error::new)??;
    }
}

async fn close(socket: &mut WebSocket, code: u16, reason: &'static str) -> Result<(), axum::Error> {
    let farewell = CloseFrame { code, reason: reason.into() };
    let sent = time::timeout(Duration::from_secs(1), socket.send(Frame::Close(Some(farewell)))).await;
    sent.unwrap_or(Ok(()))
}
