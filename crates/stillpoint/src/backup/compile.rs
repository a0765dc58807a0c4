//! From the plan of a set, as data, to a plan that the engine carries out.
//!
//! ```text
//!   confirm ─ begin ─┬ prepare(p) ┬─┬ freeze [ commit(p) … ] thaw ┬─┬ settle(p) ┬─ inspect ─ expose ─ verify ─ unexpose ─┐
//!           ▲        └ prepare(q) ┘ └ snap ─ adopt(p) … ──────────┘ ├ evidence ─┘                                     judge
//!     before_quiesce                                                └ after_thaw ──────────────────────────────────────┤
//!                   complete ═ index ─ publish ─ after_verify ─────────────────────────────────────────────────────────┘
//!
//!   confirm ─ logs ─┬ prepare(p) ─ commit(p) ─ settle(p) ┬─ evidence ─ inspect … judge ─ after_verify ─ publish ─ index ─ conclude
//!                   └ prepare(q) ─ …                     ┘
//! ```
//!
//! Hooks are where the policy has some. The second is a log backup: nothing is frozen, so nothing comes before a freeze or after
//! a thaw.
//!
//! `complete` is the point of no return, and the last step: what it was answered is recorded with its success, so that a
//! cancel that comes too late finds nothing left to stop. Before it, whatever fails is undone: the session is aborted, the sets are
//! discarded, the exposure is ended, the points are withdrawn. A log backup has no such point, as Exchange is told nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use stillpoint_context::{Failure, HostPath};
use stillpoint_exchange::{Session, SessionSpec, SetOutcome, VerifyReport};
use stillpoint_model::capability::Coordination;
use stillpoint_model::handover::{Member, Prepared};
use stillpoint_model::hook::{Hook, HookPhase};
use stillpoint_model::id::{
    CopyId, DatabaseId, ExposureKey, PointId, ProviderId, SessionId, VolumeRef,
};
use stillpoint_model::inventory::Inventory;
use stillpoint_model::job::JobKind;
use stillpoint_model::kind::BackupKind;
use stillpoint_model::planning::{BackupPlan, SetPlan};
use stillpoint_model::policy::{Policy, Verification};
use stillpoint_workflow::{Action, GuardVerdict, OnBroken, Out, Plan, PlanBuilder};
use uuid::Uuid;

use super::judge::{Judge, JudgeParams, Judgement};
use super::logs::{Closed, ClosedParams, Conclude, StillThere};
use super::points::{Index, Inspect, PlannedPoint, Publish, PublishParams};
use super::session::{
    Begin, Complete, CompleteParams, Confirm, ConfirmParams, Evidence, Freeze, FreezeParams, Snap,
    Thaw,
};
use super::snapshots::{Adopt, Commit, Prepare, SetParams, Settle, Settled};
use crate::debris::Leaves;
use crate::error::plan_defect;
use crate::exposure::{Check, Expose, ExposeParams, Unexpose};
use crate::hooks::HookCall;
use crate::hooks::steps::{HookSteps, longest};
use crate::inventory::restrict;
use crate::pools::OnStorage as _;
use crate::timeouts::Timeouts;

/// The name of the guard, which claims refer to.
pub(crate) const GUARD: &str = "freeze";

/// The step in which a plug-in freezes and thaws by itself, which claims refer to as well.
pub(crate) const SNAP: &str = "snap";

/// What a set is compiled from.
#[derive(Debug)]
pub(crate) struct Sources<'a> {
    pub(crate) plan: &'a BackupPlan,
    pub(crate) set: &'a SetPlan,
    pub(crate) policy: &'a Policy,
    pub(crate) inventory: &'a Inventory,
    pub(crate) placements: &'a BTreeMap<CopyId, Vec<(HostPath, VolumeRef)>>,
    pub(crate) timeouts: &'a Timeouts,
}

/// The id of the session that a run holds: the same whenever it is computed.
pub(crate) fn session_of(set: &SetPlan) -> SessionId {
    SessionId(Uuid::new_v5(&set.run.0, b"session"))
}

/// The engine's plan for a set.
///
/// # Errors
/// `plan.internal` when the engine refuses the plan, which is a defect of ours.
pub(crate) fn compile(sources: &Sources<'_>) -> Result<Plan, Failure> {
    let Sources { set, timeouts, .. } = sources;
    let mut plan = PlanBuilder::new(format!("backup on {}", set.host));
    let _plan = plan.grace(timeouts.grace);
    claims(&mut plan, set)?;

    let confirm = plan
        .step("confirm", Confirm::with(confirm_params(sources)))
        .timeout(timeouts.inventory)
        .retry(timeouts.retry())
        .add();
    match set.kind {
        BackupKind::Log => logs(&mut plan, sources, confirm)?,
        _ => still(&mut plan, sources, confirm)?,
    }
    plan.build().map_err(plan_defect)
}

/// The databases stand still while they are snapped.
fn still(plan: &mut PlanBuilder, sources: &Sources<'_>, confirm: Out<()>) -> Result<(), Failure> {
    let Sources { set, timeouts, .. } = sources;
    let session = session_of(set);
    let before = hooks(plan, sources, HookPhase::BeforeQuiesce, "confirm", None);
    let begin = plan
        .step("begin", Begin::with(session_spec(sources, lease(sources))))
        .after(confirm)
        .after_named(before)
        .timeout(timeouts.begin)
        .retry(timeouts.retry())
        .undo_timeout(timeouts.begin)
        .add();
    let prepared = prepare(plan, sources, begin);
    let (taken, thaw) = match set.coordination {
        Some(Coordination::Plugin) => (snap(plan, sources, &prepared), SNAP),
        _ => (freeze(plan, sources, &prepared), GUARD),
    };
    let thawed = hooks(plan, sources, HookPhase::AfterThaw, thaw, None);
    let mut evidence = plan
        .step("evidence", Evidence::with(session))
        .bind(taken.verdict.clone())
        .timeout(timeouts.evidence)
        .retry(timeouts.retry());
    for part in &taken.settled {
        evidence = evidence.after(*part);
    }
    let evidence = evidence.add();
    let Published { judged, points, indexed } =
        tail(plan, sources, begin, evidence, taken, thawed)?;
    let _completed = plan
        .step("complete", Complete::with(CompleteParams { session, kind: set.kind }))
        .bind((judged, points))
        .after(indexed)
        .timeout(timeouts.complete)
        .retry(timeouts.retry())
        .no_return()
        .add();
    Ok(())
}

/// Logs that are closed are snapped while everything goes on.
fn logs(plan: &mut PlanBuilder, sources: &Sources<'_>, confirm: Out<()>) -> Result<(), Failure> {
    let Sources { plan: backup, timeouts, .. } = sources;
    let spec = session_spec(sources, Duration::ZERO);
    let chosen = plan
        .step("logs", Closed::with(ClosedParams { spec, planned_at: backup.made_at }))
        .after(confirm)
        .timeout(timeouts.inventory)
        .retry(timeouts.retry())
        .add();
    let mut taken = Taken { settled: Vec::new(), verdict: Vec::new() };
    for (provider, prepared) in prepare(plan, sources, chosen) {
        let members = plan
            .step(format!("commit:{provider}"), Commit::with(provider.clone()))
            .bind(prepared)
            .on_storage()
            .timeout(timeouts.settle)
            .undo_timeout(timeouts.prepare)
            .add();
        taken.settled.push(settle(plan, sources, &provider, prepared, members));
    }
    let mut evidence = plan
        .step("evidence", StillThere::with(()))
        .bind(chosen)
        .timeout(timeouts.inventory)
        .retry(timeouts.retry());
    for part in &taken.settled {
        evidence = evidence.after(*part);
    }
    let evidence = evidence.add();
    let Published { points, indexed, .. } =
        tail(plan, sources, chosen, evidence, taken, "evidence".to_owned())?;
    let _concluded = plan.step("conclude", Conclude::with(())).bind(points).after(indexed).add();
    Ok(())
}

/// What is to be taken, as one begins a session of it.
fn session_spec(sources: &Sources<'_>, lease: Duration) -> SessionSpec {
    let set = sources.set;
    let copies = set.members.iter().map(|member| member.copy.clone()).collect();
    SessionSpec::new(session_of(set), set.kind, copies, lease)
}

/// Gets every provider of the set ready.
fn prepare(
    plan: &mut PlanBuilder,
    sources: &Sources<'_>,
    wanted: Out<Session>,
) -> Vec<(ProviderId, Out<Prepared>)> {
    let Sources { set, timeouts, .. } = sources;
    let providers: BTreeSet<&ProviderId> =
        set.snapshots.iter().map(|snapshot| &snapshot.volume.provider).collect();
    let prepared = providers.into_iter().map(|provider| {
        let step = plan
            .step(format!("prepare:{provider}"), Prepare::with(set_params(sources, provider)))
            .bind(wanted)
            .on_storage()
            .timeout(timeouts.prepare)
            .retry(timeouts.retry())
            .undo_timeout(timeouts.discard())
            .add();
        (provider.clone(), step)
    });
    prepared.collect()
}

/// Makes what a provider has taken durable.
fn settle(
    plan: &mut PlanBuilder,
    sources: &Sources<'_>,
    provider: &ProviderId,
    prepared: Out<Prepared>,
    members: Out<Vec<Member>>,
) -> Out<Settled> {
    let timeouts = sources.timeouts;
    plan.step(format!("settle:{provider}"), Settle::with(provider.clone()))
        .bind((prepared, members))
        .on_storage()
        .timeout(timeouts.settle)
        .retry(timeouts.retry())
        .undo_timeout(timeouts.prepare)
        .add()
}

/// How long the session has to live without being renewed: as long as all that follows its beginning may take, one after
/// the other, each step with all its tries.
fn lease(sources: &Sources<'_>) -> Duration {
    let Sources { set, policy, timeouts: t, .. } = sources;
    let budget = set.freeze;
    let exit = t.tried(budget.map_or(t.thaw, |budget| budget.exit_timeout));
    let frozen = match (set.coordination, budget.and_then(|budget| budget.limit)) {
        (Some(Coordination::Plugin), _) => vec![t.once(t.snap), t.tried(t.settle)],
        (_, Some(limit)) => vec![limit, exit],
        // Data at rest: there is no limit, and what is copied is copied whole.
        (_, None) => vec![budget.and_then(|known| known.worst_case).unwrap_or(t.restore), exit],
    };
    let looked = match policy.verification {
        Verification::BeforeCompletion { cap, .. } => {
            let verify = t.once(cap.unwrap_or(t.verify));
            vec![t.once(t.evidence), t.tried(t.expose), verify, t.tried(t.expose)]
        }
        _ => Vec::new(),
    };
    let in_session = [HookPhase::AfterThaw, HookPhase::AfterVerify];
    let hooks = in_session.into_iter().flat_map(|phase| policy.hooks_of(phase)).map(longest);
    let told = [t.tried(t.evidence), t.once(t.evidence), t.tried(t.publish), t.tried(t.publish)];
    let ends = [t.tried(t.prepare), t.tried(t.settle), t.tried(t.complete)];
    let all = frozen.into_iter().chain(looked).chain(told).chain(ends).chain(hooks);
    all.fold(Duration::ZERO, Duration::saturating_add).max(t.lease)
}

/// The snapshots, settled, and what is known of the freeze on the engine's side.
#[derive(Debug)]
struct Taken {
    settled: Vec<Out<Settled>>,
    verdict: Vec<Out<GuardVerdict>>,
}

/// Engine-coordinated: a guard holds the freeze around the commits.
fn freeze(
    plan: &mut PlanBuilder,
    sources: &Sources<'_>,
    prepared: &[(ProviderId, Out<Prepared>)],
) -> Taken {
    let Sources { set, timeouts, .. } = sources;
    let session = session_of(set);
    let limit = set.freeze.and_then(|budget| budget.limit);
    let guard = prepared.iter().fold(plan.guard(GUARD), |guard, (_, step)| guard.after(*step));
    let (verdict, members) = guard
        .limit(limit)
        .exit_timeout(set.freeze.map_or(timeouts.thaw, |budget| budget.exit_timeout))
        .on_broken(OnBroken::Degrade)
        .miss_code("quiesce.freeze_timeout")
        .member(
            "host",
            Freeze::with(FreezeParams { session, limit }).bind(()),
            Thaw::with(session).bind(()),
        )
        .body(|body| {
            prepared
                .iter()
                .map(|(provider, prepared)| {
                    body.step(format!("commit:{provider}"), Commit::with(provider.clone()))
                        .bind(*prepared)
                        .on_storage()
                        .undo_timeout(timeouts.prepare)
                        .add()
                })
                .collect::<Vec<_>>()
        })
        .close();
    let settled = prepared
        .iter()
        .zip(members)
        .map(|((provider, prepared), members)| settle(plan, sources, provider, *prepared, members))
        .collect();
    Taken { settled, verdict: vec![verdict] }
}

/// Plug-in-coordinated: the plug-in freezes, has the hardware provider snap, and thaws.
fn snap(
    plan: &mut PlanBuilder,
    sources: &Sources<'_>,
    prepared: &[(ProviderId, Out<Prepared>)],
) -> Taken {
    let Sources { set, timeouts, .. } = sources;
    let all: Vec<Out<Prepared>> = prepared.iter().map(|(_, step)| *step).collect();
    let natives = plan
        .step(SNAP, Snap::with(session_of(set)))
        .bind(all)
        .on_storage()
        .timeout(timeouts.snap)
        .undo_timeout(timeouts.prepare)
        .add();
    let settled = prepared
        .iter()
        .map(|(provider, prepared)| {
            let adopted = plan
                .step(format!("adopt:{provider}"), Adopt::with(provider.clone()))
                .bind((*prepared, natives))
                .on_storage()
                .timeout(timeouts.settle)
                .retry(timeouts.retry())
                .undo_timeout(timeouts.prepare)
                .add();
            settle(plan, sources, provider, *prepared, adopted)
        })
        .collect();
    Taken { settled, verdict: Vec::new() }
}

/// What a tail has made.
struct Published {
    judged: Out<Judgement>,
    points: Out<BTreeMap<CopyId, PointId>>,
    indexed: Out<()>,
}

/// What all ways share: verification, judgement, publication.
fn tail(
    plan: &mut PlanBuilder,
    sources: &Sources<'_>,
    begin: Out<Session>,
    evidence: Out<SetOutcome>,
    taken: Taken,
    thawed: String,
) -> Result<Published, Failure> {
    let Sources { plan: backup, set, policy, inventory, timeouts, .. } = sources;
    let Taken { settled, verdict } = taken;
    let (reports, looked) = verification(plan, sources, begin, &settled)?;

    let verification_required =
        matches!(policy.verification, Verification::BeforeCompletion { required: true, .. });
    let judge = JudgeParams { floor: policy.quiesce.floor, verification_required };
    let mut judged = plan
        .step("judge", Judge::with(judge))
        .bind((begin, verdict, evidence, settled.clone(), reports))
        .timeout(timeouts.evidence);
    for hidden in looked {
        judged = judged.after(hidden);
    }
    let judged = judged.after_named(thawed).add();
    let verified = hooks(plan, sources, HookPhase::AfterVerify, "judge", Some(judged));

    let publish = PublishParams {
        points: set.members.iter().filter_map(|m| planned_point(inventory, m)).collect(),
        kind: set.kind,
        job: backup.job,
        set: set.token.clone(),
        policy: backup.policy.clone(),
        group: backup.group,
        class: policy.class.clone(),
    };
    let points = plan
        .step("publish", Publish::with(publish))
        .bind((begin, evidence, settled, judged))
        .after_named(verified)
        .timeout(timeouts.publish)
        .retry(timeouts.retry())
        .undo_timeout(timeouts.publish)
        .add();
    let indexed = plan
        .step("index", Index::with(()))
        .bind(points)
        .timeout(timeouts.publish)
        .retry(timeouts.retry())
        .add();
    Ok(Published { judged, points, indexed })
}

/// Looks into what was settled, where the policy wants that before completion: what was found, and the end of it.
#[allow(clippy::type_complexity, reason = "two lists of steps")]
fn verification(
    plan: &mut PlanBuilder,
    sources: &Sources<'_>,
    begin: Out<Session>,
    settled: &[Out<Settled>],
) -> Result<(Vec<Out<Result<VerifyReport, Failure>>>, Vec<Out<Result<(), Failure>>>), Failure> {
    let Sources { set, policy, timeouts, .. } = sources;
    let mut reports = Vec::new();
    let mut looked = Vec::new();
    if let Verification::BeforeCompletion { cap, .. } = policy.verification {
        let inspect = plan
            .step("inspect", Inspect::with(()))
            .bind((begin, settled.to_vec()))
            .timeout(timeouts.evidence)
            .add();
        let providers = set.snapshots.iter().map(|shot| shot.volume.provider.clone());
        let params = ExposeParams {
            key: exposure_key(set)?,
            host: set.host.clone(),
            providers: providers.collect::<BTreeSet<_>>().into_iter().collect(),
        };
        let exposure = plan
            .step("expose", Expose::with(params.clone()))
            .bind(inspect)
            .on_storage()
            .timeout(timeouts.expose)
            .retry(timeouts.retry())
            .undo_timeout(timeouts.expose)
            .optional()
            .add();
        let report = plan
            .step("verify", Check::with(()))
            .bind((exposure, inspect))
            .timeout(cap.unwrap_or(timeouts.verify))
            .optional()
            .add();
        let hidden = plan
            .step("unexpose", Unexpose::with(params))
            .after(report)
            .on_storage()
            .timeout(timeouts.expose)
            .retry(timeouts.retry())
            .optional()
            .add();
        reports.push(report);
        looked.push(hidden);
    }
    Ok((reports, looked))
}

/// The hooks of a phase as steps after the one of this name; the last of them, or that one.
fn hooks(
    plan: &mut PlanBuilder,
    sources: &Sources<'_>,
    phase: HookPhase,
    after: &str,
    judged: Option<Out<Judgement>>,
) -> String {
    let Sources { plan: backup, set, policy, .. } = sources;
    let mut databases: Vec<_> = set.members.iter().map(|member| member.name.clone()).collect();
    databases.sort();
    let call = HookCall {
        hook: Hook::new(phase, ""),
        job: backup.job,
        kind: JobKind::Backup,
        title: backup.title.clone().unwrap_or_else(|| "backup".to_owned()),
        policy: policy.reference(),
        databases,
        host: Some(set.host.clone()),
        outcome: None,
        tally: None,
    };
    let mut steps = HookSteps::new(plan, &call, Some(after));
    steps.add(policy.hooks_of(phase), judged);
    steps.end().unwrap_or_else(|| after.to_owned())
}

/// What the steps of a set's plan may leave behind.
pub(crate) fn leaves(set: &SetPlan) -> Leaves {
    Leaves {
        token: Some(set.token.clone()),
        session: set.kind.takes_database().then(|| session_of(set)),
        exposure: exposure_key(set).ok(),
        points: set.members.iter().map(|member| member.point).collect(),
        restore: None,
    }
}

fn claims(plan: &mut PlanBuilder, set: &SetPlan) -> Result<(), Failure> {
    let thaw = match set.coordination {
        Some(Coordination::Plugin) => SNAP,
        _ => GUARD,
    };
    for claim in &set.claims {
        let _plan = plan.claim(crate::claims::of(claim, Some(thaw))?);
    }
    Ok(())
}

fn confirm_params(sources: &Sources<'_>) -> ConfirmParams {
    let copies: BTreeSet<&CopyId> = sources.set.members.iter().map(|m| &m.copy).collect();
    let databases: BTreeSet<DatabaseId> = copies.iter().map(|copy| copy.database).collect();
    ConfirmParams {
        epoch: restrict(sources.inventory, &databases).structural_epoch(),
        databases,
        placements: sources
            .placements
            .iter()
            .filter(|(copy, _)| copies.contains(copy))
            .map(|(copy, files)| (copy.clone(), files.clone()))
            .collect(),
    }
}

fn set_params(sources: &Sources<'_>, provider: &ProviderId) -> SetParams {
    let Sources { plan, set, timeouts, .. } = sources;
    let mine = || set.snapshots.iter().filter(|shot| shot.volume.provider == *provider);
    let points: Vec<String> = set.members.iter().map(|member| member.point.to_string()).collect();
    SetParams {
        provider: provider.clone(),
        token: set.token.clone(),
        name: mine().next().map_or_else(|| set.token.to_string(), |shot| shot.name.clone()),
        volumes: mine().map(|shot| shot.volume.clone()).collect(),
        limit: set.freeze.and_then(|budget| budget.cutoff()),
        tags: BTreeMap::from([
            ("job".to_owned(), plan.job.to_string()),
            ("run".to_owned(), set.run.to_string()),
            ("points".to_owned(), points.join(",")),
        ]),
        late: timeouts.late,
    }
}

fn exposure_key(set: &SetPlan) -> Result<ExposureKey, Failure> {
    ExposureKey::new(format!("verify-{}", set.run.0.simple())).map_err(plan_defect)
}

fn planned_point(
    inventory: &Inventory,
    member: &stillpoint_model::planning::SetMember,
) -> Option<(CopyId, PlannedPoint)> {
    let database = inventory.databases.get(&member.copy.database)?.clone();
    let copy = inventory.copies.get(&member.copy)?.clone();
    let host = inventory.hosts.get(&member.copy.host).cloned();
    let dag = database.dag.and_then(|id| inventory.dags.get(&id)).cloned();
    Some((member.copy.clone(), PlannedPoint { id: member.point, database, copy, host, dag }))
}
