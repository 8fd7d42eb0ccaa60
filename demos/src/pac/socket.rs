//! One page's socket.

use std::time::{Duration, SystemTime};

use axum::{
    body::Bytes,
    extract::ws::{CloseFrame, Message as Frame, WebSocket, close_code},
};
use futures_util::SinkExt;
use tokio::time::{self, Instant, MissedTickBehavior};

use super::{messages::Message, server::Watched};
use crate::web::epoch_millis;

const HEARTBEAT: Duration = Duration::from_secs(10);

/// A page that has taken nothing for so long, or from which nothing has come although each heartbeat asks for an
/// answer, is gone. Until then it holds up nobody but itself.
const GONE: Duration = Duration::from_secs(35);

/// Tells the page what there is and what happens, until it goes or we do.
pub(super) async fn serve(mut socket: WebSocket, watched: &Watched) {
    let told = tokio::select! {
        told = tell(&mut socket, watched) => told,
        () = watched.closing().cancelled() => {
            let farewell = CloseFrame { code: close_code::AWAY, reason: "the server is going".into() };
            let _ = time::timeout(Duration::from_secs(1), socket.send(Frame::Close(Some(farewell)))).await;
            Ok(())
        }
    };
    if let Err(error) = told {
        tracing::debug!(%error, "a page's socket broke");
    }
}

async fn tell(socket: &mut WebSocket, watched: &Watched) -> Result<(), axum::Error> {
    time::timeout(GONE, send(socket, vec![text(&watched.hello())])).await.map_err(axum::Error::new)??;
    let mut follower = watched.follow();
    let mut heartbeat = time::interval_at(Instant::now() + HEARTBEAT, HEARTBEAT);
    heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut heard = Instant::now();
    loop {
        let frames = tokio::select! {
            messages = follower.next() => match messages {
                Some(messages) => messages.iter().map(text).collect(),
                // The server ends for the same reason, and says it.
                None => return Ok(()),
            },
            _ = heartbeat.tick() => {
                if heard.elapsed() > GONE {
                    return Ok(());
                }
                let time = epoch_millis(SystemTime::now());
                vec![text(&Message::Heartbeat { time }), Ok(Frame::Ping(Bytes::new()))]
            }
            frame = socket.recv() => match frame {
                // Pings are answered by the socket itself; whatever else a page says is not for us.
                Some(Ok(frame)) if !matches!(frame, Frame::Close(_)) => {
                    heard = Instant::now();
                    continue;
                }
                Some(Err(error)) => return Err(error),
                _ => return Ok(()),
            },
        };
        time::timeout(GONE, send(socket, frames)).await.map_err(axum::Error::new)??;
    }
}

fn text(message: &Message) -> Result<Frame, axum::Error> {
    serde_json::to_string(message).map(Frame::text).map_err(axum::Error::new)
}

/// All at once: one flush, not one for each.
async fn send(socket: &mut WebSocket, frames: Vec<Result<Frame, axum::Error>>) -> Result<(), axum::Error> {
    for frame in frames {
        socket.feed(frame?).await?;
    }
    socket.flush().await
}
