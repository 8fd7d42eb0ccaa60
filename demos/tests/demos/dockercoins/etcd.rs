//! On etcd.

use discovery_testbed::Etcd;

use crate::dockercoins::processes::tests_on;

tests_on!(Etcd);
