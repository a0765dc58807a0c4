//! Genuine files, where there are some, and headers gone wild.

use std::fs::{self};
use std::path::{Path, PathBuf};

use stillpoint_ese::Generation as EseGeneration;
use stillpoint_ese::GenerationRange;
use stillpoint_ese::write::DatabaseSpec;
use stillpoint_exchange::{BackupKind, CopyId, ExchangePlugin, Scope, SessionSpec};
use stillpoint_exchange_files::FilesPlugin;
use stillpoint_model::inventory::DatabaseCopy;

use super::lab::{LEASE, Lab, copy_named, host, missing, names, session_id};
use super::support::{Bench, block_on};

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
