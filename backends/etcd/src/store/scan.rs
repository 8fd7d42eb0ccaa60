//! Reading one entry, or all of a range, page by page as of one revision.

use discovery::{
    Error, Result,
    kv::{Entry, Key, Range, Scan},
};
use etcd_client::{GetOptions, GetResponse};
use tokio::time::Instant;

use super::{Store, revision};
use crate::{connection::Connection, path::Layout};

/// How many entries are read with one request. The first page of a range without what is below its children is small:
/// somebody else's entries there are read before they can be passed over.
const PAGE: i64 = 10_000;
const FIRST_OF_CHILDREN: i64 = 500;

impl Store {
    /// The entry under a key.
    pub(super) async fn read(&self, key: &Key) -> Result<Option<Entry>> {
        Layout::check(key)?;
        if key.is_root() {
            return Ok(None);
        }
        let path = self.cluster.layout().path(key);
        let (era, answer) = self.ask(path.into_bytes(), GetOptions::new(), self.cluster.deadline()).await?;
        Ok(answer.kvs().first().and_then(|found| self.entry(era, found)))
    }

    /// The entries of a range as of one revision.
    pub(crate) async fn read_all(&self, range: &Range, deadline: Instant) -> Result<Scan> {
        Layout::check(range.top())?;
        let (from, end) = self.cluster.layout().bounds(range);
        let mut from = from.into_bytes();
        let mut page = match range {
            Range::Children(_) => FIRST_OF_CHILDREN,
            Range::Key(_) | Range::Subtree(_) => PAGE,
        };
        let mut as_of = None;
        let mut entries = Vec::new();
        loop {
            let mut options = GetOptions::new().with_range(end.clone()).with_limit(page);
            if let Some(revision) = as_of {
                options = options.with_revision(revision);
            }
            let (era, answer) = self.ask(from, options, deadline).await?;
            let header = answer.header().map(etcd_client::ResponseHeader::revision);
            let as_of = *as_of.get_or_insert(header.unwrap_or_default());
            let found = answer.kvs();
            entries.extend(
                found.iter().filter_map(|found| self.entry(era, found)).filter(|e| range.contains(&e.key)),
            );
            let Some(last) = found.last().filter(|_| answer.more()) else {
                // `a-b` sorts before `a/b` among paths, and so it does among keys: they differ in front only.
                return Ok(Scan { revision: revision(as_of), entries });
            };
            from = self.behind(range, last.key());
            page = PAGE;
        }
    }

    /// Where to go on reading a range behind a path that was read.
    fn behind(&self, range: &Range, path: &[u8]) -> Vec<u8> {
        let passed = match range {
            Range::Children(top) => self.cluster.layout().behind_child(top, path),
            Range::Key(_) | Range::Subtree(_) => None,
        };
        passed.unwrap_or_else(|| [path, &[0]].concat())
    }

    /// Asks for a range. Returns also the era of the answer.
    async fn ask(&self, path: Vec<u8>, options: GetOptions, deadline: Instant) -> Result<(u64, GetResponse)> {
        let _place = self.cluster.admit(deadline).await?;
        let ask = |connection: &Connection| {
            let (mut kv, path, options) = (connection.kv(), path.clone(), options.clone());
            async move { kv.get(path, Some(options)).await }
        };
        let (connection, answer) = self.cluster.call(deadline, ask).await?;
        let answer = answer.map_err(|trouble| Error::from(trouble).not_applied())?;
        self.cluster.history().met(connection.era(), answer.header());
        Ok((connection.era(), answer))
    }
}
