//! The way of a transaction to the server.

use std::sync::Arc;

use discovery::{Result, Revision, kv::Txn};
use tokio::time::Instant;

use super::{
    Reader,
    memory::{Memory, zxid},
    multi::Multi,
    view::View,
};
use crate::{
    error::Trouble,
    session::{Session, revision},
};

/// A session to write through, and who takes note of what was written.
#[derive(Clone)]
pub(super) struct Line {
    pub(super) reader: Arc<Reader>,
    pub(super) memory: Arc<Memory>,
    pub(super) session: Arc<Session>,
    /// The session that entries will belong to; 0 for permanent ones.
    pub(super) owner: i64,
}

impl Line {
    /// Sends the multi that does what a transaction says, provided that the view still holds.
    ///
    /// # Errors
    ///
    /// The outer one says that it was not sent.
    pub(super) async fn send(
        &self,
        txn: &Txn,
        view: &View,
        deadline: Instant,
    ) -> Result<Result<Revision, Trouble>> {
        let Self { reader, memory, session, owner } = self;
        let known = reader.horizon().zxid();
        let (steps, answer) = Multi::new(reader, session, txn, view)?.send();
        let results = match session.call(deadline, answer).await {
            Ok(results) => results,
            Err(trouble) => return Ok(Err(trouble)),
        };
        // If nothing had to be written, all is as it was at the latest revision that we knew.
        let zxid = zxid(&results).unwrap_or(known);
        match steps.iter().find_map(|step| step.witness(reader.layout())) {
            Some(node) => session.has_written(zxid, node, reader.horizon()),
            None => session.has_applied(zxid, reader.horizon()),
        }
        memory.learn(steps, &results, *owner);
        Ok(Ok(revision(zxid)))
    }
}
