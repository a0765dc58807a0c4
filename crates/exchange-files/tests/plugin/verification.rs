//! What verification finds, and what it does not say.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;

use stillpoint_context::{HostId, HostPath};
use stillpoint_ese::write::{ExchangeSet, Noise};
use stillpoint_exchange::{ExchangePlugin, Verdict, VerifySpec};
use stillpoint_exchange_files::FilesPlugin;
use stillpoint_model::inventory::FileRole;
use stillpoint_model::verdict::FindingKind;

use super::lab::{Lab, code, copy_named, host, set, write_at};
use super::support::block_on;

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
