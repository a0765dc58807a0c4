//! The plannings of a backup job: what went out of date is planned again, and what a restore has once that is over.
//!
//! ```text
//!   round ─ look ─ plan ─┬─ a set, carried out ─ its plan went out of date: a round of its databases
//!                        ├─ …
//!                        └─ held by restores ─ wait ─ a round of their own
//! ```
//!
//! All go on side by side: who is not restored does not wait for who is, and who is planned again for nobody.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use chrono::{DateTime, Utc};
use futures_util::future::{join, join_all};
use stillpoint_catalog::{CatalogExt, JobQuery, Page};
use stillpoint_context::{BoxFuture, Effect, ErrorClass, Failure, JobId, RunId};
use stillpoint_model::id::{CopyId, DatabaseId, VolumeRef};
use stillpoint_model::job::{Elsewhere, Job, JobKind, JobMember};
use stillpoint_model::planning::{BackupPlan, Decision, LeftWhy, SetPlan};
use stillpoint_model::policy::Policy;
use stillpoint_model::request::BackupRequest;
use uuid::Uuid;

use super::SetOutcome;
use crate::Stillpoint;
use crate::error::Error;
use crate::job::LiveJob;
use crate::prune::{Part, PruneScope, PruneTarget};
use crate::survey::Survey;

/// A volume can have no more snapshots.
pub(super) const NO_ROOM: &str = "storage.snapshot_limit";

/// A database cannot be backed up as it is, such as one that is dismounted.
const NOT_AVAILABLE: &str = "resource.not_available";

/// How often it is looked whether a restore is over.
const WHILE_RESTORED: Duration = Duration::from_secs(5);

/// How many restores that are over are looked through for one that has just ended.
const NEWEST_RESTORES: u32 = 64;

/// How often what went out of date is planned.
const ROUNDS: u32 = 3;

/// How many plannings of a job there were: ids of runs and points follow from the number of one.
#[derive(Debug, Default)]
pub(super) struct Rounds(AtomicU32);

impl Rounds {
    fn next(&self) -> u32 {
        self.0.fetch_add(1, Ordering::Relaxed)
    }
}

/// What came of a round and of all that followed from it.
#[derive(Debug)]
pub(super) struct Carried {
    /// A cancel has left something out that was not begun.
    pub(super) is_short: bool,
    /// The policy in the version that the job pins.
    pub(super) policy: Policy,
}

/// A run whose plan went out of date, and the databases of it.
#[derive(Debug)]
struct Stale {
    run: RunId,
    databases: BTreeSet<DatabaseId>,
}

/// One planning of a job.
#[derive(Debug)]
pub(super) struct Round {
    pub(super) number: u32,
    /// What is planned, wherever its copies are now; none if it is what the request is about.
    again: Option<BTreeSet<DatabaseId>>,
    /// The run that it takes the place of.
    stale: Option<Stale>,
    /// What has waited for a restore, and is planned for the first time since.
    waited: BTreeSet<DatabaseId>,
    /// Sets give way to restores of some of their databases.
    gives_way: bool,
    /// What must not be backed up again.
    done: BTreeSet<CopyId>,
    /// What may go was deleted for it.
    has_made_room: bool,
    /// How often it was planned since what it is about went out of date for the first time.
    tries: u32,
}

impl Round {
    /// The first of a job.
    pub(super) fn first(rounds: &Rounds) -> Self {
        Self {
            number: rounds.next(),
            again: None,
            stale: None,
            waited: BTreeSet::new(),
            gives_way: true,
            done: BTreeSet::new(),
            has_made_room: false,
            tries: 0,
        }
    }

    /// That of what has waited. It does not give way once more, or it might wait for ever.
    fn of_waited(rounds: &Rounds, waited: BTreeSet<DatabaseId>) -> Self {
        let again = Some(waited.clone());
        Self { again, waited, gives_way: false, ..Self::first(rounds) }
    }

    /// That of the set whose run went out of date, of those that were planned with it; none if it did so too often. What the
    /// others have is theirs, whatever becomes of it.
    fn of_stale(
        &self,
        rounds: &Rounds,
        planned: &[SetPlan],
        set: &SetPlan,
        run: RunId,
    ) -> Option<Self> {
        let tries = self.tries + 1;
        if tries == ROUNDS {
            return None;
        }
        let others = planned.iter().filter(|other| other.run != set.run);
        let theirs = others.flat_map(|other| &other.members).map(|member| member.copy.clone());
        let databases: BTreeSet<_> = set.members.iter().map(|m| m.copy.database).collect();
        Some(Self {
            number: rounds.next(),
            again: Some(databases.clone()),
            stale: Some(Stale { run, databases }),
            waited: BTreeSet::new(),
            gives_way: self.gives_way,
            done: self.done.iter().cloned().chain(theirs).collect(),
            has_made_room: self.has_made_room,
            tries,
        })
    }

    /// The databases that it is about, if it is not the first.
    pub(super) fn again(&self) -> Option<&BTreeSet<DatabaseId>> {
        self.again.as_ref()
    }

    /// The run that a set takes the place of.
    fn superseded_by(&self, set: &SetPlan) -> Vec<RunId> {
        let of_set = |stale: &&Stale| stale.databases.iter().any(|database| has(set, *database));
        self.stale.iter().filter(of_set).map(|stale| stale.run).collect()
    }
}

impl Stillpoint {
    /// Plans once, and carries out what was planned and all that follows from it.
    pub(super) fn round<'f>(
        &'f self,
        request: &'f BackupRequest,
        live: &'f Arc<LiveJob>,
        rounds: &'f Rounds,
        mut round: Round,
    ) -> BoxFuture<'f, Result<Carried, Error>> {
        Box::pin(async move {
            let looked_at = self.seams().clock.now();
            let (survey, plan) = self.planned(request, live, &mut round).await?;
            let held = self.held_by_restores(&plan, looked_at, round.gives_way).await?;
            let sets = without(&plan.sets, &round.done, &held);
            note_plan(live, &plan, &sets, &round, &held);
            let later = self.later(request, live, rounds, &held);
            let now = sets.iter().map(|set| async {
                let supersedes = round.superseded_by(set);
                let run = match self.carry_out_set(&survey, &plan, set, live, supersedes).await {
                    SetOutcome::Over => return Ok::<bool, Error>(false),
                    SetOutcome::Stopped => return Ok(true),
                    SetOutcome::Stale(run) => run,
                };
                let Some(next) = round.of_stale(rounds, &sets, set, run) else { return Ok(false) };
                if live.cancel_token().is_cancelled() {
                    return Ok(true);
                }
                Ok(self.round(request, live, rounds, next).await?.is_short)
            });
            let (now, later) = join(join_all(now), later).await;
            let mut is_short = later?;
            for set in now {
                is_short |= set?;
            }
            Ok(Carried { is_short, policy: survey.policy })
        })
    }

    /// Waits until what is held is free, and carries that out; whether something was left out of it.
    async fn later(
        &self,
        request: &BackupRequest,
        live: &Arc<LiveJob>,
        rounds: &Rounds,
        held: &[Elsewhere],
    ) -> Result<bool, Error> {
        if held.is_empty() {
            return Ok(false);
        }
        if let Err(error) = self.store_job(live).await {
            // Other processes, and whoever carries on, know less of it; nothing else depends on it.
            tracing::warn!(%error, "what waits for a restore could not be stored");
        }
        let waited = held.iter().map(|held| held.database).collect();
        let free = self.wait_for_restores(live, &waited).await;
        live.change(|job| job.held.retain(|known| !waited.contains(&known.database)));
        free?;
        if live.cancel_token().is_cancelled() {
            return Ok(true);
        }
        let carried = self.round(request, live, rounds, Round::of_waited(rounds, waited)).await?;
        Ok(carried.is_short)
    }

    /// Looks and plans. Where a volume has no room for another snapshot, what may go of it goes first, once.
    async fn planned(
        &self,
        request: &BackupRequest,
        live: &Arc<LiveJob>,
        round: &mut Round,
    ) -> Result<(Survey, BackupPlan), Error> {
        let job = live.snapshot().id;
        let survey = self.survey(request, live).await?;
        let plan = self.plan_round(request, &survey, job, round)?;
        let full = full(&plan);
        if full.is_empty() || std::mem::replace(&mut round.has_made_room, true) {
            return Ok((survey, plan));
        }
        self.make_room(live, &survey, &full).await;
        let survey = self.survey(request, live).await?;
        let plan = self.plan_round(request, &survey, job, round)?;
        Ok((survey, plan))
    }

    /// Deletes what retention lets go of the databases that lie on some volumes (rule V49 of the model). That nothing could be
    /// deleted shows in the plan that is made afterwards.
    async fn make_room(&self, live: &Arc<LiveJob>, survey: &Survey, full: &BTreeSet<VolumeRef>) {
        let there = survey
            .places
            .iter()
            .filter(|(_, files)| files.iter().any(|(_, volume)| full.contains(volume)));
        let scope = PruneScope::Databases(there.map(|(copy, _)| copy.database).collect());
        if let Err(error) = self.prune_for(live, &PruneTarget::of(scope), Part::Before).await {
            tracing::warn!(%error, "no room could be made for snapshots");
        }
    }

    /// What of a plan waits for restores of ours (rule V17 of the model): databases that are refused while one has them, or had
    /// them when they were looked at, and those for whose sake the others of their set would wait.
    async fn held_by_restores(
        &self,
        plan: &BackupPlan,
        since: DateTime<Utc>,
        gives_way: bool,
    ) -> Result<Vec<Elsewhere>, Error> {
        let away = plan.refused().filter(|(_, failure)| failure.code == NOT_AVAILABLE);
        let refused: BTreeSet<DatabaseId> =
            away.filter_map(|(database, _)| database.database).collect();
        let shared = gives_way && plan.sets.iter().any(|set| set.members.len() > 1);
        if refused.is_empty() && !shared {
            return Ok(Vec::new());
        }
        let mut held = BTreeMap::new();
        if !refused.is_empty() {
            let restored = self.restored(Some(since)).await?;
            held.extend(restored.into_iter().filter(|(database, _)| refused.contains(database)));
        }
        if shared {
            let restored = self.restored(None).await?;
            for set in &plan.sets {
                let members = set.members.iter().map(|member| member.copy.database);
                let taken: Vec<DatabaseId> =
                    members.filter(|database| restored.contains_key(database)).collect();
                // A set of which all is restored waits in line for its claims.
                if taken.len() < set.members.len() {
                    held.extend(taken.into_iter().map(|database| (database, restored[&database])));
                }
            }
        }
        let of_plan = |id| plan.databases.iter().find(|database| database.database == Some(id));
        let name = |id| of_plan(id).map_or_else(String::new, |database| database.name.clone());
        Ok(held.into_iter().map(|(id, job)| Elsewhere::new(id, name(id), job)).collect())
    }

    /// The databases that are being restored, or whose restore was not over at an instant, each with its restore.
    async fn restored(
        &self,
        since: Option<DateTime<Utc>>,
    ) -> Result<BTreeMap<DatabaseId, JobId>, Error> {
        let catalog = &self.services().catalog;
        let mut restores = JobQuery::open();
        restores.kind = Some(JobKind::Restore);
        let mut jobs = catalog.all_jobs(&restores).await?;
        if let Some(since) = since {
            restores.ended = Some(true);
            let newest = catalog.jobs(&restores, &Page::first(NEWEST_RESTORES)).await?.items;
            jobs.extend(newest.into_iter().filter(|job| job.ended_at >= Some(since)));
        }
        let of_job = |job: &Job| {
            let members = job.members().map(|member| (member.database, job.id));
            members.collect::<Vec<_>>()
        };
        Ok(jobs.iter().flat_map(of_job).collect())
    }

    /// Waits until no restore has any of these. A parked one is waited for as well: it keeps the database.
    async fn wait_for_restores(
        &self,
        live: &Arc<LiveJob>,
        wanted: &BTreeSet<DatabaseId>,
    ) -> Result<(), Error> {
        let cx = self.cx_of(live);
        while self.restored(None).await?.keys().any(|database| wanted.contains(database)) {
            if cx.sleep(WHILE_RESTORED).await.is_err() || live.cancel_token().is_cancelled() {
                break;
            }
        }
        Ok(())
    }
}

/// The sets without what is done and what is held.
fn without(sets: &[SetPlan], done: &BTreeSet<CopyId>, held: &[Elsewhere]) -> Vec<SetPlan> {
    let copies = sets.iter().flat_map(|set| &set.members).map(|member| &member.copy);
    let is_held = |copy: &&CopyId| held.iter().any(|held| held.database == copy.database);
    let left = copies.filter(is_held).chain(done).cloned().collect();
    sets.iter().filter_map(|set| set.without(&left)).collect()
}

/// Notes in the job what a plan leaves out.
fn note_plan(
    live: &LiveJob,
    plan: &BackupPlan,
    sets: &[SetPlan],
    round: &Round,
    held: &[Elsewhere],
) {
    live.change(|job| {
        if round.number == 0 {
            job.held = held.to_vec();
            job.skipped = skipped(plan, held);
            job.warnings.clone_from(&plan.warnings);
            let is_all_elsewhere = !job.coalesced.is_empty() && plan.refused().next().is_none();
            if plan.is_empty() && held.is_empty() && !is_all_elsewhere {
                job.failure = Some(nothing(plan));
            }
            return;
        }
        job.held.extend_from_slice(held);
        // What is planned otherwise than before is told.
        for warning in &plan.warnings {
            if !job.warnings.contains(warning) {
                job.warnings.push(warning.clone());
            }
        }
        // What waited for a restore and cannot be backed up all the same is left out.
        let refused = skipped(plan, held).into_iter();
        job.skipped.extend(refused.filter(|member| round.waited.contains(&member.database)));
        if job.runs.is_empty() && plan.is_empty() && job.held.is_empty() {
            job.failure = Some(nothing(plan));
        }
        // A run that another one takes the place of no longer counts. What the other one leaves out of it does.
        let Some(stale) = &round.stale else { return };
        let taken = |database: &DatabaseId| sets.iter().any(|set| has(set, *database));
        if !stale.databases.iter().any(taken) {
            return;
        }
        for (database, failure) in plan.refused() {
            let Some(id) = database.database else { continue };
            if stale.databases.contains(&id) && !taken(&id) {
                let member = JobMember::skipped(id, database.name.clone(), failure.clone());
                job.skipped.push(member);
            }
        }
    });
}

fn has(set: &SetPlan, database: DatabaseId) -> bool {
    set.members.iter().any(|member| member.copy.database == database)
}

/// The volumes for whose sake something is not backed up, as they can have no more snapshots.
fn full(plan: &BackupPlan) -> BTreeSet<VolumeRef> {
    let of_copies = plan.copies().filter_map(|choice| match &choice.decision {
        Decision::Left(LeftWhy::Refused { failure }) => Some(&**failure),
        _ => None,
    });
    let no_room = of_copies.filter(|failure| failure.code == NO_ROOM);
    let subjects = no_room.flat_map(|failure| &failure.subjects);
    subjects.filter_map(|subject| subject.id.parse().ok()).collect()
}

fn skipped(plan: &BackupPlan, held: &[Elsewhere]) -> Vec<JobMember> {
    plan.refused()
        .filter(|(database, _)| {
            !database.database.is_some_and(|id| held.iter().any(|held| held.database == id))
        })
        .map(|(database, failure)| {
            let id = database.database.unwrap_or(DatabaseId(Uuid::nil()));
            JobMember::skipped(id, database.name.clone(), failure.clone())
        })
        .collect()
}

fn nothing(plan: &BackupPlan) -> Failure {
    let failure = Failure::new(
        "backup.nothing_to_do",
        ErrorClass::Conflict,
        "no database of the request can be backed up",
    )
    .with_effect(Effect::None)
    .with_remedy("Look at the reason of each database.");
    plan.refused().fold(failure, |failure, (_, why)| failure.with_cause(&why.message))
}
