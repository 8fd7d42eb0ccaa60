//! On `ZooKeeper`.

use discovery_testbed::ZooKeeper;

use crate::run_state::processes::tests_on;

tests_on!(ZooKeeper);
