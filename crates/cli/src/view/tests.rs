//! The JSON forms, held still by golden files. `STILLPOINT_BLESS=1 cargo test -p stillpoint-cli` writes them anew; a
//! change that a script could notice needs another version in the schema.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use chrono::{DateTime, TimeDelta, Utc};
use serde::Serialize;
use stillpoint::catalog::{Debris, DebrisKind};
use stillpoint::workflow::{Claim, ClaimKey, NodeProgress};
use stillpoint::{
    DatabaseRetention, ForgetOptions, LintReport, Rebuilt, ReconcileReport, RetentionTable,
};
use stillpoint::{JobAccount, Lock, ParkedRun, ParkedStep, RunSteps, StepAccount, Stuck, Waiter};
use uuid::Uuid;

use super::*;
use crate::context::{
    Effect, ErrorClass, Failure, HostId, HostPath, IdempotencyKey, JobId, PathFlavor, ProcessId,
    RunId, StepName, Subject,
};
use crate::exit::Exit;
use crate::model::availability::{Availability, Reason};
use crate::model::capability::{PluginCaps, ProviderCaps, VolumeFacts};
use crate::model::chain::LogSegment;
use crate::model::evidence::EvidenceGrain;
use crate::model::group::{ResourceGroup, Selector};
use crate::model::hold::Hold;
use crate::model::hook::{Hook, HookEnd, HookPhase, HookStatus};
use crate::model::id::{
    CopyId, DatabaseId, GroupId, HoldName, PointId, PolicyId, ProviderId, SetToken, SnapshotId,
    SnapshotRef, VolumeId, VolumeRef,
};
use crate::model::inventory::{
    CopyFile, CopyRole, CopyStatus, Database, DatabaseCopy, DatabaseSignature, FileRole,
    Generation, Inventory, LogSignature, LogState,
};
use crate::model::job::{Elsewhere, Job, JobKind, JobMember, JobRun, MemberEnd, RunEnd, RunState};
use crate::model::kind::BackupKind;
use crate::model::placement::{CopyPlacement, PlacementMap};
use crate::model::planning::{Inputs, plan_backup};
use crate::model::point::{
    MemberRole, NewPoint, PointEvidence, PointFact, PointFile, PointLogs, PointMember, PointState,
    RestorePoint, Truncation, Trust,
};
use crate::model::policy::{CopySelection, FrequencyClass, Policy, Retention, Verification};
use crate::model::quiesce::{Held, QuiesceLevel};
use crate::model::reconcile::{Act, Comparison, FoundManifest, KnownPoint, Sight};
use crate::model::request::Trigger;
use crate::model::restore::{RestoreRequest, RestoreTarget, plan_restore};
use crate::model::retention::{Protected, RetentionInputs};
use crate::model::strategy::{LintInputs, Seen, Strategy, budget};
use crate::model::topology::Topology;
use crate::model::verdict::{Finding, FindingKind};
use crate::model::warning::Warning;

fn uuid(number: u128) -> Uuid {
    Uuid::from_u128(number)
}

fn time(minute: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(1_800_000_000, 0).unwrap() + TimeDelta::minutes(minute)
}

fn host() -> HostId {
    HostId::new("localhost").unwrap()
}

fn path(path: &str) -> HostPath {
    HostPath::new(host(), PathFlavor::Posix, path).unwrap()
}

fn volume() -> VolumeRef {
    VolumeRef::new(ProviderId::new("fs").unwrap(), VolumeId::new("/srv/mail").unwrap())
}

fn snapshot() -> SnapshotRef {
    SnapshotRef::new(volume(), SnapshotId::new("sp-1-2").unwrap())
}

fn copy_id(database: u128) -> CopyId {
    CopyId::new(DatabaseId(uuid(database)), host())
}

/// `DB01` is dirty and has its logs; `DB02` has lost some.
fn inventory() -> Inventory {
    let mut inventory = Inventory::new("epoch-1".parse().unwrap(), time(0));
    for (number, name, reasons) in [
        (1, "DB01", vec![]),
        (
            2,
            "DB02",
            vec![Reason::NotRecoverable {
                missing: vec![
                    Generation(0x28)..=Generation(0x28),
                    Generation(0x2a)..=Generation(0x2c),
                ],
            }],
        ),
    ] {
        let mut database = Database::new(DatabaseId(uuid(number)), name);
        database.bytes = Some(2_097_152);
        database.signature = Some(DatabaseSignature([7; 28]));
        let availability = Availability::unavailable(time(0), reasons);
        let mut copy =
            DatabaseCopy::new(copy_id(number), CopyRole::Active, CopyStatus::AtRest, availability);
        copy.files = vec![
            CopyFile::new(path(&format!("/srv/mail/{name}/{name}.edb")), FileRole::Database)
                .with_bytes(2_097_152),
            CopyFile::new(path(&format!("/srv/mail/{name}/E0000000006.log")), FileRole::Log)
                .with_bytes(1_048_576)
                .with_generation(Generation(6)),
        ];
        let mut logs = LogState::new(LogSignature([9; 28]));
        logs.required = Some(Generation(6)..=Generation(7));
        copy.log_state = Some(logs);
        inventory.add_database(database);
        inventory.add_copy(copy);
    }
    inventory
}

fn policy() -> Policy {
    let mut policy = Policy::new(PolicyId(uuid(30)), "daily");
    policy.selection = CopySelection::OnHosts { hosts: vec![host()] };
    policy.retention = Retention::count(14);
    policy.class = FrequencyClass::Daily;
    policy.verification = Verification::AfterCompletion;
    policy.kind = BackupKind::Full;
    let hook = Hook::new(HookPhase::BeforeQuiesce, "quiet/scanner");
    policy.hooks = vec![hook.with_args(["--pause"]).with_variable("TOKEN", "secret")];
    policy
}

fn group() -> ResourceGroup {
    let members =
        vec![Selector::Everything, Selector::Database(DatabaseId(uuid(1))), Selector::Host(host())];
    let mut group = ResourceGroup::new(GroupId(uuid(40)), "mail", members);
    group.policies = vec![policy().id];
    group.naming = Some("{group}_{time}_{run}".to_owned());
    group
}

fn point(number: u128, minute: i64, trust: Trust) -> RestorePoint {
    let evidence = PointEvidence::new(QuiesceLevel::AtRest, Held::Yes, EvidenceGrain::PerDatabase);
    let mut point = RestorePoint::new(NewPoint {
        id: PointId(uuid(number)),
        copy: copy_id(1),
        database_name: "DB01".to_owned(),
        kind: BackupKind::Copy,
        taken_at: time(minute),
        job: JobId(uuid(50)),
        run: RunId(uuid(51)),
        set: SetToken::of(&RunId(uuid(51)), PointId(uuid(number))),
        evidence,
    });
    point.state = PointState::Available;
    point.trust = trust;
    point.truncation = Truncation::NothingEligible { why: "at rest".to_owned() };
    point.members = vec![PointMember::new(snapshot(), "mail_2027", MemberRole::DataAndLog)];
    let required = Some(Generation(6)..=Generation(7));
    let range = Some(Generation(3)..=Generation(8));
    point.logs = Some(PointLogs::new(LogSignature([9; 28]), range, required));
    for (name, role, bytes) in
        [("DB01.edb", FileRole::Database, 2_097_152), ("E0000000006.log", FileRole::Log, 1_048_576)]
    {
        point.files.push(PointFile::new(
            path(&format!("/srv/mail/DB01/{name}")),
            snapshot(),
            role,
            bytes,
        ));
    }
    point
}

fn damage() -> Trust {
    let finding = Finding::new("DB01/DB01.edb", FindingKind::Checksum, "the checksum is wrong")
        .at_page(17)
        .at_offset(589_824)
        .with_jet_error(-1018);
    Trust::Suspect { at: time(90), reason: finding.to_string(), findings: vec![finding] }
}

fn points() -> Vec<RestorePoint> {
    vec![point(61, 0, Trust::Verified { at: time(1) }), point(62, 60, damage())]
}

fn failure() -> Failure {
    Failure::new("restore.damaged", ErrorClass::Integrity, "the stored copy is damaged")
        .with_effect(Effect::None)
        .with_subject(Subject::new("file", "DB01/DB01.edb"))
        .with_subject(Subject::new("page", 17))
        .with_cause("the checksum is wrong")
        .with_remedy("Restore another point.")
}

fn warning() -> Warning {
    Warning::new("placement.blast_radius", "volume fs:/srv/mail holds 2 databases", "Split it.")
        .about("volume", volume())
}

/// A job with every kind of end in it.
fn job() -> Job {
    let key = IdempotencyKey::new("cli/1").unwrap();
    let trigger = Trigger::Manual { user: None };
    let mut job = Job::new(JobId(uuid(50)), JobKind::Backup, key, trigger, time(0));
    job.title = "mail".to_owned();
    job.policy = Some(policy().reference());
    job.planned_at = Some(time(0));
    job.ended_at = Some(time(2));
    job.warnings = vec![warning()];
    let mut run = JobRun::new(RunId(uuid(51)), time(0));
    run.state = RunState::Ended(RunEnd::NeedsAttention);
    run.started_at = Some(time(1));
    run.ended_at = Some(time(2));
    run.failure = Some(failure());
    run.warnings = vec![warning()];
    run.debris = vec!["snapshots sp-1-2".to_owned()];
    let ends = [
        None,
        Some(MemberEnd::Point { point: PointId(uuid(61)), suspect: false }),
        Some(MemberEnd::Point { point: PointId(uuid(62)), suspect: true }),
        Some(MemberEnd::Done),
        Some(MemberEnd::Failed { failure: failure() }),
    ];
    for (number, end) in (1..).zip(ends) {
        let mut member = JobMember::new(DatabaseId(uuid(number)), format!("DB{number:02}"));
        member.copy = Some(copy_id(number));
        member.end = end;
        run.members.push(member);
    }
    job.runs.push(run);
    job.skipped.push(JobMember::skipped(DatabaseId(uuid(9)), "DB09", failure()));
    job
}

/// Compares a report with its golden files: `<name>.json` and `<name>.txt`.
pub(super) fn check<R: Report>(name: &str, report: &R) {
    #[derive(Serialize)]
    struct Document<'a, R> {
        schema: &'static str,
        #[serde(flatten)]
        body: &'a R,
    }
    let json = serde_json::to_string_pretty(&Document { schema: R::SCHEMA, body: report }).unwrap();
    let mut text = String::new();
    report.text(&mut text);
    for (extension, found) in [("json", json + "\n"), ("txt", text)] {
        let file = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join(format!("tests/golden/views/{name}.{extension}"));
        if std::env::var_os("STILLPOINT_BLESS").is_some() {
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(&file, &found).unwrap();
        }
        let golden = std::fs::read_to_string(&file)
            .unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        assert_eq!(found, golden, "{name}.{extension} changed; see the head of this file");
    }
}

#[test]
fn jobs() {
    check("jobs", &JobsView::list(&[job()]));
    check("job", &JobsView::one(&job()));
}

#[test]
fn a_job_of_which_others_have_a_part() {
    let mut job = job();
    (job.runs, job.skipped, job.ended_at, job.planned_at) = (vec![], vec![], None, None);
    job.held = vec![Elsewhere::new(DatabaseId(uuid(1)), "DB01", JobId(uuid(60)))];
    job.coalesced = vec![Elsewhere::new(DatabaseId(uuid(2)), "DB02", JobId(uuid(61)))];
    check("job_elsewhere", &JobsView::one(&job));
}

fn stuck() -> ParkedStep {
    let failure = Failure::new("exchange.timed_out", ErrorClass::Unavailable, "it does not answer")
        .with_remedy("Look at the server.");
    let mut stuck = ParkedStep::new(Some(step("freeze")), Stuck::ExitOwed, failure);
    stuck.since = Some(time(3));
    stuck
}

fn step(name: &str) -> StepName {
    StepName::new(name).unwrap()
}

fn claim() -> Claim {
    Claim::exclusive(ClaimKey::new("host/localhost/freeze").unwrap()).until(step("freeze"))
}

fn lock() -> Lock {
    let why = "backup on localhost; parked: freeze: an exit is owed: it does not answer";
    let mut lock = Lock::new(claim(), RunId(uuid(51)), why);
    lock.job = Some(JobId(uuid(50)));
    lock.since = Some(time(1));
    lock.stuck = Some(Stuck::ExitOwed);
    let mut waiter = Waiter::new(RunId(uuid(53)), "backup on localhost");
    waiter.job = Some(JobId(uuid(52)));
    waiter.since = Some(time(4));
    lock.waiting = vec![waiter, Waiter::new(RunId(uuid(54)), "of the embedder")];
    lock
}

fn debris() -> Vec<Debris> {
    let token = SetToken::of(&RunId(uuid(51)), PointId(uuid(61)));
    let kind = DebrisKind::Snapshots(token);
    let message = "maybe snapshots of step prepare:fs: the storage does not answer";
    let one = Debris::new("1", RunId(uuid(51)), kind, message, time(5))
        .of_job(JobId(uuid(50)))
        .owed_by(step("prepare:fs"))
        .maybe(true);
    let kind = DebrisKind::Other("a clone".to_owned());
    vec![one, Debris::new("2", RunId(uuid(54)), kind, "it was left", time(6))]
}

#[test]
fn what_waits_for_the_operator() {
    let process = ProcessId(uuid(70));
    let mut known = ParkedRun::new(RunId(uuid(51)), process, "backup on localhost", vec![stuck()]);
    known.job = Some(JobId(uuid(50)));
    known.claims = vec![claim()];
    known.waiting = vec![RunId(uuid(53))];
    let newer = ParkedStep::new(None, Stuck::StoredFormat, failure());
    let unread = ParkedRun::new(RunId(uuid(55)), process, "", vec![newer]);
    check("parked", &ParkedView::of(&[known, unread]));
    let kept = Claim::shared(ClaimKey::new("volume/fs").unwrap());
    check("locks", &LocksView::of(&[lock(), Lock::new(kept, RunId(uuid(54)), "of the embedder")]));
    check("debris", &DebrisView::of(&debris()));

    let mut parked = job();
    parked.ended_at = None;
    parked.runs[0].state = RunState::Parked;
    let mut account = JobAccount::new(parked);
    let mut inside = StepAccount::new(step("commit:fs"), NodeProgress::Done, 1);
    inside.within = Some(step("freeze"));
    let mut tried = StepAccount::new(step("begin"), NodeProgress::Done, 3);
    tried.failure = Some(failure());
    let mut hook = StepAccount::new(step("hook:before_quiesce:1"), NodeProgress::Done, 1);
    let end = HookEnd::new(HookStatus::Exited(3)).with_output("busy\u{1b}[31m\nagain\n", 4096);
    hook.hook = Some(end);
    let freeze = StepAccount::new(step("freeze"), NodeProgress::Parked, 1);
    let steps = vec![hook, tried, freeze, inside];
    let mut run = RunSteps::new(RunId(uuid(51)), steps);
    run.parked = vec![stuck()];
    account.runs = vec![run];
    account.locks = vec![lock()];
    account.debris = debris();
    check("job_account", &JobsView::account(&account));
}

#[test]
fn topology() {
    check("topology", &TopologyView::of(&Topology::of(Some(&inventory()), &points())));
    check("topology_of_catalog", &TopologyView::of(&Topology::of(None, &points())));
}

#[test]
fn windows() {
    // A stretch of logs, a suspect point, logs that are missing, and another stream.
    let mut points = vec![point(61, 0, Trust::Unverified), point(62, 60, Trust::Unverified)];
    points.extend([point(63, 120, damage()), point(64, 180, Trust::Unverified)]);
    for (point, (first, last)) in points.iter_mut().zip([(3, 8), (9, 12), (1, 2), (20, 21)]) {
        let logs = point.logs.as_mut().unwrap();
        logs.range = Some(Generation(first)..=Generation(last));
        logs.required = Some(Generation(last)..=Generation(last));
    }
    points[2].logs = None;
    let topology = Topology::of(Some(&inventory()), &points);
    check("windows", &WindowsView::of(&topology, None));
    points[3].logs.as_mut().unwrap().signature = LogSignature([8; 28]);
    let topology = Topology::of(Some(&inventory()), &points[..]);
    check("windows_of_one", &WindowsView::of(&topology, Some(DatabaseId(uuid(1)))));
}

#[test]
fn lint() {
    let (inventory, mut group, mut daily) = (inventory(), group(), policy());
    let mut by_hand = policy();
    (by_hand.id, by_hand.name) = (PolicyId(uuid(31)), "by hand".to_owned());
    by_hand.retention = Retention::default();
    group.policies.push(by_hand.id);
    daily.retention = Retention::count(96);
    let mut placement = PlacementMap::new();
    placement.insert(copy_id(1), CopyPlacement::new(volume(), volume()));
    let mut facts = VolumeFacts::new(volume(), QuiesceLevel::AtRest, None);
    facts.snapshot_limit = std::num::NonZeroU32::new(100);
    let volumes = BTreeMap::from([(volume(), facts)]);
    let (groups, policies) = ([group], [daily, by_hand]);
    let strategy = Strategy::new(&groups, &policies, &[], time(0));
    let seen = Seen::new(&inventory, &placement, &volumes);
    let mut inputs = LintInputs::new(strategy);
    inputs.seen = Some(seen);
    let findings = stillpoint::model::strategy::lint(&inputs);
    let report = LintReport::new(time(0), findings, budget(&strategy, &seen));
    let view = LintView::of(&report);
    check("lint", &view);
    assert_eq!(view.exit(), Exit::Failed);
    let nothing = LintView::of(&LintReport::new(time(0), vec![], vec![]));
    check("lint_nothing", &nothing);
    assert_eq!(nothing.exit(), Exit::Done);
}

#[test]
fn discover() {
    check("discover", &DiscoverView::of(Path::new("/srv/mail"), &inventory()));
}

#[test]
fn verify() {
    let topology = Topology::of(None, &points());
    let checked = PointView::some(&topology, &[PointId(uuid(62))]);
    check("verify", &VerifyView::of(&job(), checked));
}

#[test]
fn prune() {
    // Two that the rules let go, of which the storage has locked one, one that is held, one on its way, and those that stay.
    let mut points: Vec<RestorePoint> = (61..67)
        .map(|number| point(number, 60 * (i64::try_from(number).unwrap() - 60), Trust::Unverified))
        .collect();
    let mut policy = policy();
    policy.retention = Retention::count(2);
    for point in &mut points {
        point.kind = BackupKind::FullAndLog;
        point.policy = Some(policy.reference());
    }
    let expiring =
        PointFact::Expiring { point: points[2].id, at: time(400), turn: 1, keeps_logs: false };
    points[2] = expiring.apply(Some(points[2].clone())).unwrap().unwrap();
    points[1].policy = None;
    let locked = Protected { locked_until: Some(time(10_000)), ..Protected::default() };
    let held = Protected { holds: ["case-7".to_owned()].into(), ..Protected::default() };
    let protected = BTreeMap::from([(points[0].id, locked), (points[1].id, held)]);
    let segments: Vec<LogSegment> = points.iter().filter_map(LogSegment::of).collect();
    let policies = [policy];
    let mut inputs = RetentionInputs::new(time(500));
    inputs.points = &points;
    inputs.segments = &segments;
    inputs.policies = &policies;
    inputs.protected = &protected;
    let known = DatabaseRetention::of(DatabaseId(uuid(1)), "DB01", &inputs);
    let names = BTreeMap::from([(policies[0].id, policies[0].name.clone())]);
    let table = RetentionTable::new(time(500), vec![known], names);
    check("prune_plan", &PruneView::of(&table, None));
    check("prune_job", &PruneView::of(&table, Some(&job())));
}

#[test]
fn reconcile() {
    let set = |number| SetToken::of(&RunId(uuid(51)), PointId(uuid(number)));
    let at = |name: &str| SnapshotRef::new(volume(), SnapshotId::new(name).unwrap());
    let lost = BTreeSet::from([at("sp-61")]);
    let mut known: Vec<KnownPoint> =
        (61..64).map(|number| KnownPoint::of(&point(number, 60, Trust::Unverified))).collect();
    for (known, name) in known.iter_mut().zip(["sp-61", "sp-62", "sp-63"]) {
        known.members = [at(name)].into();
    }
    known[2].state = PointState::Expiring;
    let mut sight = Sight::at(time(500), Some(TimeDelta::days(7)));
    sight.seen = [volume()].into();
    let adopted = point(64, 60, Trust::Unverified);
    let mut found = KnownPoint::of(&adopted);
    found.members = [at("sp-64")].into();
    sight.snapshots = vec![
        (at("sp-62"), Some(known[1].set.clone())),
        (at("sp-64"), Some(found.set.clone())),
        (at("sp-65"), Some(set(65))),
        (at("theirs"), None),
    ];
    let mut removed = KnownPoint::of(&point(67, 60, Trust::Unverified));
    removed.members = [at("sp-67")].into();
    sight.snapshots.push((at("sp-67"), Some(removed.set.clone())));
    sight.removed = [removed.point].into();
    sight.manifests = vec![
        FoundManifest::new(found.point, Ok(found)),
        FoundManifest::new(removed.point, Ok(removed)),
        FoundManifest::new(PointId(uuid(66)), Err("it ends too early".to_owned())),
    ];
    sight.noted = [(set(65), time(100))].into();
    sight.points = known;
    let comparison = Comparison::of(&sight);
    let marks = comparison.acts().into_values().flatten();
    assert!(
        marks
            .into_iter()
            .any(|act| act == Act::Mark { point: PointId(uuid(61)), lost: lost.clone() })
    );
    let limits = vec!["volume fs:/srv/old: it does not answer".to_owned()];
    let report = ReconcileReport::new(time(500), comparison, limits);
    check("reconcile", &ReconcileView::of(&report, None));
    check("reconcile_job", &ReconcileView::of(&report, Some(&job())));
    let clean = ReconcileReport::new(time(500), Comparison::default(), Vec::new());
    check("reconcile_clean", &ReconcileView::of(&clean, None));
}

#[test]
fn rebuild() {
    let mut rebuilt = Rebuilt::default();
    rebuilt.points = [PointId(uuid(61)), PointId(uuid(62))].into();
    rebuilt.known = 3;
    rebuilt.holds = [HoldName::new("case-7").unwrap()].into();
    rebuilt.forks = [RunId(uuid(70))].into();
    rebuilt.clock = Some(time(10));
    rebuilt.skipped = vec!["the manifest of 63: it ends too early".to_owned()];
    check("rebuild", &RebuildView::of(&rebuilt));
    check("catalogue", &BackedUpView::of(Path::new("/srv/copy.db"), 4096));
    let mut options = ForgetOptions::before(time(10));
    check("forget", &ForgottenView::of(1, &options));
    options.dry_run = true;
    check("forget_plan", &ForgottenView::of(20, &options));
}

#[test]
fn a_missing_point_is_told_of() {
    let mut points = points();
    let lost = points[0].members.iter().map(|member| member.snapshot.clone()).collect();
    let missing = PointFact::Missing { point: points[0].id, at: time(90), lost };
    points[0] = missing.apply(Some(points[0].clone())).unwrap().unwrap();
    assert!(points[0].is_missing(), "{:?}", points[0].members);
    check("topology_missing", &TopologyView::of(&Topology::of(None, &points)));
}

#[test]
fn notify() {
    let sent = [("ops".to_owned(), None), ("log".to_owned(), Some(failure()))];
    check("notify", &NotifyView::of(&sent));
}

#[test]
fn holds() {
    let hold = |name: &str, points: &[u128]| {
        let points = points.iter().map(|number| PointId(uuid(*number))).collect();
        Hold::new(HoldName::new(name).unwrap(), points, "a case", "legal", time(0))
    };
    let holds = [hold("audit", &[61]).until(time(10)), hold("case-7", &[61, 62]).until(time(1000))];
    check("hold", &HoldsView::of(&holds, time(100)));
    check("hold_dry_run", &HoldsView::of_dry_run(&holds[1], time(100)));
}

#[test]
fn policies_and_groups() {
    check("policy", &PoliciesView::of([&policy(), &Policy::new(PolicyId(uuid(31)), "archive")]));
    check("group", &GroupsView::of([&group()], &[policy()]));
}

#[test]
fn backup() {
    let (inventory, policy, group) = (inventory(), policy(), group());
    let mut placement = PlacementMap::new();
    for copy in inventory.copies.keys() {
        placement.insert(copy.clone(), CopyPlacement::new(volume(), volume()));
    }
    let plan = plan_backup(&Inputs {
        now: time(0),
        job: JobId(uuid(50)),
        round: 0,
        members: &group.members,
        group: Some(&group),
        policy: &policy,
        kind: None,
        selection: None,
        inventory: &inventory,
        max_inventory_age: None,
        placement: &placement,
        plugin: &PluginCaps::new("files"),
        providers: &BTreeMap::from([(volume().provider, ProviderCaps::new(volume().provider))]),
        volumes: &BTreeMap::from([(
            volume(),
            VolumeFacts::new(volume(), QuiesceLevel::AtRest, None),
        )]),
        fulls: &BTreeMap::new(),
        coalesced: &[],
        under_way: &[],
        reserve: 0,
        state: &[],
    })
    .unwrap();
    check("backup_plan", &BackupView::plan(&plan));
    check("backup_job", &BackupView::job(&job()));
}

#[test]
fn restore() {
    let key = IdempotencyKey::new("cli/2").unwrap();
    let target = RestoreTarget::AlternatePath(path("/srv/restored"));
    let request = RestoreRequest::new(key, PointId(uuid(61)), target);
    let plan = plan_restore(&request, &points()[0]).unwrap();
    check("restore_plan", &RestoreView::of(&plan, None));
    check("restore_job", &RestoreView::of(&plan, Some(&job())));
}

#[test]
fn doctor() {
    let mut view = DoctorView::default();
    view.ok("state", "/srv/stillpoint.db is in order");
    view.add("store", Level::Warning, "copies are made in full", "Put the store on btrfs.");
    assert_eq!(view.exit(), Exit::Warnings);
    view.add("source", Level::Error, "there is no folder /srv/mail [source.not_found]", "Name it.");
    assert_eq!(view.exit(), Exit::Failed);
    check("doctor", &view);
}

#[test]
fn what_a_check_found() {
    use std::time::Duration;
    use stillpoint_testkit::conformance::{Outcome, Verdict};
    let verdict =
        |name, outcome| Verdict { name, contract: "S3", rule: "`delete` is idempotent.", outcome };
    let mut view = CheckView::new(Side::Provider, Path::new("/srv/mail"));
    view.name = Some("btrfs".to_owned());
    view.store = Some("/srv/store".to_owned());
    view.storage = Some("btrfs");
    view.ability("instant", true, "take a snapshot without copying data");
    view.ability(
        "replicate",
        false,
        "replicate snapshots: copy the store elsewhere by other means",
    );
    let times = [7, 4, 5].map(Duration::from_millis);
    view.time("commit", times.into());
    view.time("settle", Vec::new());
    view.measured = Some(MeasuredView { files: 2, bytes: 4096, of_files: 3, of_bytes: 2_097_152 });
    let (limit, worst) = (Duration::from_secs(8), Duration::from_millis(120));
    view.freeze =
        Some(FitView::new(limit, Some(worst), true, "a snapshot fits into a freeze of 8s"));
    view.case(&verdict("deleting_again_succeeds", Outcome::Passed));
    view.case(&verdict(
        "what_is_held_is_refused",
        Outcome::Skipped("the place cannot hold snapshots"),
    ));
    view.add("space", Level::Ok, "8.0 GiB free", "");
    assert_eq!(view.close(), Exit::Done);
    check("check_good", &view);
    view.add("database DB02", Level::Warning, "it is dirty [resource.dirty]", "Find its logs.");
    assert_eq!(view.close(), Exit::Warnings);
    let flaw = Outcome::Failed("a call failed: it is gone (storage.not_found)".to_owned());
    view.case(&verdict("removing_leaves_other_sets", flaw));
    assert_eq!(view.close(), Exit::Failed);
    view.left_behind.push("/srv/.stillpoint-check-1: it is busy".to_owned());
    assert_eq!(view.close(), Exit::Attention);
    check("check_bad", &view);
}

#[test]
fn protect() {
    let view = ProtectView {
        source: "/srv/mail".to_owned(),
        state: "/srv/stillpoint.db".to_owned(),
        store: "/srv/stillpoint.store".to_owned(),
        demo: true,
        kept: true,
        found: 2,
        refused: refused(&inventory()),
        backup: JobView::of(&job()),
        verification: Some(JobView::of(&job())),
        restores: vec![JobView::of(&job())],
        comparison: Some(ComparisonView {
            restored_to: "/srv/restored".to_owned(),
            files: 2,
            bytes: 3_145_728,
            different: Vec::new(),
        }),
        jobs: JobsView::list(&[job()]),
        topology: TopologyView::of(&Topology::of(Some(&inventory()), &points())),
    };
    check("protect", &view);
}

#[test]
fn every_schema_and_every_field_is_documented() {
    let document = include_str!("../../docs/json.md");
    let mut schemas = BTreeSet::new();
    for kind in ["views", "runs"] {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(kind);
        for entry in std::fs::read_dir(folder).unwrap() {
            let file = entry.unwrap().path();
            if file.extension().is_none_or(|extension| extension != "json") {
                continue;
            }
            let mut value: serde_json::Value =
                serde_json::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
            let schema = value["schema"].as_str().unwrap().to_owned();
            assert!(document.contains(&format!("## `{schema}`")), "{schema} is not documented");
            // The fields of a header are those of the library, and documented there.
            if schema == EseHeaderView::SCHEMA && value.get("header").is_some() {
                value["header"] = serde_json::Value::Null;
            }
            schemas.insert(schema);
            let mut open = vec![&value];
            while let Some(value) = open.pop() {
                match value {
                    serde_json::Value::Object(fields) => {
                        for (name, value) in fields {
                            let is_there = document.contains(&format!("`{name}`"));
                            assert!(is_there, "{}: {name} is not documented", file.display());
                            open.push(value);
                        }
                    }
                    serde_json::Value::Array(items) => open.extend(items),
                    _ => {}
                }
            }
        }
    }
    assert!(schemas.len() >= 15, "only these schemas were looked at: {schemas:?}");
}
