//! What every [`ExchangePlugin`](stillpoint_exchange::ExchangePlugin) has to do: X1 to X8, as far as it can be seen from
//! outside.
//!
//! Which cases apply is read from the plug-in's [`caps`](stillpoint_exchange::ExchangePlugin::caps), its inventory, and what
//! the place [`Can`] do. A case gets a place of its own.
//!
//! ```
//! use stillpoint_testkit::conformance::plugin::{self, SimOrganisations};
//! use stillpoint_workflow::testing::Sim;
//!
//! let sim = Sim::new(1);
//! let places = SimOrganisations::new(sim.seams());
//! sim.run(plugin::run_all(&places)).assert_passed();
//! ```
//!
//! What neither completes a session nor disturbs a database can be tried on servers that are in use: [`check`]. It begins
//! sessions, freezes for a moment, thaws and aborts.

mod evidence;
mod freeze;
mod logs;
mod place;
mod session;
mod simulated;
mod trial;

use super::frame::{self, cases};
use super::{Case, Report};
use evidence::{
    a_bad_verdict_truncates_nothing, a_broken_freeze_is_not_called_held,
    a_completion_answers_for_each_copy, a_copy_only_backup_truncates_nothing,
    a_copy_without_a_verdict_truncates_nothing, a_kind_that_is_not_declared_is_refused,
    evidence_is_of_every_copy, the_kind_is_fixed_at_the_beginning, what_is_bad_is_a_verdict,
    what_is_not_known_is_not_called_held, what_was_given_up_is_not_completed,
    what_was_not_completed_is_not_truncated,
};
use freeze::{
    a_freeze_ends_at_its_limit_by_itself, a_freeze_never_outlasts_the_thaw_of_its_session,
    a_freeze_says_its_level_and_its_end, a_freeze_that_is_repeated_is_the_same_freeze,
    a_freeze_that_was_dropped_is_thawed, a_thaw_ends_no_other_freeze, a_thaw_is_right_in_any_state,
    an_old_token_thaws_nothing, another_process_thaws, freeze_and_thaw_start_no_task,
    nothing_changes_while_it_is_frozen, snapping_freezes_and_thaws_inside,
    what_fails_to_snap_is_not_frozen, what_it_cannot_coordinate_is_refused_by_name,
    writes_are_held_from_freeze_to_thaw,
};
use logs::{
    a_closed_log_is_never_written_again, closed_logs_are_named_in_order,
    logs_of_an_unknown_copy_are_refused, the_log_being_written_is_not_named,
    without_log_backups_no_logs_are_named,
};
use session::{
    a_beginning_that_was_dropped_is_ended, a_lease_runs_out, a_renewed_session_lives_on,
    a_scope_is_what_it_names, a_second_freeze_does_no_harm_to_the_first,
    a_second_session_of_a_database_does_no_harm, a_session_can_be_ended_after_a_crash,
    a_session_can_be_looked_up, a_session_names_the_files_of_its_copies,
    an_abort_is_right_in_any_state, an_unknown_copy_is_refused,
    beginning_again_is_the_same_session, copies_are_known_by_id,
    copies_of_several_servers_are_invalid, ids_outlast_names,
    more_databases_than_can_be_are_refused, what_is_not_open_is_gone,
};
use trial::Need;

pub use place::{Can, PluginFactory, PluginPlace};
pub use simulated::SimOrganisations;
pub use trial::{Plugins, Trial};

/// Every case.
pub fn cases() -> &'static [Case<Plugins>] {
    cases! {
        X1 a_freeze_says_its_level_and_its_end: "`freeze` says at which level writes are quiesced and until when; no limit is legal for data at rest." [Freezes];
        X1 writes_are_held_from_freeze_to_thaw: "`freeze` returns when the writes of every selected database are quiesced." [Freezes, SeeFreeze];
        X1 a_freeze_ends_at_its_limit_by_itself: "The plug-in thaws by itself at the limit, and does not say that the freeze held." [Freezes];
        X1 what_it_cannot_coordinate_is_refused_by_name: "What is not among the capabilities is refused, with its name; they stay the same.";
        X1 snapping_freezes_and_thaws_inside: "`snap` freezes, has every volume snapped, and thaws; repeated it answers the same." [Snaps];
        X1 what_fails_to_snap_is_not_frozen: "After an error of `snap` nothing is frozen any more." [Snaps];
        X2 a_thaw_is_right_in_any_state: "`thaw` may be called any number of times in any state." [Freezes];
        X2 a_thaw_ends_no_other_freeze: "`thaw` never thaws another session's freeze." [Freezes];
        X2 an_old_token_thaws_nothing: "`thaw` is scoped to one session and its fencing token." [Freezes, Fences];
        X2 a_freeze_never_outlasts_the_thaw_of_its_session:
            "A `freeze` that completes after the `thaw` of its session thaws itself and answers `Superseded`." [Freezes];
        X2 a_freeze_that_was_dropped_is_thawed: "`thaw` ends a freeze whose call was dropped, now or when it comes." [Freezes];
        X2 freeze_and_thaw_start_no_task: "`freeze` and `thaw` do not depend on tasks spawned elsewhere." [Freezes];
        X2 another_process_thaws: "`thaw` may be called by any process." [Freezes, Reopen];
        X3 a_kind_that_is_not_declared_is_refused: "A kind outside the capabilities is refused, and log backups have no session.";
        X3 the_kind_is_fixed_at_the_beginning: "The backup kind is fixed at `begin`.";
        X3 what_is_bad_is_a_verdict: "`verify` compares every byte where a seal is given; what is bad is a verdict." [Freezes, Verifies];
        X3 a_completion_answers_for_each_copy: "`complete` answers for each copy; repeated it answers the same, and the first verdicts stand." [Complete];
        X3 a_bad_verdict_truncates_nothing: "Only a good verdict may lead to truncation." [Complete, Truncates];
        X3 a_copy_without_a_verdict_truncates_nothing: "A copy without a verdict counts as failed." [Complete, Truncates];
        X3 a_copy_only_backup_truncates_nothing: "A copy-only backup truncates nothing." [Complete, CopyKind];
        X3 what_was_not_completed_is_not_truncated: "Truncation is asked about afterwards, never assumed." [Truncates];
        X3 what_was_given_up_is_not_completed: "A lost completion is an answer: nothing was completed." [Complete];
        X4 beginning_again_is_the_same_session: "`begin` repeated is the same session, with a lease that begins anew.";
        X4 a_freeze_that_is_repeated_is_the_same_freeze: "`freeze` is safe to repeat." [Freezes];
        X4 a_session_can_be_looked_up: "A session can be looked up.";
        X4 a_lease_runs_out: "A session has a lease, so that a dead engine leaves no backup in progress behind.";
        X4 a_renewed_session_lives_on: "`renew` lets a session live this much longer, from now.";
        X4 what_is_not_open_is_gone: "Calls for a session that is not open are refused.";
        X4 an_abort_is_right_in_any_state: "`abort` is right in any state, thaws what is frozen, and may be repeated.";
        X4 a_beginning_that_was_dropped_is_ended: "`abort` ends a session whose `begin` was dropped.";
        X4 a_session_can_be_ended_after_a_crash: "After a crash a session can be looked up and ended; `Lost` is legal." [Reopen];
        X5 copies_are_known_by_id: "Copies are identified by database and server, and stay the same.";
        X5 ids_outlast_names: "Copies are never identified by name." [Rename];
        X5 a_scope_is_what_it_names: "An inventory covers what its scope names; an empty set is nothing.";
        X5 an_unknown_copy_is_refused: "A copy that does not exist is refused, and nothing is begun.";
        X5 copies_of_several_servers_are_invalid: "The copies of a session are all of one server." [TwoServers];
        X5 a_session_names_the_files_of_its_copies: "`begin` says which files the snapshots must hold.";
        X6 more_databases_than_can_be_are_refused: "More databases than a set can have are refused." [MostDatabases];
        X6 a_second_freeze_does_no_harm_to_the_first: "One freeze at a time per server: the plug-in survives a second." [Freezes, TwoCopies];
        X6 a_second_session_of_a_database_does_no_harm: "One backup at a time per database: the plug-in survives a second.";
        X7 evidence_is_of_every_copy: "`evidence` is read after the thaw, of each copy, with its grain.";
        X7 what_is_not_known_is_not_called_held: "`Unknown` is an honest answer: before the thaw nobody can say that a freeze held.";
        X7 a_broken_freeze_is_not_called_held: "A freeze that did not hold is not said to have held." [Freezes, Disturb];
        X8 nothing_changes_while_it_is_frozen: "Nothing between freeze and thaw writes to what is frozen." [Freezes, Read];
        X9 closed_logs_are_named_in_order: "`closed_logs` names each closed log once, with its generation, and when the last was closed." [ClosedLogs];
        X9 the_log_being_written_is_not_named: "The log being written is never named." [ClosedLogs];
        X9 a_closed_log_is_never_written_again: "A log that `closed_logs` names is never written again." [ClosedLogs, Read];
        X9 logs_of_an_unknown_copy_are_refused: "The logs of a copy that does not exist are refused." [ClosedLogs];
        X9 without_log_backups_no_logs_are_named: "Without log backups `closed_logs` is refused, by name." [NoClosedLogs];
    }
}

/// Tries every case.
pub async fn run_all(places: &dyn PluginFactory) -> Report {
    frame::run_all(cases(), places).await
}

/// Tries the [harmless](Case::is_harmless) cases, on servers that may be in use.
pub async fn check(places: &dyn PluginFactory) -> Report {
    let harmless: Vec<_> = cases().iter().copied().filter(Case::is_harmless).collect();
    frame::run_all(&harmless, places).await
}
