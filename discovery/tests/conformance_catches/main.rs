//! The conformance suite can fail: backends that are broken on purpose, each caught by the checks meant for it.

#![cfg(feature = "conformance")]

mod broken;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use discovery::{
    Backend,
    conformance::{Check, Disrupt, Disruption, Harness, Outcome},
    kv::Key,
    layer::{Fault, Layer},
    mem::Mem,
};

use self::broken::{Broken, Defect};

/// The memory backend behind a defect.
struct BrokenHarness {
    mem: Mem,
    line: Fault,
    defect: Defect,
}

#[async_trait]
impl Harness for BrokenHarness {
    async fn backend(&self) -> Arc<dyn Backend> {
        Arc::new(Broken::new(Arc::new(self.mem.clone()), self.defect))
    }

    fn disrupt(&self) -> Option<&dyn Disrupt> {
        Some(self)
    }

    async fn plant(&self, key: &Key, value: Bytes) {
        self.mem.plant(key, value);
    }

    async fn open_watches(&self) -> Option<usize> {
        Some(self.mem.open_watches())
    }

    /// Short: what does not come from a broken backend is waited for in vain.
    fn patience(&self) -> Duration {
        Duration::from_secs(if self.defect == Defect::OnlyStutters { 20 } else { 1 })
    }

    fn ttl(&self) -> Duration {
        Duration::from_millis(300)
    }
}

#[async_trait]
impl Disrupt for BrokenHarness {
    fn can(&self, _: Disruption) -> bool {
        true
    }

    async fn backend(&self) -> Arc<dyn Backend> {
        Arc::new(Broken::new(self.line.wrap(Arc::new(self.mem.clone())), self.defect))
    }

    async fn cause(&self, disruption: Disruption) {
        match disruption {
            Disruption::Cut => self.line.partition(),
            Disruption::Expire => self.mem.expire_all(),
            Disruption::Compact => self.mem.compact(),
            other => panic!("a disruption that came later: {other:?}"),
        }
    }

    async fn heal(&self) {
        self.line.heal();
    }
}

async fn run(check: &Check, defect: Defect) -> Outcome {
    check.run(BrokenHarness { mem: Mem::new(), line: Fault::new(), defect }).await
}

/// Runs these checks and holds each of them to notice.
async fn caught(defect: Defect, by: &[&str]) {
    for name in by {
        let check = Check::named(name).unwrap_or_else(|| panic!("there is no check {name}"));
        let outcome = run(check, defect).await;
        assert!(matches!(outcome, Outcome::Failed(_)), "{name} does not notice {defect:?}: {outcome}");
    }
}

/// A test for each defect: its name, the defect, the checks that must fail.
macro_rules! defects {
    ($($name:ident: $defect:ident by [$($check:literal),* $(,)?];)*) => {
        $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            caught(Defect::$defect, &[$($check),*]).await;
        })*
    };
}

defects! {
    a_lost_delta: LosesDeltas by [
        "watch::tells_of_arrival_change_and_departure",
        "watch::what_it_tells_adds_up_to_a_fetch",
        "watch::every_write_is_told",
        "client::a_view_is_what_a_fetch_shows",
        "cloudname::simple_temporary_notification",
    ];
    a_delta_held_back: HoldsBackTheLast by [
        "watch::fast_writes_end_with_the_last",
        "watch::the_last_departure_is_told",
        "cloudname::fifty_endpoint_replacements",
    ];
    a_revision_that_decreases: CountsBackwards by [
        "watch::revisions_never_decrease",
        "watch::tells_of_arrival_change_and_departure",
    ];
    a_first_item_that_waits_for_a_change: SaysNothingOfEmptiness by [
        "watch::unknown_scopes_are_empty_and_followed",
        "peers::etcd_naming_says_nothing_of_an_empty_service",
        "peers::tower_waits_for_ever_on_nothing",
    ];
    a_reset_for_every_change: ReadsEverythingAgain by [
        "watch::one_change_of_a_thousand_is_one_change",
    ];
    a_gap_behind_a_resumption: IgnoresTheGap by [
        "resume::continues_or_starts_over",
        "resume::a_deletion_while_away_is_told",
        "resume::recreated_while_away_is_replaced",
        "resume::what_was_missed_is_told",
        "fault::what_was_missed_is_made_up_for",
    ];
    a_watch_that_outlives_its_drop: KeepsDroppedWatches by [
        "watch::dropped_watches_are_released",
    ];
    a_watch_that_hides_its_error: HangsOnError by [
        "fault::a_cut_watch_ends_with_one_error",
        "fault::an_outage_is_told_once",
        "peers::go_kit_zk_freezes_when_a_relist_fails",
    ];
    a_watch_that_ends_without_a_word: EndsWithoutError by [
        "fault::a_cut_watch_ends_with_one_error",
    ];
    a_watch_that_goes_on_behind_its_error: GoesOnBehindErrors by [
        "fault::a_cut_watch_ends_with_one_error",
    ];
    an_outage_that_looks_empty: TakesTroubleForEmptiness by [
        "fault::cannot_tell_is_an_error",
    ];
    a_bad_record_that_hides_its_siblings: FailsOnBadRecords by [
        "record::unreadable_ones_are_skipped_and_counted",
        "record::a_watch_passes_over_unreadable_ones",
        "peers::coredns_fails_whole_on_one_bad_record",
    ];
    an_identity_that_is_only_a_name: ForgetsIncarnations by [
        "watch::deleted_and_recreated_is_replaced",
        "fetch::a_life_without_a_number_gets_one",
        "peers::curator_compares_versions_only",
    ];
    a_field_that_is_dropped: DropsMetadata by [
        "fetch::finds_what_was_put",
        "peers::etcd_naming_drops_metadata",
        "peers::volo_and_kitex_ignore_weight_and_tags",
    ];
    a_service_that_has_its_children: HearsTooMuch by [
        "fetch::a_service_is_itself_alone",
        "watch::a_service_is_itself_alone",
        "kv::a_range_of_one_key_is_that_key",
        "kv_watch::one_key_is_followed_alone",
        "kv_watch::one_key_is_taken_up_again_alone",
    ];
    an_upsert_that_deletes_first: DeletesThenCreates by [
        "watch::an_update_is_no_removal",
        "watch::a_take_over_is_no_removal",
        "lease::an_entry_moves_to_another_lease",
        "client::an_update_is_the_same_life",
    ];
    an_owner_that_is_overwritten: OverwritesOthers by [
        "registrar::another_owners_entry_is_left_alone",
        "registrar::of_many_owners_one_wins",
        "registrar::an_unsigned_record_belongs_to_somebody",
        "client::a_conflict_is_reported",
        "cloudname::permanent_service_is_created_once",
        "fault::taken_by_another_during_an_outage",
    ];
    a_removal_by_anybody: RemovesForAnybody by [
        "registrar::only_the_owner_removes",
        "client::a_take_over_replaces_without_a_flap",
    ];
    a_removal_that_never_says_false: AlwaysRemoves by [
        "registrar::what_is_not_there_is_not_removed",
        "cloudname::created_then_removed_and_nothing_between",
    ];
    a_guard_that_counts_versions: ForgetsRecreation by [
        "kv::a_guard_does_not_survive_recreation",
        "registrar::an_expectation_gives_no_right_to_overwrite",
    ];
    a_guard_that_nobody_looks_at: IgnoresGuards by [
        "kv::guards_say_what_must_hold",
        "kv::increments_of_many_clients_add_up",
        "kv::of_many_creators_one_wins",
        "cloudname::permanent_lease_creation",
        "cloudname::ensure_closed_leases_are_propagated_to_owners",
        "lock::who_is_expired_is_told_and_writes_no_more",
        "election::who_is_expired_leads_no_more",
        "group::settled_with_its_effects_or_not_at_all",
    ];
    a_transaction_in_pieces: AppliesPiecemeal by [
        "kv::a_transaction_is_all_or_nothing",
        "kv_watch::transactions_are_told_whole",
        "group::settled_with_its_effects_or_not_at_all",
        "group::who_dies_while_covering_is_covered_for",
    ];
    a_lease_that_never_ends: RenewsByItself by [
        "lease::a_neglected_lease_ends",
        "lease::a_client_that_is_gone_leaves_nothing",
        "client::a_detached_one_ends_with_its_lease",
        "lock::who_is_cut_off_knows_before_the_next_one_has_it",
        "barrier::who_is_cut_off_inside_is_not_waited_for",
    ];
    a_lost_lease_that_is_renewed: RenewsTheDead by [
        "lease::a_lost_lease_is_lost_for_good",
        "lease::an_expired_lease_is_lost",
        "client::an_expired_registration_is_put_back",
        "peers::go_kit_etcd_swallows_the_end_of_a_lease",
    ];
    a_write_that_forgets_its_lost_lease: WritesWithoutTheLease by [
        "lease::nothing_is_written_with_a_lost_lease",
    ];
}

/// A change may come twice, news may come with a Progress: what the contract allows the suite must not forbid.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backend_that_stutters_passes() {
    for check in Check::all().iter().filter(|check| matches!(check.group(), "watch" | "resume" | "cloudname"))
    {
        let outcome = run(check, Defect::OnlyStutters).await;
        assert!(!matches!(outcome, Outcome::Failed(_)), "{}: {outcome}", check.name());
    }
}
