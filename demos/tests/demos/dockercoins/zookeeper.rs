//! On `ZooKeeper`.

use discovery_testbed::ZooKeeper;

use crate::dockercoins::processes::tests_on;

tests_on!(ZooKeeper);
tests_on! { ZooKeeper:
    loss: no_unit_is_lost_or_counted_twice_in_redis_whatever_is_killed
    loss: a_redis_is_found_by_name_and_has_the_keys_of_the_original
    processes: a_hasher_that_makes_coins_up_is_not_believed
    loss: two_projects_on_one_redis_need_two_databases
}
