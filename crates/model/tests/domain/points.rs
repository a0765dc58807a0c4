//! Restore points through their life: facts, manifests, chains, topology, restores, jobs.

use chrono::{DateTime, TimeDelta, Utc};
use proptest::prelude::*;
use stillpoint_context::{
    ErrorClass, ErrorFacts, Failure, HostPath, IdempotencyKey, JobId, PathFlavor, RunId,
};
use stillpoint_model::chain::{Bound, LogSegment, reach};
use stillpoint_model::evidence::{Document, EvidenceGrain};
use stillpoint_model::id::{CopyId, PointId, SetToken, SnapshotId, SnapshotRef};
use stillpoint_model::inventory::{CopyRole, FileRole, Generation, LogSignature};
use stillpoint_model::job::{
    Job, JobKind, JobMember, JobRun, JobState, MemberEnd, RunEnd, RunState,
};
use stillpoint_model::kind::BackupKind;
use stillpoint_model::manifest::Manifest;
use stillpoint_model::point::{
    MemberRole, NewPoint, PointEvidence, PointFact, PointFile, PointLogs, PointMember, PointState,
    RestorePoint, Truncation, Trust,
};
use stillpoint_model::policy::OnPartial;
use stillpoint_model::quiesce::{Held, QuiesceLevel};
use stillpoint_model::request::Trigger;
use stillpoint_model::restore::{RecoverTo, RestoreRequest, RestoreTarget, plan_restore};
use stillpoint_model::seal::SealWriter;
use stillpoint_model::topology::{Protection, Topology};
use stillpoint_model::verdict::{Finding, FindingKind};
use stillpoint_model::warning::Warning;
use uuid::Uuid;

use super::world::{World, db, host, now, seed, volume};

fn at(minutes: i64) -> DateTime<Utc> {
    now() + TimeDelta::minutes(minutes)
}

fn stream(byte: u8) -> LogSignature {
    LogSignature([byte; 28])
}

fn path(raw: &str) -> HostPath {
    HostPath::new(host("ex1"), PathFlavor::Posix, raw).unwrap()
}

/// A point taken after `minutes` with the logs `first..=last`, of which it needs the last.
fn point(number: u128, minutes: i64, first: u32, last: u32) -> RestorePoint {
    let (run, id) = (RunId(Uuid::from_u128(500 + number)), PointId(Uuid::from_u128(number)));
    let mut evidence = PointEvidence::new(QuiesceLevel::App, Held::Yes, EvidenceGrain::PerDatabase);
    evidence.frozen_at = Some(at(minutes));
    let mut point = RestorePoint::new(NewPoint {
        id,
        copy: CopyId::new(db(1), host("ex1")),
        database_name: "DB01".into(),
        kind: BackupKind::FullAndLog,
        taken_at: at(minutes),
        job: JobId(Uuid::from_u128(77)),
        run,
        set: SetToken::of(&run, id),
        evidence,
    });
    let snapshot =
        SnapshotRef::new(volume("sim:d1"), SnapshotId::new(format!("s{number}")).unwrap());
    point.members.push(PointMember::new(
        snapshot.clone(),
        format!("stillpoint_{number}"),
        MemberRole::DataAndLog,
    ));
    let mut file =
        PointFile::new(path("/mail/db01/DB01.edb"), snapshot.clone(), FileRole::Database, 9);
    let mut seal = SealWriter::new(9);
    seal.update(b"nine byte");
    file.seal = Some(seal.finish());
    point.files.push(file);
    let mut log = PointFile::new(path("/mail/db01/E00.log"), snapshot, FileRole::Log, 4);
    log.generation = Some(Generation(last));
    point.files.push(log);
    point.logs = Some(PointLogs::new(
        stream(1),
        Some(Generation(first)..=Generation(last)),
        Some(Generation(last)..=Generation(last)),
    ));
    point
}

#[test]
fn a_manifest_is_stored_as_it_always_was() {
    let mut world = World::new();
    let copy = world.copy(1, "ex1", CopyRole::Active, "sim:d1", "sim:d1");
    let mut manifest = Manifest::new("stillpoint 0.1.0", point(1, 0, 3, 5));
    manifest.database = world.inventory.databases.get(&db(1)).cloned();
    manifest.copy = world.inventory.copies.get(&copy).cloned();
    manifest.host = world.inventory.hosts.get(&host("ex1")).cloned();
    manifest.documents.push(Document::new("bcd.xml", "application/xml", "<b/>"));
    let text = manifest.to_json().unwrap();
    let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/manifest-1.json");
    if std::env::var_os("STILLPOINT_BLESS").is_some() {
        std::fs::write(golden, &text).unwrap();
    }
    let stored = std::fs::read_to_string(golden).unwrap();
    assert_eq!(text, stored, "the stored form changed; raise its format, keep reading the old one");
    assert_eq!(Manifest::from_json(&stored).unwrap(), manifest);
}

#[test]
fn a_manifest_of_the_future_is_refused_and_unknown_fields_are_not() {
    let text = Manifest::new("x", point(1, 0, 1, 1)).to_json().unwrap();
    let newer = Manifest::from_json(r#"{"format": 2, "what": "ever"}"#).unwrap_err();
    assert_eq!(newer.code(), "manifest.newer_format");
    assert!(newer.to_string().contains('2') && newer.to_string().contains('1'));
    let more = text.replacen('{', r#"{"added_later": 1,"#, 1);
    assert!(Manifest::from_json(&more).is_ok());
    for bad in ["", "{}", "[]", &text[..text.len() / 2]] {
        assert_eq!(Manifest::from_json(bad).unwrap_err().code(), "manifest.malformed");
    }
}

#[test]
fn facts_can_be_told_again_and_never_take_anything_back() {
    let published = PointFact::Published(Box::new(point(1, 0, 1, 1)));
    let id = published.point();
    let completed =
        PointFact::Completed { point: id, at: at(1), truncation: Truncation::Requested };
    let good = PointFact::Checked { point: id, trust: Trust::Verified { at: at(2) } };
    let suspect = PointFact::Checked {
        point: id,
        trust: Trust::Suspect {
            at: at(3),
            reason: "a bad page".into(),
            findings: vec![
                Finding::new("DB01.edb", FindingKind::Checksum, "bad")
                    .at_page(7)
                    .with_jet_error(-1018),
            ],
        },
    };
    let confirmed = PointFact::Truncated {
        point: id,
        at: at(4),
        truncation: Truncation::Confirmed { oldest_present: Some(Generation(9)) },
    };
    let story = [published, completed, good, suspect, confirmed];
    let mut known = None;
    for told in 0..story.len() {
        known = story[told].apply(known).unwrap();
        // Everything up to here, once more, in order.
        let mut again = known.clone();
        for fact in &story[..=told] {
            again = fact.apply(again).unwrap();
        }
        assert_eq!(again, known, "after fact {told}");
    }
    let point = known.unwrap();
    assert_eq!(point.state, PointState::Available);
    assert_eq!(point.trust.word(), "suspect");
    assert!(matches!(point.truncation, Truncation::Confirmed { .. }));

    let late = PointFact::Completed { point: id, at: at(9), truncation: Truncation::Unknown };
    assert_eq!(late.apply(None).unwrap_err().code(), "point.unknown");
    assert_eq!(late.apply(Some(point.clone())), Ok(Some(point.clone())), "it ended once");
    let mut other = point.clone();
    other.copy = CopyId::new(db(2), host("ex1"));
    let other = PointFact::Published(Box::new(other)).apply(Some(point.clone()));
    assert_eq!(other.unwrap_err().code(), "point.different");
    assert_eq!(PointFact::Removed { point: id, at: at(9) }.apply(Some(point)), Ok(None));
}

#[test]
fn later_logs_roll_a_point_forward_until_something_is_missing() {
    let first = point(1, 0, 3, 5);
    let bound = |others: &[RestorePoint]| {
        let segments: Vec<LogSegment> =
            [&first].into_iter().chain(others).filter_map(LogSegment::of).collect();
        let reach = reach(&first, &segments, false);
        (reach.last.unwrap().0, reach.until, reach.bound)
    };
    assert_eq!(bound(&[]), (5, at(0), Bound::EndOfLogs));
    let (next, later) = (point(2, 10, 4, 7), point(3, 20, 8, 9));
    assert_eq!(bound(&[later.clone(), next.clone()]), (9, at(20), Bound::EndOfLogs));
    let gap = Bound::Gap { missing: Generation(6)..=Generation(7) };
    assert_eq!(bound(std::slice::from_ref(&later)), (5, at(0), gap));
    let one = Bound::Gap { missing: Generation(6)..=Generation(6) };
    assert_eq!(bound(&[point(2, 10, 7, 9)]), (5, at(0), one));
    let mut fork = point(4, 30, 1, 2);
    fork.logs.as_mut().unwrap().signature = stream(2);
    assert_eq!(bound(&[next, later, fork]), (9, at(20), Bound::Forked { at: at(30) }));
    assert_eq!(reach(&first, &[], true).bound, Bound::CircularLogging);
}

proptest! {
    #![proptest_config(seed::seeded("a_reach_is_what_can_be_replayed"))]

    #[test]
    fn a_reach_is_what_can_be_replayed(
        parts in prop::collection::vec((1i64..100, 1u32..30, 0u32..6), 0..10),
    ) {
        let first = point(1000, 0, 3, 5);
        let others = parts
            .into_iter()
            .enumerate()
            .map(|(n, (minutes, first, more))| point(n as u128, minutes, first, first + more));
        let segments: Vec<LogSegment> = std::iter::once(first.clone())
            .chain(others)
            .filter_map(|point| LogSegment::of(&point))
            .collect();
        // The slow way: one generation after the other, as long as somebody has it.
        let has = |generation: u32| {
            segments.iter().any(|segment| segment.range.contains(&Generation(generation)))
        };
        let last = (5..1000).take_while(|generation| has(*generation)).last().unwrap();
        let reach = reach(&first, &segments, false);
        prop_assert_eq!(reach.last, Some(Generation(last)));
        let more = segments.iter().any(|segment| segment.range.start().0 > last);
        prop_assert_eq!(matches!(reach.bound, Bound::Gap { .. }), more);
        prop_assert!(reach.until >= reach.from);
    }
}

#[test]
fn the_topology_shows_what_exists_and_what_is_kept() {
    let mut world = World::new();
    world.copy(1, "ex1", CopyRole::Active, "sim:d1", "sim:l1");
    world.copy(1, "ex2", CopyRole::Passive, "sim:d2", "sim:l2");
    world.copy(2, "ex1", CopyRole::Active, "sim:d3", "sim:l3");
    let mut points = [point(1, 0, 3, 5), point(2, 10, 6, 7)];
    // A backup that is not over protects nobody.
    let early = Topology::of(Some(&world.inventory), &points);
    assert_eq!(early.databases[0].protection, Protection::NotProtected);
    points[0].state = PointState::Available;
    let topology = Topology::of(Some(&world.inventory), &points);
    let words: Vec<_> =
        topology.databases.iter().map(|d| (d.name.as_str(), d.protection)).collect();
    assert_eq!(words, [("DB01", Protection::Protected), ("DB02", Protection::NotProtected)]);
    assert_eq!(topology.databases[0].copies.len(), 2);
    assert_eq!(topology.databases[0].points[0].taken_at, at(10), "newest first");
    assert_eq!(topology.hosts().len(), 2);

    // The source is gone; the points are not.
    let alone = Topology::of(None, &points);
    assert_eq!((alone.databases.len(), alone.databases[0].exists), (1, None));
    let json = serde_json::to_string(&alone).unwrap();
    assert_eq!(serde_json::from_str::<Topology>(&json).unwrap(), alone);
    assert!(alone.to_string().contains("13 bytes"), "{alone}");
}

fn restore(target: RestoreTarget) -> RestoreRequest {
    let key = IdempotencyKey::new("r1").unwrap();
    RestoreRequest::new(key, PointId(Uuid::from_u128(1)), target)
}

#[test]
fn a_restore_keeps_the_files_places_to_each_other() {
    let mut point = point(1, 0, 3, 5);
    point.state = PointState::Available;
    point.files[1].path = path("/mail/logs/E00.log");
    let folder = HostPath::new(host("lab"), PathFlavor::Windows, r"R:\out").unwrap();
    let plan = plan_restore(&restore(RestoreTarget::AlternatePath(folder)), &point).unwrap();
    let to: Vec<&str> = plan.files.iter().map(|file| file.to.as_str()).collect();
    assert_eq!(to, [r"R:\out\db01\DB01.edb", r"R:\out\logs\E00.log"]);
    assert_eq!(plan.bytes, 13);
    assert!(plan.claims.iter().any(|claim| claim.key.ends_with("/live")));

    let plan = plan_restore(&restore(RestoreTarget::InPlace), &point).unwrap();
    assert_eq!(plan.files[0].to, path("/mail/db01/DB01.edb"));
    assert!(plan.claims.iter().any(|claim| claim.key.ends_with("/live")));

    // From drives of Windows to one folder.
    let windows = |raw: &str| HostPath::new(host("ex1"), PathFlavor::Windows, raw).unwrap();
    point.files[0].path = windows(r"D:\DB01\DB01.edb");
    point.files[1].path = windows(r"L:\DB01\E00.log");
    let plan = plan_restore(&restore(RestoreTarget::AlternatePath(path("/r"))), &point).unwrap();
    let to: Vec<&str> = plan.files.iter().map(|file| file.to.as_str()).collect();
    assert_eq!(to, ["/r/D/DB01/DB01.edb", "/r/L/DB01/E00.log"]);
}

#[test]
fn a_restore_is_refused_without_its_override() {
    let mut point = point(1, 0, 3, 5);
    let mut request = restore(RestoreTarget::AlternatePath(path("/r")));
    let code = |request: &RestoreRequest, point: &RestorePoint| {
        plan_restore(request, point).unwrap_err().code().to_string()
    };
    assert_eq!(code(&request, &point), "restore.provisional");
    point.state = PointState::Available;
    point.trust = Trust::Suspect { at: at(1), reason: "page 7".into(), findings: vec![] };
    assert_eq!(code(&request, &point), "restore.suspect");
    request.accept_suspect = true;
    let plan = plan_restore(&request, &point).unwrap();
    assert_eq!(plan.warnings[0].code, "restore.suspect");
    request.recover_to = RecoverTo::UpToTheMinute;
    assert_eq!(code(&request, &point), "restore.point_only");
    request.recover_to = RecoverTo::Point;
    point.kind = BackupKind::Log;
    assert_eq!(code(&request, &point), "restore.logs_only");
    point.kind = BackupKind::Full;
    point.files[1].path = point.files[0].path.clone();
    assert_eq!(code(&request, &point), "restore.same_path");
    point.files.clear();
    assert_eq!(code(&request, &point), "restore.no_files");
}

fn job(runs: &[RunState]) -> Job {
    let key = IdempotencyKey::new("k").unwrap();
    let mut job = Job::new(JobId(Uuid::from_u128(1)), JobKind::Backup, key, Trigger::Api, now());
    job.planned_at = Some(now());
    for (number, state) in runs.iter().enumerate() {
        let mut run = JobRun::new(RunId(Uuid::from_u128(number as u128)), now());
        run.state = *state;
        job.runs.push(run);
    }
    job
}

#[test]
fn the_state_of_a_job_is_that_of_its_runs() {
    use RunEnd::{Cancelled, Failed, NeedsAttention, Succeeded, SucceededWithWarnings};
    use RunState::{Cancelling, Ended, Parked, Queued, Running};
    for (runs, state) in [
        (&[][..], JobState::Succeeded),
        (&[Ended(Succeeded), Ended(Succeeded)], JobState::Succeeded),
        (&[Ended(Succeeded), Queued], JobState::Queued),
        (&[Ended(Failed), Running, Queued], JobState::Running),
        (&[Running, Cancelling], JobState::Cancelling),
        (&[Cancelling, Parked, Ended(NeedsAttention)], JobState::Parked),
        (&[Ended(Succeeded), Ended(Failed)], JobState::SucceededWithWarnings),
        (&[Ended(SucceededWithWarnings)], JobState::SucceededWithWarnings),
        (&[Ended(Failed), Ended(Failed)], JobState::Failed),
        (&[Ended(Succeeded), Ended(Cancelled)], JobState::Cancelled),
        (&[Ended(Failed), Ended(NeedsAttention)], JobState::NeedsAttention),
    ] {
        assert_eq!(job(runs).state(), state, "{runs:?}");
    }

    let failure = Failure::new("x.y", ErrorClass::Internal, "no");
    let mut partial = job(&[Ended(Succeeded), Ended(Failed)]);
    partial.on_partial = OnPartial::Fail;
    assert_eq!(partial.state(), JobState::Failed);

    // A missed freeze that was tried again does not count.
    let mut retried = job(&[Ended(Failed), Ended(Succeeded)]);
    retried.runs[0].superseded_by = Some(retried.runs[1].run);
    assert_eq!(retried.state(), JobState::Succeeded);

    // One whose successor never came to be counts.
    retried.runs[0].superseded_by = Some(RunId(Uuid::from_u128(99)));
    assert_eq!(retried.state(), JobState::SucceededWithWarnings);
    assert_eq!(retried.counted().count(), 2);
    let mut paused = job(&[Ended(Failed)]);
    paused.runs[0].superseded_by = Some(RunId(Uuid::from_u128(99)));
    assert_eq!(paused.state(), JobState::Failed);

    // While more runs may come the job is not over, whatever its runs say.
    for end in [Failed, Cancelled, Succeeded, NeedsAttention] {
        let mut between = job(&[Ended(end)]);
        between.planned_at = None;
        assert_eq!(between.state(), JobState::Running, "{end:?}");
    }

    // Stopped before everything was begun: what was left out was cancelled.
    for (end, state) in [
        (Failed, JobState::Cancelled),
        (Succeeded, JobState::Cancelled),
        (NeedsAttention, JobState::NeedsAttention),
    ] {
        let mut stopped = job(&[Ended(end)]);
        stopped.stopped_by = Some("somebody".to_owned());
        assert_eq!(stopped.state(), state, "{end:?}");
    }
    let mut never = job(&[]);
    never.stopped_by = Some("somebody".to_owned());
    never.failure = Some(failure.clone());
    assert_eq!(never.state(), JobState::Cancelled);

    // A failing follow-up is a warning.
    let mut follow_up = job(&[Ended(Succeeded), Ended(Failed)]);
    follow_up.runs[1].follow_up = true;
    assert_eq!(follow_up.state(), JobState::SucceededWithWarnings);

    // So is a suspect member, a skipped one, and a warning.
    let mut suspect = job(&[Ended(Succeeded)]);
    let mut member = JobMember::new(db(1), "DB01");
    member.end = Some(MemberEnd::Point { point: PointId(Uuid::from_u128(1)), suspect: true });
    suspect.runs[0].members.push(member);
    assert_eq!(suspect.state(), JobState::SucceededWithWarnings);
    assert_eq!(suspect.tally(), (0, 1));
    let mut skipped = job(&[Ended(Succeeded)]);
    skipped.skipped.push(JobMember::skipped(db(2), "DB02", failure.clone()));
    assert_eq!(skipped.state(), JobState::SucceededWithWarnings);
    let mut warned = job(&[Ended(Succeeded)]);
    warned.warnings.push(Warning::new("a.b", "look", "Look."));
    assert_eq!(warned.state(), JobState::SucceededWithWarnings);

    // Nothing could be done at all.
    let mut refused = job(&[]);
    refused.skipped.push(JobMember::skipped(db(2), "DB02", failure.clone()));
    assert_eq!(refused.state(), JobState::Failed);
    let mut unplanned = job(&[]);
    unplanned.planned_at = None;
    assert_eq!(unplanned.state(), JobState::Queued);
    unplanned.failure = Some(failure);
    assert_eq!(unplanned.state(), JobState::Failed);
    let json = serde_json::to_string(&suspect).unwrap();
    assert_eq!(serde_json::from_str::<Job>(&json).unwrap(), suspect);
}
