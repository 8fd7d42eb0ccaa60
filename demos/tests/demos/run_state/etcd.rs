//! On etcd.

use discovery_testbed::Etcd;

use crate::run_state::processes::tests_on;

tests_on!(Etcd);

#[tokio::test]
#[ignore = "one round of forty was stuck, once: to be understood"]
async fn no_round_is_moved_twice_while_workers_and_connections_die() {
    super::race::no_round_is_moved_twice_while_workers_and_connections_die::<Etcd>().await;
}
