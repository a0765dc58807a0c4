//! Sets that move while they are looked at, listed, removed or restored from: as in `races`, at every step.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use stillpoint_model::handover::Prepared;
use stillpoint_storage::{
    Deleted, Discarded, Found, ProviderErrorKind, SnapshotProvider, SnapshotRestore,
};

use super::races::{Move, at_every_step, clear, committed, discarding, prepare, settling, token};
use super::support::{Calling, Failing, Lab, assert_kind, names, snapshot_ref, tree, volume_ref};
use crate::disk::{Disk, Hook, Op, Wait};

// Looking.

/// What a set is before, what happens to it meanwhile, and whether it may be found gone.
struct Moved {
    from: fn(&Lab) -> Prepared,
    by: fn(&Lab, &Arc<Mutex<Option<Prepared>>>) -> Move,
    may_be_gone: bool,
}

fn settled(lab: &Lab) -> Prepared {
    lab.take(&lab.provider(), "t1").0
}

fn settling_and_discarding(lab: &Lab, prepared: &Arc<Mutex<Option<Prepared>>>) -> Move {
    let (settle, discard) = (settling(lab, prepared), discarding(lab));
    Arc::new(move |store| {
        settle(store);
        discard(store);
    })
}

const MOVES: [Moved; 4] = [
    Moved { from: committed, by: settling, may_be_gone: false },
    Moved { from: committed, by: |lab, _| discarding(lab), may_be_gone: true },
    Moved { from: committed, by: settling_and_discarding, may_be_gone: true },
    Moved { from: settled, by: |lab, _| discarding(lab), may_be_gone: true },
];

#[test]
fn a_set_that_moves_while_it_is_looked_for_is_found_as_it_was_or_as_it_is() {
    let lab = Lab::new();
    for (number, Moved { from, by, may_be_gone }) in MOVES.into_iter().enumerate() {
        let prepared: Arc<Mutex<Option<Prepared>>> = Arc::default();
        let steps = at_every_step(
            &lab,
            || *prepared.lock().unwrap() = Some(from(&lab)),
            &by(&lab, &prepared),
            |provider, step| {
                let found = lab.run(provider.find(&lab.cx, &token())).unwrap();
                match found {
                    Found::Complete(snapshots) => assert_eq!(snapshots.len(), 2),
                    Found::Absent if may_be_gone => {}
                    other => panic!("move {number}, step {step}: {other:?}"),
                }
                clear(&lab);
            },
        );
        assert!(steps > 1, "only {steps} steps");
    }
}

#[test]
fn a_set_that_moves_while_it_is_listed_is_listed_once_or_gone() {
    let lab = Lab::new();
    for (number, Moved { from, by, may_be_gone }) in MOVES.into_iter().enumerate() {
        let prepared: Arc<Mutex<Option<Prepared>>> = Arc::default();
        let steps = at_every_step(
            &lab,
            || *prepared.lock().unwrap() = Some(from(&lab)),
            &by(&lab, &prepared),
            |provider, step| {
                let listing = lab.run(provider.list(&lab.cx, &volume_ref("data"), None)).unwrap();
                let listed: Vec<_> = listing.snapshots.iter().map(|s| s.token.as_ref()).collect();
                let is_gone = listed.is_empty() && may_be_gone;
                assert!(
                    is_gone || listed == [Some(&token())],
                    "move {number}, step {step}: {listing:?}"
                );
                clear(&lab);
            },
        );
        assert!(steps > 3, "only {steps} steps");
    }
}

#[test]
fn a_look_makes_nothing_and_does_not_see_another() {
    let lab = Lab::new();
    let provider = lab.provider();
    let prepared = committed(&lab);
    let partial = lab.path("store/sets/t1.partial");
    // Another find, in the middle of its look at the lock.
    let look = File::open(partial.join("lock")).unwrap();
    look.lock_shared().unwrap();
    let found = lab.run(provider.find(&lab.cx, &token())).unwrap();
    assert!(matches!(found, Found::Complete(_)), "{found:?}");
    drop(look);
    // A set that is being removed, after its lock has gone.
    fs::remove_file(partial.join("lock")).unwrap();
    let before = tree(&partial);
    for name in ["t1.partial", "t1.discarded"] {
        let folder = lab.path("store/sets").join(name);
        if !folder.exists() {
            fs::rename(&partial, &folder).unwrap();
        }
        let found = lab.run(provider.find(&lab.cx, &token())).unwrap();
        assert!(matches!(found, Found::Complete(_) | Found::Partial(_)), "{found:?}");
        let commit = lab.run(provider.commit(&lab.cx, &prepared));
        assert_kind(commit, &ProviderErrorKind::Expired);
        assert_eq!(tree(&folder), before, "nothing was made");
    }
    clear(&lab);
}

#[test]
fn those_who_look_at_a_lock_are_waited_for_and_those_who_hold_it_are_not() {
    let lab = Lab::new();
    let (disk, path) = (Disk::default(), lab.path("a.lock"));
    let held = disk.lock(&path, Wait::Yes).unwrap();
    assert!(disk.is_locked(&path).unwrap());
    let never = || -> bool { panic!("nobody waits for work") };
    assert!(disk.lock(&path, Wait::ForGlances(&never)).unwrap().is_none());
    drop(held);
    // One who looks is gone the second time that we ask.
    let look = Mutex::new(Some(File::open(&path).unwrap()));
    look.lock().unwrap().as_ref().unwrap().lock_shared().unwrap();
    assert!(!disk.is_locked(&path).unwrap());
    let patient = || {
        look.lock().unwrap().take();
        true
    };
    assert!(disk.lock(&path, Wait::ForGlances(&patient)).unwrap().is_some());
    // One who never goes away is not waited for without end.
    let look = File::open(&path).unwrap();
    look.lock_shared().unwrap();
    assert!(disk.lock(&path, Wait::ForGlances(&|| false)).unwrap().is_none());
    assert!(!disk.is_locked(&lab.path("no.lock")).unwrap());
    assert!(!lab.path("no.lock").exists());
}

// Removal.

#[test]
fn a_lock_that_comes_back_while_its_folder_is_removed_is_waited_for() {
    let lab = Lab::new();
    committed(&lab);
    let once = AtomicBool::new(false);
    let dying = Arc::new(lab.hooked(Failing::dead_after(1)).into_store());
    let cx = lab.cx.clone();
    let hook = Calling(move |op: Op, path: &Path| {
        if op == Op::RemoveDir
            && path.ends_with("t1.discarded")
            && !once.swap(true, Ordering::SeqCst)
        {
            // Another removal makes the lock anew and dies there.
            assert!(dying.discard(&cx, &token()).is_err());
            assert_eq!(names(&dying.discarded(&token())), ["lock"]);
        }
        Ok(())
    });
    let provider = lab.hooked(Arc::new(hook));
    assert_eq!(lab.run(provider.discard(&lab.cx, &token())).unwrap(), Discarded::Gone);
    assert_eq!(lab.sets(), Vec::<String>::new());
}

#[test]
fn a_discard_beside_a_discard_is_right_at_every_step() {
    let lab = Lab::new();
    for from in [prepare, committed, settled] {
        let steps = at_every_step(
            &lab,
            || drop(from(&lab)),
            &discarding(&lab),
            |provider, step| {
                let gone = lab.run(provider.discard(&lab.cx, &token()));
                assert_eq!(gone.unwrap_or_else(|e| panic!("step {step}: {e}")), Discarded::Gone);
                assert_eq!(lab.sets(), Vec::<String>::new(), "step {step}");
            },
        );
        assert!(steps > 10, "only {steps} steps");
    }
}

#[test]
fn a_delete_beside_a_settle_or_a_discard_tells_what_is() {
    let lab = Lab::new();
    let snapshot = snapshot_ref("data", "t1");
    for (number, Moved { from, by, .. }) in MOVES.into_iter().enumerate() {
        let prepared: Arc<Mutex<Option<Prepared>>> = Arc::default();
        let steps = at_every_step(
            &lab,
            || *prepared.lock().unwrap() = Some(from(&lab)),
            &by(&lab, &prepared),
            |provider, step| {
                match lab.run(provider.delete(&lab.cx, &snapshot)) {
                    Ok(Deleted::Gone) => {
                        let found = lab.run(provider.find(&lab.cx, &token())).unwrap();
                        let others = match found {
                            Found::Absent => 0,
                            Found::Partial(snapshots) => {
                                assert!(snapshots.iter().all(|s| s.volume != snapshot.volume));
                                snapshots.len()
                            }
                            other => panic!("move {number}, step {step}: {other:?}"),
                        };
                        assert!(others < 2);
                    }
                    Ok(other) => panic!("move {number}, step {step}: {other:?}"),
                    Err(error) => {
                        let is_told = error.to_string().contains("is not settled");
                        assert!(is_told, "move {number}, step {step}: {error}");
                    }
                }
                clear(&lab);
            },
        );
        assert!(steps > 3, "only {steps} steps");
    }
}

/// Takes a lock as soon as it is looked for.
#[derive(Debug)]
struct Locking(Arc<Mutex<Option<File>>>, PathBuf);

impl Hook for Locking {
    fn before(&self, _: Op, _: &Path) -> std::io::Result<()> {
        Ok(())
    }

    fn look(&self, path: &Path) {
        let mut held = self.0.lock().unwrap();
        if held.is_none() && self.1.starts_with(path) && self.1.exists() {
            let file = File::open(&self.1).unwrap();
            file.try_lock().unwrap();
            *held = Some(file);
        }
    }
}

#[test]
fn a_delete_of_the_last_snapshot_that_is_still_held_is_pending() {
    let lab = Lab::new();
    lab.take(&lab.provider(), "t1");
    let (data, logs) = (snapshot_ref("data", "t1"), snapshot_ref("logs", "t1"));
    lab.run(lab.provider().delete(&lab.cx, &logs)).unwrap();
    // Between the move and the removal somebody has the lock.
    let held: Arc<Mutex<Option<File>>> = Arc::default();
    let (theirs, path) = (Arc::clone(&held), lab.path("store/sets/t1.discarded/lock"));
    let provider = lab.hooked(Arc::new(Locking(theirs, path)));
    assert_eq!(lab.run(provider.delete(&lab.cx, &data)).unwrap(), Deleted::Pending);
    assert_eq!(lab.sets(), ["t1.discarded"]);
    assert!(lab.path("store/sets/t1.discarded/m0").exists());
    let lock = held.lock().unwrap().take().unwrap();
    lock.unlock().unwrap();
    assert_eq!(lab.run(lab.provider().delete(&lab.cx, &data)).unwrap(), Deleted::Gone);
    assert_eq!(lab.sets(), Vec::<String>::new());
}

#[test]
fn a_snapshot_that_is_removed_while_it_is_staged_is_missing_and_not_damaged() {
    let lab = Lab::new();
    let (cx, snapshot) = (lab.cx.clone(), snapshot_ref("data", "t1"));
    let delete: Move = Arc::new(move |store| {
        store.delete(&cx, &snapshot).unwrap();
    });
    for remove in [discarding(&lab), delete] {
        let mut missed = 0;
        let steps = at_every_step(
            &lab,
            || drop(settled(&lab)),
            &remove,
            |provider, step| {
                let side: &dyn SnapshotRestore = provider;
                let spec = lab.restore_spec("r1", "t1", "target");
                let staged = lab.run(side.stage(&lab.cx, &spec));
                if let Err(error) = staged {
                    assert_eq!(*error.kind(), ProviderErrorKind::NotFound, "step {step}: {error}");
                    missed += 1;
                }
                lab.run(side.unstage(&lab.cx, &spec.key)).unwrap();
                assert_eq!(names(&lab.path("target")), Vec::<String>::new());
                clear(&lab);
            },
        );
        assert!(steps > 20 && missed > 5, "only {missed} of {steps} steps");
    }
}
