//! One page's socket.

use std::time::{Duration, SystemTime};

use axum::extract::ws::{CloseFrame, Message as Frame, WebSocket, close_code};
use futures_util::{SinkExt, StreamExt};
use tokio::time::{self, Instant, MissedTickBehavior};

use super::{
    messages::{Message, epoch_millis},
    server::Watched,
};

const HEARTBEAT: Duration = Duration::from_secs(10);

/// A page that has taken nothing for so long is gone. Until then it holds up nobody but itself: events it misses
/// meanwhile are dropped by its watch and made up for by the latest state.
const STUCK: Duration = Duration::from_secs(30);

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
    let (mut watch, mut fold) = watched.follow();
    let mut heartbeat = time::interval_at(Instant::now() + HEARTBEAT, HEARTBEAT);
    heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let messages = tokio::select! {
            event = watch.next() => match event {
                Some(Ok(event)) => fold.take(&event, watched.outage()),
                // The server ends with the same refusal, and says it.
                Some(Err(_)) | None => return Ok(()),
            },
            _ = heartbeat.tick() => vec![Message::Heartbeat { time: epoch_millis(SystemTime::now()) }],
            frame = socket.recv() => match frame {
                // Pings are answered by the socket itself; whatever else a page says is not for us.
                Some(Ok(frame)) if !matches!(frame, Frame::Close(_)) => continue,
                Some(Err(error)) => return Err(error),
                _ => return Ok(()),
            },
        };
        time::timeout(STUCK, send(socket, &messages)).await.map_err(axum::Error::new)??;
    }
}

/// All at once: one flush, not one for each.
async fn send(socket: &mut WebSocket, messages: &[Message]) -> Result<(), axum::Error> {
    for message in messages {
        let text = serde_json::to_string(message).map_err(axum::Error::new)?;
        socket.feed(Frame::text(text)).await?;
    }
    socket.flush().await
}
