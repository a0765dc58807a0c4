//! The JSON forms, held still by golden files. `STILLPOINT_BLESS=1 cargo test -p stillpoint-cli` writes them anew; a
//! change that a script could notice needs another version in the schema.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;
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
use crate::model::policy::{
    CopySelection, FrequencyClass, Gfs, OnMiss, Policy, Retention, Verification,
};
use crate::model::quiesce::{Held, QuiesceLevel};
use crate::model::reconcile::{Act, Comparison, FoundManifest, KnownPoint, Sight};
use crate::model::request::Trigger;
use crate::model::restore::{RestoreRequest, RestoreTarget, plan_restore};
use crate::model::retention::{Protected, RetentionInputs};
use crate::model::strategy::{LintInputs, Seen, Strategy, budget};
use crate::model::topology::Topology;
use crate::model::verdict::{Finding, FindingKind};
use crate::model::warning::Warning;

mod keeping;
mod operating;
mod planning;

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
