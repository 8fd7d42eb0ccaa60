//! Several write at once.

use std::{collections::BTreeSet, time::Duration};

use discovery::{ErrorKind, Outcome, Revision, kv::Txn};
use discovery_dns::DnsZone;
use discovery_testbed::NameServer;
use futures_util::future::join_all;

use crate::common::{config, everything, key, kv, listed, soon, zone};

const WRITERS: usize = 8;
const COMMITS: usize = 50;

on_both!(of_those_who_count_nobody_is_lost, of_those_who_write_elsewhere_nobody_is_lost);

/// One of those who write, who has the time that eight need on a busy machine.
fn writer(server: &NameServer) -> DnsZone {
    zone(config(server).call_timeout(Duration::from_secs(20)))
}

/// Adds one to what is there, as often as it takes.
async fn count(zone: &DnsZone) -> Revision {
    let counter = key("counter");
    loop {
        let entry = kv(zone).get(&counter).await.unwrap();
        let next = entry
            .as_ref()
            .map_or(1, |entry| str::from_utf8(&entry.value).unwrap().parse::<usize>().unwrap() + 1);
        let guarded = match &entry {
            Some(entry) => Txn::new().unmodified(entry),
            None => Txn::new().absent(&counter),
        };
        match kv(zone).commit(guarded.put(&counter, next.to_string())).await {
            Ok(number) => return number,
            Err(error) => {
                assert!(matches!(error.kind(), ErrorKind::Conflict | ErrorKind::Unavailable), "{error}");
                assert_eq!(error.outcome(), Outcome::NotApplied, "{error}");
            }
        }
    }
}

fn assert_in_order(numbers: &[Vec<Revision>]) {
    for own in numbers {
        assert!(own.is_sorted_by(|a, b| a < b), "{own:?}");
    }
    let all: BTreeSet<_> = numbers.iter().flatten().collect();
    assert_eq!(all.len(), WRITERS * COMMITS, "no number twice");
}

async fn of_those_who_count_nobody_is_lost(server: NameServer) {
    let writers: Vec<_> = (0..WRITERS).map(|_| writer(&server)).collect();
    let counting = writers.iter().map(|zone| async move {
        let mut numbers = Vec::new();
        for _ in 0..COMMITS {
            numbers.push(soon("to count", count(zone)).await);
        }
        numbers
    });
    let numbers = join_all(counting).await;
    assert_in_order(&numbers);
    assert_eq!(listed(&writers[0], &everything()).await, [format!("counter={}", WRITERS * COMMITS)]);
}

async fn of_those_who_write_elsewhere_nobody_is_lost(server: NameServer) {
    let writers: Vec<_> = (0..WRITERS).map(|_| writer(&server)).collect();
    let writing = writers.iter().enumerate().map(|(writer, zone)| async move {
        let mut numbers = Vec::new();
        for n in 0..COMMITS {
            let own = key(&format!("a/{writer}-{n}"));
            numbers.push(
                soon("to be written", kv(zone).commit(Txn::new().absent(&own).put(&own, "1"))).await.unwrap(),
            );
        }
        numbers
    });
    assert_in_order(&join_all(writing).await);
    assert_eq!(listed(&writers[0], &everything()).await.len(), WRITERS * COMMITS);
}
