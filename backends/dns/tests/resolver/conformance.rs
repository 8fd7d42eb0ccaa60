//! The conformance suite, as far as it applies to what only reads: a zone of ours with nothing in it, behind a line that can
//! be cut.

use std::sync::Arc;

use async_trait::async_trait;
use discovery::{
    Backend,
    conformance::{Disrupt, Disruption, Harness},
};
use discovery_testbed::{NameServer, Proxy};

use crate::common::{BRISK, dns};

struct ResolverHarness {
    server: NameServer,
    line: Proxy,
}

async fn harness() -> Option<ResolverHarness> {
    let server = NameServer::knot().start_or_skip().await?;
    Some(ResolverHarness { line: Proxy::start(server.address()).unwrap(), server })
}

#[async_trait]
impl Harness for ResolverHarness {
    async fn backend(&self) -> Arc<dyn Backend> {
        Arc::new(dns(&[self.server.address()], &format!("/disco.test?records=sd&{BRISK}")))
    }

    fn disrupt(&self) -> Option<&dyn Disrupt> {
        Some(self)
    }
}

#[async_trait]
impl Disrupt for ResolverHarness {
    fn can(&self, disruption: Disruption) -> bool {
        disruption == Disruption::Cut
    }

    async fn backend(&self) -> Arc<dyn Backend> {
        Arc::new(dns(&[self.line.address()], &format!("/disco.test?records=sd&{BRISK}")))
    }

    async fn cause(&self, disruption: Disruption) {
        assert_eq!(disruption, Disruption::Cut);
        self.line.refuse().await;
    }

    async fn heal(&self) {
        self.line.pass().await;
    }
}

discovery::conformance_tests!(harness().await, "conformance-resolver.txt");
