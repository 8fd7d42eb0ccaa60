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
    let told = tell(&mut socket, watched).await;
    if let Err(error) = told {
        tracing::debug!(%error, "a page's socket broke");
    } else if watched.closing().is_cancelled() {
        let farewell = CloseFrame { code: close_code::AWAY, reason: "the server is going".into() };
        let _ = time::timeout(Duration::from_secs(1), socket.send(Frame::Close(Some(farewell)))).await;
    }
}

async fn tell(socket: &mut WebSocket, watched: &Watched) -> Result<(), axum::Error> {
    send(socket, [text(&watched.hello())]).await?;
    let mut follower = watched.follow();
    let mut heartbeat = time::interval_at(Instant::now() + HEARTBEAT, HEARTBEAT);
    heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut heard = Instant::now();
    loop {
        tokio::select! {
            messages = follower.next() => match messages {
                Some(messages) => send(socket, messages.iter().map(text)).await?,
                // The server ends for the same reason, and says it.
                None => return Ok(()),
            },
            _ = heartbeat.tick() => {
                if heard.elapsed() > GONE {
                    return Ok(());
                }
                let time = epoch_millis(SystemTime::now());
                send(socket, [text(&Message::Heartbeat { time }), Ok(Frame::Ping(Bytes::new()))]).await?;
            }
            frame = socket.recv() => match frame {
                // Pings are answered by the socket itself; whatever else a page says is not for us.
                Some(Ok(frame)) if !matches!(frame, Frame::Close(_)) => heard = Instant::now(),
                Some(Err(error)) => return Err(error),
                _ => return Ok(()),
            },
            // With what it has not been told yet.
            () = watched.closing().cancelled() => return send(socket, follower.look().iter().map(text)).await,
        }
    }
}

fn text(message: &Message) -> Result<Frame, axum::Error> {
    serde_json::to_string(message).map(Frame::text).map_err(axum::Error::new)
}

/// All at once: one flush, not one for each.
async fn send(
    socket: &mut WebSocket,
    frames: impl IntoIterator<Item = Result<Frame, axum::Error>>,
) -> Result<(), axum::Error> {
    let sent = async {
        for frame in frames {
            socket.feed(frame?).await?;
        }
        socket.flush().await
    };
    time::timeout(GONE, sent).await.map_err(axum::Error::new)?
}
