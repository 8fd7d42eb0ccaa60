//! A write arrives later than everybody thought, as one does that was stuck in a partition.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should panic")]

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use discovery::{
    Backend, Claim, Discovery, Error, ErrorKind, Grant, Info, Instance, InstanceKey, LeaseId, Leases, Owner,
    Registrar, Result, Revision, Scope, ServiceName, Snapshot, Updates, kv::Kv, mem::Mem,
};
use tokio::{sync::RwLock, time};

/// Writes take this long, and nobody is told of their outcome.
const LATE: Duration = Duration::from_secs(1);

/// A memory with a bad line for writes. Renewals take the same line, and so they arrive behind the writes.
#[derive(Debug)]
struct Late {
    mem: Mem,
    /// How many writes of each instance come late, their answers lost; those behind them find a better line.
    lost: usize,
    seen: Mutex<HashMap<InstanceKey, usize>>,
    /// Shared by the writes under way.
    line: Arc<RwLock<()>>,
}

#[async_trait]
impl Registrar for Late {
    async fn put(&self, instance: &Instance, claim: &Claim) -> Result<Revision> {
        let (mem, instance, claim) = (self.mem.clone(), instance.clone(), claim.clone());
        let number = {
            let mut seen = self.seen.lock().unwrap();
            let number = seen.entry(instance.key().clone()).or_default();
            *number += 1;
            *number
        };
        if number > self.lost {
            return mem.registrar().unwrap().put(&instance, &claim).await;
        }
        let way = self.line.clone().read_owned().await;
        tokio::spawn(async move {
            time::sleep(LATE).await;
            // What comes too late may be refused.
            let _ = mem.registrar().unwrap().put(&instance, &claim).await;
            drop(way);
        });
        Err(Error::new(ErrorKind::Unavailable, "the line went dead").maybe_applied())
    }

    async fn remove(&self, key: &InstanceKey, owner: Option<&Owner>) -> Result<bool> {
        self.mem.registrar().unwrap().remove(key, owner).await
    }
}

#[async_trait]
impl Leases for Late {
    async fn grant(&self, ttl: Duration) -> Result<Grant> {
        self.mem.leases().unwrap().grant(ttl).await
    }

    async fn renew(&self, id: LeaseId) -> Result<Duration> {
        let _behind_the_writes = self.line.write().await;
        self.mem.leases().unwrap().renew(id).await
    }

    async fn revoke(&self, id: LeaseId) -> Result<()> {
        self.mem.leases().unwrap().revoke(id).await
    }
}

#[async_trait]
impl Backend for Late {
    fn info(&self) -> &Info {
        self.mem.info()
    }

    async fn fetch(&self, scope: &Scope) -> Result<Snapshot> {
        self.mem.fetch(scope).await
    }

    fn watch(&self, scope: &Scope, after: Option<Revision>) -> Updates {
        self.mem.watch(scope, after)
    }

    fn registrar(&self) -> Option<&dyn Registrar> {
        Some(self)
    }

    fn leases(&self) -> Option<&dyn Leases> {
        Some(self)
    }

    fn kv(&self) -> Option<&dyn Kv> {
        None
    }
}

fn late(mem: &Mem, lost: usize) -> Discovery {
    Discovery::new(Late { mem: mem.clone(), lost, seen: Mutex::default(), line: Arc::default() })
}

/// The next attempt has succeeded, and is taken back: the first one is still on its way.
#[tokio::test(start_paused = true)]
async fn a_first_attempt_does_not_arrive_behind_the_removal_of_the_second() {
    let mem = Mem::new();
    let discovery = late(&mem, 1);
    let cart: ServiceName = "cart".parse().unwrap();
    let _other = discovery.register(Instance::builder("other".parse().unwrap()).build().unwrap()).start();
    let registration = discovery.register(Instance::builder(cart.clone()).build().unwrap()).await.unwrap();
    assert_eq!(Discovery::new(mem.clone()).lookup(&cart).await.unwrap().len(), 1);
    registration.deregister().await.unwrap();
    time::sleep(10 * LATE).await;
    assert_eq!(Discovery::new(mem).lookup(&cart).await.unwrap(), Snapshot::default());
}

#[tokio::test(start_paused = true)]
async fn what_was_withdrawn_on_its_way_stays_away() {
    let mem = Mem::new();
    let discovery = late(&mem, usize::MAX);
    let cart: ServiceName = "cart".parse().unwrap();
    // The lease is kept by somebody who stays.
    let _other = discovery.register(Instance::builder("other".parse().unwrap()).build().unwrap()).start();
    let mut registration =
        discovery.register(Instance::builder(cart.clone()).build().unwrap()).start().unwrap();
    registration.wait_for(|status| status.cause.is_some()).await;
    assert!(Discovery::new(mem.clone()).lookup(&cart).await.unwrap().is_empty(), "it is on its way");
    registration.deregister().await.unwrap();
    time::sleep(10 * LATE).await;
    assert_eq!(Discovery::new(mem).lookup(&cart).await.unwrap(), Snapshot::default());
}
