//! Calls that meet at one set, in every order of their steps that can be told apart: while one stands between two of its
//! steps, the other runs to its end. Each result must be one that some order of whole calls could give.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};

use stillpoint_context::ErrorFacts;
use stillpoint_model::handover::{Exposure, Prepared};
use stillpoint_model::id::{ExposureKey, SetToken, SnapshotRef};
use stillpoint_storage::{
    Discarded, ProviderErrorKind, ProviderResult, Snapshot, SnapshotProvider,
};

use super::support::{At, Lab, assert_kind, snapshot_ref};
use crate::disk::{Disk, Hook};
use crate::provider::FsProvider;
use crate::remove::Removal;
use crate::store::Store;

/// More than any call here has steps.
pub(super) const MOST: usize = 1000;

pub(super) fn token() -> SetToken {
    SetToken::new("t1").unwrap()
}

/// What the other call does with the set.
pub(super) type Move = Arc<dyn Fn(&Arc<Store>) + Send + Sync>;

/// The store of another process, for calls in the middle of ours.
pub(super) fn other(lab: &Lab) -> Arc<Store> {
    Arc::new(lab.hooked(Arc::new(super::support::Trace::default())).into_store())
}

/// Runs a call once for each of its steps, with the other one at that step; gives the number of steps.
pub(super) fn at_every_step(
    lab: &Lab,
    mut set_up: impl FnMut(),
    other_call: &Move,
    mut call: impl FnMut(&FsProvider, usize),
) -> usize {
    for number in 0..MOST {
        set_up();
        let (store, other_call) = (other(lab), Arc::clone(other_call));
        let hook = At::event(number, move || other_call(&store));
        let provider = lab.hooked(Arc::clone(&hook) as Arc<dyn Hook>);
        call(&provider, number);
        if !hook.has_come() {
            return number;
        }
    }
    panic!("the call does not end");
}

/// Everything of the set away, whatever happened to it.
pub(super) fn clear(lab: &Lab) {
    lab.run(async {
        let provider = lab.provider();
        for exposure in provider.exposures(&lab.cx).await.unwrap() {
            provider.unexpose(&lab.cx, &exposure.key).await.unwrap();
        }
        assert_eq!(provider.discard(&lab.cx, &token()).await.unwrap(), Discarded::Gone);
    });
    assert_eq!(lab.sets(), Vec::<String>::new());
}

pub(super) fn prepare(lab: &Lab) -> Prepared {
    lab.run(lab.provider().prepare(&lab.cx, &lab.spec("t1"))).unwrap()
}

pub(super) fn committed(lab: &Lab) -> Prepared {
    let prepared = prepare(lab);
    lab.run(lab.provider().commit(&lab.cx, &prepared)).unwrap();
    prepared
}

/// `settle` of the provider; the restore side has one too.
fn settle(lab: &Lab, provider: &FsProvider, prepared: &Prepared) -> ProviderResult<Vec<Snapshot>> {
    lab.run(SnapshotProvider::settle(provider, &lab.cx, prepared))
}

pub(super) fn discarding(lab: &Lab) -> Move {
    let cx = lab.cx.clone();
    Arc::new(move |store| {
        // At most one removal is under way.
        while store.discard(&cx, &token()).unwrap() == Removal::Waiting {
            if store.disk.is_locked(&store.settled(&token()).join("lock")).unwrap()
                || store.disk.is_locked(&store.discarded(&token()).join("lock")).unwrap()
            {
                return;
            }
        }
    })
}

/// Settles whatever is committed; a set on which somebody works stays.
pub(super) fn settling(lab: &Lab, prepared: &Arc<Mutex<Option<Prepared>>>) -> Move {
    let (cx, prepared) = (lab.cx.clone(), Arc::clone(prepared));
    Arc::new(move |store| {
        let prepared = prepared.lock().unwrap().clone().unwrap();
        if let Err(error) = store.settle(&cx, &prepared) {
            use ProviderErrorKind::{Busy, Expired};
            assert!(matches!(error.kind(), Busy | Expired), "{error}");
        }
    })
}

// Preparations.

#[test]
fn a_late_preparation_leaves_that_of_its_retry_alone() {
    let lab = Lab::new();
    let retried: Arc<Mutex<Option<Prepared>>> = Arc::default();
    let retry: Move = {
        let (cx, spec, retried) = (lab.cx.clone(), lab.spec("t1"), Arc::clone(&retried));
        Arc::new(move |store| {
            let flight = store.preparations.begin(&token()).unwrap();
            match store.prepare(&cx, &spec, &flight) {
                Ok(prepared) => *retried.lock().unwrap() = Some(prepared),
                Err(error) => {
                    assert_eq!(*error.kind(), ProviderErrorKind::Busy, "{error}");
                    assert!(error.is_retryable());
                }
            }
        })
    };
    let mut overtaken = 0;
    let steps = at_every_step(
        &lab,
        || *retried.lock().unwrap() = None,
        &retry,
        |provider, step| {
            let late = lab.run(provider.prepare(&lab.cx, &lab.spec("t1")));
            let prepared = retried.lock().unwrap().take();
            overtaken += usize::from(prepared.is_some());
            match (late, prepared) {
                // It came after the retry had ended, and began anew.
                (Ok(late), _) => {
                    lab.run(lab.provider().commit(&lab.cx, &late)).unwrap();
                }
                (Err(error), prepared) => {
                    use ProviderErrorKind::{Busy, Expired};
                    assert!(matches!(error.kind(), Busy | Expired), "step {step}: {error}");
                    let prepared = prepared.unwrap_or_else(|| prepare(&lab));
                    lab.run(lab.provider().commit(&lab.cx, &prepared)).unwrap();
                }
            }
            clear(&lab);
        },
    );
    assert!(steps > 15, "only {steps} steps");
    assert!(overtaken > 3, "only {overtaken} retries got through");
}

#[test]
fn a_preparation_that_is_discarded_at_any_step_leaves_nothing() {
    let lab = Lab::new();
    for number in 0..MOST {
        // In one process, as the undo of a step is.
        let slot: Arc<Mutex<Option<Arc<Store>>>> = Arc::default();
        let (theirs, cx) = (Arc::clone(&slot), lab.cx.clone());
        let asked = AtomicBool::new(false);
        let hook = At::event(number, move || {
            if asked.swap(true, Ordering::SeqCst) {
                return;
            }
            let store = theirs.lock().unwrap().clone().unwrap();
            assert!(store.preparations.stop(&token()), "it is known to be under way");
            store.discard(&cx, &token()).unwrap();
        });
        let store = Arc::new(lab.hooked(Arc::clone(&hook) as Arc<dyn Hook>).into_store());
        *slot.lock().unwrap() = Some(Arc::clone(&store));
        let flight = store.preparations.begin(&token()).unwrap();
        let result = store.prepare(&lab.cx, &lab.spec("t1"), &flight);
        drop(flight);
        slot.lock().unwrap().take();
        if !hook.has_come() {
            assert!(number > 15, "only {number} steps");
            return clear(&lab);
        }
        if result.is_ok() {
            // It was asked when nothing was left to be done; what is there is found by the next look.
            assert!(!store.preparations.stop(&token()));
            clear(&lab);
        } else {
            assert_kind(result, &ProviderErrorKind::Expired);
        }
        assert_eq!(lab.sets(), Vec::<String>::new(), "step {number}");
    }
    panic!("it does not end");
}

#[test]
fn a_preparation_beside_a_settle_never_takes_the_set_for_a_strangers() {
    let lab = Lab::new();
    let prepared: Arc<Mutex<Option<Prepared>>> = Arc::default();
    let steps = at_every_step(
        &lab,
        || *prepared.lock().unwrap() = Some(committed(&lab)),
        &settling(&lab, &prepared),
        |provider, step| {
            if let Err(error) = lab.run(provider.prepare(&lab.cx, &lab.spec("t1"))) {
                use ProviderErrorKind::{Busy, Expired};
                assert!(matches!(error.kind(), Busy | Expired), "step {step}: {error}");
            }
            clear(&lab);
        },
    );
    assert!(steps > 20, "only {steps} steps");
}

// Commits and settles.

#[test]
fn a_repeated_commit_or_settle_is_answered_when_an_earlier_settle_ends_meanwhile() {
    let lab = Lab::new();
    let prepared: Arc<Mutex<Option<Prepared>>> = Arc::default();
    for settles in [false, true] {
        let steps = at_every_step(
            &lab,
            || *prepared.lock().unwrap() = Some(committed(&lab)),
            &settling(&lab, &prepared),
            |provider, step| {
                let prepared = prepared.lock().unwrap().clone().unwrap();
                if settles {
                    let snapshots = settle(&lab, provider, &prepared);
                    let snapshots = snapshots.unwrap_or_else(|e| panic!("step {step}: {e}"));
                    assert_eq!(snapshots.len(), 2);
                } else {
                    let members = lab.run(provider.commit(&lab.cx, &prepared));
                    assert_eq!(members.unwrap_or_else(|e| panic!("step {step}: {e}")).len(), 2);
                }
                clear(&lab);
            },
        );
        assert!(steps > 1, "only {steps} steps");
    }
}

/// A future that is dropped leaves the work in its thread; the lock tells an undo of it in every phase.
#[test]
fn an_undo_beside_a_commit_or_settle_that_was_dropped_is_right_at_every_step() {
    #[derive(PartialEq, Debug)]
    enum Told {
        Reached,
        Ended,
    }
    let lab = Lab::new();
    for settles in [false, true] {
        for number in 0..MOST {
            let prepared = if settles { committed(&lab) } else { prepare(&lab) };
            let (tell, told) = channel();
            let (go_on, gone_on) = channel::<()>();
            let (reached, gone_on) = (tell.clone(), Mutex::new(gone_on));
            let hook = At::event(number, move || {
                reached.send(Told::Reached).unwrap();
                gone_on.lock().unwrap().recv().unwrap();
            });
            let provider = lab.hooked(hook);
            let cx = lab.cx.clone();
            let call = lab.spawn(async move {
                if settles {
                    drop(SnapshotProvider::settle(&provider, &cx, &prepared).await);
                } else {
                    drop(provider.commit(&cx, &prepared).await);
                }
                drop(tell.send(Told::Ended));
            });
            if told.recv().unwrap() == Told::Ended {
                clear(&lab);
                assert!(number > 10, "only {number} steps");
                break;
            }
            call.abort();
            // The undo of another process; this one's are the same but for preparations.
            let store = other(&lab);
            let undone = store.discard(&lab.cx, &token()).unwrap();
            let left = lab.sets();
            match undone {
                Removal::Gone => assert_eq!(left, Vec::<String>::new(), "step {number}"),
                Removal::Waiting => assert_eq!(left, ["t1.discarded"], "step {number}"),
            }
            // Whatever it does from here on, nothing is there in the end, without another call.
            go_on.send(()).unwrap();
            while !lab.sets().is_empty() {
                std::thread::yield_now();
            }
            assert_eq!(store.discard(&lab.cx, &token()).unwrap(), Removal::Gone);
        }
    }
}

// Exposures.

fn expose(lab: &Lab, provider: &FsProvider, snapshot: &SnapshotRef) -> ProviderResult<Exposure> {
    let key = ExposureKey::new("k").unwrap();
    let snapshots = std::slice::from_ref(snapshot);
    lab.run(provider.expose(&lab.cx, snapshots, &"lab".parse().unwrap(), &key))
}

/// Work that another call does now, or as soon as the lock that it needs is free.
#[derive(Default)]
struct Beside(Mutex<Option<std::thread::JoinHandle<bool>>>, Mutex<Option<bool>>);

impl Beside {
    #[allow(clippy::disallowed_methods, reason = "a call of another process")]
    fn run(&self, must_wait: bool, work: impl FnOnce() -> bool + Send + 'static) {
        if must_wait {
            *self.0.lock().unwrap() = Some(std::thread::spawn(work));
        } else {
            *self.1.lock().unwrap() = Some(work());
        }
    }

    /// Whether it succeeded; `None` if it never ran.
    fn result(&self) -> Option<bool> {
        let late = self.0.lock().unwrap().take().map(|thread| thread.join().unwrap());
        late.or(self.1.lock().unwrap().take())
    }
}

#[test]
fn what_is_exposed_is_not_removed_and_what_is_removed_is_not_exposed() {
    let lab = Lab::new();
    let snapshot = snapshot_ref("data", "t1");
    for deletes in [false, true] {
        let beside = Arc::new(Beside::default());
        let remove: Move = {
            let (cx, beside, snapshot) = (lab.cx.clone(), Arc::clone(&beside), snapshot.clone());
            Arc::new(move |store| {
                let path = store.settled(&token()).join("lock");
                let (cx, store, snapshot) = (cx.clone(), Arc::clone(store), snapshot.clone());
                beside.run(Disk::default().is_locked(&path).unwrap(), move || {
                    let removed = if deletes {
                        store.delete(&cx, &snapshot)
                    } else {
                        store.discard(&cx, &token())
                    };
                    match removed {
                        Ok(removed) => removed == Removal::Gone,
                        Err(error) => {
                            assert_eq!(*error.kind(), ProviderErrorKind::Dependents, "{error}");
                            false
                        }
                    }
                });
            })
        };
        let set_up = || drop(lab.take(&lab.provider(), "t1"));
        let steps = at_every_step(&lab, set_up, &remove, |provider, step| {
            let exposed = expose(&lab, provider, &snapshot);
            let removed = beside.result();
            match exposed {
                Ok(_) => assert_ne!(removed, Some(true), "step {step}: exposed and removed"),
                Err(error) => {
                    assert_eq!(*error.kind(), ProviderErrorKind::NotFound, "step {step}: {error}");
                    assert_eq!(removed, Some(true), "step {step}: neither");
                }
            }
            clear(&lab);
        });
        assert!(steps > 5, "only {steps} steps");
    }
}

#[test]
fn of_two_exposures_with_one_key_one_is_refused() {
    let lab = Lab::new();
    let provider = lab.provider();
    lab.take(&provider, "t1");
    lab.take(&provider, "t2");
    let beside = Arc::new(Beside::default());
    let key = ExposureKey::new("k").unwrap();
    let again: Move = {
        let (beside, key) = (Arc::clone(&beside), key.clone());
        Arc::new(move |store| {
            let new = store.exposures_dir().join(".k.json.new");
            let (store, key) = (Arc::clone(store), key.clone());
            beside.run(Disk::default().is_locked(&new).unwrap(), move || {
                let snapshots = [snapshot_ref("data", "t2")];
                store.expose(&snapshots, &"lab".parse().unwrap(), &key).is_ok()
            });
        })
    };
    let steps = at_every_step(
        &lab,
        || (),
        &again,
        |provider, step| {
            let one = expose(&lab, provider, &snapshot_ref("data", "t1"));
            let theirs = beside.result();
            let open = lab.run(provider.exposures(&lab.cx)).unwrap();
            assert_eq!(open.len(), 1, "step {step}");
            let of = open[0].roots[0].snapshot.id.to_string();
            match one {
                Ok(one) => {
                    assert_eq!(one, open[0], "step {step}");
                    assert_ne!(theirs, Some(true), "step {step}: both were told that it is theirs");
                }
                Err(error) => {
                    assert_eq!(*error.kind(), ProviderErrorKind::NameTaken, "step {step}: {error}");
                    assert_eq!((theirs, of.as_str()), (Some(true), "t2"), "step {step}");
                }
            }
            lab.run(provider.unexpose(&lab.cx, &key)).unwrap();
        },
    );
    assert!(steps > 5, "only {steps} steps");
}
