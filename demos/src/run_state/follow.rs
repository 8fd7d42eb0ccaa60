//! A client of the push service: prints a value whenever it changes, and comes back when the connection breaks.

use std::time::Duration;

use anyhow::{Context, bail};
use futures_util::StreamExt;
use serde::Deserialize;
use tokio::time;
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, connect_async,
    tungstenite::{self, Message as Frame},
};

use super::args::FollowArgs;
use crate::console::say;

/// How long to wait before connecting again, at first and at most.
const PAUSES: [Duration; 2] = [Duration::from_millis(200), Duration::from_secs(5)];

/// A server that says nothing for so long is gone: it pings every ten seconds.
const SILENCE: Duration = Duration::from_secs(35);

type Socket = WebSocketStream<MaybeTlsStream<tokio::net::TcpStream>>;

#[derive(Debug, Deserialize)]
struct Message {
    seq: Option<u64>,
    value: Option<serde_json::Value>,
    #[serde(default)]
    gone: bool,
    error: Option<String>,
}

pub(super) async fn run(args: &FollowArgs) -> anyhow::Result<()> {
    let address = address(args)?;
    say("Receiving...");
    let mut seen = args.after;
    let mut pause = PAUSES[0];
    let mut was_there = false;
    loop {
        match connect(&address, seen).await {
            Ok(socket) => {
                was_there = true;
                pause = PAUSES[0];
                if receive(socket, &mut seen, args.until.as_deref()).await? {
                    return Ok(());
                }
                tracing::warn!("the connection is lost; connecting again");
            }
            Err(error) if is_passing(&error) && (was_there || is_broken_off(&error)) => {
                tracing::debug!("{error}");
            }
            Err(error) => return Err(explained(error, &address)),
        }
        time::sleep(pause.mul_f64(0.5 + fastrand::f64())).await;
        pause = (pause * 2).min(PAUSES[1]);
    }
}

/// `runs/run-1235/state` on the server, or what is an address already.
fn address(args: &FollowArgs) -> anyhow::Result<String> {
    let whole = if args.what.contains("://") {
        args.what.clone()
    } else {
        format!("{}/{}", args.server.trim_end_matches('/'), args.what.trim_start_matches('/'))
    };
    let (scheme, rest) = whole.split_once("://").context("an address begins with http://")?;
    match scheme {
        "http" | "ws" => Ok(format!("ws://{rest}")),
        _ => bail!("{whole}: only http:// and ws:// can be followed"),
    }
}

async fn connect(address: &str, seen: Option<u64>) -> Result<Socket, tungstenite::Error> {
    let address = match seen {
        Some(seen) => format!("{address}?after={seen}"),
        None => address.to_owned(),
    };
    connect_async(address).await.map(|(socket, _)| socket)
}

/// Prints what comes; says whether that was all there will be.
async fn receive(mut socket: Socket, seen: &mut Option<u64>, until: Option<&str>) -> anyhow::Result<bool> {
    loop {
        let text = match time::timeout(SILENCE, socket.next()).await {
            Ok(Some(Ok(Frame::Text(text)))) => text,
            Ok(Some(Ok(Frame::Close(_)) | Err(_)) | None) | Err(_) => return Ok(false),
            // Pings are answered when something is read.
            Ok(Some(Ok(_))) => continue,
        };
        let message: Message = serde_json::from_str(&text).context("this is no push service")?;
        if let Some(error) = message.error {
            bail!("the server says: {error}");
        }
        if message.gone {
            bail!("it was deleted");
        }
        *seen = message.seq.or(*seen);
        let Some(value) = message.value else { continue };
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        say(format_args!("Received '{value}'"));
        if until == Some(&value) {
            let _ = socket.close(None).await;
            return Ok(true);
        }
    }
}

/// Somebody is there, who is just coming or going.
fn is_broken_off(error: &tungstenite::Error) -> bool {
    match error {
        tungstenite::Error::Protocol(_) => true,
        tungstenite::Error::Io(error) => error.kind() != std::io::ErrorKind::ConnectionRefused,
        _ => false,
    }
}

fn is_passing(error: &tungstenite::Error) -> bool {
    match error {
        tungstenite::Error::Http(answer) => answer.status().is_server_error(),
        _ => true,
    }
}

fn explained(error: tungstenite::Error, address: &str) -> anyhow::Error {
    match &error {
        tungstenite::Error::Http(answer) => {
            let reason =
                answer.body().as_deref().map(String::from_utf8_lossy).unwrap_or_default().into_owned();
            anyhow::anyhow!("{address}: {} {reason}", answer.status())
        }
        _ => anyhow::Error::new(error)
            .context(format!("cannot reach {address}; is `run-state serve` running?")),
    }
}
