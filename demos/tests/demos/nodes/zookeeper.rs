//! On `ZooKeeper`.

use discovery_testbed::ZooKeeper;

use crate::nodes::processes::tests_on;

tests_on!(ZooKeeper);
