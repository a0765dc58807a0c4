//! Whole sets in folders: one answer from the files as they lie there.

use std::{
    fs,
    ops::ControlFlow,
    path::{Path, PathBuf},
};

use stillpoint_ese::{
    DatabaseState, EseError, FileCheck, FileKind, FlushMapFit, Generation, GenerationRange, Health,
    PageSize, Progress, ScanOptions, SetCheck, SetVerdict, check_file, check_logs, check_path,
    check_set, read_database_header,
    write::{DatabaseSpec, ExchangeSet, FlushMapSpec, LogStreamSpec, WrittenSet, seal_header},
};

fn options() -> ScanOptions {
    ScanOptions::default()
}

fn check(paths: &[&Path]) -> SetCheck {
    let paths: Vec<PathBuf> = paths.iter().map(|path| path.to_path_buf()).collect();
    check_set(&paths, &options(), &mut ()).unwrap()
}

fn range(first: u32, last: u32) -> GenerationRange {
    GenerationRange::new(Generation::new(first), Generation::new(last)).unwrap()
}

fn small(seed: u64) -> ExchangeSet {
    ExchangeSet::new(seed).with_log_segments(8).with_pages(40).with_page_size(PageSize::KIB_4)
}

fn written(spec: &ExchangeSet) -> (tempfile::TempDir, WrittenSet) {
    let folder = tempfile::tempdir().unwrap();
    let files = spec.write_to(folder.path()).unwrap();
    (folder, files)
}

fn spoil(path: &Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at..at + 8].fill(0x5A);
    fs::write(path, bytes).unwrap();
}

#[test]
fn a_good_set_is_good() {
    for old_format in [false, true] {
        let (folder, files) = written(&small(1).with_old_format(old_format));
        fs::write(folder.path().join("E00res00001.jrs"), vec![0; 32_768]).unwrap();
        fs::write(folder.path().join("E00tmp.log"), vec![0; 32_768]).unwrap();
        fs::write(folder.path().join("readme.txt"), "nothing of ours").unwrap();
        let found = check(&[folder.path()]);
        assert_eq!(found.health(), Health::Good, "{found:#?}");
        assert_eq!(found.files.len(), 8);
        assert_eq!(found.streams, []);
        let [database] = found.databases.as_slice() else { panic!("{found:?}") };
        assert_eq!(database.path, files.database);
        assert_eq!(
            database.set.verdict,
            SetVerdict::Recoverable { required: range(6, 7), committed: Generation::new(8) }
        );
        assert_eq!(database.set.rolls_forward_to.unwrap().generation, Generation::new(8));
        assert_eq!(database.checkpoints.len(), 1);
        assert!(database.checkpoints[0].fits);
        assert_eq!(database.flush_map, None);
        serde_json::to_string(&found).unwrap();
    }
}

#[test]
fn what_is_missing_or_damaged_decides() {
    // A committed log is missing: work is lost.
    let (folder, files) = written(&small(1));
    fs::remove_file(&files.logs[5]).unwrap();
    let found = check(&[folder.path()]);
    assert_eq!(found.health(), Health::Notable);
    assert!(matches!(
        &found.databases[0].set.verdict,
        SetVerdict::RecoverableWithLoss { missing, .. } if *missing == [range(8, 8)]
    ));
    // A required one is damaged: it cannot be recovered, and that log says so itself.
    spoil(&files.logs[3], 2 * 4096 + 99);
    let found = check(&[folder.path()]);
    assert_eq!(found.health(), Health::Bad);
    assert!(matches!(
        &found.databases[0].set.verdict,
        SetVerdict::NotRecoverable { missing, .. } if *missing == [range(6, 6)]
    ));
    let bad: Vec<_> = found.files.iter().filter(|file| file.health == Health::Bad).collect();
    assert_eq!(bad.len(), 1);
    assert_eq!(bad[0].path, files.logs[3]);

    // A bad page is bad whatever the logs say.
    let (folder, files) = written(&small(2).with_clean(true));
    spoil(&files.database, 9 * 4096 + 99);
    let found = check(&[folder.path()]);
    assert_eq!(found.databases[0].set.verdict, SetVerdict::Clean);
    assert_eq!((found.databases[0].health, found.health()), (Health::Bad, Health::Bad));
    assert_eq!(found.files[0].pages.unwrap().bad, 1);

    // One bit is repairable.
    let (folder, files) = written(&small(3));
    let mut bytes = fs::read(&files.database).unwrap();
    bytes[9 * 4096 + 99] ^= 1;
    fs::write(&files.database, bytes).unwrap();
    assert_eq!(check(&[folder.path()]).health(), Health::Notable);
}

#[test]
fn sets_in_one_folder_do_not_mix() {
    let folder = tempfile::tempdir().unwrap();
    let (one, other) = (folder.path().join("one"), folder.path().join("other/deep"));
    fs::create_dir(&one).unwrap();
    fs::create_dir_all(&other).unwrap();
    small(1).write_to(&one).unwrap();
    let second = small(2).with_name("DB02").with_base("E01").write_to(&other).unwrap();
    let found = check(&[folder.path()]);
    assert_eq!(found.health(), Health::Good, "{found:#?}");
    assert_eq!(found.databases.len(), 2);
    assert!(found.databases.iter().all(|database| database.checkpoints.len() == 1));
    // Without its database a stream stands by itself, and another's checkpoint is told apart.
    fs::remove_file(&second.database).unwrap();
    let found = check(&[folder.path()]);
    assert_eq!((found.databases.len(), found.streams.len()), (1, 1));
    assert_eq!(found.streams[0].generations, Some(range(3, 8)));
    let fits: Vec<bool> =
        found.databases[0].checkpoints.iter().map(|checkpoint| checkpoint.fits).collect();
    assert_eq!(fits, [true, false]);
    fs::remove_file(&second.logs[2]).unwrap();
    let found = check_logs(&other, "e01", &options(), &mut ()).unwrap();
    assert_eq!(found.files.len(), 5);
    assert_eq!(found.streams[0].findings[0].jet.code(), -528);
    assert_eq!(found.health(), Health::Bad);
    assert_eq!(check_logs(&one, "E00", &options(), &mut ()).unwrap().health(), Health::Good);
    assert_eq!(check_logs(&one, "E07", &options(), &mut ()).unwrap().health(), Health::Unusable);
}

#[test]
fn a_flush_map_beside_its_database() {
    let folder = tempfile::tempdir().unwrap();
    let mut bytes = Vec::new();
    DatabaseSpec::new(4).with_pages(20).with_flush_map(true).write_to(&mut bytes).unwrap();
    fs::write(folder.path().join("DB.edb"), &bytes).unwrap();
    let header = read_database_header(&bytes).unwrap().header;
    let map = FlushMapSpec::new(&header).bytes();
    fs::write(folder.path().join("DB.jfm"), &map).unwrap();
    let found = check(&[folder.path()]);
    assert_eq!(found.health(), Health::Good);
    assert_eq!(found.databases[0].flush_map, Some(FlushMapFit::Usable));
    assert_eq!(found.files[1].kind, FileKind::FlushMap);
}

#[test]
fn files_of_no_use() {
    let folder = tempfile::tempdir().unwrap();
    let text = folder.path().join("readme.txt");
    fs::write(&text, "nothing of ours").unwrap();
    // In a folder it is passed by, named it is unusable; so is what is not there.
    assert_eq!(check(&[folder.path()]).files, []);
    assert_eq!(check(&[folder.path()]).health(), Health::Unusable);
    let found = check(&[&text, folder.path()]);
    assert_eq!((found.files.len(), found.health()), (1, Health::Unusable));
    let gone = folder.path().join("gone.edb");
    let found = check(&[&gone]);
    let failure = found.files[0].failure.as_ref().unwrap();
    assert_eq!((failure.code, failure.jet.unwrap().code()), ("ese.open", -1811));
    assert!(matches!(check_path(&gone, &options(), &mut ()), Err(EseError::Open { .. })));
    // A database whose headers are both lost.
    let (_kept, files) = written(&small(1));
    let mut bytes = fs::read(&files.database).unwrap();
    for at in [100, 4196] {
        bytes[at] ^= 1;
    }
    let checked = check_file(&bytes, &options(), &mut ()).unwrap();
    assert!(matches!(checked, FileCheck::Database(_)));
    assert_eq!(checked.health(), Health::Unusable);
    // A log of an engine that is too old to be checked.
    let mut log = fs::read(&files.logs[0]).unwrap();
    log[32] = 6;
    seal_header(&mut log[..4096]);
    assert_eq!(check_file(&log, &options(), &mut ()).unwrap().health(), Health::Unusable);
}

#[cfg(unix)]
#[test]
fn links_do_not_lead_out_of_a_folder() {
    let (outside, files) = written(&small(1));
    let folder = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(outside.path(), folder.path().join("away")).unwrap();
    std::os::unix::fs::symlink(&files.database, folder.path().join("DB.edb")).unwrap();
    assert_eq!(check(&[folder.path()]).files, []);
    // What is named is followed.
    assert_eq!(check(&[&folder.path().join("away")]).health(), Health::Good);
}

#[test]
fn progress_runs_over_all_files_and_can_stop() {
    let (folder, _) = written(&small(1));
    let paths = [folder.path().to_owned()];
    let (mut last, mut files) = (0, Vec::new());
    check_set(&paths, &options(), &mut |file: &Path, progress: Progress| {
        assert!(progress.done >= last && progress.done <= progress.total);
        last = progress.done;
        if files.last() != Some(&file.to_owned()) {
            files.push(file.to_owned());
        }
        ControlFlow::Continue(())
    })
    .unwrap();
    assert_eq!(files.len(), 8);
    let total: u64 = files.iter().map(|file| fs::metadata(file).unwrap().len()).sum();
    assert_eq!(last, total);
    let stopped = check_set(&paths, &options(), &mut |_: &Path, _| ControlFlow::Break(()));
    assert!(matches!(stopped, Err(EseError::Stopped)));
}

#[test]
fn a_restored_streaming_backup_needs_what_its_trailer_says() {
    for size in PageSize::ALL {
        let folder = tempfile::tempdir().unwrap();
        let generation = Generation::new;
        let spec = DatabaseSpec::new(1)
            .with_page_size(size)
            .with_pages(20)
            .with_uninitialised(3)
            .with_dirty(range(6, 7), generation(8))
            .with_trailer(true);
        let mut bytes = Vec::new();
        spec.write_to(&mut bytes).unwrap();
        assert_eq!(bytes.len() as u64, spec.file_len());
        fs::write(folder.path().join("DB01.edb"), &bytes).unwrap();
        for log in LogStreamSpec::new(1, generation(6), generation(8)).with_segments(8).logs() {
            fs::write(folder.path().join(log.name), log.bytes).unwrap();
        }
        let found = check(&[folder.path()]);
        assert_eq!(found.health(), Health::Good, "{found:#?}");
        assert_eq!(found.files[0].pages.unwrap().total, 20);
        assert_eq!(
            found.databases[0].set.verdict,
            SetVerdict::Recoverable { required: range(6, 7), committed: generation(8) }
        );
        // Without the trailer nobody knows.
        fs::write(folder.path().join("DB01.edb"), &bytes[..bytes.len() - size.len()]).unwrap();
        assert_eq!(check(&[folder.path()]).databases[0].health, Health::Bad);
    }
}

#[test]
fn a_temporary_database_is_no_part_of_a_backup() {
    let (folder, _) = written(&small(1));
    let mut bytes = Vec::new();
    let spec = DatabaseSpec::new(2).with_page_size(PageSize::KIB_4).with_pages(4);
    spec.with_state(DatabaseState::JustCreated).write_to(&mut bytes).unwrap();
    for copy in [0, 4096] {
        bytes[copy + 667] = 5;
        seal_header(&mut bytes[copy..copy + 4096]);
    }
    let path = folder.path().join("tmp.edb");
    fs::write(&path, bytes).unwrap();
    let found = check(&[folder.path()]);
    assert_eq!((found.databases.len(), found.health()), (1, Health::Good), "{found:#?}");
    let named = check(&[&path]);
    assert_eq!(named.files[0].kind, FileKind::TemporaryDatabase);
    assert_eq!(named.health(), Health::Unusable);
}

#[test]
fn states_that_are_no_backup() {
    for (state, is_refused) in [
        (DatabaseState::JustCreated, true),
        (DatabaseState::CleanShutdown, false),
        (DatabaseState::BeingConverted, true),
        (DatabaseState::ForceDetach, true),
        (DatabaseState::IncrementalReseed, true),
        (DatabaseState::DirtyAndPatched, false),
        (DatabaseState::RevertInProgress, true),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let generation = Generation::new;
        let file = fs::File::create(folder.path().join("DB01.edb")).unwrap();
        DatabaseSpec::new(1)
            .with_pages(5)
            .with_dirty(range(6, 7), generation(8))
            .with_state(state)
            .write_to(&mut &file)
            .unwrap();
        for log in LogStreamSpec::new(1, generation(6), generation(8)).with_segments(8).logs() {
            fs::write(folder.path().join(log.name), log.bytes).unwrap();
        }
        let found = check(&[folder.path()]);
        assert_eq!(found.databases[0].state, state);
        assert_eq!(found.health() == Health::Bad, is_refused, "{state}");
    }
}
