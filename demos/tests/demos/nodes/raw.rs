//! Calls that no program of ours makes: frames written by hand.

use discovery::Discovery;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// A connection to a node, or to whoever runs the nodes.
#[derive(Debug)]
pub(crate) struct Raw(TcpStream);

impl Raw {
    /// Connects to one that is registered, such as `my-app/node` and 1.
    pub(crate) async fn dial(discovery: &Discovery, service: &str, id: &str) -> Self {
        let found = discovery.lookup(&service.parse().unwrap()).await.unwrap();
        let instance = found.iter().find(|instance| instance.id().as_str() == id).unwrap();
        let endpoint = instance.endpoint("rpc").unwrap();
        Self(TcpStream::connect((endpoint.host(), endpoint.port())).await.unwrap())
    }

    /// Calls; returns what the answer is, or `None` if the connection is cut instead.
    pub(crate) async fn call(&mut self, message: Value) -> Option<Value> {
        self.call_within(5, message).await
    }

    /// The same with a deadline.
    pub(crate) async fn call_within(&mut self, seconds: u64, message: Value) -> Option<Value> {
        let trace = json!({ "trace_id": ([0; 16]), "span_id": 0, "sampling_decision": "Unsampled" });
        let context = json!({ "deadline": { "secs": seconds, "nanos": 0 }, "trace_context": trace });
        let request = json!({ "Request": { "context": context, "id": 0, "message": message } });
        self.send(request.to_string().as_bytes()).await;
        let answer: Value = serde_json::from_slice(&self.receive().await?).unwrap();
        Some(answer["message"].clone())
    }

    /// Writes a frame, as far as that is taken.
    pub(crate) async fn send(&mut self, frame: &[u8]) {
        let length = u32::try_from(frame.len()).unwrap();
        let _ = self.0.write_all(&length.to_be_bytes()).await;
        let _ = self.0.write_all(frame).await;
    }

    /// The next frame, if the connection is not cut before.
    pub(crate) async fn receive(&mut self) -> Option<Vec<u8>> {
        let length = self.0.read_u32().await.ok()?;
        let mut frame = vec![0; usize::try_from(length).unwrap()];
        self.0.read_exact(&mut frame).await.ok()?;
        Some(frame)
    }
}
