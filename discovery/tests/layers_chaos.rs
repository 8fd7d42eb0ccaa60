//! Whatever goes wrong, in the end every view shows what a fetch shows, and every registration is active.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should panic")]

use std::time::Duration;

use discovery::{
    Backoff, Discovery, Instance, InstanceId, Phase, Registration, Scope, ServiceName, View,
    kv::{Key, Txn},
    layer::{Fault, Odds, Prefix, Retry, Timeout},
    mem::Mem,
};
use tokio::time;

const SCRIPTS: u64 = 300;
const STEPS: usize = 40;

#[test]
fn after_any_script_of_faults_views_and_registrations_recover() {
    for seed in 0..SCRIPTS {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        runtime.unwrap().block_on(Script::new(seed).run());
    }
}

/// One run: everything in it follows from the seed.
struct Script {
    seed: u64,
    random: fastrand::Rng,
    mem: Mem,
    fault: Fault,
    discovery: Discovery,
    registrations: Vec<Registration>,
    views: Vec<View>,
}

impl Script {
    fn new(seed: u64) -> Self {
        // Owners and incarnations are drawn from the generator of the thread.
        fastrand::seed(seed);
        // A short history, so that watches sometimes cannot continue.
        let (mem, fault) = (Mem::with_history(16), Fault::seeded(seed));
        let discovery = Discovery::new(mem.clone())
            .backoff(Backoff::new(Duration::from_millis(50), Duration::from_secs(2)).with_seed(seed))
            .layer(Prefix::new("chaos".parse().unwrap()))
            .layer(Retry::new(2))
            .layer(Timeout::new(Duration::from_secs(3)))
            .layer(fault.clone());
        let random = fastrand::Rng::with_seed(seed);
        let (registrations, views) = (Vec::new(), Vec::new());
        Self { seed, random, mem, fault, discovery, registrations, views }
    }

    async fn run(mut self) {
        for _ in 0..STEPS {
            self.trouble();
            self.work().await;
            time::sleep(Duration::from_millis(self.random.u64(0..4000))).await;
        }
        self.fault.calm();
        self.settle().await;
    }

    fn trouble(&mut self) {
        let chance = |random: &mut fastrand::Rng| random.f64() * 0.3;
        match self.random.u32(0..10) {
            0 => self.fault.partition(),
            1 => self.fault.heal(),
            2 => self.fault.cut(),
            3 => self.fault.lose_replies(self.random.usize(1..4)),
            4 => self.fault.expire_next(1),
            5 => self.fault.delay(Duration::from_millis(self.random.u64(0..4000))),
            6 => self.mem.expire_all(),
            7 => self.mem.compact(),
            8 => self.fault.calm(),
            _ => {
                let random = &mut self.random;
                let odds = Odds::new().fail(chance(random)).lose_reply(chance(random));
                self.fault.odds(odds.cut(chance(random)).expire(chance(random)));
            }
        }
    }

    async fn work(&mut self) {
        let service: ServiceName = ["cart", "cart/eu", "pay"][self.random.usize(0..3)].parse().unwrap();
        match self.random.u32(0..5) {
            0 | 1 => {
                let id = InstanceId::from_bits(self.random.u64(..));
                let instance = Instance::builder(service).id(id).build().unwrap();
                let register = self.discovery.register(instance).ttl(Duration::from_secs(9));
                self.registrations.push(register.start().unwrap());
            }
            2 if !self.registrations.is_empty() => {
                let gone = self.random.usize(0..self.registrations.len());
                drop(self.registrations.swap_remove(gone));
            }
            3 => {
                let scope = if self.random.bool() { service.into() } else { Scope::everything() };
                self.views.push(self.discovery.view(scope).open());
            }
            _ => {
                let key: Key = "counter".parse().unwrap();
                // Traffic that is none of the views' business.
                let _ = self.discovery.kv().unwrap().commit(Txn::new().put(&key, "1")).await;
            }
        }
    }

    async fn settle(&mut self) {
        for registration in &mut self.registrations {
            let active = registration.wait_for(|status| status.phase == Phase::Active);
            let waited = time::timeout(Duration::from_secs(60), active).await;
            assert!(waited.is_ok(), "seed {}: {registration:?}", self.seed);
        }
        // What was dropped while out of reach goes with its lease at the latest.
        time::sleep(Duration::from_secs(30)).await;
        let all = self.discovery.fetch(Scope::everything()).await.unwrap();
        let mut expected: Vec<_> = self.registrations.iter().map(|one| one.key().clone()).collect();
        expected.sort();
        let found: Vec<_> = all.iter().map(|instance| instance.key().clone()).collect();
        assert_eq!(found, expected, "seed {}", self.seed);
        for view in &self.views {
            let fetched = self.discovery.fetch(view.scope().clone()).await.unwrap();
            view.read(|snapshot, freshness| {
                assert!(freshness.is_live(), "seed {}: {view:?}", self.seed);
                assert_eq!(*snapshot, fetched, "seed {}", self.seed);
            });
        }
    }
}
