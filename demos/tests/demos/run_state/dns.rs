//! On BIND.

use discovery_testbed::NameServer;

use crate::run_state::processes::tests_on;

tests_on!(NameServer);
