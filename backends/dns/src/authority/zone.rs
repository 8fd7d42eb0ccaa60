//! A zone that is served: its table now, who may replace it, and who wants to hear of it.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use arc_swap::{ArcSwap, Guard};
use tokio::{
    sync::{Notify, watch},
    time::{Instant, sleep_until},
};

use super::{
    answer::Manner,
    lease::{self, Bounds, Leases},
    message::{LeaseOption, Rcode, Request},
    notify::Subscribers,
    table::{Edit, Table},
    update,
    wire::Name,
};

/// A zone with what changes it. Queries only load the table.
#[derive(Debug)]
pub(crate) struct Zone {
    apex: Name,
    /// Read by queries at any time, replaced by whoever holds `leases`.
    table: ArcSwap<Table>,
    /// Whether updates change it; otherwise it shows something else.
    is_dynamic: bool,
    bounds: Bounds,
    /// What the TTL of an answer is at most. Written by the task that follows what the zone shows; 0 while that is not
    /// known. On its own, so `Relaxed` will do.
    ttl_max: AtomicU32,
    /// Held while the table is replaced: one change after the other.
    leases: Mutex<Leases>,
    /// The next lease may end earlier than it did.
    leases_changed: Notify,
    serial: watch::Sender<u32>,
    subscribers: Mutex<Subscribers>,
    secondaries: Vec<SocketAddr>,
}

impl Zone {
    pub(crate) fn new(table: Table, is_dynamic: bool, bounds: Bounds, secondaries: Vec<SocketAddr>) -> Self {
        Self {
            apex: table.apex().clone(),
            serial: watch::Sender::new(table.serial()),
            table: ArcSwap::from_pointee(table),
            is_dynamic,
            bounds,
            ttl_max: AtomicU32::new(if is_dynamic { u32::MAX } else { 0 }),
            leases: Mutex::default(),
            leases_changed: Notify::new(),
            subscribers: Mutex::default(),
            secondaries,
        }
    }

    /// Records that the zone holds from the beginning live for a while.
    pub(crate) fn lend(&self, records: Vec<(lease::Key, Duration)>) {
        let (mut leases, now) = (self.lock(), Instant::now());
        for (key, lease) in records {
            leases.renew(vec![key], Some(LeaseOption { lease, key_lease: None }), now);
        }
    }

    pub(crate) fn apex(&self) -> &Name {
        &self.apex
    }

    /// The table now.
    pub(crate) fn table(&self) -> Guard<Arc<Table>> {
        self.table.load()
    }

    /// How to answer; `None` while what the zone shows is not known.
    pub(crate) fn manner(&self) -> Option<Manner> {
        match self.ttl_max.load(Ordering::Relaxed) {
            0 => None,
            ttl_max => Some(Manner { ttl_max, has_aliases: !self.is_dynamic }),
        }
    }

    /// No TTL is longer from now on; 0 if it is not known any more what to answer.
    pub(crate) fn set_ttl_max(&self, seconds: u32) {
        self.ttl_max.store(seconds, Ordering::Relaxed);
    }

    /// The serial, and whenever there is another.
    pub(crate) fn serials(&self) -> watch::Receiver<u32> {
        self.serial.subscribe()
    }

    /// Servers that are always notified.
    pub(crate) fn secondaries(&self) -> &[SocketAddr] {
        &self.secondaries
    }

    /// Those that asked to be notified.
    pub(crate) fn subscribers(&self) -> MutexGuard<'_, Subscribers> {
        self.subscribers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Carries out an update; the lease that it got, if it asked for one.
    pub(crate) fn update(&self, request: &Request<'_>) -> Result<Option<LeaseOption>, Rcode> {
        if !self.is_dynamic {
            return Err(Rcode::Refused);
        }
        let mut leases = self.lock();
        let applied = update::apply(&self.table.load(), request)?;
        let next_before = leases.next();
        if let Some(table) = applied.table {
            Self::forget_removed(&mut leases, &table);
            self.publish(table);
        }
        let asked = request.edns.and_then(|edns| edns.lease);
        let granted = asked.map(|asked| self.bounds.grant(asked));
        leases.renew(applied.asked, granted, Instant::now());
        if leases.next() != next_before {
            self.leases_changed.notify_one();
        }
        Ok(granted)
    }

    /// Changes the content of a zone that shows something else. What it shows is as much as it is: nothing is too large.
    pub(crate) fn change(&self, change: impl FnOnce(&mut Edit)) {
        let _writer = self.lock();
        self.rewrite(change);
    }

    /// Removes records whose lease has ended, for as long as it is polled.
    pub(crate) async fn keep_leases(&self) {
        loop {
            let changed = self.leases_changed.notified();
            let next = self.lock().next();
            let ended = async {
                match next {
                    Some(end) => sleep_until(end).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = changed => {}
                () = ended => self.expire(Instant::now()),
            }
        }
    }

    fn expire(&self, now: Instant) {
        let mut leases = self.lock();
        let due = leases.take_due(now);
        let before = self.table.load_full();
        self.rewrite(|edit| lease::expire(edit, &due));
        let after = self.table.load();
        if !Arc::ptr_eq(&before, &after) {
            Self::forget_removed(&mut leases, &after);
        }
    }

    fn rewrite(&self, change: impl FnOnce(&mut Edit)) {
        let table = self.table.load();
        let mut edit = table.edit();
        change(&mut edit);
        // Who gets here only removes, or has no limit.
        if let Ok(Some(next)) = edit.finish(&table) {
            self.publish(next);
        }
    }

    /// What the last step removed has no lease any more.
    fn forget_removed(leases: &mut Leases, table: &Table) {
        let Some(step) = table.last_step() else { return };
        for rr in &step.removed {
            let is_there = table.set(&rr.name, rr.kind).is_some_and(|set| set.has(&rr.data));
            if !is_there {
                leases.forget(&lease::Key { name: rr.name.clone(), kind: rr.kind, data: rr.data.clone() });
            }
        }
    }

    fn publish(&self, table: Table) {
        let serial = table.serial();
        self.table.store(Arc::new(table));
        self.serial.send_replace(serial);
    }

    fn lock(&self) -> MutexGuard<'_, Leases> {
        self.leases.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How long a lease may be if nobody says otherwise.
pub(crate) const LEASE_MIN: Duration = Duration::from_secs(1);
pub(crate) const LEASE_MAX: Duration = Duration::from_secs(3600);
