//! What those hear who follow a value of the push service, in one way or the other.

use futures_util::StreamExt;
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    net::TcpStream,
    time::{Instant, timeout_at},
};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async, tungstenite::Message};

use crate::{DEADLINE, http, run_state::processes::Server};

/// By what one hears.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    Socket,
    Events,
}

impl Way {
    pub(crate) const BOTH: [Self; 2] = [Self::Socket, Self::Events];

    pub(crate) async fn follow(self, server: &Server, path: &str) -> Listener {
        self.resume(server, path, None).await
    }

    /// Only what is newer than the value with the number `after`.
    pub(crate) async fn resume(self, server: &Server, path: &str, after: Option<u64>) -> Listener {
        let url = server.url(path);
        let source = match self {
            Self::Socket => {
                let after = after.map(|after| format!("?after={after}")).unwrap_or_default();
                let url = format!("{}{after}", url.replace("http://", "ws://"));
                Source::Socket(Box::new(connect_async(url).await.unwrap().0))
            }
            Self::Events => {
                let after = after.map(|after| format!("Last-Event-ID: {after}\r\n")).unwrap_or_default();
                let mut stream = http::open(&url, &format!("Accept: text/event-stream\r\n{after}")).await;
                let head = head(&mut stream).await;
                assert!(head.contains(" 200 ") && head.contains("content-type: text/event-stream"), "{head}");
                Source::Events(stream)
            }
        };
        Listener {
            path: path.to_owned(),
            source,
            heard: Vec::new(),
            seqs: Vec::new(),
            is_gone: false,
            ended: false,
        }
    }
}

/// Somebody who follows a value.
#[derive(Debug)]
pub(crate) struct Listener {
    path: String,
    source: Source,
    /// All values, in order.
    pub(crate) heard: Vec<Value>,
    /// Their numbers.
    pub(crate) seqs: Vec<u64>,
    /// Whether it was told that the thing was deleted.
    pub(crate) is_gone: bool,
    pub(crate) ended: bool,
}

#[derive(Debug)]
enum Source {
    Socket(Box<WebSocketStream<MaybeTlsStream<TcpStream>>>),
    Events(BufReader<TcpStream>),
}

impl Listener {
    /// What it follows.
    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    /// The latest value.
    pub(crate) fn value(&self) -> &Value {
        self.heard.last().unwrap_or(&Value::Null)
    }

    /// The number of the latest value.
    pub(crate) fn seq(&self) -> u64 {
        *self.seqs.last().expect("a value was heard")
    }

    /// Listens until `condition` holds; panics with `what` when that takes too long.
    pub(crate) async fn until(&mut self, what: &str, condition: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + DEADLINE;
        while !condition(self) {
            assert!(!self.ended, "{}: it has ended before: {what}; heard {:#?}", self.path, self.heard);
            let Ok(message) = timeout_at(deadline, self.source.message()).await else {
                panic!("{}: not within {DEADLINE:?}: {what}; heard {:#?}", self.path, self.heard);
            };
            match message {
                Some(message) => self.take(&message),
                None => self.ended = true,
            }
        }
    }

    pub(crate) async fn until_value(&mut self, value: impl Into<Value>) {
        let value = value.into();
        self.until(&format!("the value {value}"), |listener| *listener.value() == value).await;
    }

    fn take(&mut self, message: &Value) {
        assert!(!self.is_gone, "a word behind the last one: {message}");
        assert_eq!(message["path"], self.path, "{message}");
        assert!(message.get("error").is_none(), "{message}");
        if message["gone"] == true {
            self.is_gone = true;
            return;
        }
        // What the registry has no number for has none.
        if let Some(seq) = message["seq"].as_u64() {
            assert!(self.seqs.last().is_none_or(|last| *last <= seq), "{seq} behind {:?}", self.seqs);
            self.seqs.push(seq);
        }
        self.heard.push(message["value"].clone());
    }
}

impl Source {
    /// The next message; nothing once there are no more. Not cancel safe.
    async fn message(&mut self) -> Option<Value> {
        match self {
            Self::Socket(socket) => loop {
                match socket.next().await?.ok()? {
                    Message::Text(text) => return Some(serde_json::from_str(&text).unwrap()),
                    Message::Close(_) => return None,
                    _ => {}
                }
            },
            Self::Events(stream) => event(stream).await,
        }
    }
}

/// The next event that is more than a sign of life.
async fn event(stream: &mut BufReader<TcpStream>) -> Option<Value> {
    let (mut id, mut data) = (None, None);
    loop {
        let mut line = String::new();
        if !matches!(stream.read_line(&mut line).await, Ok(1..)) {
            return None;
        }
        match line.trim_end_matches('\n').split_once(':') {
            Some(("id", number)) => id = Some(number.trim().parse::<u64>().unwrap()),
            Some(("data", text)) => data = Some(serde_json::from_str::<Value>(text).unwrap()),
            Some(("", _)) => {}
            None if line == "\n" => {
                if let Some(data) = data.take() {
                    assert_eq!(data.get("seq").and_then(Value::as_u64), id, "{data}");
                    return Some(data);
                }
            }
            _ => panic!("no event: {line:?}"),
        }
    }
}

async fn head(stream: &mut BufReader<TcpStream>) -> String {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        assert!(matches!(stream.read_line(&mut head).await, Ok(1..)), "{head}");
    }
    head.to_lowercase()
}
