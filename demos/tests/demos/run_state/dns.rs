//! On BIND.

use discovery_testbed::NameServer;

use crate::run_state::processes::tests_on;

tests_on!(NameServer);
tests_on!(NameServer: race: no_round_is_moved_twice_while_workers_and_connections_die);
