//! On `ZooKeeper`.

use discovery_testbed::ZooKeeper;

use crate::simple::processes::tests_on;

tests_on!(ZooKeeper);
