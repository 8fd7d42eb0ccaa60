//! On `ZooKeeper`.

use discovery_testbed::ZooKeeper;

use crate::run_state::processes::tests_on;

tests_on!(ZooKeeper);
tests_on!(ZooKeeper: race: no_round_is_moved_twice_while_workers_and_connections_die);
