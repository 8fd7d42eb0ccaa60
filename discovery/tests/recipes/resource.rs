//! What is protected: a resource outside of the store that remembers the greatest token, and a counter within.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
};

use discovery::{Outcome, kv::Txn, mem::Mem, recipe::Fence};
use tokio::time::Instant;

use super::support::{Client, entries, key, value};

/// A resource that refuses tokens smaller than the greatest it has seen. Remembers who used it when.
#[derive(Clone, Debug, Default)]
pub(crate) struct Resource(Arc<Mutex<History>>);

#[derive(Debug, Default)]
struct History {
    accesses: Vec<Access>,
    refused: usize,
}

#[derive(Debug)]
struct Access {
    token: u64,
    begin: Instant,
    end: Instant,
}

impl Resource {
    /// Uses it, once or as part of a longer access; `false` if it refuses.
    pub(crate) fn access(&self, token: u64) -> bool {
        let mut history = self.0.lock().unwrap();
        let now = Instant::now();
        match history.accesses.last_mut() {
            Some(last) if token < last.token => {
                history.refused += 1;
                return false;
            }
            Some(last) if token == last.token => last.end = now,
            _ => history.accesses.push(Access { token, begin: now, end: now }),
        }
        true
    }

    /// Asserts that one had it at a time; returns how many had it, and how often somebody was refused.
    pub(crate) fn check(&self) -> (usize, usize) {
        let history = self.0.lock().unwrap();
        for pair in history.accesses.windows(2) {
            assert!(pair[0].token < pair[1].token && pair[0].end <= pair[1].begin, "overlap: {pair:?}");
        }
        (history.accesses.len(), history.refused)
    }
}

/// A counter in the store, and what everybody who counted believes to have done.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ledger(Arc<Mutex<Beliefs>>);

#[derive(Debug, Default)]
struct Beliefs {
    done: BTreeSet<String>,
    not_done: BTreeSet<String>,
}

impl Ledger {
    /// Counts, if that is still allowed: reads, and writes one more.
    pub(crate) async fn count(&self, client: &Client, fence: &Fence) {
        let (counter, receipt) = (key("counter"), format!("receipts/{:016x}", fastrand::u64(..)));
        let kv = client.discovery.kv().unwrap();
        let Ok(before) = kv.get(&counter).await else { return };
        let txn = Txn::new().put(&key(&receipt), "1");
        let txn = match &before {
            Some(entry) => {
                let count: u64 = std::str::from_utf8(&entry.value).unwrap().parse().unwrap();
                txn.unmodified(entry).put(&counter, (count + 1).to_string())
            }
            None => txn.absent(&counter).put(&counter, "1"),
        };
        let outcome = fence.commit(txn).await;
        let mut beliefs = self.0.lock().unwrap();
        match outcome {
            Ok(_) => beliefs.done.insert(receipt),
            Err(error) if error.outcome() == Outcome::NotApplied => beliefs.not_done.insert(receipt),
            Err(_) => false,
        };
    }

    /// Asserts that what everybody believes is what is in the store, and clears it; returns the count.
    pub(crate) async fn check(&self, mem: &Mem) -> usize {
        let kv = discovery::Backend::kv(mem).unwrap();
        let all = entries(mem).await.into_iter().map(|entry| entry.key.as_str().to_owned());
        let receipts: BTreeSet<_> = all.filter(|key| key.starts_with("receipts/")).collect();
        let count = value(mem, &key("counter")).await.map_or(0, |count| count.parse().unwrap());
        assert_eq!(receipts.len(), count, "each count has a receipt, and each receipt was counted");
        let beliefs = std::mem::take(&mut *self.0.lock().unwrap());
        assert!(beliefs.done.is_subset(&receipts), "somebody believes in what was not written");
        assert!(
            beliefs.not_done.is_disjoint(&receipts),
            "somebody was told wrongly that nothing was written"
        );
        for receipt in &receipts {
            kv.commit(Txn::new().delete(&key(receipt))).await.unwrap();
        }
        kv.commit(Txn::new().delete(&key("counter"))).await.unwrap();
        count
    }
}
