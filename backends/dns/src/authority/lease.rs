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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use hickory_proto::{
        op::Message,
        rr::rdata::opt::{EdnsCode, EdnsOption},
    };
    use tokio::time::{advance, sleep};

    use super::super::{message::Transport, testing::*, wire::code};
    use super::*;

    fn granted(answer: &Message) -> Vec<u8> {
        match answer.edns.as_ref().unwrap().option(EdnsCode::from(2)) {
            Some(EdnsOption::Unknown(_, value)) => value.clone(),
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_nobody_asks_for_again_is_gone() {
        let zone = zone(&[a("own.z.", 1)]);
        let keeper = tokio::spawn({
            let zone = zone.clone();
            async move { zone.keep_leases().await }
        });
        let engine = engine(&zone);
        let add = |last| Ask::update("z.").add(&a("a.z.", last));
        let answer = add(1).lease(10).ask(&engine, Transport::Udp);
        assert_eq!(granted(&answer), 10_u32.to_be_bytes());
        add(2).lease(4).ask(&engine, Transport::Udp);
        add(3).lease(4).ask(&engine, Transport::Udp);
        let serial = zone.table().serial();
        sleep(Duration::from_secs(3)).await;
        add(2).lease(4).ask(&engine, Transport::Udp);
        add(3).ask(&engine, Transport::Udp);
        assert_eq!(zone.table().serial(), serial, "to keep something changes nothing");

        sleep(Duration::from_millis(3_990)).await;
        assert_eq!(content(&zone.table()).len(), 4);
        sleep(Duration::from_millis(20)).await;
        assert_eq!(content(&zone.table()), [a("a.z.", 1), a("a.z.", 3), a("own.z.", 1)]);
        assert_eq!(zone.table().serial(), serial + 1);
        sleep(Duration::from_secs(4)).await;
        assert_eq!(content(&zone.table()), [a("a.z.", 3), a("own.z.", 1)], "what was made permanent stays");
        keeper.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_ends_with_its_record() {
        let zone = zone(&[]);
        let engine = engine(&zone);
        Ask::update("z.").add(&a("a.z.", 1)).lease(10).ask(&engine, Transport::Udp);
        Ask::update("z.").remove(&a("a.z.", 1)).ask(&engine, Transport::Udp);
        Ask::update("z.").add(&a("a.z.", 1)).ask(&engine, Transport::Udp);
        let keeping = zone.keep_leases();
        tokio::select! {
            () = keeping => {}
            () = sleep(Duration::from_secs(20)) => {}
        }
        assert_eq!(content(&zone.table()).len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn leases_are_granted_within_bounds_in_both_forms() {
        let zone = zone(&[]);
        let engine = engine(&zone);
        for (asked, expected) in [(0_u32, 1_u32), (7, 7), (101, 100), (u32::MAX, 100)] {
            let answer = Ask::update("z.").add(&a("a.z.", 1)).lease(asked).ask(&engine, Transport::Udp);
            assert_eq!(granted(&answer), expected.to_be_bytes(), "{asked}");
        }
        let both = [5_u32.to_be_bytes(), 50_u32.to_be_bytes()].concat();
        let key = rr("k.z.", KEY, 5, b"key");
        let update = Ask::update("z.").add(&a("a.z.", 1)).add(&key).edns(1232, 0, &[(2, &both)]);
        assert_eq!(granted(&update.ask(&engine, Transport::Udp)), both);
        tokio::select! {
            () = zone.keep_leases() => {}
            () = sleep(Duration::from_secs(6)) => {}
        }
        assert_eq!(content(&zone.table()), [key]);
        let short = Ask::update("z.").edns(1232, 0, &[(2, &[1, 2, 3])]);
        assert_eq!(short.carry_out(&zone), hickory_proto::op::ResponseCode::FormErr);
    }

    #[tokio::test(start_paused = true)]
    async fn thousands_end_in_order() {
        let mut leases = Leases::default();
        let key = |n: u32| Key { name: name("a.z."), kind: code::A, data: n.to_be_bytes()[..].into() };
        let granted = |n: u32| LeaseOption { lease: Duration::from_secs(u64::from(n % 97)), key_lease: None };
        for n in 0..5_000 {
            leases.renew(vec![key(n)], Some(granted(n)), Instant::now());
        }
        for n in 0..2_500 {
            leases.forget(&key(n));
        }
        let mut seen = 0;
        while leases.next().is_some() {
            let due = leases.take_due(Instant::now());
            assert!(due.iter().all(|key| u32::from_be_bytes(key.data[..].try_into().unwrap()) >= 2_500));
            seen += due.len();
            advance(Duration::from_secs(1)).await;
        }
        assert_eq!((seen, leases.ends.len(), leases.queue.len()), (2_500, 0, 0));
    }
}
