//! What every [`Catalog`](stillpoint_catalog::Catalog) has to do.

mod calls;
mod deletion;
mod schedules;
mod together;

use std::fmt::Debug;

use chrono::{DateTime, TimeDelta, Utc};
use stillpoint_catalog::CatalogError;
use stillpoint_context::{ErrorFacts, HostId, IdempotencyKey, JobId, RunId};
use stillpoint_model::evidence::EvidenceGrain;
use stillpoint_model::fork::ChainFork;
use stillpoint_model::group::{ResourceGroup, Selector};
use stillpoint_model::hold::Hold;
use stillpoint_model::id::{CopyId, DatabaseId, GroupId, HoldName, PointId, PolicyId, SetToken};
use stillpoint_model::job::{Job, JobKind};
use stillpoint_model::kind::BackupKind;
use stillpoint_model::point::{NewPoint, PointEvidence, PointFact, RestorePoint};
use stillpoint_model::policy::Policy;
use stillpoint_model::quiesce::{Held, QuiesceLevel};
use stillpoint_model::request::Trigger;
use uuid::Uuid;

use super::frame::{self, Flaw, cases};
use super::{Case, Report, StoreFactory};
use calls::{
    a_policy_in_use_stays, a_request_is_one_job, debris_is_kept_until_removed,
    facts_are_all_or_nothing, groups_keep_their_versions, jobs_are_forgotten_once_they_are_over,
    jobs_are_listed_newest_first, names_are_unique, pages_show_everything_once,
    points_follow_their_facts, policies_keep_their_versions, queries_choose,
    removed_points_are_told_for_ever, removed_points_stay_removed, the_cursor_never_goes_back,
};
use deletion::{
    a_hold_is_known_to_who_sees_the_intent, forks_are_kept_until_taken_back,
    holds_are_kept_until_taken_off, nothing_holds_what_goes, points_go_in_turns,
};
use schedules::{
    a_job_of_a_due_time_begins_while_that_is_open, a_name_is_one_schedule,
    a_stale_settlement_is_not_stored, an_attached_schedule_stays, lapses_outlive_their_ledger,
    of_a_job_and_a_settlement_there_is_one, one_of_many_settlers_wins,
    schedules_are_there_after_opening_again, schedules_keep_their_versions,
    the_clock_goes_back_only_if_it_is_believed, the_newest_lapses_are_kept, what_is_new_shows,
};
use together::{
    a_dropped_call_is_whole_or_not_at_all, calls_at_once_are_each_whole,
    everything_is_there_after_opening_again, one_of_many_changes_of_a_group_is_stored,
    one_of_many_requests_of_a_key_begins, one_of_many_takers_has_a_job,
    one_of_many_versions_is_stored, the_cursor_comes_with_its_facts,
    who_was_taken_over_stores_no_job,
};

/// Every case.
pub fn cases() -> &'static [Case] {
    cases! {
        points_follow_their_facts: "A restore point is what its facts say; facts that have been seen are ignored.";
        facts_are_all_or_nothing: "The facts of one call are taken in all or not at all, and the cursor with them.";
        removed_points_stay_removed: "Facts about a point that was removed are ignored for ever.";
        removed_points_are_told_for_ever: "Those of these points that were removed are told, however long ago, and no others.";
        points_go_in_turns: "The deletion of a point follows its facts, turn by turn; what is told of earlier turns is ignored.";
        the_cursor_never_goes_back: "The cursor is moved, never back.";
        pages_show_everything_once: "Entries are listed newest first, then by id, each exactly once over all pages.";
        queries_choose: "A query chooses the entries of which all its conditions hold.";
        a_request_is_one_job: "The same request is one job; another request under its key is refused.";
        jobs_are_listed_newest_first: "Jobs are listed as they were last put, newest first.";
        jobs_are_forgotten_once_they_are_over: "What is forgotten is a job that is over, and its key with it; others stay.";
        policies_keep_their_versions: "Versions of a policy are never changed, and follow each other.";
        groups_keep_their_versions: "Versions of a group follow each other, and only the newest is there.";
        names_are_unique: "A name belongs to one policy, and to one group, case ignored.";
        a_policy_in_use_stays: "A policy cannot be removed while a group has it.";
        debris_is_kept_until_removed: "Debris is listed under its key, oldest first, until it is removed.";
        holds_are_kept_until_taken_off: "Holds are listed by name, each as it was last put, until they are taken off.";
        forks_are_kept_until_taken_back: "The forks of a database are listed in their order, each as it was last put, until they are taken back.";
        nothing_holds_what_goes: "No hold is put on a point that is being deleted or is not there, and none in part.";
        a_hold_is_known_to_who_sees_the_intent: "Who looks at the holds after the intent to delete sees all there will be.";
        calls_at_once_are_each_whole: "Each call takes effect whole or not at all; no reader sees half of it.";
        the_cursor_comes_with_its_facts: "The cursor and the facts of one call are seen together.";
        one_of_many_requests_of_a_key_begins: "Of requests under one key at the same time one begins the job.";
        one_of_many_takers_has_a_job: "Of many who take a job in hand from one who is noted in it, one has it.";
        one_of_many_versions_is_stored: "Of different contents for one version of a policy one is stored.";
        one_of_many_changes_of_a_group_is_stored: "Of different changes of one group at the same time one is stored.";
        who_was_taken_over_stores_no_job: "A process that does not hold the epoch stores no job in it." [Looks];
        a_dropped_call_is_whole_or_not_at_all: "A dropped call may or may not take effect, but never in half.";
        everything_is_there_after_opening_again: "A change is durable when the call has returned." [Reopen];
        schedules_keep_their_versions: "Versions of a schedule are never changed, and follow each other.";
        a_name_is_one_schedule: "A name belongs to one schedule, case ignored.";
        an_attached_schedule_stays: "A schedule cannot be removed while it is attached to a group.";
        what_is_new_shows: "What schedulers look at shows whatever was stored, and due times without a job.";
        a_stale_settlement_is_not_stored: "A settlement that was made from what is no longer there is not stored.";
        one_of_many_settlers_wins: "Of settlements made from one entry at the same time one is stored.";
        the_newest_lapses_are_kept: "Of each attachment the newest lapses are kept, newest first.";
        lapses_outlive_their_ledger: "Lapses stay when their ledger goes: of what is gone the newest.";
        a_job_of_a_due_time_begins_while_that_is_open: "The job of a due time is stored and noted in one step, if that is open and has none.";
        of_a_job_and_a_settlement_there_is_one: "Of jobs that begin at a due time and of settlements of it one is stored.";
        the_clock_goes_back_only_if_it_is_believed: "The clock of the schedules goes back only if somebody says that it is right.";
        schedules_are_there_after_opening_again: "What is known of schedules is durable when the call has returned." [Reopen];
    }
}

/// Tries every case.
pub async fn run_all(stores: &dyn StoreFactory) -> Report {
    frame::run_all(cases(), stores).await
}

fn refused<T: Debug>(what: &str, found: Result<T, CatalogError>, code: &str) -> Result<(), Flaw> {
    match found {
        Err(error) if error.code() == code => Ok(()),
        other => Err(Flaw(format!("{what}: found {other:?}, wanted the error {code}"))),
    }
}

/// An instant, so many seconds after a fixed one.
pub fn at(seconds: i64) -> DateTime<Utc> {
    DateTime::UNIX_EPOCH + TimeDelta::days(20_000) + TimeDelta::seconds(seconds)
}

/// A restore point of a database, taken after so many seconds.
///
/// # Errors
/// None in practice: the names in it are legal.
pub fn point(number: u128, database: u128, seconds: i64) -> Result<RestorePoint, Flaw> {
    let host = HostId::new("ex1").map_err(|error| Flaw(error.to_string()))?;
    let (run, id) = (RunId(Uuid::from_u128(900)), PointId(Uuid::from_u128(number)));
    Ok(RestorePoint::new(NewPoint {
        id,
        copy: CopyId::new(DatabaseId(Uuid::from_u128(database)), host),
        database_name: format!("DB{database}"),
        kind: BackupKind::Full,
        taken_at: at(seconds),
        job: JobId(Uuid::from_u128(800)),
        run,
        set: SetToken::of(&run, id),
        evidence: PointEvidence::new(QuiesceLevel::App, Held::Yes, EvidenceGrain::PerWriter),
    }))
}

fn published(number: u128, database: u128, seconds: i64) -> Result<PointFact, Flaw> {
    Ok(PointFact::Published(Box::new(point(number, database, seconds)?)))
}

fn job(number: u128, seconds: i64) -> Result<Job, Flaw> {
    let key =
        IdempotencyKey::new(format!("key-{number}")).map_err(|error| Flaw(error.to_string()))?;
    let id = JobId(Uuid::from_u128(number));
    Ok(Job::new(id, JobKind::Backup, key, Trigger::Api, at(seconds)))
}

fn policy(number: u128, name: &str) -> Policy {
    Policy::new(PolicyId(Uuid::from_u128(number)), name)
}

fn group(number: u128, name: &str, policies: &[&Policy]) -> ResourceGroup {
    let id = GroupId(Uuid::from_u128(number));
    let mut group = ResourceGroup::new(id, name, vec![Selector::Everything]);
    group.policies = policies.iter().map(|policy| policy.id).collect();
    group
}

/// The next version of a group, with this change.
fn edited(group: &ResourceGroup, change: impl FnOnce(&mut ResourceGroup)) -> ResourceGroup {
    let mut next = group.clone();
    change(&mut next);
    next.version = group.version.saturating_add(1);
    next
}

fn fork(number: u128, database: u128, second: i64) -> ChainFork {
    let (run, database) = (RunId(Uuid::from_u128(number)), DatabaseId(Uuid::from_u128(database)));
    ChainFork::new(run, database, at(second), PointId(Uuid::from_u128(1)))
}

fn hold(name: &str, points: &[u128]) -> Result<Hold, Flaw> {
    let name = HoldName::new(name).map_err(|error| Flaw(error.to_string()))?;
    let points = points.iter().map(|number| PointId(Uuid::from_u128(*number))).collect();
    Ok(Hold::new(name, points, "a case", "legal", at(0)))
}
