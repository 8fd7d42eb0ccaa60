//! On etcd.

use discovery_testbed::Etcd;

use crate::run_state::processes::tests_on;

tests_on!(Etcd);
