//! What a page hears.

use std::collections::BTreeMap;

use futures_util::StreamExt;
use serde_json::Value;
use tokio::{
    net::TcpStream,
    time::{Instant, timeout_at},
};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async, tungstenite::Message};

use crate::{DEADLINE, demo::Demo};

/// A socket, and what its messages add up to.
#[derive(Debug)]
pub(crate) struct Socket {
    stream: WebSocketStream<MaybeTlsStream<TcpStream>>,
    /// The first message.
    pub(crate) hello: Value,
    /// By coordinate.
    pub(crate) ghosts: BTreeMap<String, Value>,
    pub(crate) ready: bool,
    pub(crate) stale: bool,
    /// Everything behind the first message, in order.
    pub(crate) heard: Vec<Value>,
    pub(crate) closed: bool,
}

impl Socket {
    pub(crate) async fn open(server: &Demo) -> Self {
        let url = format!("{}messages", server.url().replace("http://", "ws://"));
        let (stream, _) = connect_async(url).await.unwrap();
        let mut socket = Self {
            stream,
            hello: Value::Null,
            ghosts: BTreeMap::new(),
            ready: false,
            stale: false,
            heard: Vec::new(),
            closed: false,
        };
        socket.until("a word of welcome", |socket| !socket.hello.is_null()).await;
        socket
    }

    /// Listens until `condition` holds; panics with `what` when that takes too long.
    pub(crate) async fn until(&mut self, what: &str, condition: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + DEADLINE;
        while !condition(self) {
            let Ok(frame) = timeout_at(deadline, self.stream.next()).await else {
                panic!("not within {DEADLINE:?}: {what}; heard {:#?}", self.heard);
            };
            match frame {
                Some(Ok(Message::Text(text))) => self.take(serde_json::from_str(&text).unwrap()),
                Some(Ok(Message::Close(_))) => self.closed = true,
                Some(Ok(_)) => {}
                _ if self.closed => panic!("closed before {what}"),
                end => panic!("the socket broke before {what}: {end:?}"),
            }
        }
    }

    /// Whether a ghost of this name, or this coordinate, is shown.
    pub(crate) fn shows(&self, ghost: &str) -> bool {
        self.find(ghost).is_some()
    }

    /// What was last told of a ghost.
    pub(crate) fn find(&self, ghost: &str) -> Option<&Value> {
        let is_it = |coordinate: &&String| {
            coordinate.as_str() == ghost || coordinate.split('.').nth(1) == Some(ghost)
        };
        self.ghosts.keys().find(is_it).map(|coordinate| &self.ghosts[coordinate])
    }

    /// How often this was told of this coordinate.
    pub(crate) fn count(&self, action: &str, coordinate: &str) -> usize {
        let is_it = |message: &&Value| message["action"] == action && message["coordinate"] == coordinate;
        self.heard.iter().filter(is_it).count()
    }

    fn take(&mut self, message: Value) {
        let coordinate = message["coordinate"].as_str().map(str::to_owned);
        if self.hello.is_null() {
            assert_eq!(message["action"], "hello");
            self.hello = message;
            return;
        }
        match (message["action"].as_str().unwrap(), coordinate) {
            ("created", Some(coordinate)) => {
                let known = self.ghosts.insert(coordinate, message.clone());
                assert!(known.is_none(), "created twice: {message}");
            }
            ("changed", Some(coordinate)) => {
                let known = self.ghosts.insert(coordinate, message.clone());
                assert!(known.is_some(), "changed before it was created: {message}");
            }
            ("removed", Some(coordinate)) => {
                assert!(self.ghosts.remove(&coordinate).is_some(), "removed without being there: {message}");
            }
            ("ready", None) => {
                assert!(!self.ready, "ready twice");
                self.ready = true;
            }
            ("heartbeat", None) => assert!(message["time"].is_u64()),
            ("stale", None) => self.stale = true,
            ("live", None) => self.stale = false,
            _ => panic!("not in the protocol: {message}"),
        }
        self.heard.push(message);
    }
}
