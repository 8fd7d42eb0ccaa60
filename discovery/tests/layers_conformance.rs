//! Whatever layers are around it, a backend stays one: the conformance suite on a full stack.

#![cfg(feature = "conformance")]

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use discovery::{
    Backend, Discovery, ServiceName,
    conformance::{Disrupt, Disruption, Harness},
    kv::Key,
    layer::{Fault, Limit, Prefix, Retry, Timeout, Trace},
    mem::Mem,
};

/// The memory backend under all layers that keep the contract to the letter. `LastKnownGood` does not: it answers
/// where the contract wants an error.
struct Stack {
    mem: Mem,
    line: Fault,
}

impl Stack {
    fn new() -> Self {
        Self { mem: Mem::new(), line: Fault::new() }
    }

    fn layered(&self, line: Fault) -> Arc<dyn Backend> {
        Discovery::new(self.mem.clone())
            .layer(Trace::new())
            .layer(Retry::new(2))
            .layer(Timeout::new(Duration::from_secs(5)))
            .layer(Limit::new(16))
            // Under any other prefix the longest names do not fit; the rest of the suite passes there as well.
            .layer(Prefix::new(ServiceName::root()))
            .layer(line)
            .backend()
            .clone()
    }
}

#[async_trait]
impl Harness for Stack {
    async fn backend(&self) -> Arc<dyn Backend> {
        self.layered(Fault::new())
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
impl Disrupt for Stack {
    fn can(&self, _: Disruption) -> bool {
        true
    }

    async fn backend(&self) -> Arc<dyn Backend> {
        self.layered(self.line.clone())
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

// The same file as for the bare backend: the same checks apply.
discovery::conformance_tests!(Stack::new());
