//! The one list of all checks. A check that is not in it is dead code, and the compiler says so.
//!
//! A row: its name, the obligations of [`Backend::watch`](crate::Backend::watch) it is about, what it needs, and what
//! it checks. The tests that [`conformance_tests!`](crate::conformance_tests) writes come from here as well.

use super::{
    Check, Need, client, cloudname, fault, fetch, kv, kv_watch, lease, peers,
    recipe::{barrier, election, group, lock, run},
    record, registrar, resume, watch,
};

/// Hands the list to another macro.
#[doc(hidden)]
#[macro_export]
macro_rules! __conformance_checks {
    ([$($callback:tt)*]) => { $($callback)*! {
        fetch {
            unknown_scopes_are_empty [8] []
                "what nobody registered is empty, and no error";
            the_root_is_no_service [] []
                "the root as a service is refused";
            finds_what_was_put [] [Registrar]
                "every field of an instance comes back as it was written";
            other_clients_find_it [] [Registrar]
                "what one client writes another one finds";
            an_update_is_found_and_a_removal_too [] [Registrar]
                "a fetch shows the latest state";
            a_service_is_itself_alone [] [Registrar]
                "a service scope leaves out what is above, below and beside it";
            a_subtree_is_its_top_and_all_below [] [Registrar]
                "a subtree has the service at its top and all below, however deep";
            names_of_one_label_work [] [Registrar]
                "a name of one label is a name like any other";
            labels_are_compared_whole [] [Registrar]
                "names that begin alike are apart";
            an_instance_may_be_named_like_a_service [] [Registrar]
                "an instance and a service with the same path live and leave independently";
            a_leased_instance_named_like_a_service_harms_nobody [] [Registrar Leases]
                "the same with a lease, or a clean refusal";
            the_longest_names_are_carried [] [Registrar]
                "names of the full length, and with all that is allowed in them";
            a_thousand_instances_are_found [] [Registrar]
                "a large service is fetched whole";
            a_life_without_a_number_gets_one [] [Registrar]
                "an instance without an incarnation gets one for each life";
        }
        watch {
            starts_with_what_exists [1] [Registrar]
                "replay: the first item is a Reset with all that exists";
            unknown_scopes_are_empty_and_followed [1 8] [Registrar]
                "what does not exist yet is an empty Reset, and is followed";
            the_root_is_no_service [4] []
                "a watch that can never work ends with one error";
            tells_of_arrival_change_and_departure [2] [Registrar]
                "created, changed and removed come in order";
            an_update_is_no_removal [2] [Registrar]
                "an upsert is never seen as a removal";
            a_take_over_is_no_removal [2] [Registrar]
                "an entry that changes hands does not flap";
            fast_writes_end_with_the_last [2] [Registrar]
                "of writes back to back the last value always comes, and none out of order";
            every_write_is_told [2] [Registrar History]
                "where history is kept, each of a hundred writes back to back comes";
            revisions_never_decrease [2] [Registrar]
                "revisions never decrease while several clients write";
            what_it_tells_adds_up_to_a_fetch [2 3] [Registrar]
                "a Reset and all that follows equal a fetch, for every kind of scope";
            opened_amid_writes_it_misses_nothing [1 3] [Registrar]
                "nothing falls between what exists and what follows";
            a_service_is_itself_alone [] [Registrar]
                "nothing is heard of what is above, below, beside, or at the watched path itself";
            a_subtree_is_its_top_and_all_below [] [Registrar]
                "a subtree hears its top and all below, and nothing else";
            names_of_one_label_work [] [Registrar]
                "a watch of one label is not silently dead";
            the_last_departure_is_told [8] [Registrar]
                "the last instance to leave is told, and the service is followed on";
            deleted_and_recreated_is_replaced [2] [Registrar]
                "another life under the same id is seen as such";
            one_change_of_a_thousand_is_one_change [10] [Registrar]
                "one change among a thousand instances is a Delta with one change";
            a_slow_reader_gets_the_latest [2] [Registrar]
                "a watch that nobody reads for a while ends up with the latest";
            watches_do_not_disturb_each_other [5] [Registrar]
                "however a watch ends, others of the same scope go on";
            a_hundred_watches_all_hear_it [] [Registrar]
                "a hundred watches of one client all hear of a change";
            dropped_watches_are_released [5] [Registrar WatchCount]
                "a dropped watch leaves nothing behind on the server";
        }
        resume {
            continues_or_starts_over [1] [Registrar]
                "behind a revision a watch continues or starts over, and promises no more than it does";
            nothing_missed_is_told_at_once [1] [Registrar]
                "a watch that missed nothing says so at once, not with the next change";
            what_was_missed_is_told [1 2] [Registrar History]
                "a resumed watch tells each change that was missed, in order, and of no other scope";
            nothing_missed_is_progress [1] [Registrar History]
                "a resumed watch that missed nothing begins with a Progress";
            a_deletion_while_away_is_told [1] [Registrar]
                "what left while nobody looked is gone";
            recreated_while_away_is_replaced [1 2] [Registrar]
                "what was deleted and created anew while nobody looked is seen as replaced";
            the_future_is_not_believed [1] [Registrar]
                "a revision that the store never had leads to a Reset, not to silence";
            forgotten_history_is_a_reset [1] [Registrar Compact]
                "a revision that is too old leads to a Reset";
            an_open_watch_outlives_compaction [4] [Registrar Compact]
                "compaction does not disturb a watch that is open, busy or idle";
        }
        record {
            unreadable_ones_are_skipped_and_counted [6] [Registrar Kv]
                "hostile records of every kind hide no sibling from a fetch, and are counted";
            a_watch_passes_over_unreadable_ones [6] [Registrar Kv]
                "hostile records neither end a watch nor hide what follows, and are counted";
            overwritten_by_garbage_is_gone [6] [Registrar Kv]
                "a good record that becomes unreadable is a removal, and can come back";
            a_huge_one_is_skipped [6] [Registrar Kv Oversize]
                "a record of 1 MiB is skipped";
            another_spelling_is_not_the_instance [6] [Registrar Kv]
                "keys that differ in case, or are no names at all, alias no instance";
            fields_of_tomorrow_are_ignored [6] [Kv]
                "a record with unknown fields is read";
            cloudnames_records_are_read [6] [Kv]
                "a record as Cloudname wrote it is an instance";
        }
        registrar {
            a_repeated_put_changes_nothing [] [Registrar]
                "a put may be repeated when its outcome is unknown";
            revisions_of_writes_grow [] [Registrar]
                "each write has a higher revision than the one before";
            a_revision_is_good_for_the_next_write [] [Registrar]
                "what a put returns is good as the next expectation";
            an_outdated_expectation_is_no_obstacle [] [Registrar]
                "an owner whose expectation is old still writes its own entry";
            another_owners_entry_is_left_alone [] [Registrar]
                "a conflict between owners is reported, and nothing overwritten";
            a_take_over_replaces [] [Registrar]
                "who asks for it gets another owner's entry";
            an_expectation_gives_no_right_to_overwrite [9] [Registrar]
                "an expectation from before a recreation by another owner fails";
            only_the_owner_removes [] [Registrar]
                "a removal in the name of another owner is refused";
            an_administrator_removes_anything [] [Registrar]
                "a removal in nobody's name works, from any client";
            what_is_not_there_is_not_removed [] [Registrar]
                "removing twice says true, then false";
            a_removal_takes_nothing_else [] [Registrar]
                "what is beside, below and above a removed instance stays";
            of_many_owners_one_wins [] [Registrar]
                "of eight owners at once exactly one has the entry";
            a_large_record_never_reaches_the_server [] [Registrar]
                "a record over the limit is Invalid, and what was there stays";
            an_unsigned_record_belongs_to_somebody [] [Registrar Kv]
                "a record without an owner is foreign: left alone, unless taken over";
        }
        lease {
            a_grant_says_what_it_gives [] [Leases]
                "a lease lives at least as long as was asked for; no time at all is Invalid";
            leases_are_independent [] [Registrar Leases]
                "the end of one lease leaves another one alone";
            a_renewed_lease_lives [] [Registrar Leases]
                "renewed in time, a lease outlives its ttl";
            a_neglected_lease_ends [2] [Registrar Leases]
                "not renewed, a lease ends with all its entries, and not before its ttl";
            a_client_that_is_gone_leaves_nothing [] [Registrar Leases]
                "what a dead client registered ends by its ttl";
            a_revocation_takes_all_at_once [] [Registrar Leases]
                "a revoked lease takes all its entries, and only those";
            a_lease_that_is_gone_is_revoked_all_the_same [] [Leases]
                "revoking what is gone is no error";
            a_lost_lease_is_lost_for_good [] [Leases]
                "renewing what is gone is LeaseLost, again and again";
            an_expired_lease_is_lost [] [Registrar Leases Expire]
                "expiry is seen as removal, renewal is LeaseLost, and a new lease works";
            permanent_entries_outlive_all_leases [] [Registrar Leases Expire]
                "expiry takes no permanent entry";
            nothing_is_written_with_a_lost_lease [] [Registrar Leases]
                "a put with a lost lease is LeaseLost and writes nothing";
            a_transaction_with_a_lost_lease_does_nothing [] [Leases Kv]
                "a transaction with a lost lease is LeaseLost and applies nothing";
            an_entry_moves_to_another_lease [2] [Registrar Leases]
                "an entry put under another lease is seen as no removal, and outlives the old one";
            an_entry_becomes_permanent_and_back [2] [Registrar Leases]
                "an entry becomes permanent, and leased again, without being seen to leave";
            a_hundred_entries_share_a_lease [] [Registrar Leases]
                "a lease carries a hundred entries";
        }
        kv {
            a_value_comes_back_as_it_was [] [Kv]
                "any bytes come back, with the revision of their write";
            an_update_keeps_its_creation [] [Kv]
                "created stays over updates, and changes with a new life";
            reads_see_own_writes [] [Kv]
                "a handle sees its own writes at once";
            ranges_have_their_depth [] [Kv]
                "children are one level, a subtree is all, the top is in neither";
            a_range_of_one_key_is_that_key [] [Kv]
                "nothing above, below or beside a single key is read with it";
            scans_are_sorted [] [Kv]
                "a scan is sorted by key, whatever characters are in it";
            a_path_to_an_entry_is_no_entry [] [Kv]
                "what lies between the root and an entry is not listed, nor in the way";
            every_key_is_carried [] [Kv]
                "every visible character, and keys of the full length";
            the_limits_hold [] [Kv]
                "the largest value and transaction are taken, larger ones are Invalid";
            guards_say_what_must_hold [9] [Kv]
                "absent, unmodified and alive hold when they should, and only then";
            a_guard_may_watch_over_another_key [] [Kv]
                "a guard on one key decides about another one, and changes nothing itself";
            a_guard_does_not_survive_recreation [9] [Kv]
                "a guard minted before a key was deleted and recreated fails";
            a_transaction_is_all_or_nothing [] [Kv]
                "a transaction is one step, or none";
            deleting_nothing_is_fine [] [Kv]
                "deleting what is not there is no error";
            deleting_a_parent_leaves_its_children [] [Kv]
                "an entry with others below it is deleted alone";
            increments_of_many_clients_add_up [9] [Kv]
                "compare-and-set increments from eight clients add up";
            of_many_creators_one_wins [9] [Kv]
                "of eight clients that create one key exactly one does";
            revisions_of_commits_grow [] [Kv]
                "revisions grow, across clients";
        }
        kv_watch {
            starts_with_what_exists [1] [Kv]
                "the first item is a Reset with all that exists, as a get shows it";
            ranges_have_their_depth [] [Kv]
                "a watch hears its range, and nothing else";
            tells_of_puts_and_deletions [2] [Kv]
                "puts and deletions come in order";
            an_update_is_no_deletion [2] [Kv]
                "an overwritten key is never seen as deleted";
            transactions_are_told_whole [2] [Kv]
                "all of a transaction comes, at one revision";
            what_it_tells_adds_up_to_a_scan [2 3] [Kv]
                "a Reset and all that follows equal a scan, metadata included";
            what_was_missed_is_told [1 2] [Kv History]
                "a resumed watch tells each change that was missed, in order";
            a_recreated_key_is_another_one [2] [Kv]
                "a key that was deleted and created anew is told as such, watched or not";
            who_is_not_read_holds_up_nobody [] [Kv]
                "a watch or a scan that has begun and goes no further holds up nothing else of the same client";
            one_key_is_followed_alone [1 2] [Kv]
                "a single key is followed from before it exists through all its lives, and no neighbour is told";
            one_key_is_taken_up_again_alone [1 2] [Kv]
                "what befell a single key while nobody watched is told, and nothing else";
            one_key_ends_with_its_lease [2] [Leases Kv]
                "whoever follows a single key hears that its lease ended";
        }
        client {
            a_registration_lasts_as_long_as_its_handle [] [Registrar Leases]
                "a registration is seen by others, and ends with its handle";
            deregistered_means_gone [] [Registrar Leases]
                "when deregistration is done the entry is gone, permanent or not";
            a_permanent_one_outlives_its_handle [] [Registrar]
                "a permanent entry stays until somebody removes it";
            a_detached_one_ends_with_its_lease [] [Registrar Leases]
                "an entry that was let go of ends with its lease";
            a_registration_is_kept_past_its_ttl [] [Registrar Leases]
                "the keeper renews in time, unseen";
            an_update_is_the_same_life [2] [Registrar Leases]
                "updates keep the incarnation and are seen as no removal";
            a_refused_update_is_undone [] [Registrar Leases]
                "an update that is refused changes nothing, in the store or in the handle";
            draining_is_seen_before_the_end [] [Registrar Leases]
                "an instance is seen draining before it leaves";
            a_conflict_is_reported [] [Registrar Leases]
                "a second registration of a key is refused, and has its turn when the first leaves";
            a_take_over_replaces_without_a_flap [2] [Registrar Leases]
                "a take-over is seen as a change, and the old owner harms the new one no more";
            a_restarted_owner_finds_its_entry [] [Registrar Leases]
                "an owner that comes back under its name finds its entry its own";
            an_expired_registration_is_put_back [] [Registrar Leases Expire]
                "an expired registration is put back with its latest data and in the same life";
            a_hundred_registrations_come_and_go [] [Registrar Leases]
                "a hundred registrations of one client come and go";
            a_watch_starts_with_what_is_known [1 8] [Registrar]
                "a watcher starts with what is known, whenever it comes";
            watchers_of_a_scope_share_a_watch [5 10] [Registrar]
                "a hundred watchers are one watch of the backend, and the last one closes it";
            a_slow_watcher_starts_over_with_the_latest [] [Registrar]
                "a watcher that lags gets the latest as a Reset, and holds up nobody";
            nothing_is_heard_after_unsubscribing [5] [Registrar]
                "when the last user is gone nothing is delivered any more";
            a_view_is_what_a_fetch_shows [] [Registrar]
                "a view equals a fetch";
        }
        fault {
            a_cut_watch_ends_with_one_error [4 7] [Cut]
                "a watch whose connection is cut ends with one error";
            a_cut_watch_of_keys_ends_with_one_error [4 7] [Kv Cut]
                "so does a watch of keys";
            cannot_tell_is_an_error [8] [Registrar Cut]
                "out of reach is an error that may pass, never an empty answer";
            a_healed_client_is_as_good_as_new [] [Registrar Leases Cut]
                "the same client goes on with its leases after an outage";
            an_outage_is_told_once [4] [Registrar Cut]
                "an outage is one Stale and one Live, and nothing in between";
            a_view_serves_what_was_last_known [] [Registrar Cut]
                "a stale view serves what it knows; a live one has caught up";
            what_was_missed_is_made_up_for [1 4] [Registrar Cut]
                "arrivals, changes, departures and new lives during an outage are seen after it";
            who_lives_is_not_missed [] [Registrar Leases Cut]
                "an outage shorter than the ttl removes nobody, seen from either side";
            registered_during_an_outage [] [Registrar Leases Cut]
                "a registration made during an outage takes effect after it";
            updated_during_an_outage [] [Registrar Leases Cut]
                "an update made during an outage takes effect after it, and old data never come back";
            withdrawn_during_an_outage [] [Registrar Leases Cut]
                "what was withdrawn during an outage goes, and never comes back";
            come_and_gone_during_an_outage [] [Registrar Leases Cut]
                "what came and went during an outage is never seen";
            expired_during_an_outage [] [Registrar Leases Cut Expire]
                "what expired during an outage is put back after it";
            taken_by_another_during_an_outage [] [Registrar Leases Cut Expire]
                "an entry that another owner took during an outage is left alone, and that is reported";
            opened_during_an_outage [] [Registrar Cut]
                "a view opened during an outage says so, and is live after it";
            a_view_survives_a_flapping_line [4] [Registrar Cut]
                "twenty short outages amid writes leave every view equal to a fetch";
            compacted_during_an_outage [1] [Registrar Cut Compact]
                "history that was forgotten during an outage is no obstacle";
        }
        election {
            the_first_leads_and_the_next_one_follows [] [Leases Kv]
                "one leads, all others can know, and the next one follows when it resigns";
            leaders_are_told_in_order [] [Leases Kv]
                "leaders and what they proclaim are told in order, and that nobody is left";
            leaders_are_told_through_an_outage [] [Leases Kv Cut]
                "who leads since an outage is told behind it";
            who_is_cut_off_gives_up_before_the_next_leads [] [Leases Kv Cut]
                "a leader that is cut off has given up before the next one leads";
            who_was_frozen_leads_no_more_when_it_wakes_up [] [Leases Kv]
                "a leader that was frozen for longer than its lease acts no more when it wakes up";
            who_is_expired_leads_no_more [] [Leases Kv Expire]
                "a leader whose lease has ended is told, and proclaims nothing more";
        }
        lock {
            what_is_counted_under_it_adds_up [] [Leases Kv]
                "five clients count under a lock and nothing gets lost; tokens grow";
            first_come_first_served [] [Leases Kv]
                "clients get it in the order in which they came; who gives up is skipped";
            what_is_not_free_is_not_tried [] [Leases Kv]
                "trying gets what is free, and else stands in nobody's way";
            who_is_cut_off_knows_before_the_next_one_has_it [] [Leases Kv Cut]
                "a holder that is cut off has given up before the next one has it";
            who_was_frozen_knows_when_it_wakes_up [] [Leases Kv]
                "a holder that was frozen for longer than its lease acts no more when it wakes up";
            who_is_expired_is_told_and_writes_no_more [] [Leases Kv Expire]
                "a holder whose lease has ended is told, and its late write is refused";
            an_entry_that_is_removed_by_hand_is_lost [] [Leases Kv]
                "a holder whose entry somebody removed is told, and the next one has it";
            who_loses_the_place_in_the_queue_lines_up_again [] [Leases Kv Cut]
                "whose lease ended while waiting lines up again";
            short_outages_cost_nothing [] [Leases Kv Cut]
                "outages shorter than the ttl leave the lock where it is";
            who_does_not_go_on_holds_up_no_other [] [Leases Kv]
                "an attempt that has begun and goes no further holds up no other lock of the same client";
            nothing_is_left_when_all_have_gone [] [Leases Kv]
                "released, dropped or given up: nothing is left in the store";
        }
        group {
            each_looks_after_the_one_before [] [Leases Kv]
                "members are in the order in which they joined, each with the one before as its buddy";
            those_who_join_at_once_form_one_circle [] [Leases Kv]
                "six clients that join at once are in one circle";
            two_neighbours_who_die_are_covered_for_once_each [] [Leases Kv]
                "who dies is covered for by the one behind, exactly once";
            settled_with_its_effects_or_not_at_all [] [Leases Kv]
                "what was in hand is handed over, and the effects of covering are one step with it";
            who_is_cut_off_is_covered_for_once [] [Leases Kv Cut]
                "a member that is cut off knows that it is dead before it is covered for";
            a_newcomer_covers_for_all_who_have_died [] [Leases Kv Expire]
                "where all have died, whoever joins next covers for each of them";
            who_dies_while_covering_is_covered_for [] [Leases Kv]
                "a departure that was not settled passes to the next one, who alone can settle it";
            leaving_with_empty_hands_is_no_departure [] [Leases Kv]
                "who leaves with empty hands is not covered for; nothing is left when all have";
        }
        barrier {
            nobody_begins_before_the_last_is_there [] [Leases Kv]
                "all are let in when the last has come; who gave up does not count";
            nobody_goes_on_before_the_last_has_left [] [Leases Kv]
                "leaving waits for all who were let in together";
            rounds_follow_each_other [] [Leases Kv]
                "the same parties use it again and again, at once";
            who_is_cut_off_inside_is_not_waited_for [] [Leases Kv Cut]
                "a party that is cut off counts as gone, and knows, when its lease is over";
        }
        run {
            of_many_who_complete_the_last_task_one_moves_it [] [Leases Kv]
                "six clients complete the last tasks at once: exactly one moves it, round after round";
            a_task_is_completed_once [] [Leases Kv]
                "completing again changes nothing, whoever does, also behind the move";
            tasks_come_and_go_while_it_moves [] [Leases Kv]
                "a task added amid a move is waited for, or one of the next round";
            where_there_is_a_choice_one_decides_for_all [] [Leases Kv]
                "of clients that choose different states at once one decides";
            it_is_ended_from_outside_once [] [Leases Kv]
                "of clients that end it at once one does, and nothing follows";
            a_round_that_takes_too_long_is_ended_once [] [Leases Kv]
                "three supervisors end a round that takes too long, once and not before";
            whoever_watches_sees_it_move [] [Leases Kv Cut]
                "tasks, moves, what an outage hid, and the end are told in order";
            a_deleted_one_leaves_nothing [] [Leases Kv]
                "a run that is deleted while others work on it leaves nothing, and can be created anew";
            completed_during_an_outage_is_counted_behind_it [] [Leases Kv Cut]
                "a completion waits for an outage to be over, and counts once";
            a_flapping_line_makes_nobody_count_twice [] [Leases Kv Cut]
                "completions over a line that comes and goes move it once a round";
        }
        cloudname {
            lease_creation_null_values [] [Leases Kv]
                "CoreBackendTest: nothing is created of nothing";
            temporary_lease_creation [] [Registrar Leases]
                "CoreBackendTest: create, read, write, close; fifty paths differ";
            simple_temporary_notification [] [Registrar Leases]
                "CoreBackendTest: created, data, removed";
            permanent_lease_creation [] [Kv]
                "CoreBackendTest: create once, write, read and remove from another backend";
            multiple_temporary_notifications [1 2] [Leases Kv]
                "CoreBackendTest: ten listeners see ten values in order";
            multiple_services_with_multiple_clients [] [Registrar Leases]
                "CoreBackendTest: five clients see each other come, write and go";
            remove_invalid_listener [5] [Kv]
                "CoreBackendTest: ending what never began raises nothing";
            multiple_independent_listeners [] [Registrar]
                "CoreBackendTest: ten pairs of listeners, no cross-talk";
            permanent_lease_notifications [2] [Kv]
                "CoreBackendTest: exactly three notifications of exactly one path";
            multiple_permanent_listeners [] [Leases Kv]
                "CoreBackendTest: listeners of single paths, of one element too, hear their own";
            ensure_closed_leases_are_propagated_to_owners [9] [Leases Kv]
                "CoreBackendTest: what another backend removed its owner can no longer write";
            ten_instances_five_clients [] [Registrar Leases]
                "CloudnameServiceTest: 50 created, 50 removed, nobody left";
            fifty_endpoint_replacements [2] [Registrar Leases]
                "CloudnameServiceTest: ten clients see ports 1 to 50 in order";
            permanent_service_is_created_once [] [Registrar]
                "CloudnameServicePermanentTest: a second creation fails";
            permanent_service_update [] [Registrar]
                "CloudnameServicePermanentTest: one created, one changed, never removed; names do not change";
            listener_of_a_service_that_does_not_exist_yet [8] [Registrar]
                "CloudnameServicePermanentTest: created, changed, removed, once each, in order";
            unknown_services_are_not_updated_or_removed [] [Registrar Kv]
                "CloudnameServicePermanentTest: nothing is done to what is not there";
            created_then_removed_and_nothing_between [] [Registrar]
                "CloudnameServicePermanentTest: one created, one removed, no changed";
            service_handle_endpoints_come_and_go [] [Registrar Leases]
                "ServiceHandleTest: endpoints are registered and removed";
            service_handle_failed_writes_leave_no_trace [] [Registrar Leases]
                "ServiceHandleTest: a failed write is rolled back, and closing does not fail";
            rapid_changes [2] [Registrar]
                "NodeCollectionWatcherTest: fifty nodes, six rounds of changes, then all removed";
        }
        peers {
            go_kit_zk_freezes_when_a_relist_fails [4] [Registrar Cut]
                "peer defect 1: a watch goes on after a list that failed";
            go_kit_zk_is_blind_to_data [2] [Registrar]
                "peer defect 1: changed data are seen, not only arrivals and departures";
            go_kit_zk_deregisters_the_wrong_node [] [Registrar Leases]
                "peer defect 1: deregistration removes the entry that was registered";
            go_kit_etcd_ends_at_compaction [4] [Registrar Compact]
                "peer defect 2: compaction ends no watch";
            go_kit_etcd_registering_ends_a_watch [] [Registrar Leases]
                "peer defect 2: registering on the same client leaves its watches alone";
            go_kit_etcd_swallows_the_end_of_a_lease [] [Registrar Leases Expire]
                "peer defect 2: the loss of a lease is told, and made up for";
            go_kit_deadlocks_on_an_idle_subscriber [] [Registrar]
                "peer defect 2: a watcher that never reads holds up nobody";
            etcd_naming_ends_with_an_error [4] [Registrar Cut]
                "peer defect 3: an error does not freeze a view";
            etcd_naming_says_nothing_of_an_empty_service [8] []
                "peer defect 3: an empty service is told";
            etcd_naming_drops_metadata [] [Registrar Leases]
                "peer defect 3: metadata arrive";
            curator_compares_versions_only [2] [Registrar Cut]
                "peer defect 4: deleted and recreated while away is replaced";
            kube_rs_tells_no_subscriber_of_deletions [] [Registrar]
                "peer defect 5: every watcher of a shared watch hears of removals";
            kube_rs_stalls_on_what_is_gone_already [] [Registrar]
                "peer defect 5: old news of what is gone stalls nothing";
            tonic_stays_pending_for_ever [4] []
                "peer defect 6: a watch that is over says so and ends";
            tower_waits_for_ever_on_nothing [8] []
                "peer defect 6: an empty service is an answer, at once";
            ginepro_empties_on_trouble [8] [Registrar Cut]
                "peer defect 7: trouble empties nothing and is told; a confirmed empty set passes";
            volo_loses_changes_when_it_lags [] [Registrar]
                "peer defect 8: a watcher that lags ends up with the truth";
            volo_and_kitex_ignore_weight_and_tags [] [Registrar]
                "peer defect 8: a change of any field is a change";
            cloudname_zk_watches_die_with_the_session [] [Registrar Leases Expire]
                "peer defect 9: watches survive expiry, others are not removed by it, registrations return";
            cloudname_consul_stops_renewing_all [] [Registrar Leases]
                "peer defect 9: the end of one registration stops the renewal of no other";
            cloudname_has_no_end_of_snapshot [1] [Registrar]
                "peer defect 9: the first event is all that exists";
            coredns_fails_whole_on_one_bad_record [6] [Registrar Kv]
                "peer defect 10: one unreadable record spoils no answer";
            zk_client_loses_events_around_reconnects [4] [Registrar Cut]
                "peer defect 12: nothing is lost around reconnects";
            an_owner_that_lives_is_never_invisible [] [Registrar Leases Cut Expire]
                "peers, all: alive but unregistered does not last";
        }
    } };
}

macro_rules! collect {
    ($($group:ident {
        $($name:ident [$($obligation:literal)*] [$($need:ident)*] $about:literal;)*
    })*) => {
        pub(super) static CHECKS: &[Check] = &[$($(Check {
            group: stringify!($group),
            name: concat!(stringify!($group), "::", stringify!($name)),
            about: $about,
            obligations: &[$($obligation),*],
            needs: &[$(Need::$need),*],
            run: |context| Box::pin($group::$name(context)),
        },)*)*];
    };
}

__conformance_checks!([collect]);
