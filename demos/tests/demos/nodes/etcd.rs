//! On etcd.

use discovery_testbed::Etcd;

use crate::nodes::processes::tests_on;

tests_on!(Etcd);
