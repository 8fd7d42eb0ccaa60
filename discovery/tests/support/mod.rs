//! A backend that says exactly what the test tells it to.

// Each test file is a crate of its own and uses its part of this.
#![allow(dead_code, clippy::unwrap_used)]

use std::sync::Arc;

use async_trait::async_trait;
use discovery::{
    Backend, Capabilities, Info, Instance, InstanceId, Leases, Registrar, Result, Revision, Scope, Snapshot,
    Update, Updates, kv::Kv,
};
use futures_util::StreamExt;
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;

/// Each watch that the core opens is handed to the test, which plays the server.
#[derive(Debug)]
pub(crate) struct Scripted {
    info: Info,
    opened: mpsc::UnboundedSender<Upstream>,
}

/// The server's end of one watch.
#[derive(Debug)]
pub(crate) struct Upstream {
    pub(crate) after: Option<Revision>,
    /// `None` makes the backend panic.
    updates: mpsc::UnboundedSender<Option<Result<Update>>>,
}

impl Scripted {
    pub(crate) fn new() -> (Self, mpsc::UnboundedReceiver<Upstream>) {
        let (opened, upstreams) = mpsc::unbounded_channel();
        (Self { info: Info::new("script", "script://", Capabilities::default()), opened }, upstreams)
    }
}

impl Upstream {
    pub(crate) fn send(&self, update: Update) {
        self.updates.send(Some(Ok(update))).expect("the core is listening");
    }

    pub(crate) fn reset(&self, revision: u64, ids: impl IntoIterator<Item = u64>) {
        self.send(Update::Reset(snapshot(revision, ids)));
    }

    pub(crate) fn fail(self, error: discovery::Error) {
        self.updates.send(Some(Err(error))).expect("the core is listening");
    }

    pub(crate) fn panic(self) {
        self.updates.send(None).expect("the core is listening");
    }

    pub(crate) async fn closed(&self) {
        self.updates.closed().await;
    }
}

pub(crate) fn snapshot(revision: u64, ids: impl IntoIterator<Item = u64>) -> Snapshot {
    Snapshot::new(Revision(revision), ids.into_iter().map(instance))
}

pub(crate) fn instance(id: u64) -> Arc<Instance> {
    let instance = Instance::builder("cart".parse().unwrap()).id(InstanceId::from_bits(id)).incarnation(1);
    Arc::new(instance.build().unwrap())
}

#[async_trait]
impl Backend for Scripted {
    fn info(&self) -> &Info {
        &self.info
    }

    async fn fetch(&self, _: &Scope) -> Result<Snapshot> {
        Ok(Snapshot::default())
    }

    fn watch(&self, _: &Scope, after: Option<Revision>) -> Updates {
        let (updates, stream) = mpsc::unbounded_channel();
        self.opened.send(Upstream { after, updates }).expect("the test is listening");
        let updates = UnboundedReceiverStream::new(stream);
        updates.map(|update| update.expect("this panic is part of the test")).boxed()
    }

    fn registrar(&self) -> Option<&dyn Registrar> {
        None
    }

    fn leases(&self) -> Option<&dyn Leases> {
        None
    }

    fn kv(&self) -> Option<&dyn Kv> {
        None
    }
}
