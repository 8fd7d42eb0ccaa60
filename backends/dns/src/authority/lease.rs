//! Records that live for a while (Update Lease, RFC 9664): until they are asked for again, or their time is over.

use std::{
    collections::{BTreeSet, HashMap},
    time::Duration,
};

use tokio::time::Instant;

use super::{
    message::LeaseOption,
    table::Edit,
    wire::{Data, Name},
};

/// The type of the records that the longer form of the option has a lease of its own for.
const KEY: u16 = 25;

/// Which record: its TTL may change.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Key {
    pub(crate) name: Name,
    pub(crate) kind: u16,
    pub(crate) data: Data,
}

/// How long a lease may be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    pub(crate) min: Duration,
    pub(crate) max: Duration,
}

impl Bounds {
    /// What is granted to who asks for that.
    pub(crate) fn grant(&self, asked: LeaseOption) -> LeaseOption {
        let clamp = |lease: Duration| lease.clamp(self.min, self.max);
        LeaseOption { lease: clamp(asked.lease), key_lease: asked.key_lease.map(clamp) }
    }
}

/// When which record is over. One that is not here stays.
#[derive(Debug, Default)]
pub(crate) struct Leases {
    ends: HashMap<Key, Instant>,
    queue: BTreeSet<(Instant, Key)>,
}

impl Leases {
    /// The records of an update: with a lease from now on, or without one.
    pub(crate) fn renew(&mut self, asked: Vec<Key>, granted: Option<LeaseOption>, now: Instant) {
        for key in asked {
            self.forget(&key);
            let Some(granted) = granted else { continue };
            let lease = granted.key_lease.filter(|_| key.kind == KEY).unwrap_or(granted.lease);
            self.queue.insert((now + lease, key.clone()));
            self.ends.insert(key, now + lease);
        }
    }

    /// The record is gone, or stays.
    pub(crate) fn forget(&mut self, key: &Key) {
        if let Some((key, end)) = self.ends.remove_entry(key) {
            self.queue.remove(&(end, key));
        }
    }

    /// When the next one ends.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.queue.first().map(|(end, _)| *end)
    }

    /// Takes out what is over.
    pub(crate) fn take_due(&mut self, now: Instant) -> Vec<Key> {
        let mut due = Vec::new();
        while self.next().is_some_and(|end| end <= now) {
            let Some((_, key)) = self.queue.pop_first() else { break };
            self.ends.remove(&key);
            due.push(key);
        }
        due
    }
}

/// Removes what is over.
pub(crate) fn expire(edit: &mut Edit, due: &[Key]) {
    for key in due {
        edit.remove(&key.name, key.kind, &key.data);
    }
}
