//! Restores: nothing under a target's name before it is checked, and every state before it can be had back.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};

use stillpoint_context::ErrorFacts;
use stillpoint_storage::{
    ProviderErrorKind, Published, RestoreKey, RestoredFile, SnapshotRestore, StageSpec,
};

use super::support::{Lab, assert_kind, everything, mode, names, snapshot_ref, tree};
use crate::FsProvider;

fn side(provider: &FsProvider) -> &dyn SnapshotRestore {
    provider
}

#[test]
fn a_volume_that_is_gone_can_be_restored_from() {
    let lab = Lab::new();
    lab.take(&lab.provider(), "t1");
    let data = tree(&lab.path("data"));
    let spec = lab.restore_spec("r1", "t1", "target");
    let late = lab.spec("t2");
    fs::remove_dir_all(lab.path("data")).unwrap();
    fs::remove_dir_all(lab.path("logs")).unwrap();
    let provider = lab.provider();
    lab.run(async {
        let refused =
            stillpoint_storage::SnapshotProvider::prepare(&provider, &lab.cx, &late).await;
        assert_kind(refused, &ProviderErrorKind::Vanished);
        side(&provider).stage(&lab.cx, &spec).await.unwrap();
        side(&provider).publish(&lab.cx, &spec.key).await.unwrap();
        side(&provider).settle(&lab.cx, &spec.key).await.unwrap();
    });
    assert_eq!(tree(&lab.path("target/data")), data);
    assert!(!lab.path("data").exists(), "nothing was made in its place");
}

#[test]
fn files_come_back_as_they_were() {
    let lab = Lab::on_disk();
    let provider = lab.provider();
    fs::set_permissions(
        lab.path("data/db one/DB01.edb"),
        std::os::unix::fs::PermissionsExt::from_mode(0o640),
    )
    .unwrap();
    let times = fs::metadata(lab.path("data/db one/DB01.edb")).unwrap().modified().unwrap();
    lab.take(&provider, "t1");
    let (data, logs) = (tree(&lab.path("data")), tree(&lab.path("logs")));
    let spec = lab.restore_spec("r1", "t1", "target/deep/er");
    lab.run(async {
        let staged = side(&provider).stage(&lab.cx, &spec).await.unwrap();
        assert_eq!(names(&lab.path("target")), [".stillpoint-restore-r1"]);
        let total: usize = data.values().chain(logs.values()).map(|bytes| bytes.0.len()).sum();
        assert_eq!(staged.bytes, total as u64);
        for file in &spec.files {
            let at = staged.exposure.find(&file.original).unwrap().to_native().unwrap();
            let original = file.original.to_native().unwrap();
            assert_eq!(fs::read(at).unwrap(), fs::read(original).unwrap());
        }
        let folder = staged.exposure.find(&lab.host_path("logs/E00")).unwrap().to_native().unwrap();
        assert_eq!(names(&folder), ["E00.chk", "E00.log", "E0000000001.log"], "by folder too");
        let published = side(&provider).publish(&lab.cx, &spec.key).await.unwrap();
        assert_eq!(published.files.len(), spec.files.len());
        assert_eq!(published.kept, vec![]);
        assert_eq!(side(&provider).publish(&lab.cx, &spec.key).await.unwrap(), published);
        assert_eq!(tree(&lab.path("target/deep/er/data")), data);
        assert_eq!(tree(&lab.path("target/deep/er/logs")), logs);
        let restored = fs::metadata(lab.path("target/deep/er/data/db one/DB01.edb")).unwrap();
        assert_eq!(restored.mode() & 0o777, 0o640);
        assert_eq!(restored.modified().unwrap(), times);
        for _ in 0..2 {
            side(&provider).settle(&lab.cx, &spec.key).await.unwrap();
        }
    });
    assert_eq!(names(&lab.path("target")), ["deep"]);
    assert_eq!(names(&lab.path("store/restores")), Vec::<String>::new());
    // After that nothing can be put back.
    lab.run(side(&provider).retract(&lab.cx, &spec.key)).unwrap();
    assert_eq!(tree(&lab.path("target/deep/er/data")), data);
}

#[test]
fn what_is_in_the_way_is_refused_or_kept_and_put_back() {
    let lab = Lab::on_disk();
    let provider = lab.provider();
    lab.take(&provider, "t1");
    lab.write("target/data/db one/DB01.edb", b"older");
    lab.write("target/logs/other.log", b"not concerned");
    fs::create_dir_all(lab.path("target/logs/E00")).unwrap();
    symlink(lab.path("logs/E00/E00.chk"), lab.path("target/logs/E00/E00.chk")).unwrap();
    let before = everything(&lab.path("target"));
    let spec = lab.restore_spec("r1", "t1", "target");
    lab.run(async {
        assert_kind(side(&provider).stage(&lab.cx, &spec).await, &ProviderErrorKind::NameTaken);
        assert_eq!(everything(&lab.path("target")), before);
        assert_eq!(names(&lab.path("store/restores")), Vec::<String>::new());

        let spec = spec.replacing();
        side(&provider).stage(&lab.cx, &spec).await.unwrap();
        let published: Published = side(&provider).publish(&lab.cx, &spec.key).await.unwrap();
        assert_eq!(published.kept.len(), 2);
        assert_eq!(fs::read(published.kept[0].1.to_native().unwrap()).unwrap(), b"older");
        let link = fs::symlink_metadata(published.kept[1].1.to_native().unwrap()).unwrap();
        assert!(link.is_symlink(), "a link is kept as a link, and what it leads to is not touched");
        assert_eq!(
            fs::read(lab.path("target/data/db one/DB01.edb")).unwrap(),
            fs::read(lab.path("data/db one/DB01.edb")).unwrap()
        );
        // Unstaging takes nothing that is published.
        side(&provider).unstage(&lab.cx, &spec.key).await.unwrap();
        assert_eq!(side(&provider).publish(&lab.cx, &spec.key).await.unwrap(), published);
        for _ in 0..2 {
            side(&provider).retract(&lab.cx, &spec.key).await.unwrap();
        }
        let gone = side(&provider).publish(&lab.cx, &spec.key).await;
        assert_kind(gone, &ProviderErrorKind::NotFound);
        for _ in 0..2 {
            side(&provider).unstage(&lab.cx, &spec.key).await.unwrap();
        }
    });
    assert_eq!(everything(&lab.path("target")), before);
    assert!(fs::symlink_metadata(lab.path("target/logs/E00/E00.chk")).unwrap().is_symlink());
    assert_eq!(names(&lab.path("store/restores")), Vec::<String>::new());
}

#[test]
fn one_flipped_bit_stops_it_with_file_and_offset() {
    let lab = Lab::new();
    let provider = lab.provider();
    lab.take(&provider, "t1");
    let stored = lab.path("store/sets/t1/m0/db one/DB01.edb");
    let mut bytes = fs::read(&stored).unwrap();
    bytes[(1 << 20) + 77] ^= 4;
    fs::set_permissions(&stored, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    fs::write(&stored, &bytes).unwrap();
    let spec = lab.restore_spec("r1", "t1", "target/here");
    let error =
        assert_kind(lab.run(side(&provider).stage(&lab.cx, &spec)), &ProviderErrorKind::Damaged);
    assert!(error.to_string().contains("offset 1048576"), "{error}");
    assert!(error.subjects().iter().any(|s| s.kind == "file" && s.id == stored.to_str().unwrap()));
    assert_eq!(names(&lab.path("target")), Vec::<String>::new());
    assert_eq!(names(&lab.path("store/restores")), Vec::<String>::new());
    // Too short, and gone.
    fs::OpenOptions::new().write(true).open(&stored).unwrap().set_len(100).unwrap();
    assert_kind(lab.run(side(&provider).stage(&lab.cx, &spec)), &ProviderErrorKind::Damaged);
    fs::set_permissions(
        stored.parent().unwrap(),
        std::os::unix::fs::PermissionsExt::from_mode(0o700),
    )
    .unwrap();
    fs::remove_file(&stored).unwrap();
    assert_kind(lab.run(side(&provider).stage(&lab.cx, &spec)), &ProviderErrorKind::Damaged);
    assert_eq!(names(&lab.path("target")), Vec::<String>::new());
}

#[test]
fn what_comes_into_the_way_meanwhile_stops_the_publication_whole() {
    let lab = Lab::new();
    let provider = lab.provider();
    lab.take(&provider, "t1");
    let spec = lab.restore_spec("r1", "t1", "target");
    lab.run(async {
        side(&provider).stage(&lab.cx, &spec).await.unwrap();
        lab.write("target/logs/E00/E00.log", b"new");
        let error = assert_kind(
            side(&provider).publish(&lab.cx, &spec.key).await,
            &ProviderErrorKind::NameTaken,
        );
        assert_eq!(error.effect(), stillpoint_context::Effect::None);
        assert_eq!(names(&lab.path("target")), [".stillpoint-restore-r1", "logs"]);
        // Moved away, it goes on.
        fs::remove_dir_all(lab.path("target/logs")).unwrap();
        side(&provider).publish(&lab.cx, &spec.key).await.unwrap();
        assert_eq!(tree(&lab.path("target/logs")), tree(&lab.path("logs")));
        // A file that somebody put in the place of a restored one is not deleted, and the others go all the same.
        fs::remove_file(lab.path("target/logs/E00/E00.log")).unwrap();
        lab.write("target/logs/E00/E00.log", b"somebody's");
        assert_kind(
            side(&provider).retract(&lab.cx, &spec.key).await,
            &ProviderErrorKind::NameTaken,
        );
        assert_eq!(tree(&lab.path("target/logs")).len(), 1);
        fs::remove_file(lab.path("target/logs/E00/E00.log")).unwrap();
        side(&provider).retract(&lab.cx, &spec.key).await.unwrap();
        side(&provider).unstage(&lab.cx, &spec.key).await.unwrap();
    });
    assert_eq!(everything(&lab.path("target")).len(), 0);
}

#[test]
fn a_restore_that_makes_no_sense_is_refused_and_leaves_nothing() {
    use ProviderErrorKind::{Invalid, NameTaken, NotFound, PathEscapes};
    let lab = Lab::new();
    let provider = lab.provider();
    lab.take(&provider, "t1");
    let file = |original: &str, target: &str| RestoredFile {
        snapshot: snapshot_ref(original.split('/').next().unwrap(), "t1"),
        original: lab.host_path(original),
        target: lab.host_path(target),
    };
    let chk = "logs/E00/E00.chk";
    let log = "logs/E00/E00.log";
    lab.write("target/file", b"");
    symlink(lab.path("nowhere"), lab.path("target/broken")).unwrap();
    symlink(lab.path("store"), lab.path("target/link")).unwrap();
    let cases = [
        (vec![], Invalid),
        (vec![file("logs/none", "target/a")], NotFound),
        (vec![file(chk, "target/a"), file(chk, "target/b")], Invalid),
        (vec![file(chk, "target/a"), file(log, "target/a")], Invalid),
        (vec![file(chk, "target/a"), file(log, "target/a/b")], Invalid),
        (vec![file(chk, "store/sets/x")], PathEscapes),
        (vec![file(chk, "store")], PathEscapes),
        (vec![file(chk, "target/link/x")], PathEscapes),
        (vec![file(chk, "target/broken")], NameTaken),
        (vec![file(chk, "target")], NameTaken),
    ];
    let before = everything(&lab.path("target"));
    for (files, kind) in cases {
        let text = format!("{files:?}");
        let spec = StageSpec::new(RestoreKey::new("r1").unwrap(), files);
        let result = lab.run(side(&provider).stage(&lab.cx, &spec));
        assert_eq!(result.expect_err(&text).kind(), &kind, "{text}");
    }
    let spec = StageSpec::new(RestoreKey::new("r1").unwrap(), vec![file(chk, "target/file/x")]);
    lab.run(side(&provider).stage(&lab.cx, &spec)).unwrap_err();
    let nothing = lab.run(side(&provider).publish(&lab.cx, &spec.key));
    assert_kind(nothing, &NotFound);
    for undo in [
        lab.run(side(&provider).retract(&lab.cx, &spec.key)),
        lab.run(side(&provider).unstage(&lab.cx, &spec.key)),
        lab.run(side(&provider).settle(&lab.cx, &spec.key)),
    ] {
        undo.unwrap();
    }
    assert_eq!(everything(&lab.path("target")), before);
    assert_eq!(names(&lab.path("store/restores")), Vec::<String>::new());
}

#[test]
fn staged_anew_it_starts_anew_and_a_published_one_is_not_overwritten() {
    let lab = Lab::new();
    let provider = lab.provider();
    lab.take(&provider, "t1");
    lab.run(async {
        side(&provider).stage(&lab.cx, &lab.restore_spec("r1", "t1", "target/a")).await.unwrap();
        fs::create_dir(lab.path("target/b")).unwrap();
        let spec = lab.restore_spec("r1", "t1", "target/b");
        side(&provider).stage(&lab.cx, &spec).await.unwrap();
        assert_eq!(names(&lab.path("target")), ["b"]);
        side(&provider).publish(&lab.cx, &spec.key).await.unwrap();
        assert_kind(side(&provider).stage(&lab.cx, &spec).await, &ProviderErrorKind::NameTaken);
        assert_eq!(tree(&lab.path("target/b/data")), tree(&lab.path("data")));
        // A hidden folder that is not in our journal is somebody's.
        fs::create_dir(lab.path("target/.stillpoint-restore-r2")).unwrap();
        let spec = lab.restore_spec("r2", "t1", "target/c");
        assert_kind(side(&provider).stage(&lab.cx, &spec).await, &ProviderErrorKind::NameTaken);
        assert!(lab.path("target/.stillpoint-restore-r2").exists());
    });
    assert_eq!(mode(&lab.path("store/sets")), 0o700);
}

#[test]
fn in_place_is_the_same_with_the_original_kept() {
    let lab = Lab::new();
    let provider = lab.provider();
    lab.take(&provider, "t1");
    let good = tree(&lab.path("data"));
    let mut spec = lab.restore_spec("r1", "t1", "x").replacing();
    for file in &mut spec.files {
        file.target = file.original.clone();
    }
    lab.write("data/db one/DB01.edb", b"corrupted");
    let broken = everything(&lab.path("data"));
    lab.run(async {
        side(&provider).stage(&lab.cx, &spec).await.unwrap();
        side(&provider).publish(&lab.cx, &spec.key).await.unwrap();
        let mut now = tree(&lab.path("data"));
        now.retain(|name, _| !name.contains(".stillpoint-"));
        assert_eq!(now, good);
        side(&provider).retract(&lab.cx, &spec.key).await.unwrap();
        side(&provider).unstage(&lab.cx, &spec.key).await.unwrap();
        assert_eq!(everything(&lab.path("data")), broken);
        side(&provider).stage(&lab.cx, &spec).await.unwrap();
        side(&provider).publish(&lab.cx, &spec.key).await.unwrap();
        side(&provider).settle(&lab.cx, &spec.key).await.unwrap();
    });
    assert_eq!(tree(&lab.path("data")), good);
}

/// A call that was dropped before it had a thread begins when it has one, perhaps after what undid it.
#[test]
fn a_publication_that_begins_after_its_undo_finds_nothing_to_publish() {
    let lab = Lab::new();
    let provider = lab.provider();
    lab.take(&provider, "t1");
    let spec = lab.restore_spec("r1", "t1", "target");
    lab.run(async {
        side(&provider).stage(&lab.cx, &spec).await.unwrap();
        side(&provider).retract(&lab.cx, &spec.key).await.unwrap();
        let late = side(&provider).publish(&lab.cx, &spec.key).await;
        assert_kind(late, &ProviderErrorKind::NotFound);
        side(&provider).retract(&lab.cx, &spec.key).await.unwrap();
        side(&provider).unstage(&lab.cx, &spec.key).await.unwrap();
        let late = side(&provider).publish(&lab.cx, &spec.key).await;
        assert_kind(late, &ProviderErrorKind::NotFound);
    });
    assert_eq!(names(&lab.path("target")), Vec::<String>::new());
}
