//! What is found in a folder: sets, pairs, gaps, and what is none of them.

use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::PathBuf;

use stillpoint_context::HostId;
use stillpoint_ese::Generation as EseGeneration;
use stillpoint_ese::PageSize;
use stillpoint_ese::write::{ExchangeSet, LogStreamSpec, Noise};
use stillpoint_exchange::{ExchangePlugin, PluginErrorKind, Scope, Verdict};
use stillpoint_exchange_files::FilesPlugin;
use stillpoint_model::availability::Reason;
use stillpoint_model::inventory::{CopyStatus, FileRole, Generation};

use super::lab::{Lab, copy_named, host, missing, names, set};
use super::support::block_on;

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
