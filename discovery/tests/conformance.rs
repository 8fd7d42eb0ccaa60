//! The conformance suite on the memory backend, with outages from the fault layer.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use discovery::{
    Backend,
    conformance::{Disrupt, Disruption, Harness},
    kv::Key,
    layer::{Fault, Layer},
    mem::Mem,
};

/// A store, and a line to it that can be cut.
#[derive(Default)]
struct MemHarness {
    mem: Mem,
    line: Fault,
}

#[async_trait]
impl Harness for MemHarness {
    async fn backend(&self) -> Arc<dyn Backend> {
        Arc::new(self.mem.clone())
    }

    fn disrupt(&self) -> Option<&dyn Disrupt> {
        Some(self)
    }

    async fn plant(&self, key: &Key, value: Bytes) {
        self.mem.plant(key, value);
    }

    fn plants_without_limit(&self) -> bool {
        true
    }

    async fn open_watches(&self) -> Option<usize> {
        Some(self.mem.open_watches())
    }

    fn ttl(&self) -> Duration {
        Duration::from_millis(500)
    }
}

#[async_trait]
impl Disrupt for MemHarness {
    fn can(&self, _: Disruption) -> bool {
        true
    }

    async fn backend(&self) -> Arc<dyn Backend> {
        self.line.wrap(Arc::new(self.mem.clone()))
    }

    async fn cause(&self, disruption: Disruption) {
        match disruption {
            Disruption::Cut => self.line.partition(),
            Disruption::Expire => self.mem.expire_all(),
            Disruption::Compact => self.mem.compact(),
            other => panic!("a disruption that came later: {other:?}"),
        }
    }

    async fn heal(&self) {
        self.line.heal();
    }
}

discovery::conformance_tests!(MemHarness::default());
