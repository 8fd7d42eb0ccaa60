//! On BIND.

use discovery_testbed::NameServer;

use crate::simple::processes::tests_on;

tests_on!(NameServer);
