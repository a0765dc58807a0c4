//! The plug-in over folders of our own making: what is found, what a session sees, what verification finds.

// Links, pipes, permissions and odd names are those of Unix.
#![cfg(unix)]
// Helpers of tests may panic as tests do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]

mod support;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File, OpenOptions},
    future::Future,
    io::Write,
    os::unix::fs::{FileExt, PermissionsExt},
    path::{Path, PathBuf},
    pin::pin,
    sync::Arc,
    task::{Context, Waker},
    time::Duration,
};

use stillpoint_context::{Cx, ErrorFacts, FencingToken, HostId, HostPath};
use stillpoint_ese::{
    Generation as EseGeneration, GenerationRange, PageSize,
    write::{DatabaseSpec, ExchangeSet, LogStreamSpec, Noise},
};
use stillpoint_exchange::{
    BackupKind, Cause, Completion, CopyId, DatabaseId, ExchangePlugin, ExchangeRestore, Exposure,
    Held, Inventory, PluginErrorKind, QuiesceLevel, RequiredFile, RestoreSpec, Scope, Session,
    SessionId, SessionSpec, SessionState, Truncation, Verdict, VerifyFile, VerifySpec,
};
use stillpoint_exchange_files::FilesPlugin;
use stillpoint_model::{
    availability::Reason,
    evidence::EvidenceGrain,
    handover::ExposedRoot,
    id::{ExposureKey, SnapshotId, SnapshotRef},
    inventory::{CopyStatus, DatabaseCopy, FileRole, Generation},
    quiesce::Consistency,
    seal::{Seal, SealWriter},
    verdict::FindingKind,
};
use support::{Bench, block_on};
use tempfile::TempDir;

const LEASE: Duration = Duration::from_mins(10);

/// A folder, a plug-in over it, and a machine to run it on.
struct Lab {
    folder: TempDir,
    plugin: FilesPlugin,
    bench: Bench,
}

impl Lab {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let plugin = FilesPlugin::new(folder.path(), host()).unwrap();
        Self { folder, plugin, bench: Bench::new() }
    }

    /// With one small set in it.
    fn with_set() -> Self {
        let lab = Self::new();
        set().write_to(lab.folder.path()).unwrap();
        lab
    }

    fn path(&self, below: &str) -> PathBuf {
        self.plugin.root().join(below)
    }

    fn dir(&self, below: &str) -> PathBuf {
        let path = self.path(below);
        fs::create_dir_all(&path).unwrap();
        path
    }

    fn cx(&self) -> Cx {
        self.bench.cx()
    }

    fn inventory(&self) -> Inventory {
        block_on(self.plugin.inventory(&self.cx(), &Scope::Everything)).unwrap()
    }

    fn begin(&self, copies: Vec<CopyId>) -> Session {
        let spec = SessionSpec::new(session_id(1), BackupKind::FullAndLog, copies, LEASE);
        block_on(self.plugin.begin(&self.cx(), &spec)).unwrap()
    }

    fn freeze(&self) {
        block_on(self.plugin.freeze(&self.cx(), session_id(1), None)).unwrap();
    }

    fn thaw(&self) {
        block_on(self.plugin.thaw(&self.cx(), session_id(1))).unwrap();
    }

    fn held(&self, copy: &CopyId) -> Held {
        block_on(self.plugin.evidence(&self.cx(), session_id(1))).unwrap().held(copy)
    }

    fn state(&self) -> SessionState {
        block_on(self.plugin.session(&self.cx(), session_id(1))).unwrap()
    }
}

fn host() -> HostId {
    HostId::new("lab").unwrap()
}

fn set() -> ExchangeSet {
    ExchangeSet::new(7).with_page_size(PageSize::KIB_4).with_pages(40).with_log_segments(8)
}

fn session_id(number: u128) -> SessionId {
    SessionId(uuid::Uuid::from_u128(number))
}

fn copy_named<'a>(inventory: &'a Inventory, name: &str) -> &'a DatabaseCopy {
    let database = inventory.database_named(name).unwrap_or_else(|| {
        let names: Vec<_> = inventory.databases.values().map(|database| &database.name).collect();
        panic!("no {name} in {names:?}")
    });
    inventory.active_copy(database.id).unwrap()
}

fn names(copy: &DatabaseCopy) -> Vec<&str> {
    copy.files.iter().filter_map(|file| file.path.file_name()).collect()
}

fn missing(copy: &DatabaseCopy) -> Vec<(u32, u32)> {
    match copy.availability.reasons.first() {
        Some(Reason::NotRecoverable { missing }) => {
            missing.iter().map(|range| (range.start().0, range.end().0)).collect()
        }
        other => panic!("{other:?}"),
    }
}

fn code(error: &stillpoint_exchange::PluginError) -> String {
    error.code().to_string()
}

// Discovery.

#[test]
fn a_set_is_found_by_content_and_paired_by_signature() {
    let lab = Lab::with_set();
    fs::rename(lab.path("DB01.edb"), lab.path("mail.bin")).unwrap();
    fs::write(lab.path("E00res00001.jrs"), vec![0; 32768]).unwrap();
    fs::write(lab.path("notes.txt"), "buy milk").unwrap();
    let inventory = lab.inventory();
    assert_eq!(inventory.databases.len(), 1);
    let copy = copy_named(&inventory, "mail");
    assert!(copy.availability.is_available(), "{:?}", copy.availability);
    assert_eq!(copy.availability.expires_at, None);
    assert_eq!(copy.status, CopyStatus::AtRest);
    assert_eq!(
        names(copy),
        [
            "mail.bin",
            "E0000000003.log",
            "E0000000004.log",
            "E0000000005.log",
            "E0000000006.log",
            "E0000000007.log",
            "E00.log",
            "E00.chk"
        ]
    );
    assert_eq!(copy.files[5].generation, Some(Generation(7)));
    assert_eq!(copy.files[6].generation, None);
    assert_eq!(copy.log_prefix.as_deref(), Some("E00"));
    let state = copy.log_state.clone().unwrap();
    assert_eq!(state.required, Some(Generation(6)..=Generation(7)));
    assert_eq!(state.committed, Some(Generation(8)));
    assert_eq!(state.oldest_present, Some(Generation(3)));
    assert_eq!(state.last_closed, Some(Generation(7)));
    assert_eq!(state.open, Some(Generation(8)));
    let database = &inventory.databases[&copy.id.database];
    assert_eq!(database.bytes, Some(42 * 4096));
    assert!(database.signature.is_some());
    // The same folder gives the same inventory, and a plan made of it holds.
    assert_eq!(lab.inventory().epoch, inventory.epoch);
    assert_eq!(lab.inventory().copies, inventory.copies);
}

#[test]
fn identity_is_signature_and_place_wherever_the_folder_is_mounted() {
    let lab = Lab::new();
    set().write_to(&lab.dir("a")).unwrap();
    let other = Lab::new();
    set().write_to(&other.dir("a")).unwrap();
    let id = |lab: &Lab| copy_named(&lab.inventory(), "DB01").id.clone();
    assert_eq!(id(&lab), id(&other));
    fs::rename(other.path("a"), other.path("b")).unwrap();
    assert_ne!(id(&lab), id(&other));
}

#[test]
fn two_databases_of_one_signature_keep_to_their_own_logs() {
    let lab = Lab::new();
    for place in ["a", "b"] {
        let written = set().write_to(&lab.dir(place)).unwrap();
        // Data and logs in folders of their own, as servers have them.
        for sub in ["data", "logs"] {
            lab.dir(&format!("{place}/{sub}"));
        }
        fs::rename(&written.database, lab.path(&format!("{place}/data/DB01.edb"))).unwrap();
        for file in written.logs.iter().chain([&written.checkpoint]) {
            let name = file.file_name().unwrap();
            fs::rename(file, lab.path(&format!("{place}/logs")).join(name)).unwrap();
        }
    }
    let inventory = lab.inventory();
    assert_eq!(inventory.databases.len(), 2);
    for place in ["a", "b"] {
        let copy = copy_named(&inventory, &format!("{place}/data/DB01.edb"));
        assert!(copy.availability.is_available(), "{:?}", copy.availability);
        assert_eq!(copy.files.len(), 8);
        let root = lab.path(place);
        for file in &copy.files {
            assert!(file.path.as_str().starts_with(root.to_str().unwrap()), "{}", file.path);
        }
    }
    // A clone that lost its logs does not take the other's.
    fs::remove_dir_all(lab.path("b/logs")).unwrap();
    let inventory = lab.inventory();
    assert_eq!(missing(copy_named(&inventory, "b/data/DB01.edb")), [(6, 7)]);
    assert!(copy_named(&inventory, "a/data/DB01.edb").availability.is_available());
}

/// Where the system files have a folder of their own, the checkpoint lies in neither of the others.
#[test]
fn a_checkpoint_is_paired_by_signature_and_then_by_what_is_nearest() {
    let lab = Lab::new();
    for place in ["a", "b"] {
        let written = set().write_to(&lab.dir(place)).unwrap();
        for sub in ["data", "logs", "system"] {
            lab.dir(&format!("{place}/{sub}"));
        }
        fs::rename(&written.database, lab.path(&format!("{place}/data/DB01.edb"))).unwrap();
        for log in &written.logs {
            let name = log.file_name().unwrap();
            fs::rename(log, lab.path(&format!("{place}/logs")).join(name)).unwrap();
        }
        fs::rename(&written.checkpoint, lab.path(&format!("{place}/system/E00.chk"))).unwrap();
    }
    // One of another stream, however near, and one of the right stream under another name, are not it.
    let other = ExchangeSet::new(99).with_page_size(PageSize::KIB_4).with_pages(8);
    let other = other.with_log_segments(8).write_to(&lab.dir("other")).unwrap();
    fs::rename(&other.checkpoint, lab.path("a/logs/E00.chk")).unwrap();
    fs::copy(lab.path("a/system/E00.chk"), lab.path("a/system/A-copy.chk")).unwrap();
    let checkpoint = |name: &str| {
        let inventory = lab.inventory();
        let copy = copy_named(&inventory, name);
        assert!(copy.availability.is_available(), "{:?}", copy.availability);
        let files = copy.files.iter().filter(|file| file.role == FileRole::Checkpoint);
        let paths: Vec<_> = files.map(|file| PathBuf::from(file.path.as_str())).collect();
        assert!(paths.len() < 2, "{paths:?}");
        paths.first().cloned()
    };
    for place in ["a", "b"] {
        let expected = lab.path(&format!("{place}/system/E00.chk"));
        assert_eq!(checkpoint(&format!("{place}/data/DB01.edb")), Some(expected));
    }
    // A clone that lost its own does not take the other's.
    fs::remove_file(lab.path("b/system/E00.chk")).unwrap();
    assert_eq!(checkpoint("b/data/DB01.edb"), None);
    // In the stream's own folder it is nearest.
    fs::copy(lab.path("a/system/E00.chk"), lab.path("b/logs/E00.chk")).unwrap();
    fs::copy(lab.path("a/system/E00.chk"), lab.path("b/system/E00.chk")).unwrap();
    assert_eq!(checkpoint("b/data/DB01.edb"), Some(lab.path("b/logs/E00.chk")));
    // And beside the database as near.
    fs::remove_file(lab.path("b/logs/E00.chk")).unwrap();
    fs::rename(lab.path("b/system/E00.chk"), lab.path("b/data/E00.chk")).unwrap();
    assert_eq!(checkpoint("b/data/DB01.edb"), Some(lab.path("b/data/E00.chk")));
}

#[test]
fn streams_that_lie_equally_near_are_ambiguous() {
    let lab = Lab::with_set();
    for copy in ["one", "two"] {
        for entry in fs::read_dir(lab.plugin.root()).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "log") {
                fs::copy(&path, lab.dir(copy).join(path.file_name().unwrap())).unwrap();
            }
        }
    }
    // In its own folder a stream is nearest.
    assert!(copy_named(&lab.inventory(), "DB01").availability.is_available());
    for entry in fs::read_dir(lab.plugin.root()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "log") {
            fs::remove_file(path).unwrap();
        }
    }
    let inventory = lab.inventory();
    let reasons = &copy_named(&inventory, "DB01").availability.reasons;
    assert!(matches!(reasons.as_slice(), [Reason::Ambiguous { .. }]), "{reasons:?}");
}

#[test]
fn missing_and_spoiled_logs_are_named() {
    let lab = Lab::with_set();
    fs::remove_file(lab.path("E0000000006.log")).unwrap();
    assert_eq!(missing(copy_named(&lab.inventory(), "DB01")), [(6, 6)]);
    // Not needed, not missed.
    let lab = Lab::with_set();
    fs::remove_file(lab.path("E0000000004.log")).unwrap();
    assert!(copy_named(&lab.inventory(), "DB01").availability.is_available());
    // There by name, but without a header.
    let log = OpenOptions::new().write(true).open(lab.path("E0000000007.log")).unwrap();
    log.write_all_at(&[0xAA; 64], 40).unwrap();
    let inventory = lab.inventory();
    let copy = copy_named(&inventory, "DB01");
    assert_eq!(missing(copy), [(7, 7)]);
    assert!(
        matches!(&copy.availability.reasons[1], Reason::Damaged { file, .. }
            if file.file_name() == Some("E0000000007.log")),
        "{:?}",
        copy.availability
    );
    // A log of another history under the right name.
    let lab = Lab::with_set();
    let stream = LogStreamSpec::new(8, EseGeneration::new(7), EseGeneration::new(7))
        .with_current(false)
        .with_segments(8);
    fs::write(lab.path("E0000000007.log"), stream.logs().next().unwrap().bytes).unwrap();
    assert_eq!(missing(copy_named(&lab.inventory(), "DB01")), [(7, 7)]);
}

#[test]
fn committed_logs_that_are_missing_cost_work_only() {
    let lab = Lab::with_set();
    fs::remove_file(lab.path("E00.log")).unwrap();
    let inventory = lab.inventory();
    let copy = copy_named(&inventory, "DB01");
    assert!(copy.availability.is_available());
    let report = lab.verify(&lab.plan(std::slice::from_ref(copy)), false);
    let report = &report.copies[&copy.id];
    assert_eq!(report.verdict, Verdict::Good);
    assert!(report.notes.iter().any(|note| note.contains("-582")), "{:?}", report.notes);
}

#[test]
fn a_clean_database_needs_no_logs() {
    let lab = Lab::new();
    set().with_clean(true).write_to(lab.plugin.root()).unwrap();
    for entry in fs::read_dir(lab.plugin.root()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "log") {
            fs::remove_file(path).unwrap();
        }
    }
    let inventory = lab.inventory();
    let copy = copy_named(&inventory, "DB01");
    assert!(copy.availability.is_available());
    assert!(copy.log_state.as_ref().unwrap().is_clean());
    assert_eq!(names(copy), ["DB01.edb"]);
}

#[test]
fn scopes_are_kept() {
    let lab = Lab::with_set();
    let id = copy_named(&lab.inventory(), "DB01").id.database;
    let count = |scope: Scope| {
        let inventory = block_on(lab.plugin.inventory(&lab.cx(), &scope)).unwrap();
        (inventory.hosts.len(), inventory.databases.len())
    };
    assert_eq!(count(Scope::Databases(BTreeSet::new())), (1, 0));
    assert_eq!(count(Scope::Databases(BTreeSet::from([id]))), (1, 1));
    assert_eq!(count(Scope::Hosts(BTreeSet::from([host()]))), (1, 1));
    let elsewhere = HostId::new("elsewhere").unwrap();
    assert_eq!(count(Scope::Hosts(BTreeSet::from([elsewhere]))), (0, 0));
}

#[test]
fn odd_files_give_clear_results() {
    let lab = Lab::with_set();
    lab.dir("x.edb");
    fs::write(lab.path("empty.edb"), "").unwrap();
    fs::write(lab.path("text.edb"), "hello").unwrap();
    let whole = fs::read(lab.path("DB01.edb")).unwrap();
    fs::write(lab.dir("cut").join("headless.edb"), &whole[..1000]).unwrap();
    // Cut after its headers: still a database by its header, and still needs its logs.
    fs::write(lab.dir("cut2").join("short.edb"), &whole[..3 * 4096 + 7]).unwrap();
    fs::write(lab.path("empty.log"), "").unwrap();
    fs::write(lab.path("E0000000009.log"), "").unwrap();
    let inventory = lab.inventory();
    let mut found: Vec<_> = inventory.databases.values().map(|found| found.name.clone()).collect();
    found.sort();
    assert_eq!(found, ["DB01", "empty", "headless", "short", "text"]);
    assert!(copy_named(&inventory, "DB01").availability.is_available());
    for (name, word) in [("empty", "empty"), ("text", "no database"), ("headless", "header")] {
        match copy_named(&inventory, name).availability.reasons.as_slice() {
            [Reason::Damaged { message, .. }] => assert!(message.contains(word), "{message}"),
            other => panic!("{name}: {other:?}"),
        }
    }
}

#[test]
fn links_pipes_and_loops_are_left_alone() {
    use std::os::unix::fs::symlink;
    let lab = Lab::with_set();
    let outside = tempfile::tempdir().unwrap();
    set().with_name("OUT").write_to(outside.path()).unwrap();
    symlink(lab.plugin.root(), lab.path("loop")).unwrap();
    symlink("self", lab.path("self")).unwrap();
    symlink(outside.path(), lab.path("away")).unwrap();
    symlink(outside.path().join("OUT.edb"), lab.path("OUT.edb")).unwrap();
    symlink(lab.path("gone"), lab.path("broken.edb")).unwrap();
    let pipe = lab.path("pipe.edb");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &pipe,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o600),
        0,
    )
    .unwrap();
    let inventory = lab.inventory();
    assert_eq!(inventory.databases.len(), 1);
    assert!(copy_named(&inventory, "DB01").availability.is_available());
}

#[test]
fn a_root_behind_a_link_is_the_same_root() {
    let lab = Lab::with_set();
    let link = tempfile::tempdir().unwrap();
    let link = link.path().join("link");
    std::os::unix::fs::symlink(lab.plugin.root(), &link).unwrap();
    let plugin = FilesPlugin::new(&link, host()).unwrap();
    let inventory = block_on(plugin.inventory(&lab.cx(), &Scope::Everything)).unwrap();
    assert_eq!(inventory.copies, lab.inventory().copies);
}

#[test]
fn a_folder_can_be_left_out() {
    let lab = Lab::with_set();
    set().write_to(&lab.dir("store/point")).unwrap();
    assert_eq!(lab.inventory().databases.len(), 2);
    let plugin = lab.plugin.clone().without(lab.path("store")).unwrap();
    let inventory = block_on(plugin.inventory(&lab.cx(), &Scope::Everything)).unwrap();
    assert_eq!(inventory.databases.len(), 1);
}

/// A restore that is under way keeps its files, and what they replace, in a hidden folder beside the target.
#[test]
fn what_a_restore_keeps_hidden_is_no_database_of_its_own() {
    let lab = Lab::with_set();
    let before = lab.inventory();
    set().write_to(&lab.dir(".stillpoint-restore-job-7/new/0")).unwrap();
    set().with_name("DB09").write_to(&lab.dir("deep/.stillpoint-restore-k/kept/3")).unwrap();
    let inventory = lab.inventory();
    assert_eq!(inventory.copies, before.copies);
    assert!(copy_named(&inventory, "DB01").availability.is_available());
    // A name that only looks alike hides nothing.
    set().with_name("DB02").write_to(&lab.dir("stillpoint-restore-k")).unwrap();
    assert_eq!(lab.inventory().databases.len(), 2);
}

#[test]
fn a_path_that_is_no_text_does_not_go_unseen() {
    use std::os::unix::ffi::OsStrExt;
    let lab = Lab::with_set();
    let name = std::ffi::OsStr::from_bytes(b"mail\xFF.edb");
    if fs::copy(lab.path("DB01.edb"), lab.plugin.root().join(name)).is_err() {
        eprintln!("SKIPPED: this file system has only Unicode names");
        return;
    }
    let inventory = lab.inventory();
    let reasons: Vec<_> =
        inventory.copies.values().flat_map(|copy| &copy.availability.reasons).collect();
    assert_eq!(inventory.databases.len(), 2);
    assert!(
        matches!(reasons.as_slice(), [Reason::Unreadable { message, .. }] if message.contains("Unicode")),
        "{reasons:?}"
    );
}

#[test]
fn what_may_not_be_read_is_named() {
    if rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: root may read everything");
        return;
    }
    let lab = Lab::with_set();
    set().with_name("DB02").write_to(&lab.dir("other")).unwrap();
    let closed = lab.dir("closed");
    for path in [lab.path("other/DB02.edb"), lab.path("E0000000006.log"), closed.clone()] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o000)).unwrap();
    }
    let inventory = lab.inventory();
    let reasons = |name| copy_named(&inventory, name).availability.reasons.clone();
    assert!(matches!(reasons("DB02").as_slice(), [Reason::Unreadable { .. }]));
    assert!(matches!(reasons("closed").as_slice(), [Reason::Unreadable { .. }]));
    assert!(matches!(
        reasons("DB01").as_slice(),
        [Reason::NotRecoverable { .. }, Reason::Unreadable { file, .. }]
            if file.file_name() == Some("E0000000006.log")
    ));
    fs::set_permissions(closed, fs::Permissions::from_mode(0o700)).unwrap();
}

#[test]
fn ten_thousand_random_files_give_a_clear_result() {
    let lab = Lab::with_set();
    let mut noise = Noise::new(2024);
    let extensions = ["edb", "log", "chk", "dat", "jrs"];
    for number in 0..10_000_u32 {
        let folder = lab.dir(&format!("{:02}", number % 50));
        let mut bytes = vec![0; usize::try_from(noise.below(300)).unwrap()];
        noise.fill(&mut bytes);
        // Some begin as databases do.
        if number.is_multiple_of(7) && bytes.len() >= 12 {
            bytes[4..8].copy_from_slice(&0x89AB_CDEF_u32.to_le_bytes());
            bytes[8..12].copy_from_slice(&0x620_u32.to_le_bytes());
        }
        let name = if number % 11 == 3 {
            format!("E00{number:08X}.log")
        } else {
            format!("f{number}.{}", extensions[number as usize % extensions.len()])
        };
        fs::write(folder.join(name), bytes).unwrap();
    }
    let inventory = lab.inventory();
    assert!(copy_named(&inventory, "DB01").availability.is_available());
    let (good, bad): (Vec<_>, Vec<_>) =
        inventory.copies.values().partition(|copy| copy.availability.is_available());
    assert_eq!(good.len(), 1);
    assert!(bad.len() > 2000, "{}", bad.len());
    for copy in bad {
        assert!(matches!(copy.availability.reasons.as_slice(), [Reason::Damaged { .. }]));
    }
}

#[test]
fn a_folder_that_is_gone_is_an_error_and_a_cancelled_call_too() {
    let lab = Lab::with_set();
    let cx = lab.cx();
    cx.cancel().cancel();
    let cancelled = block_on(lab.plugin.inventory(&cx, &Scope::Everything)).unwrap_err();
    assert_eq!(cancelled.kind(), &PluginErrorKind::Cancelled);
    fs::remove_dir_all(lab.plugin.root()).unwrap();
    let gone = block_on(lab.plugin.inventory(&lab.cx(), &Scope::Everything)).unwrap_err();
    assert_eq!(gone.kind(), &PluginErrorKind::NotFound);
}

// Sessions.

#[test]
fn a_session_from_begin_to_complete() {
    let lab = Lab::with_set();
    let inventory = lab.inventory();
    let copy = copy_named(&inventory, "DB01");
    let id = session_id(1);
    let caps = lab.plugin.caps();
    assert_eq!((caps.quiesce, caps.freeze_limit), (QuiesceLevel::AtRest, None));
    assert_eq!(lab.state(), SessionState::Unknown);

    let session = lab.begin(vec![copy.id.clone()]);
    let of_session: Vec<_> = session.files.iter().map(|file| file.path.clone()).collect();
    let of_copy: Vec<_> = copy.files.iter().map(|file| file.path.clone()).collect();
    assert_eq!(of_session, of_copy);
    assert_eq!(session.files[6].generation, Some(Generation(8)));
    assert_eq!(lab.begin(vec![copy.id.clone()]), session);
    assert_eq!(lab.state(), SessionState::Open);
    assert_eq!(lab.held(&copy.id), Held::Unknown);

    let frozen = block_on(lab.plugin.freeze(&lab.cx(), id, None)).unwrap();
    assert_eq!((frozen.level, frozen.until), (QuiesceLevel::AtRest, None));
    assert_eq!(block_on(lab.plugin.freeze(&lab.cx(), id, None)).unwrap(), frozen);
    assert_eq!(lab.state(), SessionState::Frozen { until: None });
    assert_eq!(lab.held(&copy.id), Held::Unknown);
    // Nobody can take the database for himself while it is frozen.
    let database = File::open(lab.path("DB01.edb")).unwrap();
    assert!(database.try_lock().is_err());
    lab.thaw();
    lab.thaw();
    assert!(database.try_lock().is_ok());
    drop(database);

    let outcome = block_on(lab.plugin.evidence(&lab.cx(), id)).unwrap();
    assert_eq!(outcome.grain, EvidenceGrain::PerDatabase);
    assert_eq!(outcome.held(&copy.id), Held::Yes);
    assert_eq!(outcome.consistency(&copy.id), Consistency::AtRest);
    assert_eq!(outcome.copies[&copy.id].log_state, copy.log_state);
    assert!(outcome.frozen_at.is_some() && outcome.thawed_at >= outcome.frozen_at);

    let verdicts = BTreeMap::from([(copy.id.clone(), Verdict::Good)]);
    let completions = block_on(lab.plugin.complete(&lab.cx(), id, &verdicts)).unwrap();
    assert_eq!(completions, BTreeMap::from([(copy.id.clone(), Completion::Completed)]));
    assert_eq!(block_on(lab.plugin.complete(&lab.cx(), id, &verdicts)).unwrap(), completions);
    assert_eq!(lab.state(), SessionState::Completed(completions));
    let now = lab.cx().now();
    let truncation = block_on(lab.plugin.truncation(&lab.cx(), &copy.id, now)).unwrap();
    assert!(matches!(truncation, Truncation::NothingEligible { why } if why.contains("at rest")));
    // Nothing was written anywhere.
    assert_eq!(lab.inventory().copies, inventory.copies);
    let refused = block_on(lab.plugin.freeze(&lab.cx(), id, None)).unwrap_err();
    assert_eq!(refused.kind(), &PluginErrorKind::SessionGone);
}

/// Who takes the files in the order of the session takes no page before a log that is newer (S9).
#[test]
fn databases_that_share_a_log_stream_all_come_before_its_logs() {
    let lab = Lab::with_set();
    set().with_name("DB02").write_to(lab.plugin.root()).unwrap();
    let inventory = lab.inventory();
    let copies: Vec<_> = ["DB01", "DB02"].map(|name| copy_named(&inventory, name).clone()).into();
    assert_eq!(names(&copies[0])[1..], names(&copies[1])[1..], "one stream for both");
    let session = lab.begin(copies.iter().map(|copy| copy.id.clone()).collect());
    let roles: Vec<_> = session.files.iter().map(|file| file.role).collect();
    assert_eq!(roles[..2], [FileRole::Database; 2]);
    assert!(!roles[2..].contains(&FileRole::Database), "{roles:?}");
    // Those of one copy are still in their order.
    for copy in &copies {
        let of_session = session.files.iter().filter(|file| file.copy == copy.id);
        let of_copy = copy.files.iter();
        assert!(of_session.map(|file| &file.path).eq(of_copy.map(|file| &file.path)));
    }
}

#[test]
fn begin_refuses_what_it_cannot_do() {
    use BackupKind::{Full, Log};
    let lab = Lab::with_set();
    set().with_name("DB02").write_to(&lab.dir("broken")).unwrap();
    fs::remove_file(lab.path("broken/E0000000006.log")).unwrap();
    let inventory = lab.inventory();
    let good = copy_named(&inventory, "DB01").id.clone();
    let broken = copy_named(&inventory, "DB02").id.clone();
    let stray = CopyId::new(good.database, HostId::new("elsewhere").unwrap());
    let unknown = CopyId::new(DatabaseId(uuid::Uuid::from_u128(9)), host());
    let begin = |kind, copies| {
        let spec = SessionSpec::new(session_id(1), kind, copies, LEASE);
        block_on(lab.plugin.begin(&lab.cx(), &spec)).unwrap_err()
    };
    assert_eq!(code(&begin(Log, vec![good.clone()])), "exchange.unsupported");
    assert_eq!(code(&begin(Full, vec![])), "exchange.invalid");
    assert_eq!(code(&begin(Full, vec![stray])), "exchange.invalid");
    assert_eq!(code(&begin(Full, vec![unknown])), "exchange.not_found");
    let refused = begin(Full, vec![good, broken]);
    assert_eq!(code(&refused), "resource.not_available");
    assert!(refused.to_string().contains("00000006"), "{refused}");
    assert_eq!(lab.state(), SessionState::Unknown);
}

/// What happens to a file, and what the evidence must then say.
type Change = (&'static str, fn(&Path), &'static str);

#[test]
fn a_file_that_changes_during_the_freeze_breaks_it_for_its_database_alone() {
    let changes: [Change; 7] = [
        ("DB01.edb", |path| append(path, b"x"), "size"),
        ("DB01.edb", |path| write_at(path, 9 * 4096, b"x"), "time"),
        (
            "E00.log",
            |path| {
                let before = fs::metadata(path).unwrap().modified().unwrap();
                write_at(path, 5 * 4096, b"records");
                File::options().write(true).open(path).unwrap().set_modified(before).unwrap();
            },
            "log segments",
        ),
        (
            "E0000000003.log",
            |path| {
                let before = fs::metadata(path).unwrap().modified().unwrap();
                write_at(path, 5 * 4096 + 100, b"x");
                File::options().write(true).open(path).unwrap().set_modified(before).unwrap();
            },
            "identity or change time",
        ),
        ("E0000000006.log", |path| fs::write(path, "").unwrap(), "size"),
        (
            "E00.chk",
            |path| {
                let before = fs::metadata(path).unwrap().modified().unwrap();
                let bytes = fs::read(path).unwrap();
                fs::remove_file(path).unwrap();
                // Until the kernel's next tick the new file has the time of the old one.
                loop {
                    fs::write(path, &bytes).unwrap();
                    if fs::metadata(path).unwrap().modified().unwrap() != before {
                        return;
                    }
                }
            },
            "time",
        ),
        ("E0000000007.log", |path| fs::remove_file(path).unwrap(), "vanished"),
    ];
    for (name, change, what) in changes {
        let lab = Lab::new();
        set().write_to(&lab.dir("one")).unwrap();
        ExchangeSet::new(8)
            .with_name("DB02")
            .with_pages(8)
            .with_log_segments(8)
            .write_to(&lab.dir("two"))
            .unwrap();
        let inventory = lab.inventory();
        let one = copy_named(&inventory, "DB01").id.clone();
        let two = copy_named(&inventory, "DB02").id.clone();
        lab.begin(vec![one.clone(), two.clone()]);
        lab.freeze();
        change(&lab.path("one").join(name));
        lab.thaw();
        assert_eq!(lab.held(&two), Held::Yes, "{name} {what}");
        match lab.held(&one) {
            Held::Broken(Cause::FileChanged { file, what: told }) => {
                assert_eq!(file.file_name(), Some(name));
                assert_eq!(told, what, "{name}");
            }
            Held::Broken(Cause::FileVanished { file }) => {
                assert_eq!((file.file_name(), "vanished"), (Some(name), what));
            }
            other => panic!("{name} {what}: {other:?}"),
        }
        let outcome = block_on(lab.plugin.evidence(&lab.cx(), session_id(1))).unwrap();
        assert_eq!(outcome.consistency(&one), Consistency::Crash);
    }
}

fn append(path: &Path, bytes: &[u8]) {
    OpenOptions::new().append(true).open(path).unwrap().write_all(bytes).unwrap();
}

fn write_at(path: &Path, offset: u64, bytes: &[u8]) {
    // A time stamp has the grain of the kernel's tick; wait until the next one has begun.
    let before = fs::metadata(path).unwrap();
    let file = OpenOptions::new().write(true).open(path).unwrap();
    loop {
        file.write_all_at(bytes, offset).unwrap();
        if fs::metadata(path).unwrap().modified().unwrap() != before.modified().unwrap() {
            return;
        }
    }
}

#[test]
fn what_changed_since_begin_is_not_frozen() {
    let lab = Lab::with_set();
    let copy = copy_named(&lab.inventory(), "DB01").id.clone();
    lab.begin(vec![copy.clone()]);
    write_at(&lab.path("E00.log"), 5 * 4096, b"records");
    let refused = block_on(lab.plugin.freeze(&lab.cx(), session_id(1), None)).unwrap_err();
    assert_eq!(code(&refused), "resource.not_available");
    assert!(refused.to_string().contains("E00.log"), "{refused}");
    assert_eq!(lab.state(), SessionState::Open);
    assert_eq!(lab.held(&copy), Held::Unknown);
}

#[test]
fn what_another_process_holds_is_not_at_rest() {
    let lab = Lab::with_set();
    let copy = copy_named(&lab.inventory(), "DB01").id.clone();
    lab.begin(vec![copy]);
    let theirs = File::open(lab.path("DB01.edb")).unwrap();
    theirs.lock().unwrap();
    let refused = block_on(lab.plugin.freeze(&lab.cx(), session_id(1), None)).unwrap_err();
    assert_eq!(code(&refused), "resource.not_available");
    theirs.unlock().unwrap();
    // A reader with a shared lock of his own does not disturb.
    theirs.lock_shared().unwrap();
    lab.freeze();
}

#[test]
fn a_freeze_that_completes_after_its_thaw_is_superseded() {
    for abort in [false, true] {
        let lab = Lab::with_set();
        let copy = copy_named(&lab.inventory(), "DB01").id.clone();
        lab.begin(vec![copy]);
        lab.bench.workshop.hold();
        let cx = lab.cx();
        let mut freeze = pin!(lab.plugin.freeze(&cx, session_id(1), None));
        assert!(freeze.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        if abort {
            block_on(lab.plugin.abort(&lab.cx(), session_id(1))).unwrap();
        } else {
            lab.thaw();
        }
        lab.bench.workshop.release();
        let late = block_on(freeze).unwrap_err();
        assert_eq!(late.kind(), &PluginErrorKind::Superseded);
        let expected = if abort { SessionState::Aborted } else { SessionState::Open };
        assert_eq!(lab.state(), expected);
        assert!(File::open(lab.path("DB01.edb")).unwrap().try_lock().is_ok());
    }
}

#[test]
fn a_freeze_whose_caller_went_away_can_be_thawed() {
    let lab = Lab::with_set();
    let copy = copy_named(&lab.inventory(), "DB01").id.clone();
    lab.begin(vec![copy.clone()]);
    lab.bench.workshop.hold();
    {
        let cx = lab.cx();
        let mut freeze = pin!(lab.plugin.freeze(&cx, session_id(1), None));
        assert!(freeze.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    }
    lab.bench.workshop.release();
    assert_eq!(lab.state(), SessionState::Frozen { until: None });
    lab.thaw();
    assert_eq!(lab.state(), SessionState::Open);
    assert!(File::open(lab.path("DB01.edb")).unwrap().try_lock().is_ok());
    assert_eq!(lab.held(&copy), Held::Yes);
}

/// Waits until nobody holds the database: the plug-in's own thread lets it go, with nobody calling.
fn wait_until_thawed(lab: &Lab) {
    let database = File::open(lab.path("DB01.edb")).unwrap();
    while database.try_lock().is_err() {
        std::thread::yield_now();
    }
}

fn is_frozen(lab: &Lab) -> bool {
    File::open(lab.path("DB01.edb")).unwrap().try_lock().is_err()
}

#[test]
fn a_limit_that_was_asked_for_ends_the_freeze() {
    let lab = Lab::with_set();
    let copy = copy_named(&lab.inventory(), "DB01").id.clone();
    lab.begin(vec![copy.clone()]);
    let limit = Duration::from_secs(20);
    let frozen = block_on(lab.plugin.freeze(&lab.cx(), session_id(1), Some(limit))).unwrap();
    assert_eq!(frozen.until, Some(frozen.at + limit));
    lab.bench.clock.advance(Duration::from_secs(19));
    assert!(matches!(lab.state(), SessionState::Frozen { .. }));
    lab.bench.clock.advance(Duration::from_secs(1));
    wait_until_thawed(&lab);
    assert_eq!(lab.state(), SessionState::Open);
    lab.thaw();
    assert_eq!(lab.held(&copy), Held::Broken(Cause::LimitPassed));

    // A thaw that is faster than the plug-in's own changes nothing about the answer.
    block_on(lab.plugin.freeze(&lab.cx(), session_id(1), Some(limit))).unwrap();
    lab.bench.clock.advance(limit);
    lab.thaw();
    assert_eq!(lab.held(&copy), Held::Broken(Cause::LimitPassed));
}

/// As in a guard: the thread of the enter has a runtime of its own, which ends as soon as `freeze` has returned.
#[test]
fn a_freeze_ends_at_its_limit_though_the_runtime_that_made_it_has_ended() {
    use stillpoint_workflow::{Lanes, ThreadLanes, TokioSeams};
    let lab = Lab::with_set();
    let copy = copy_named(&lab.inventory(), "DB01").id.clone();
    lab.begin(vec![copy.clone()]);
    let embedder = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let mut seams = TokioSeams::on(embedder.handle().clone());
    seams.clock = Arc::clone(&lab.bench.seams.clock);
    let (plugin, cx) = (lab.plugin.clone(), Cx::detached(&seams));
    let (tell, told) = std::sync::mpsc::channel();
    let lane = ThreadLanes.threads(&["enter".to_owned()]).unwrap().pop().unwrap();
    lane.run(Box::pin(async move {
        tell.send(plugin.freeze(&cx, session_id(1), Some(Duration::from_secs(2))).await).unwrap();
    }));
    told.recv().unwrap().unwrap();
    // The lane has dropped its sender with its task: its runtime is as good as gone.
    assert!(told.recv().is_err());
    lab.bench.clock.advance(Duration::from_millis(1999));
    assert!(is_frozen(&lab));
    lab.bench.clock.advance(Duration::from_millis(1));
    wait_until_thawed(&lab);
    assert_eq!(lab.held(&copy), Held::Broken(Cause::LimitPassed));
}

#[test]
fn a_freeze_whose_caller_went_away_ends_at_its_limit() {
    let lab = Lab::with_set();
    let copy = copy_named(&lab.inventory(), "DB01").id.clone();
    lab.begin(vec![copy.clone()]);
    lab.bench.workshop.hold();
    {
        let cx = lab.cx();
        let limit = Some(Duration::from_secs(2));
        let mut freeze = pin!(lab.plugin.freeze(&cx, session_id(1), limit));
        assert!(freeze.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    }
    lab.bench.workshop.release();
    assert!(is_frozen(&lab));
    lab.bench.clock.advance(Duration::from_secs(2));
    wait_until_thawed(&lab);
    assert_eq!(lab.held(&copy), Held::Broken(Cause::LimitPassed));
}

#[test]
fn a_lease_that_runs_out_ends_the_session() {
    let lab = Lab::with_set();
    let copy = copy_named(&lab.inventory(), "DB01").id.clone();
    lab.begin(vec![copy.clone()]);
    lab.bench.clock.advance(Duration::from_mins(9));
    block_on(lab.plugin.renew(&lab.cx(), session_id(1), LEASE)).unwrap();
    lab.freeze();
    lab.bench.clock.advance(LEASE);
    // By itself, with nobody calling.
    wait_until_thawed(&lab);
    assert_eq!(lab.state(), SessionState::Aborted);
    let gone = block_on(lab.plugin.renew(&lab.cx(), session_id(1), LEASE)).unwrap_err();
    assert_eq!(gone.kind(), &PluginErrorKind::SessionGone);
    let verdicts = BTreeMap::from([(copy.clone(), Verdict::Good)]);
    let lost = block_on(lab.plugin.complete(&lab.cx(), session_id(1), &verdicts)).unwrap();
    assert_eq!(lost[&copy], Completion::Lost);
    assert!(!lab.held(&copy).is_yes());
}

#[test]
fn a_plugin_that_is_dropped_lets_everything_go() {
    let Lab { folder, plugin, bench } = Lab::with_set();
    let inventory = block_on(plugin.inventory(&bench.cx(), &Scope::Everything)).unwrap();
    let copy = copy_named(&inventory, "DB01").id.clone();
    let spec = SessionSpec::new(session_id(1), BackupKind::Full, vec![copy], LEASE);
    block_on(plugin.begin(&bench.cx(), &spec)).unwrap();
    block_on(plugin.freeze(&bench.cx(), session_id(1), None)).unwrap();
    let database = File::open(folder.path().join("DB01.edb")).unwrap();
    assert!(database.try_lock().is_err());
    drop(plugin);
    // The thread of blocking work may hold the sessions for an instant longer.
    while database.try_lock().is_err() {
        std::thread::yield_now();
    }
}

#[test]
fn another_process_knows_nothing_of_a_session() {
    let lab = Lab::with_set();
    let copy = copy_named(&lab.inventory(), "DB01").id.clone();
    lab.begin(vec![copy.clone()]);
    let restarted = FilesPlugin::new(lab.plugin.root(), host()).unwrap();
    let cx = lab.cx();
    let id = session_id(1);
    assert_eq!(block_on(restarted.session(&cx, id)).unwrap(), SessionState::Unknown);
    block_on(restarted.thaw(&cx, id)).unwrap();
    block_on(restarted.abort(&cx, id)).unwrap();
    let verdicts = BTreeMap::from([(copy.clone(), Verdict::Good)]);
    assert_eq!(block_on(restarted.complete(&cx, id, &verdicts)).unwrap()[&copy], Completion::Lost);
    assert!(block_on(restarted.evidence(&cx, id)).is_err());
}

#[test]
fn old_tokens_are_refused() {
    let lab = Lab::with_set();
    let copy = copy_named(&lab.inventory(), "DB01").id.clone();
    let with = |token| Cx::builder(&lab.bench.seams).fence(FencingToken(token)).build();
    let spec = |id| SessionSpec::new(session_id(id), BackupKind::Full, vec![copy.clone()], LEASE);
    block_on(lab.plugin.begin(&with(5), &spec(1))).unwrap();
    let old = block_on(lab.plugin.begin(&with(4), &spec(2))).unwrap_err();
    assert_eq!(old.kind(), &PluginErrorKind::Fenced);
    block_on(lab.plugin.freeze(&with(6), session_id(1), None)).unwrap();
    let old = block_on(lab.plugin.thaw(&with(5), session_id(1))).unwrap_err();
    assert_eq!(code(&old), "lease.fenced");
    assert!(matches!(lab.state(), SessionState::Frozen { .. }));
    block_on(lab.plugin.thaw(&with(7), session_id(1))).unwrap();
    let verdicts = BTreeMap::from([(copy.clone(), Verdict::Good)]);
    assert!(block_on(lab.plugin.complete(&with(5), session_id(1), &verdicts)).is_err());
    assert!(block_on(lab.plugin.complete(&with(6), session_id(1), &verdicts)).is_ok());
}

// Verification.

/// What is to be verified, and where it lies.
struct Plan {
    files: Vec<VerifyFile>,
    exposure: Exposure,
}

impl Lab {
    /// The files of these copies, sealed as they are now and exposed where they are.
    fn plan(&self, copies: &[DatabaseCopy]) -> Plan {
        let files = copies
            .iter()
            .flat_map(|copy| copy.files.iter().map(|file| RequiredFile::of(copy.id.clone(), file)))
            .map(|file| {
                let seal = seal(Path::new(file.path.as_str()));
                VerifyFile::new(file, Some(seal))
            })
            .collect();
        let root = HostPath::from_native(host(), self.plugin.root()).unwrap();
        let snapshot =
            SnapshotRef::new("fs:volume".parse().unwrap(), SnapshotId::new("one").unwrap());
        let roots = vec![ExposedRoot::new(snapshot, root.clone(), root)];
        Plan { files, exposure: Exposure::new(ExposureKey::new("k").unwrap(), host(), roots) }
    }

    fn verify(&self, plan: &Plan, with_seals: bool) -> stillpoint_exchange::VerifyReport {
        let mut files = plan.files.clone();
        if !with_seals {
            for file in &mut files {
                file.seal = None;
            }
        }
        block_on(self.plugin.verify(&self.cx(), &plan.exposure, &VerifySpec::new(files))).unwrap()
    }
}

fn seal(path: &Path) -> Seal {
    let bytes = fs::read(path).unwrap();
    let mut writer = SealWriter::new(bytes.len() as u64);
    writer.update(&bytes);
    writer.finish()
}

fn turn_bit(path: &Path, offset: u64, bit: u8) {
    let file = OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).unwrap();
    byte[0] ^= 1 << bit;
    file.write_all_at(&byte, offset).unwrap();
}

#[test]
fn a_good_set_is_good() {
    let lab = Lab::with_set();
    let inventory = lab.inventory();
    let copy = copy_named(&inventory, "DB01");
    let plan = lab.plan(std::slice::from_ref(copy));
    for with_seals in [true, false] {
        let report = lab.verify(&plan, with_seals);
        let report = &report.copies[&copy.id];
        assert_eq!(report.verdict, Verdict::Good);
        assert_eq!(report.notes, [""; 0]);
        assert_eq!((report.checked.files, report.checked.pages), (8, 40));
        let bytes: u64 = copy.files.iter().filter_map(|file| file.bytes).sum();
        assert_eq!(report.checked.bytes, bytes);
    }
}

#[test]
fn a_copy_is_verified_where_it_is_exposed_also_when_the_original_is_gone() {
    let lab = Lab::new();
    set().write_to(&lab.dir("mail")).unwrap();
    let inventory = lab.inventory();
    let copy = copy_named(&inventory, "DB01");
    let mut plan = lab.plan(std::slice::from_ref(copy));
    let store = tempfile::tempdir().unwrap();
    fs::rename(lab.path("mail"), store.path().join("mail")).unwrap();
    let report = lab.verify(&plan, true);
    let Verdict::Bad { findings, .. } = &report.copies[&copy.id].verdict else { panic!() };
    assert!(findings.iter().all(|found| found.kind == FindingKind::Missing));
    plan.exposure.roots[0].exposed =
        HostPath::from_native(host(), &store.path().canonicalize().unwrap()).unwrap();
    assert!(lab.verify(&plan, true).copies[&copy.id].verdict.is_good());
    // The folder of the originals is not needed for that.
    fs::remove_dir_all(lab.plugin.root()).unwrap();
    let restarted = FilesPlugin::new(lab.folder.path(), host()).unwrap();
    let spec = VerifySpec::new(plan.files.clone());
    let report = block_on(restarted.verify(&lab.cx(), &plan.exposure, &spec)).unwrap();
    assert!(report.copies[&copy.id].verdict.is_good());
    // What the plan does not expose is missing, not good.
    plan.exposure.roots.clear();
    assert!(lab.verify(&plan, true).copies[&copy.id].verdict.is_bad());
}

#[test]
fn a_turned_bit_anywhere_is_found_with_file_page_and_offset() {
    let lab = Lab::with_set();
    let inventory = lab.inventory();
    let copy = copy_named(&inventory, "DB01");
    let plan = lab.plan(std::slice::from_ref(copy));
    let mut noise = Noise::new(5);
    for file in &copy.files {
        let path = Path::new(file.path.as_str());
        let name = file.path.file_name().unwrap();
        for _ in 0..25 {
            let offset = noise.below(file.bytes.unwrap());
            let bit = u8::try_from(noise.below(8)).unwrap();
            turn_bit(path, offset, bit);
            let report = lab.verify(&plan, true);
            let Verdict::Bad { findings, reason } = &report.copies[&copy.id].verdict else {
                panic!("{name} {offset}: {:?}", report.copies)
            };
            let first = &findings[0];
            assert_eq!(first.file, name, "{reason}");
            assert!(findings.iter().any(|found| found.kind == FindingKind::Seal));
            // The finding that comes first is the exact one, within its page or segment.
            let found = first.offset.unwrap();
            assert_eq!(found / 4096, offset / 4096, "{name} {offset}: {first}");
            if file.role == FileRole::Database && offset >= 8192 {
                assert_eq!(first.page, Some(offset / 4096 - 1));
            }
            if file.role == FileRole::Log && offset >= 4096 {
                assert_eq!(first.page, Some(offset / 4096), "{name} {offset}: {first}");
            }
            turn_bit(path, offset, bit);
        }
    }
    assert!(lab.verify(&plan, true).copies[&copy.id].verdict.is_good());
}

#[test]
fn without_a_seal_a_bit_that_can_be_put_right_is_a_note() {
    let lab = Lab::with_set();
    let inventory = lab.inventory();
    let copy = copy_named(&inventory, "DB01");
    let plan = lab.plan(std::slice::from_ref(copy));
    turn_bit(&lab.path("DB01.edb"), 5 * 4096 + 2000, 3);
    let report = lab.verify(&plan, false);
    assert!(report.copies[&copy.id].verdict.is_good());
    assert!(report.copies[&copy.id].notes[0].contains("page 4"), "{:?}", report.copies);
    turn_bit(&lab.path("DB01.edb"), 5 * 4096 + 2100, 3);
    let report = lab.verify(&plan, false);
    let Verdict::Bad { findings, .. } = &report.copies[&copy.id].verdict else { panic!() };
    assert_eq!((findings[0].page, findings[0].jet_error), (Some(4), Some(-1018)));
}

#[test]
fn missing_cut_and_unrecoverable_files_are_bad() {
    let check = |change: &dyn Fn(&Lab), kind: FindingKind, file: &str| {
        let lab = Lab::with_set();
        let inventory = lab.inventory();
        let copy = copy_named(&inventory, "DB01");
        let plan = lab.plan(std::slice::from_ref(copy));
        change(&lab);
        let report = lab.verify(&plan, true);
        let Verdict::Bad { findings, .. } = &report.copies[&copy.id].verdict else {
            panic!("{kind:?} {file}: {:?}", report.copies)
        };
        assert!(
            findings.iter().any(|found| found.kind == kind && found.file == file),
            "{kind:?} {file}: {findings:?}"
        );
    };
    let remove = |name: &'static str| move |lab: &Lab| fs::remove_file(lab.path(name)).unwrap();
    let cut = |name: &'static str, len: u64| {
        move |lab: &Lab| {
            OpenOptions::new().write(true).open(lab.path(name)).unwrap().set_len(len).unwrap();
        }
    };
    check(&remove("DB01.edb"), FindingKind::Missing, "DB01.edb");
    check(&remove("E0000000006.log"), FindingKind::Missing, "E0000000006.log");
    check(&remove("E0000000006.log"), FindingKind::LogGap, "DB01.edb");
    check(&remove("E0000000003.log"), FindingKind::Missing, "E0000000003.log");
    check(&cut("DB01.edb", 20 * 4096), FindingKind::Truncated, "DB01.edb");
    check(&cut("DB01.edb", 100), FindingKind::Header, "DB01.edb");
    check(&cut("DB01.edb", 0), FindingKind::Truncated, "DB01.edb");
    check(&cut("E0000000007.log", 3 * 4096), FindingKind::Truncated, "E0000000007.log");
    check(&cut("E00.chk", 4096), FindingKind::Truncated, "E00.chk");
    check(
        &|lab| {
            let log = lab.path("E0000000007.log");
            let bytes = fs::read(lab.path("E0000000006.log")).unwrap();
            fs::write(log, bytes).unwrap();
        },
        FindingKind::LogGap,
        "DB01.edb",
    );
    check(
        &|lab| {
            fs::remove_file(lab.path("DB01.edb")).unwrap();
            fs::create_dir(lab.path("DB01.edb")).unwrap();
        },
        FindingKind::Unreadable,
        "DB01.edb",
    );
    check(
        &|lab| {
            fs::rename(lab.path("DB01.edb"), lab.path("elsewhere")).unwrap();
            std::os::unix::fs::symlink(lab.path("elsewhere"), lab.path("DB01.edb")).unwrap();
        },
        FindingKind::Unreadable,
        "DB01.edb",
    );
}

#[test]
fn one_bad_database_does_not_spoil_the_others() {
    let lab = Lab::new();
    for (seed, name) in [(1, "one"), (2, "two"), (3, "three")] {
        ExchangeSet::new(seed)
            .with_name(name)
            .with_pages(8)
            .with_log_segments(8)
            .write_to(&lab.dir(name))
            .unwrap();
    }
    let inventory = lab.inventory();
    let copies: Vec<_> = inventory.copies.values().cloned().collect();
    let plan = lab.plan(&copies);
    turn_bit(&lab.path("two/two.edb"), 5 * 32768 + 999, 1);
    let report = lab.verify(&plan, true);
    assert_eq!(report.copies.len(), 3);
    for name in ["one", "two", "three"] {
        let id = &copy_named(&inventory, name).id;
        assert_eq!(report.verdict(id).is_good(), name != "two");
    }
    let Verdict::Bad { findings, .. } = report.verdict(&copy_named(&inventory, "two").id) else {
        panic!()
    };
    assert_eq!(findings[0].file, "two/two.edb");
    assert_eq!((findings[0].page, findings[0].offset), (Some(4), Some(5 * 32768 + 999)));
}

#[test]
fn findings_are_capped_but_never_none() {
    let lab = Lab::with_set();
    let inventory = lab.inventory();
    let copy = copy_named(&inventory, "DB01");
    let plan = lab.plan(std::slice::from_ref(copy));
    for page in 4..20 {
        write_at(&lab.path("DB01.edb"), page * 4096 + 500, &[0xAA; 16]);
    }
    for most in [0, 1, 3] {
        let mut spec = VerifySpec::new(plan.files.clone());
        spec.max_findings = most;
        let report = block_on(lab.plugin.verify(&lab.cx(), &plan.exposure, &spec)).unwrap();
        let Verdict::Bad { findings, .. } = &report.copies[&copy.id].verdict else { panic!() };
        assert_eq!(findings.len(), usize::try_from(most.max(1)).unwrap());
        assert!(!report.copies[&copy.id].notes.is_empty());
    }
}

#[test]
fn logs_of_older_engines_are_unverified_not_good() {
    let lab = Lab::with_set();
    let path = lab.path("E0000000003.log");
    let mut log = fs::read(&path).unwrap();
    log[32..36].copy_from_slice(&6u32.to_le_bytes());
    stillpoint_ese::write::seal_header(&mut log[..4096]);
    fs::write(&path, log).unwrap();
    let inventory = lab.inventory();
    let copy = copy_named(&inventory, "DB01");
    let report = lab.verify(&lab.plan(std::slice::from_ref(copy)), true);
    assert!(matches!(report.verdict(&copy.id), Verdict::Unverified { .. }), "{report:?}");
}

#[test]
fn logs_and_pages_of_exchange_2003_are_verified() {
    let lab = Lab::new();
    set().with_old_format(true).write_to(lab.folder.path()).unwrap();
    let inventory = lab.inventory();
    let copy = copy_named(&inventory, "DB01");
    let plan = lab.plan(std::slice::from_ref(copy));
    assert_eq!(lab.verify(&plan, true).verdict(&copy.id), Verdict::Good);
    write_at(&lab.path("E0000000006.log"), 9000, &[0xAA; 16]);
    let report = lab.verify(&plan, true);
    assert!(matches!(report.verdict(&copy.id), Verdict::Bad { .. }), "{report:?}");
}

#[test]
fn a_verification_can_be_cancelled_and_stays_on_its_machine() {
    let lab = Lab::with_set();
    let inventory = lab.inventory();
    let mut plan = lab.plan(&[copy_named(&inventory, "DB01").clone()]);
    let spec = VerifySpec::new(plan.files.clone());
    let cx = lab.cx();
    cx.cancel().cancel();
    let cancelled = block_on(lab.plugin.verify(&cx, &plan.exposure, &spec)).unwrap_err();
    assert_eq!(code(&cancelled), "call.cancelled");
    plan.exposure.host = HostId::new("elsewhere").unwrap();
    let foreign = block_on(lab.plugin.verify(&lab.cx(), &plan.exposure, &spec)).unwrap_err();
    assert_eq!(code(&foreign), "exchange.invalid");
}

// Restore.

#[test]
fn the_restore_side_looks_and_tells() {
    let lab = Lab::with_set();
    let inventory = lab.inventory();
    let copy = copy_named(&inventory, "DB01");
    let files: Vec<_> = copy.files.iter().map(|file| (file.path.clone(), file.role)).collect();
    let mut spec =
        RestoreSpec::new(session_id(3), copy.id.database, host(), files.clone()).in_place();
    spec.mount = true;
    let restore: &dyn ExchangeRestore = lab.plugin.restore().unwrap();
    block_on(restore.open(&lab.cx(), &spec)).unwrap();
    block_on(restore.open(&lab.cx(), &spec)).unwrap();
    let recovered = block_on(restore.finish(&lab.cx(), &spec)).unwrap();
    assert!(!recovered.mounted);
    assert_eq!(recovered.replayed_to, None);
    assert!(recovered.notes[0].contains("6-7") && recovered.notes[0].contains("/r E00"));
    assert_eq!(recovered.notes.len(), 2);
    block_on(restore.cancel(&lab.cx(), &spec)).unwrap();

    let theirs = File::open(lab.path("E00.log")).unwrap();
    theirs.lock_shared().unwrap();
    let busy = block_on(restore.open(&lab.cx(), &spec)).unwrap_err();
    assert_eq!(code(&busy), "restore.target_in_use");
    drop(theirs);
    fs::remove_file(lab.path("DB01.edb")).unwrap();
    // What is not there can be restored to, but not finished.
    block_on(restore.open(&lab.cx(), &spec)).unwrap();
    assert!(block_on(restore.finish(&lab.cx(), &spec)).is_err());
    let elsewhere = HostPath::new(
        HostId::new("elsewhere").unwrap(),
        stillpoint_context::PathFlavor::Posix,
        "/x/DB01.edb",
    )
    .unwrap();
    spec.files = vec![(elsewhere, FileRole::Database)];
    assert_eq!(code(&block_on(restore.open(&lab.cx(), &spec)).unwrap_err()), "exchange.invalid");
}

// Genuine files.

#[test]
fn the_samples_are_four_recoverable_and_three_not() {
    let folder = std::env::var_os("STILLPOINT_ESE_SAMPLES").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/ese-samples"),
        PathBuf::from,
    );
    if !folder.is_dir() {
        let required = std::env::var("STILLPOINT_REQUIRE").unwrap_or_default();
        assert!(
            !required.split(',').any(|what| what.trim() == "samples"),
            "samples are required but {} is absent",
            folder.display()
        );
        eprintln!("SKIPPED: no genuine files at {} (set STILLPOINT_ESE_SAMPLES)", folder.display());
        return;
    }
    let bench = Bench::new();
    let plugin = FilesPlugin::new(&folder, host()).unwrap();
    let inventory = block_on(plugin.inventory(&bench.cx(), &Scope::Everything)).unwrap();
    assert_eq!(inventory.databases.len(), 7);
    for (name, generation) in [("qmgr", 23), ("Windows", 40), ("Current", 124)] {
        assert_eq!(missing(copy_named(&inventory, name)), [(generation, generation)], "{name}");
    }
    let good: Vec<DatabaseCopy> = ["basic", "decompress_test2", "large", "DB01"]
        .map(|name| copy_named(&inventory, name).clone())
        .to_vec();
    assert!(good.iter().all(|copy| copy.availability.is_available()));
    assert_eq!(
        names(&good[3]),
        [
            "DB01.edb",
            "E0000000003.log",
            "E0000000004.log",
            "E0000000005.log",
            "E0000000006.log",
            "E0000000007.log",
            "E00.log",
            "E00.chk"
        ]
    );
    let copies: Vec<CopyId> = good.iter().map(|copy| copy.id.clone()).collect();
    let spec = SessionSpec::new(session_id(1), BackupKind::FullAndLog, copies.clone(), LEASE);
    block_on(plugin.begin(&bench.cx(), &spec)).unwrap();
    block_on(plugin.freeze(&bench.cx(), session_id(1), None)).unwrap();
    block_on(plugin.thaw(&bench.cx(), session_id(1))).unwrap();
    let outcome = block_on(plugin.evidence(&bench.cx(), session_id(1))).unwrap();
    assert!(copies.iter().all(|copy| outcome.held(copy).is_yes()));

    let lab = Lab { folder: tempfile::tempdir().unwrap(), plugin, bench };
    let report = lab.verify(&lab.plan(&good), true);
    assert!(copies.iter().all(|copy| report.verdict(copy).is_good()), "{report:?}");
}

#[test]
fn a_database_with_a_wild_header_is_refused_quickly() {
    let lab = Lab::new();
    let first = EseGeneration::new(1);
    let all = GenerationRange::one(first).through(EseGeneration::MAX);
    let mut bytes = Vec::new();
    DatabaseSpec::new(1).with_pages(4).with_dirty(all, first).write_to(&mut bytes).unwrap();
    fs::write(lab.path("wild.edb"), bytes).unwrap();
    assert_eq!(missing(copy_named(&lab.inventory(), "wild")), [(1, 0x7FFF_F800)]);
}
