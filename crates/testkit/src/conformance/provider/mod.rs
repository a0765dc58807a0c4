//! What every [`SnapshotProvider`](stillpoint_storage::SnapshotProvider) has to do: S1 to S9, as far as it can be seen from
//! outside.
//!
//! Which cases apply is read from the provider's [`caps`](stillpoint_storage::SnapshotProvider::caps) and from what the
//! place [`Can`] do; a provider that only adopts is tried with what the place snaps. A case gets a place of its own.
//!
//! ```
//! use stillpoint_testkit::conformance::provider::{self, SimPlaces};
//! use stillpoint_workflow::testing::Sim;
//!
//! let sim = Sim::new(1);
//! let places = SimPlaces::new(sim.seams());
//! sim.run(provider::run_all(&places)).assert_passed();
//! ```
//!
//! ```text
//!   ProviderFactory ── place ──▶ ProviderPlace ── open ──▶ Arc<dyn SnapshotProvider>
//!     can · seams                 │  ▲ read · write · fill      │ every handle is dropped
//!                                 │  └───── open again ─────────┘
//!                               ground: volumes with files, where to expose, where to restore
//! ```
//!
//! What does harm to nothing but its own snapshots can be tried on a system that is in use: [`check`]. A case that fails half
//! way there takes away what it has left, by its names.
//!
//! What a suite cannot see: whether a snapshot would survive a power cut (unless the place [cuts it](Can::CutPower)), and
//! what happens inside a freeze. That is for tests of your own.

mod capability;
mod document;
mod exposure;
mod failure;
mod left;
mod need;
mod phases;
mod place;
mod removal;
mod restore;
mod simulated;
mod token;
mod trial;

use super::frame::{self, cases};
use super::{Case, Report};
use capability::{
    a_limit_that_cannot_be_kept_is_refused, a_snapshot_more_is_counted,
    an_unknown_volume_is_not_found, capabilities_stay_as_they_are,
    files_are_placed_on_their_volumes, more_volumes_than_can_be_are_refused,
    the_snapshot_limit_is_refused_before, volumes_are_told_in_the_order_asked,
    what_is_not_declared_is_refused_by_name, what_prepare_lets_through_can_be_taken,
    where_there_is_no_room_it_is_said,
};
use document::{
    a_deleted_document_is_gone, a_document_takes_the_place_of_the_one_before,
    a_dropped_document_is_the_old_or_the_new, a_listing_has_everything_once_in_order,
    a_listing_tells_what_settling_told, documents_are_listed_in_order,
    documents_are_there_after_a_crash, documents_come_back_as_they_were,
    what_is_no_page_mark_is_refused,
};
use exposure::{
    an_exposure_is_listed_until_it_is_ended, an_exposure_is_read_only,
    an_exposure_is_there_after_a_crash, an_exposure_never_changes_its_snapshot,
    an_exposure_shows_what_was_taken, exposing_again_is_the_same_exposure,
    what_is_not_there_is_not_exposed,
};
use failure::{
    a_refused_preparation_leaves_nothing, an_error_says_what_it_is,
    what_says_it_did_nothing_did_nothing,
};
use phases::{
    a_commit_answers_with_its_members, a_commit_keeps_to_the_worst_case_that_was_stated,
    a_prepared_set_says_what_was_asked, a_settled_set_is_as_it_was_asked_for,
    a_settled_set_survives_a_power_cut, a_snapshot_is_of_the_instant_of_its_commit,
    data_is_taken_before_its_logs, preparing_takes_no_snapshot, settling_again_answers_the_same,
    what_was_never_taken_is_not_settled, what_was_prepared_is_used_by_another_process,
};
use removal::{
    a_name_that_is_taken_is_no_set_of_ours, deleting_again_succeeds,
    deleting_one_leaves_the_rest_of_its_set, discarding_is_right_in_any_phase,
    removing_leaves_other_sets, what_is_exposed_is_refused_or_stays_readable,
    what_is_held_is_refused, what_is_locked_is_refused_with_its_date,
    what_is_not_ours_is_never_touched,
};
use restore::{
    a_restore_goes_on_after_a_crash, a_restore_that_was_dropped_is_undone,
    a_revert_needs_consent_to_what_it_destroys, a_settled_restore_cannot_be_taken_back,
    publishing_puts_files_at_their_targets, restores_that_never_were_are_undone,
    what_is_in_the_way_is_refused_unless_asked, what_is_not_there_is_not_restored,
    what_is_staged_can_be_read_and_is_not_at_its_target, what_was_in_the_way_is_put_back,
    what_was_taken_back_is_not_published,
};
use token::{
    a_commit_of_what_is_settled_is_the_same_snapshots, a_commit_that_was_dropped_can_be_taken_away,
    a_commit_that_was_dropped_is_found_after_a_crash, a_commit_that_was_dropped_may_be_repeated,
    a_preparation_that_was_dropped_leaves_nothing, a_repeated_commit_is_the_same_snapshots,
    a_set_that_is_prepared_again_is_one_set, adopting_again_answers_the_same,
    sets_may_be_under_way_at_once, sets_of_different_tokens_are_apart, what_never_was_is_absent,
    what_vss_did_not_make_is_not_adopted, what_vss_made_for_another_set_is_not_adopted,
    what_vss_made_is_found_by_the_token, what_was_discarded_does_not_come_back,
    what_was_discarded_does_not_come_back_after_a_crash, what_was_settled_is_found_after_a_crash,
    what_was_taken_is_found_after_a_crash, what_was_taken_is_found_by_its_token,
};

use need::Need;
pub use need::Providers;
pub use place::{Can, Ground, ProviderFactory, ProviderPlace, TestVolume};
pub use simulated::SimPlaces;
pub use trial::Trial;

/// Every case.
pub fn cases() -> &'static [Case<Providers>] {
    cases! {
        S1 a_prepared_set_says_what_was_asked: "What was prepared names the token, the provider and the volumes in the order in which they were asked for.";
        S1 preparing_takes_no_snapshot: "`prepare` does what is slow, and takes no snapshot.";
        S1 a_snapshot_is_of_the_instant_of_its_commit:
            "`prepare` fences nothing, and a snapshot is of the instant of its commit, not before and not after." [Takes];
        S1 a_commit_answers_with_its_members: "`commit` answers with a member for each volume, with its role." [Takes];
        S1 a_commit_keeps_to_the_worst_case_that_was_stated: "`prepare` states the worst case of the commit." [Commits, Virtual];
        S1 a_settled_set_is_as_it_was_asked_for: "`settle` tags the snapshots." [Takes];
        S1 settling_again_answers_the_same: "`settle` repeated answers the same." [Takes];
        S1 what_was_never_taken_is_not_settled: "`settle` makes durable what was taken; it snaps nothing itself.";
        S1 a_settled_set_survives_a_power_cut: "What is settled survives a power cut." [Takes, CutPower, Reopen];
        S1 what_was_prepared_is_used_by_another_process: "The answer of `prepare` is stored and may be used by another process." [Takes, Reopen];
        S2 what_never_was_is_absent: "`find` answers `Absent` for a token of which there is nothing.";
        S2 what_was_taken_is_found_by_its_token: "Snapshots are found by their token." [Takes];
        S2 what_was_taken_is_found_after_a_crash: "Snapshots are found by their token after a crash, settled or not." [Takes, Reopen];
        S2 what_was_settled_is_found_after_a_crash: "After a crash a settled set is there as it was." [Takes, Reopen];
        S2 a_repeated_commit_is_the_same_snapshots: "`commit` repeated is the same snapshots." [Takes];
        S2 a_commit_of_what_is_settled_is_the_same_snapshots: "`commit` repeated is the same snapshots, also when they are settled." [Takes];
        S2 a_set_that_is_prepared_again_is_one_set: "`prepare` repeated with the same token starts anew or answers the same." [Takes];
        S2 sets_of_different_tokens_are_apart: "A token is one set's alone, whatever other tokens look like." [Takes];
        S2 sets_may_be_under_way_at_once: "Different tokens may be under way at once, also on one volume." [Takes];
        S2 a_commit_that_was_dropped_can_be_taken_away:
            "When a commit is dropped, `find` tells what there is and `discard` takes it away, also if it comes late." [Commits];
        S2 a_commit_that_was_dropped_is_found_after_a_crash: "After a crash in a commit, `find` and `discard` are right." [Commits, Reopen];
        S2 a_commit_that_was_dropped_may_be_repeated: "A call that did not end may be repeated with the same arguments." [Commits];
        S2 a_preparation_that_was_dropped_leaves_nothing: "`discard` takes away what a `prepare` that did not end has left." [Takes];
        S2 what_was_discarded_does_not_come_back: "A commit never brings a discarded set back: it has expired." [Takes];
        S2 what_was_discarded_does_not_come_back_after_a_crash: "A commit never brings a discarded set back, also after a crash." [Commits, Reopen];
        S2 what_vss_made_is_found_by_the_token: "What VSS named itself is adopted under our token." [Adopts];
        S2 adopting_again_answers_the_same: "`adopt` repeated answers the same." [Adopts];
        S2 what_vss_did_not_make_is_not_adopted: "`adopt` refuses what does not exist." [Adopts];
        S2 what_vss_made_for_another_set_is_not_adopted: "What was made for another token is not adopted under this one." [Adopts];
        S3 discarding_is_right_in_any_phase: "`discard` takes away everything of a token in any phase, and may be repeated." [Takes];
        S3 deleting_again_succeeds: "`delete` is idempotent: what is gone, or never was, is gone." [Takes];
        S3 deleting_one_leaves_the_rest_of_its_set: "`delete` takes one snapshot; its set is then there in part." [Takes, TwoVolumes];
        S3 removing_leaves_other_sets: "What is removed of one set is not another's." [Takes];
        S3 what_is_held_is_refused: "A held snapshot is refused with that reason." [Takes, Hold];
        S3 what_is_locked_is_refused_with_its_date: "A locked snapshot is refused with that reason, and until when." [Takes, Lock];
        S3 what_is_exposed_is_refused_or_stays_readable: "A snapshot that something depends on is refused with that reason." [Takes, Exposes];
        S3 what_is_not_ours_is_never_touched: "What we did not tag is listed, and never touched." [Takes, Foreign];
        S3 a_name_that_is_taken_is_no_set_of_ours: "A foreign snapshot with our name is neither found as ours nor taken over." [Takes, Foreign];
        S4 an_exposure_shows_what_was_taken: "An exposure shows every file as it was when it was taken." [Takes, Exposes];
        S4 an_exposure_is_read_only: "An exposure is read-only." [Takes, Exposes];
        S4 exposing_again_is_the_same_exposure: "Repeated with the same key and snapshots it is the same exposure." [Takes, Exposes];
        S4 an_exposure_is_listed_until_it_is_ended: "`exposures` lists what is open; `unexpose` ends that of its key, and may be repeated." [Takes, Exposes];
        S4 an_exposure_never_changes_its_snapshot: "An exposure never changes the snapshot." [Takes, Exposes];
        S4 an_exposure_is_there_after_a_crash: "`exposures` lists what is open after a crash." [Takes, Exposes, Reopen];
        S4 what_is_not_there_is_not_exposed: "Exposing a snapshot that does not exist is refused, and opens nothing." [Takes, Exposes];
        S5 capabilities_stay_as_they_are: "Capabilities are the same for the life of the value, and one way to coordinate is among them.";
        S5 files_are_placed_on_their_volumes: "Each file that lies on a volume of the provider is placed, in the order asked, also one that does not exist yet.";
        S5 volumes_are_told_in_the_order_asked: "Facts come in the order of the volumes that were asked for.";
        S5 an_unknown_volume_is_not_found: "A volume that is not the provider's is not found, before the freeze.";
        S5 a_snapshot_more_is_counted: "A volume's snapshots are counted." [Takes];
        S5 a_limit_that_cannot_be_kept_is_refused: "A limit is kept by the worst case that is stated, or refused before the freeze.";
        S5 more_volumes_than_can_be_are_refused: "More volumes than a set can have are refused before the freeze, by the capability's name." [MostVolumes];
        S5 what_is_not_declared_is_refused_by_name: "What is not among the capabilities is refused, with the capability's name.";
        S5 the_snapshot_limit_is_refused_before: "A snapshot more than a volume can have is refused before the freeze, with the limit." [Takes, Exhaust];
        S5 where_there_is_no_room_it_is_said: "Where there is no room, that is said, and nothing is left." [Takes, Fill];
        S5 what_prepare_lets_through_can_be_taken: "What would make the commit fail, and can be known before the freeze, is refused by `prepare`." [Takes];
        S6 an_error_says_what_it_is: "An error says what happened, to which volume, and what to do.";
        S6 what_says_it_did_nothing_did_nothing: "An error whose effect is none had none." [Takes];
        S6 a_refused_preparation_leaves_nothing: "What `prepare` refuses has no effect, and the same set may be prepared when it is put right." [Takes];
        S7 what_is_staged_can_be_read_and_is_not_at_its_target: "What is staged can be read, and nothing is at a target before `publish`." [Takes, Clones, Write];
        S7 publishing_puts_files_at_their_targets: "`publish` puts clones at their targets, and may be repeated." [Takes, Clones, Write];
        S7 what_is_in_the_way_is_refused_unless_asked: "What is in the way is refused unless it is to be replaced." [Takes, Clones, Write];
        S7 what_was_in_the_way_is_put_back: "What was in the way is kept aside, and `retract` puts it back." [Takes, Clones, Write];
        S7 what_was_taken_back_is_not_published: "After `retract` nothing is published until it is staged anew, also by a call that comes late." [Takes, Clones, Write];
        S7 a_settled_restore_cannot_be_taken_back: "`settle` deletes what was kept aside; after it nothing is put back." [Takes, Clones, Write];
        S7 restores_that_never_were_are_undone: "The undos are right for a key that is not there." [Clones];
        S7 what_is_not_there_is_not_restored: "A snapshot or file that is not there is not restored." [Takes, Clones, Write];
        S7 a_restore_that_was_dropped_is_undone: "`retract` and `unstage` bring back the state before, also when a call was dropped." [Takes, Clones, Write];
        S7 a_restore_goes_on_after_a_crash: "The key of a restore finds everything again after a crash." [Takes, Clones, Write, Reopen];
        S7 a_revert_needs_consent_to_what_it_destroys: "A revert names its collateral, and is refused without consent to exactly that." [Takes, Reverts, Write];
        S8 documents_come_back_as_they_were: "Documents are any bytes of any size." [Documents];
        S8 a_document_takes_the_place_of_the_one_before: "A document takes the place of the one of its name." [Documents];
        S8 documents_are_listed_in_order: "All documents are listed, in order." [Documents];
        S8 a_deleted_document_is_gone: "A document that is deleted, or never was, is not there; deleting may be repeated." [Documents];
        S8 documents_are_there_after_a_crash: "Documents are durable." [Documents, Reopen];
        S8 a_dropped_document_is_the_old_or_the_new: "There is the old document or the new one, whole." [Documents];
        S8 a_listing_tells_what_settling_told: "Storage alone tells of every snapshot its set, name, time and tags." [Takes];
        S8 a_listing_has_everything_once_in_order: "A listing has every snapshot of the volume once, in the order of ids." [Takes];
        S8 what_is_no_page_mark_is_refused: "A page mark that is not one is refused.";
        S9 data_is_taken_before_its_logs: "Data is taken before its logs: pages are never newer than their logs." [Commits, TwoVolumes, Write];
    }
}

/// Tries every case.
pub async fn run_all(places: &dyn ProviderFactory) -> Report {
    frame::run_all(cases(), places).await
}

/// Tries the [harmless](Case::is_harmless) cases, on a system that may be in use.
pub async fn check(places: &dyn ProviderFactory) -> Report {
    let harmless: Vec<_> = cases().iter().copied().filter(Case::is_harmless).collect();
    frame::run_all(&harmless, places).await
}
