//! Stored formats: what is written today reads tomorrow as it does here.

use std::collections::BTreeSet;
use std::path::Path;

use chrono::{DateTime, Utc};
use stillpoint_context::HostPath;
use stillpoint_model::handover::{ExposedRoot, Exposure, MemberRole};
use stillpoint_model::id::{ExposureKey, SetToken};
use stillpoint_model::seal::{Seal, SealWriter};
use stillpoint_storage::{ProviderErrorKind, RestoreKey};

use super::support::{assert_kind, snapshot_ref};
use crate::disk::Inode;
use crate::format::{
    ExposureRecord, Method, Phase, Plan, PlanFile, PlanMember, RestoreFile, RestoreRecord, SetFile,
    SetMember, SetRecord, StoreMark, Stored, Taken, TakenFile, TakenMember, decode, encode,
};

fn at(text: &str) -> DateTime<Utc> {
    text.parse().unwrap()
}

fn path(text: &str) -> HostPath {
    HostPath::from_native("lab".parse().unwrap(), Path::new(text)).unwrap()
}

fn seal(bytes: &[u8]) -> Seal {
    let mut seal = SealWriter::new(bytes.len() as u64);
    seal.update(bytes);
    seal.finish()
}

/// What is written is the golden file to the byte, and the golden file reads as it.
#[track_caller]
fn golden<T: Stored + PartialEq + std::fmt::Debug>(name: &str, content: &T, golden: &str) {
    let written = String::from_utf8(encode(content).unwrap()).unwrap();
    assert_eq!(written, golden, "{name} is written differently now");
    let read: T = decode(golden.as_bytes(), Path::new(name)).unwrap().unwrap();
    assert_eq!(read, *content, "{name} is read differently now");
    // Fields of a newer minor writer are ignored, a newer version is not guessed at, another format is not ours.
    let more = golden.replacen("\"content\": {", "\"content\": { \"later\": 1,", 1);
    assert_eq!(decode::<T>(more.as_bytes(), Path::new(name)).unwrap().as_ref(), Some(content));
    let newer = golden.replacen("\"version\": 1", "\"version\": 2", 1);
    let newer = decode::<T>(newer.as_bytes(), Path::new(name));
    assert_kind(newer, &ProviderErrorKind::Unsupported("stored format"));
    let other = golden.replacen("stillpoint.fs", "somebody.fs", 1);
    assert_eq!(decode::<T>(other.as_bytes(), Path::new(name)).unwrap(), None);
    let torn = decode::<T>(&golden.as_bytes()[..golden.len() / 2], Path::new(name)).unwrap();
    assert_eq!(torn, None);
}

#[test]
fn set_json() {
    let record = SetRecord {
        token: SetToken::new("sp-1-2").unwrap(),
        nonce: "8c1f".into(),
        name: "stillpoint_2026-11-22".into(),
        tags: [("run".to_owned(), "r1".to_owned())].into(),
        created_at: at("2026-11-22T10:00:00Z"),
        members: vec![SetMember {
            volume: "mail".parse().unwrap(),
            role: MemberRole::DataAndLog,
            root: path("/srv/mail"),
            real_root: path("/mnt/disk1/mail"),
            taken_at: at("2026-11-22T10:00:00.25Z"),
            deleted: false,
            subvolume: None,
            holds: BTreeSet::new(),
            locked_until: None,
            files: vec![SetFile {
                path: "DB 01/Größe.edb".into(),
                bytes: 8,
                method: Method::Copy,
                mode: 0o640,
                modified: at("2026-11-21T09:00:00.000000001Z"),
                seal: Some(seal(b"precious")),
            }],
        }],
    };
    golden("set.json", &record, include_str!("golden/set.json"));
}

#[test]
fn plan_json_and_taken_json() {
    let plan = Plan {
        token: SetToken::new("sp-1-2").unwrap(),
        nonce: "8c1f".into(),
        name: "stillpoint_2026-11-22".into(),
        tags: [("run".to_owned(), "r1".to_owned())].into(),
        limit_ms: Some(10_000),
        worst_case_ms: Some(120),
        members: vec![PlanMember {
            volume: "mail".parse().unwrap(),
            role: MemberRole::Data,
            root: path("/srv/mail"),
            real_root: path("/srv/mail"),
            subvolume: None,
            files: vec![PlanFile { path: "DB01.edb".into(), method: Method::Reflink }],
        }],
    };
    golden("plan.json", &plan, include_str!("golden/plan.json"));
    let taken = Taken {
        nonce: "8c1f".into(),
        boot: "4fb0".into(),
        members: vec![TakenMember {
            taken_at: at("2026-11-22T10:00:00Z"),
            files: vec![
                TakenFile {
                    path: "DB01.edb".into(),
                    bytes: 8,
                    mode: 0o600,
                    modified: at("2026-11-21T09:00:00Z"),
                    seal: None,
                },
                TakenFile {
                    path: "E00.log".into(),
                    bytes: 0,
                    mode: 0o600,
                    modified: at("2026-11-21T09:00:00Z"),
                    seal: Some(seal(b"")),
                },
            ],
        }],
    };
    golden("taken.json", &taken, include_str!("golden/taken.json"));
}

#[test]
fn store_exposure_and_restore_json() {
    let mark = StoreMark { made_by: "stillpoint-storage-fs 0.1.0".into() };
    golden("store.json", &mark, include_str!("golden/store.json"));
    let exposure = ExposureRecord {
        exposure: Exposure::new(
            ExposureKey::new("verify-1").unwrap(),
            "lab".parse().unwrap(),
            vec![ExposedRoot::new(
                snapshot_ref("data", "sp-1-2"),
                path("/srv/mail"),
                path("/var/store/sets/sp-1-2/m0"),
            )],
        ),
    };
    golden("exposure.json", &exposure, include_str!("golden/exposure.json"));
    let restore = RestoreRecord {
        key: RestoreKey::new("restore-1").unwrap(),
        replace: true,
        phase: Phase::Publishing,
        folders: vec!["/srv/mail/.stillpoint-restore-restore-1".into()],
        made: vec!["/srv/mail/new".into()],
        files: vec![RestoreFile {
            snapshot: snapshot_ref("data", "sp-1-2"),
            original: path("/srv/mail/DB01.edb"),
            target: path("/srv/mail/new/DB01.edb"),
            place: "/mnt/disk1/mail/new/DB01.edb".into(),
            staged: "/srv/mail/.stillpoint-restore-restore-1/new/0/DB01.edb".into(),
            kept: "/srv/mail/.stillpoint-restore-restore-1/kept/0/DB01.edb".into(),
            new: Some(Inode { device: 7, number: 42 }),
            old: None,
        }],
    };
    golden("restore.json", &restore, include_str!("golden/restore.json"));
}
