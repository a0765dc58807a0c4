//! What lies beside the data besides manifests: standings, holds and forks; and what a storage has lost.

use std::collections::BTreeSet;

use chrono::{DateTime, TimeDelta, Utc};
use stillpoint_context::{ErrorFacts, HostId, JobId, RunId};
use stillpoint_model::evidence::EvidenceGrain;
use stillpoint_model::fork::{self, ChainFork, branch_after};
use stillpoint_model::hold::{self, Hold};
use stillpoint_model::id::{
    CopyId, DatabaseId, HoldName, PointId, SetToken, SnapshotId, SnapshotRef,
};
use stillpoint_model::inventory::Generation;
use stillpoint_model::kind::BackupKind;
use stillpoint_model::manifest::{self, Manifest};
use stillpoint_model::point::{
    MemberRole, NewPoint, PointEvidence, PointFact, PointMember, PointState, RestorePoint,
    Truncation, Trust,
};
use stillpoint_model::quiesce::{Held, QuiesceLevel};
use stillpoint_model::standing::{self, Standing};
use uuid::Uuid;

fn at(minutes: i64) -> DateTime<Utc> {
    let start: DateTime<Utc> = "2026-01-01T00:00:00Z".parse().unwrap();
    start + TimeDelta::minutes(minutes)
}

fn snapshot(name: &str) -> SnapshotRef {
    SnapshotRef::new("sim:vol".parse().unwrap(), SnapshotId::new(name).unwrap())
}

/// A point with a snapshot of its data and one of its logs.
fn point() -> RestorePoint {
    let (id, run) = (PointId(Uuid::from_u128(1)), RunId(Uuid::from_u128(2)));
    let database = DatabaseId(Uuid::from_u128(3));
    let mut point = RestorePoint::new(NewPoint {
        id,
        copy: CopyId::new(database, HostId::new("ex1").unwrap()),
        database_name: "DB01".into(),
        kind: BackupKind::FullAndLog,
        taken_at: at(0),
        job: JobId(Uuid::from_u128(4)),
        run,
        set: SetToken::of(&run, id),
        evidence: PointEvidence::new(QuiesceLevel::App, Held::Yes, EvidenceGrain::PerDatabase),
    });
    for (name, role) in [("data", MemberRole::Data), ("logs", MemberRole::Log)] {
        point.members.push(PointMember::new(snapshot(name), name, role));
    }
    point
}

/// The point after these facts.
fn after(facts: &[PointFact]) -> RestorePoint {
    let told = facts.iter().try_fold(Some(point()), |known, fact| fact.apply(known));
    told.unwrap().unwrap()
}

fn missing(minutes: i64, lost: &[&str]) -> PointFact {
    let lost = lost.iter().map(|name| snapshot(name)).collect();
    PointFact::Missing { point: point().id, at: at(minutes), lost }
}

fn back(minutes: i64) -> PointFact {
    PointFact::Found { point: point().id, at: at(minutes) }
}

#[test]
fn a_point_is_missing_until_it_is_found_whatever_is_told_again() {
    let story =
        [missing(1, &["data"]), missing(2, &["data", "logs"]), back(3), missing(4, &["logs"])];
    let (mut facts, mut seen) = (Vec::new(), Vec::new());
    for fact in &story {
        facts.push(fact.clone());
        let known = after(&facts);
        // Everything again, in order, and each of them once more.
        let again: Vec<PointFact> = facts.iter().chain(&facts).cloned().collect();
        assert_eq!(after(&again), known);
        for earlier in &facts {
            assert_eq!(earlier.apply(Some(known.clone())).unwrap(), Some(known.clone()));
        }
        let loss = known.loss.as_ref().unwrap();
        seen.push((known.is_missing(), known.has_lost_logs(), loss.since == at(1)));
    }
    assert_eq!(
        seen,
        [(true, false, true), (true, true, true), (false, false, false), (true, true, false)]
    );
    // Of two looks at one instant the one that missed something counts, in either order.
    let both = [[missing(5, &["data"]), back(5)], [back(5), missing(5, &["data"])]];
    let [one, other] = both.map(|facts| {
        let before = [vec![missing(4, &["logs"])], facts.to_vec()].concat();
        after(&before)
    });
    assert!(one.is_missing() && other.is_missing());
    assert_eq!(one.loss.unwrap().lost, other.loss.unwrap().lost);
    // One that never lost anything has nothing to say of it.
    assert_eq!(after(&[back(1)]).loss, None);
    assert!(missing(1, &["data"]).apply(None).is_err());
}

/// A point of which much became.
fn told() -> RestorePoint {
    let id = point().id;
    let story = [
        PointFact::Completed { point: id, at: at(1), truncation: Truncation::Requested },
        PointFact::Checked { point: id, trust: Trust::Verified { at: at(2) } },
        PointFact::Expiring { point: id, at: at(3), turn: 1, keeps_logs: true },
        PointFact::Spared { point: id, at: at(4), turn: 1 },
        missing(5, &["logs"]),
    ];
    after(&story)
}

fn golden(name: &str, text: &str) -> String {
    let path = format!("{}/tests/golden/{name}", env!("CARGO_MANIFEST_DIR"));
    if std::env::var_os("STILLPOINT_BLESS").is_some() {
        std::fs::write(&path, text).unwrap();
    }
    let stored = std::fs::read_to_string(&path).unwrap();
    assert_eq!(text, stored, "the stored form changed; raise its format, keep reading the old one");
    stored
}

#[test]
fn a_standing_is_stored_as_it_always_was() {
    let standing = Standing::of(&told());
    let stored = golden("standing-1.json", &standing.to_json().unwrap());
    assert_eq!(Standing::from_json(&stored).unwrap(), standing);
    assert_eq!(standing.latest(), Some(at(5)));
    assert_eq!(standing::document_name(point().id), format!("standing-{}.json", point().id));
    for bad in ["", "{}", &stored[..stored.len() / 2]] {
        assert_eq!(Standing::from_json(bad).unwrap_err().code(), "manifest.malformed");
    }
    let newer = Standing::from_json(r#"{"format": 2}"#).unwrap_err();
    assert_eq!(newer.code(), "manifest.newer_format");
}

#[test]
fn a_manifest_and_a_standing_make_the_point_that_was_told() {
    let text = Manifest::new("test", point()).to_json().unwrap();
    let mut read = Manifest::from_json(&text).unwrap().point;
    Standing::of(&told()).apply(&mut read);
    assert_eq!(read, told());
    // Of another point it says nothing.
    let mut other = point();
    other.id = PointId(Uuid::from_u128(9));
    let before = other.clone();
    Standing::of(&told()).apply(&mut other);
    assert_eq!(other, before);
    // A manifest of the logs alone is newer than a standing that has the database.
    let id = point().id;
    let reduced = after(&[
        PointFact::Completed { point: id, at: at(1), truncation: Truncation::Requested },
        PointFact::Expiring { point: id, at: at(3), turn: 1, keeps_logs: true },
        PointFact::Reduced { point: id, at: at(4), turn: 1, manifest_digest: None },
    ]);
    let mut read = reduced.clone();
    Standing::of(&after(&[PointFact::Completed {
        point: id,
        at: at(1),
        truncation: Truncation::Requested,
    }]))
    .apply(&mut read);
    assert_eq!((read.state, read.expiry), (PointState::LogsOnly, reduced.expiry));
}

#[test]
fn documents_are_known_by_their_names() {
    let id = point().id;
    assert_eq!(manifest::point_of(&manifest::document_name(id)), Some(id));
    for other in ["point-1.json", "point-", "standing-1.json", &standing::document_name(id)] {
        assert_eq!(manifest::point_of(other), None, "{other}");
    }
    assert!(hold::is_document(&hold::document_name(&HoldName::new("case-7").unwrap())));
    assert!(!hold::is_document(&manifest::document_name(id)));
}

#[test]
fn a_hold_is_stored_as_it_always_was() {
    let name = HoldName::new("case-7").unwrap();
    let hold = Hold::new(name, [point().id].into(), "a case", "legal", at(7)).until(at(1000));
    let stored = golden("hold-1.json", &hold.to_json().unwrap());
    assert_eq!(Hold::from_json(&stored).unwrap(), hold);
    assert_eq!(Hold::from_json(r#"{"format": 2}"#).unwrap_err().code(), "manifest.newer_format");
    assert_eq!(Hold::from_json("{").unwrap_err().code(), "manifest.malformed");
}

#[test]
fn a_fork_is_stored_as_it_always_was() {
    let run = RunId(Uuid::from_u128(12));
    let mut fork = ChainFork::new(run, DatabaseId(Uuid::from_u128(11)), at(7), point().id);
    fork.replayed_to = Some(Generation(0x1a3));
    let stored = golden("fork-1.json", &fork.to_json().unwrap());
    assert_eq!(ChainFork::from_json(&stored).unwrap(), fork);
    assert_eq!(
        ChainFork::from_json(r#"{"format": 2}"#).unwrap_err().code(),
        "manifest.newer_format"
    );
    assert_eq!(ChainFork::from_json("{").unwrap_err().code(), "manifest.malformed");
    let name = fork::document_name(run);
    assert!(fork::is_document(&name) && !fork::is_document("hold-case-7.json"), "{name}");
    assert_eq!((branch_after(&[]), branch_after(std::slice::from_ref(&fork))), (0, 1));
}

#[test]
fn of_a_hold_that_is_told_in_two_ways_all_is_kept() {
    let name = HoldName::new("case-7").unwrap();
    let hold = |points: &[u128], since| {
        let points: BTreeSet<PointId> =
            points.iter().map(|point| PointId(Uuid::from_u128(*point))).collect();
        Hold::new(name.clone(), points, "a case", "legal", since)
    };
    let (one, other) = (hold(&[1, 2], at(1)).until(at(50)), hold(&[2, 3], at(2)).until(at(90)));
    let both = one.clone().and(&other);
    assert_eq!(both, other.clone().and(&one));
    assert_eq!((both.points.len(), both.until, both.since), (3, Some(at(90)), at(2)));
    assert_eq!(one.and(&hold(&[4], at(0))).until, None);
}
