//! A process that dies between any two changes of the file system, and one that is refused any single one of them: a new
//! process cleans up everything, and nothing half-made is taken for whole.
//!
//! The number of changes is not known beforehand: each test goes on until the work gets through.

use std::path::Path;
use std::sync::Arc;

use stillpoint_context::ErrorFacts;
use stillpoint_model::id::{ExposureKey, SetToken};
use stillpoint_storage::{
    Discarded, DocName, Found, PrepareSpec, ProviderErrorKind, ProviderResult, RestoreKey,
    Snapshot, SnapshotProvider, SnapshotRestore, StageSpec,
};

use super::support::{Failing, Lab, NoLinks, Trace, everything, names, snapshot_ref, tree};
use crate::FsProvider;
use crate::disk::Hook;

/// Enough for any of the flows here; one that needs more does not end.
const MOST: usize = 500;

async fn back_up(
    lab: &Lab,
    provider: &FsProvider,
    spec: &PrepareSpec,
) -> ProviderResult<Vec<Snapshot>> {
    let prepared = provider.prepare(&lab.cx, spec).await?;
    provider.commit(&lab.cx, &prepared).await?;
    SnapshotProvider::settle(provider, &lab.cx, &prepared).await
}

/// Repeats work that dies later each time, until it does not die; gives the number of deaths.
fn die_everywhere(mut attempt: impl FnMut(usize) -> bool) -> usize {
    (0..MOST).find(|changes| attempt(*changes)).expect("the work gets through in the end")
}

#[test]
fn a_backup_that_dies_anywhere_is_found_out_and_discarded() {
    let lab = Lab::new();
    let spec = lab.spec("t1");
    let deaths = die_everywhere(|changes| {
        let dying = lab.hooked(Failing::dead_after(changes));
        let result = lab.run(back_up(&lab, &dying, &spec));
        let fresh = lab.provider();
        lab.run(async {
            let found = fresh.find(&lab.cx, &spec.token).await.unwrap();
            if let Ok(snapshots) = &result {
                assert_eq!(found, Found::Complete(snapshots.clone()));
            }
            // What is called complete and settled is whole.
            if let Found::Complete(snapshots) = &found {
                for snapshot in snapshots {
                    let member = if snapshot.volume.id.as_str() == "data" { "m0" } else { "m1" };
                    for file in &snapshot.files {
                        let inside =
                            file.path.parts_below(&lab.host_path(snapshot.volume.id.as_str()));
                        let stored =
                            lab.path("store/sets/t1").join(member).join(inside.unwrap().join("/"));
                        let bytes = std::fs::read(stored).unwrap();
                        file.seal.as_ref().unwrap().check_all(&bytes).unwrap();
                    }
                }
            }
            assert_eq!(fresh.discard(&lab.cx, &spec.token).await.unwrap(), Discarded::Gone);
            assert_eq!(fresh.find(&lab.cx, &spec.token).await.unwrap(), Found::Absent);
        });
        assert_eq!(lab.sets(), Vec::<String>::new(), "after {changes} changes");
        result.is_ok()
    });
    println!("died at {deaths} places");
    assert!(deaths > 60, "only {deaths} places");
}

#[test]
fn a_backup_that_died_anywhere_goes_on_in_a_new_process() {
    let lab = Lab::new();
    let spec = lab.spec("t1");
    let provider = lab.provider();
    let prepared = lab.run(provider.prepare(&lab.cx, &spec)).unwrap();
    let mut prepared = prepared;
    let deaths = die_everywhere(|changes| {
        let dying = lab.hooked(Failing::dead_after(changes));
        let result = lab.run(async {
            dying.commit(&lab.cx, &prepared).await?;
            SnapshotProvider::settle(&dying, &lab.cx, &prepared).await
        });
        let fresh = lab.provider();
        lab.run(async {
            let members = fresh.commit(&lab.cx, &prepared).await.unwrap();
            assert_eq!(members.len(), 2);
            let snapshots = SnapshotProvider::settle(&fresh, &lab.cx, &prepared).await.unwrap();
            assert_eq!(names(&lab.path("store/sets/t1")), ["lock", "m0", "m1", "set.json"]);
            assert_eq!(tree(&lab.path("store/sets/t1/m0")), tree(&lab.path("data")));
            if let Ok(before) = &result {
                assert_eq!(snapshots, *before);
            }
            assert_eq!(fresh.discard(&lab.cx, &spec.token).await.unwrap(), Discarded::Gone);
            prepared = fresh.prepare(&lab.cx, &spec).await.unwrap();
        });
        result.is_ok()
    });
    println!("died at {deaths} places");
    assert!(deaths > 40, "only {deaths} places");
}

/// What a file system says that has no room, for anybody or for this user.
const NO_ROOM: [rustix::io::Errno; 2] = [rustix::io::Errno::NOSPC, rustix::io::Errno::DQUOT];

#[test]
fn a_full_disk_or_quota_at_any_place_is_said_and_leaves_nothing_after_discard() {
    let lab = Lab::new();
    let spec = lab.spec("t1");
    for errno in NO_ROOM {
        let places = die_everywhere(|changes| {
            let full = lab.hooked(Failing::once_after(changes, errno));
            let result = lab.run(back_up(&lab, &full, &spec));
            if let Err(error) = &result {
                assert_eq!(*error.kind(), ProviderErrorKind::NoSpace, "{error}");
                assert_eq!(error.code().as_str(), "storage.no_space");
                // The same process cleans up.
                assert_eq!(lab.run(full.discard(&lab.cx, &spec.token)).unwrap(), Discarded::Gone);
            }
            let fresh = lab.provider();
            assert_eq!(lab.run(fresh.discard(&lab.cx, &spec.token)).unwrap(), Discarded::Gone);
            assert_eq!(lab.sets(), Vec::<String>::new(), "after {changes} changes");
            result.is_ok()
        });
        println!("refused at {places} places");
        assert!(places > 60, "only {places} places");
    }
}

#[test]
fn a_discard_that_dies_anywhere_is_finished_by_the_next() {
    let lab = Lab::new();
    let token = SetToken::new("t1").unwrap();
    for settled in [false, true] {
        let deaths = die_everywhere(|changes| {
            let provider = lab.provider();
            if settled {
                lab.take(&provider, "t1");
            } else {
                lab.run(async {
                    let prepared = provider.prepare(&lab.cx, &lab.spec("t1")).await.unwrap();
                    provider.commit(&lab.cx, &prepared).await.unwrap();
                });
            }
            let dying = lab.hooked(Failing::dead_after(changes));
            let result = lab.run(dying.discard(&lab.cx, &token));
            let fresh = lab.provider();
            lab.run(async {
                let found = fresh.find(&lab.cx, &token).await.unwrap();
                match (&result, found) {
                    (Ok(Discarded::Gone), Found::Absent)
                    | (Err(_), Found::Absent | Found::Partial(_) | Found::Complete(_)) => {}
                    other => panic!("{other:?} after {changes} changes"),
                }
                assert_eq!(fresh.discard(&lab.cx, &token).await.unwrap(), Discarded::Gone);
                assert_eq!(fresh.find(&lab.cx, &token).await.unwrap(), Found::Absent);
            });
            assert_eq!(lab.sets(), Vec::<String>::new(), "after {changes} changes");
            result.is_ok()
        });
        println!("died at {deaths} places");
        assert!(deaths > 15, "only {deaths} places");
    }
}

#[test]
fn a_delete_that_dies_anywhere_is_finished_by_the_next() {
    let lab = Lab::new();
    let deaths = die_everywhere(|changes| {
        lab.take(&lab.provider(), "t1");
        let dying = lab.hooked(Failing::dead_after(changes));
        let result = lab.run(async {
            dying.delete(&lab.cx, &snapshot_ref("logs", "t1")).await?;
            dying.delete(&lab.cx, &snapshot_ref("data", "t1")).await
        });
        let fresh = lab.provider();
        lab.run(async {
            for volume in ["logs", "data"] {
                fresh.delete(&lab.cx, &snapshot_ref(volume, "t1")).await.unwrap();
            }
        });
        assert_eq!(lab.sets(), Vec::<String>::new(), "after {changes} changes");
        result.is_ok()
    });
    println!("died at {deaths} places");
    assert!(deaths > 15, "only {deaths} places");
}

#[test]
fn documents_and_exposures_are_old_or_new_whenever_the_process_dies() {
    let lab = Lab::new();
    let name = DocName::new("point.json").unwrap();
    let key = ExposureKey::new("k").unwrap();
    let provider = lab.provider();
    lab.take(&provider, "t1");
    let _deaths = die_everywhere(|changes| {
        lab.run(provider.put_doc(&lab.cx, &name, b"old")).unwrap();
        let dying = lab.hooked(Failing::dead_after(changes));
        let result = lab.run(async {
            dying.put_doc(&lab.cx, &name, b"newer").await?;
            let snapshots = [snapshot_ref("data", "t1")];
            dying.expose(&lab.cx, &snapshots, &"lab".parse().unwrap(), &key).await?;
            dying.unexpose(&lab.cx, &key).await
        });
        lab.run(async {
            let doc = provider.get_doc(&lab.cx, &name).await.unwrap().unwrap();
            assert!(doc == b"old" || doc == b"newer", "{doc:?}");
            assert_eq!(provider.list_docs(&lab.cx).await.unwrap(), vec![name.clone()]);
            assert!(provider.exposures(&lab.cx).await.unwrap().len() <= 1);
            provider.unexpose(&lab.cx, &key).await.unwrap();
            assert_eq!(provider.exposures(&lab.cx).await.unwrap(), vec![]);
        });
        result.is_ok()
    });
}

/// A restore onto a folder where two of the files are in the way; the others go into folders that are to be made.
fn restore_onto(lab: &Lab) -> StageSpec {
    let _ = std::fs::remove_dir_all(lab.path("target"));
    lab.write("target/data/db one/DB01.edb", b"older");
    lab.write("target/logs/E00/E00.log", b"older log");
    lab.write("target/logs/other.log", b"not concerned");
    lab.restore_spec("r1", "t1", "target").replacing()
}

async fn restore(lab: &Lab, side: &dyn SnapshotRestore, spec: &StageSpec) -> ProviderResult<()> {
    side.stage(&lab.cx, spec).await?;
    side.publish(&lab.cx, &spec.key).await?;
    Ok(())
}

/// No target has anything but what it had or what it is to have.
fn check_targets(lab: &Lab, before: &Path) {
    for (file, bytes) in tree(&lab.path("target")) {
        if file.contains(".stillpoint-restore-") {
            continue;
        }
        let old = std::fs::read(before.join(&file)).ok();
        let new = std::fs::read(lab.path(&file)).ok();
        assert!(
            Some(&bytes.0) == old.as_ref() || Some(&bytes.0) == new.as_ref(),
            "{file} is neither"
        );
    }
    // And what was there is there, old or new, at every instant.
    for file in tree(before).into_keys() {
        assert!(lab.path("target").join(&file).exists(), "{file} is missing");
    }
}

#[test]
fn a_restore_that_dies_anywhere_can_be_taken_back() {
    dies_and_is_taken_back(|hook| hook);
}

#[test]
fn a_restore_that_dies_anywhere_can_be_taken_back_without_hard_links() {
    dies_and_is_taken_back(|hook| Arc::new(NoLinks(hook)));
}

fn dies_and_is_taken_back(file_system: fn(Arc<dyn Hook>) -> Arc<dyn Hook>) {
    let lab = Lab::new();
    lab.take(&lab.provider(), "t1");
    let before = lab.path("before");
    let deaths = die_everywhere(|changes| {
        let spec = restore_onto(&lab);
        let was = everything(&lab.path("target"));
        if changes == 0 {
            copy_tree(&lab.path("target"), &before);
        }
        let dying = lab.hooked(file_system(Failing::dead_after(changes)));
        let result = lab.run(restore(&lab, &dying, &spec));
        check_targets(&lab, &before);
        let fresh = lab.hooked(file_system(Arc::new(Trace::default())));
        let side: &dyn SnapshotRestore = &fresh;
        lab.run(async {
            side.retract(&lab.cx, &spec.key).await.unwrap();
            side.unstage(&lab.cx, &spec.key).await.unwrap();
        });
        assert_eq!(everything(&lab.path("target")), was, "after {changes} changes");
        assert_eq!(names(&lab.path("store/restores")), Vec::<String>::new());
        result.is_ok()
    });
    println!("died at {deaths} places");
    assert!(deaths > 80, "only {deaths} places");
}

#[test]
fn a_restore_that_died_anywhere_goes_on_in_a_new_process() {
    dies_and_goes_on(|hook| hook);
}

#[test]
fn a_restore_that_died_anywhere_goes_on_in_a_new_process_without_hard_links() {
    dies_and_goes_on(|hook| Arc::new(NoLinks(hook)));
}

fn dies_and_goes_on(file_system: fn(Arc<dyn Hook>) -> Arc<dyn Hook>) {
    let lab = Lab::new();
    lab.take(&lab.provider(), "t1");
    let mut went_on = 0;
    die_everywhere(|changes| {
        let spec = restore_onto(&lab);
        let dying = lab.hooked(file_system(Failing::dead_after(changes)));
        let result = lab.run(restore(&lab, &dying, &spec));
        let fresh = lab.hooked(file_system(Arc::new(Trace::default())));
        let side: &dyn SnapshotRestore = &fresh;
        lab.run(async {
            match side.publish(&lab.cx, &spec.key).await {
                Ok(_) => went_on += usize::from(result.is_err()),
                Err(error) => {
                    assert_eq!(*error.kind(), ProviderErrorKind::NotFound, "{error}");
                    restore(&lab, side, &spec).await.unwrap();
                }
            }
            side.settle(&lab.cx, &spec.key).await.unwrap();
        });
        assert_eq!(tree(&lab.path("target/data")), tree(&lab.path("data")));
        let mut logs = tree(&lab.path("target/logs"));
        assert!(logs.remove("other.log").is_some());
        assert_eq!(logs, tree(&lab.path("logs")), "after {changes} changes");
        assert_eq!(names(&lab.path("target")), ["data", "logs"]);
        assert_eq!(names(&lab.path("store/restores")), Vec::<String>::new());
        result.is_ok()
    });
    assert!(went_on > 20, "only {went_on} went on");
}

#[test]
fn a_publication_that_is_refused_anything_is_taken_back_by_itself() {
    let lab = Lab::new();
    lab.take(&lab.provider(), "t1");
    let fresh = lab.provider();
    let side: &dyn SnapshotRestore = &fresh;
    let places = |errno| {
        die_everywhere(|changes| {
            let spec = restore_onto(&lab);
            let was = tree(&lab.path("target"));
            lab.run(side.stage(&lab.cx, &spec)).unwrap();
            let full = lab.hooked(Failing::once_after(changes, errno));
            let full: &dyn SnapshotRestore = &full;
            let result = lab.run(full.publish(&lab.cx, &spec.key));
            if let Err(error) = &result {
                assert_eq!(*error.kind(), ProviderErrorKind::NoSpace, "{error}");
                let mut now = tree(&lab.path("target"));
                now.retain(|name, _| !name.contains(".stillpoint"));
                if error.effect() == stillpoint_context::Effect::Unknown {
                    // Only the last note in the journal failed; the files are there, and the call may be repeated.
                    lab.run(full.publish(&lab.cx, &spec.key)).unwrap();
                } else {
                    assert_eq!(now, was, "after {changes} changes");
                }
            }
            lab.run(async {
                side.retract(&lab.cx, &spec.key).await.unwrap();
                side.unstage(&lab.cx, &spec.key).await.unwrap();
            });
            assert_eq!(tree(&lab.path("target")), was, "after {changes} changes");
            result.is_ok()
        })
    };
    for errno in NO_ROOM {
        let places = places(errno);
        assert!(places > 20, "only {places} places");
    }
}

#[test]
fn undos_that_die_anywhere_are_finished_by_the_next() {
    let lab = Lab::new();
    lab.take(&lab.provider(), "t1");
    let deaths = die_everywhere(|changes| {
        let spec = restore_onto(&lab);
        let was = everything(&lab.path("target"));
        let fresh = lab.provider();
        lab.run(restore(&lab, &fresh, &spec)).unwrap();
        let take_back = async |side: &dyn SnapshotRestore, key: &RestoreKey| {
            side.retract(&lab.cx, key).await?;
            side.unstage(&lab.cx, key).await
        };
        let dying = lab.hooked(Failing::dead_after(changes));
        let result = lab.run(take_back(&dying, &spec.key));
        lab.run(take_back(&fresh, &spec.key)).unwrap();
        assert_eq!(everything(&lab.path("target")), was, "after {changes} changes");
        assert_eq!(names(&lab.path("store/restores")), Vec::<String>::new());
        result.is_ok()
    });
    assert!(deaths > 20, "only {deaths} places");
    let deaths = die_everywhere(|changes| {
        let spec = restore_onto(&lab);
        let fresh = lab.provider();
        lab.run(restore(&lab, &fresh, &spec)).unwrap();
        let dying = lab.hooked(Failing::dead_after(changes));
        let settle = async |side: &dyn SnapshotRestore| side.settle(&lab.cx, &spec.key).await;
        let result = lab.run(settle(&dying));
        lab.run(settle(&fresh)).unwrap();
        assert_eq!(names(&lab.path("target")), ["data", "logs"], "after {changes} changes");
        assert_eq!(tree(&lab.path("target/data")), tree(&lab.path("data")));
        assert_eq!(names(&lab.path("store/restores")), Vec::<String>::new());
        result.is_ok()
    });
    assert!(deaths > 8, "only {deaths} places");
}

fn copy_tree(from: &Path, to: &Path) {
    for (name, bytes) in tree(from) {
        let path = to.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes.0).unwrap();
    }
}
