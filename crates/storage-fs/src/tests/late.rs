//! Calls whose caller goes away before a thread was free for them, and which get one later.

use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Waker};

use stillpoint_context::{BoxFuture, Cx, ErrorFacts, Seams, Spawner};
use stillpoint_storage::{Discarded, ProviderErrorKind, SnapshotProvider, SnapshotRestore};
use stillpoint_workflow::TokioSeams;

use super::races::clear;
use super::support::{Lab, Trace, assert_kind, names};
use crate::provider::FsProvider;

/// Keeps blocking work until it is let go.
#[derive(Default)]
struct Shelf(Mutex<Vec<Box<dyn FnOnce() + Send>>>);

impl std::fmt::Debug for Shelf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Shelf")
    }
}

impl Spawner for Shelf {
    fn spawn(&self, _: &'static str, _: BoxFuture<'static, ()>) {
        unreachable!("the provider spawns no task")
    }

    fn blocking(&self, _: &'static str, work: Box<dyn FnOnce() + Send>) {
        self.0.lock().unwrap().push(work);
    }
}

impl Shelf {
    /// What a call lives with whose work waits here.
    fn cx(self: &Arc<Self>, lab: &Lab) -> Cx {
        let seams = TokioSeams::on(lab.runtime.handle().clone());
        Cx::detached(&Seams::new(seams.clock, Arc::clone(self) as _, seams.ids))
    }

    /// Asks for something, and goes away before a thread was free for it.
    fn ask<T>(&self, call: impl Future<Output = T>) {
        let before = self.0.lock().unwrap().len();
        let mut call = pin!(call);
        assert!(call.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        assert_eq!(self.0.lock().unwrap().len(), before + 1);
    }

    /// There are threads now.
    fn let_go(&self) {
        for work in std::mem::take(&mut *self.0.lock().unwrap()) {
            work();
        }
    }
}

fn hooked(lab: &Lab) -> FsProvider {
    lab.hooked(Arc::new(Trace::default()))
}

#[test]
fn a_preparation_that_has_not_begun_when_it_is_discarded_never_makes_anything() {
    let lab = Lab::new();
    let provider = hooked(&lab);
    let shelf = Arc::new(Shelf::default());
    let late = shelf.cx(&lab);
    let spec = lab.spec("t1");
    shelf.ask(provider.prepare(&late, &spec));
    lab.run(async {
        let busy = assert_kind(provider.prepare(&lab.cx, &spec).await, &ProviderErrorKind::Busy);
        assert!(busy.is_retryable() && busy.retry_after().is_some());
        let discarded = provider.discard(&lab.cx, &spec.token).await.unwrap();
        assert!(matches!(discarded, Discarded::WatchUntil(_)), "{discarded:?}");
        shelf.let_go();
        assert_eq!(lab.sets(), Vec::<String>::new());
        assert_eq!(provider.discard(&lab.cx, &spec.token).await.unwrap(), Discarded::Gone);
        // And the way is free.
        let prepared = provider.prepare(&lab.cx, &spec).await.unwrap();
        provider.commit(&lab.cx, &prepared).await.unwrap();
    });
    clear(&lab);
}

#[test]
fn a_staging_that_has_not_begun_when_it_is_taken_back_never_makes_anything() {
    let lab = Lab::new();
    let provider = hooked(&lab);
    lab.take(&provider, "t1");
    let side: &dyn SnapshotRestore = &provider;
    let spec = lab.restore_spec("r1", "t1", "target");
    let shelf = Arc::new(Shelf::default());
    let late = shelf.cx(&lab);
    shelf.ask(side.stage(&late, &spec));
    lab.run(async {
        let busy = assert_kind(side.stage(&lab.cx, &spec).await, &ProviderErrorKind::Busy);
        assert!(busy.is_retryable() && busy.retry_after().is_some());
        for undo in [side.retract(&lab.cx, &spec.key), side.unstage(&lab.cx, &spec.key)] {
            let busy = assert_kind(undo.await, &ProviderErrorKind::Busy);
            assert!(busy.is_retryable() && busy.retry_after().is_some());
        }
        shelf.let_go();
        assert_eq!(names(&lab.path("target")), Vec::<String>::new());
        side.retract(&lab.cx, &spec.key).await.unwrap();
        side.unstage(&lab.cx, &spec.key).await.unwrap();
        assert_eq!(names(&lab.path("target")), Vec::<String>::new());
        // And the way is free.
        side.stage(&lab.cx, &spec).await.unwrap();
        side.publish(&lab.cx, &spec.key).await.unwrap();
        side.settle(&lab.cx, &spec.key).await.unwrap();
    });
    assert_ne!(names(&lab.path("target")), Vec::<String>::new());
}

#[test]
fn a_publication_that_has_not_begun_when_it_is_taken_back_never_publishes_what_is_staged_anew() {
    let lab = Lab::new();
    let provider = hooked(&lab);
    lab.take(&provider, "t1");
    let side: &dyn SnapshotRestore = &provider;
    let spec = lab.restore_spec("r1", "t1", "target");
    let shelf = Arc::new(Shelf::default());
    let late = shelf.cx(&lab);
    lab.run(async { side.stage(&lab.cx, &spec).await.unwrap() });
    shelf.ask(side.publish(&late, &spec.key));
    lab.run(async {
        assert_kind(side.retract(&lab.cx, &spec.key).await, &ProviderErrorKind::Busy);
        assert_kind(side.unstage(&lab.cx, &spec.key).await, &ProviderErrorKind::Busy);
        // Another process stages it anew.
        let other = hooked(&lab);
        SnapshotRestore::stage(&other, &lab.cx, &spec).await.unwrap();
        shelf.let_go();
        let published = |name: &String| !name.starts_with(".stillpoint-");
        assert!(!names(&lab.path("target")).iter().any(published));
        side.unstage(&lab.cx, &spec.key).await.unwrap();
    });
    assert_eq!(names(&lab.path("target")), Vec::<String>::new());
}
