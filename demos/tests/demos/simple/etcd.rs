//! On etcd.

use discovery_testbed::Etcd;

use crate::simple::processes::tests_on;

tests_on!(Etcd);
