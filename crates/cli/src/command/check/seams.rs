//! Seams that know what is still at work: a call that was dropped goes on until its thread comes back.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use stillpoint::workflow::TokioSeams;

use crate::context::{BoxFuture, Cx, ErrorClass, Seams, Spawner};
use crate::error::{CliError, Outcome};

/// Counts the blocking work that it starts.
#[derive(Debug)]
pub(super) struct Counting {
    inner: Arc<dyn Spawner>,
    at_work: Arc<AtomicUsize>,
}

struct AtWork(Arc<AtomicUsize>);

impl Drop for AtWork {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Spawner for Counting {
    fn spawn(&self, name: &'static str, task: BoxFuture<'static, ()>) {
        self.inner.spawn(name, task);
    }

    fn blocking(&self, name: &'static str, work: Box<dyn FnOnce() + Send>) {
        self.at_work.fetch_add(1, Ordering::SeqCst);
        let at_work = AtWork(Arc::clone(&self.at_work));
        self.inner.blocking(
            name,
            Box::new(move || {
                let _at_work = at_work;
                work();
            }),
        );
    }
}

/// The seams of a check, and what of it is still at work.
#[derive(Clone, Debug)]
pub(super) struct Watched {
    pub(super) seams: Seams,
    at_work: Arc<AtomicUsize>,
}

impl Watched {
    pub(super) fn current() -> Outcome<Self> {
        let seams = TokioSeams::current().ok_or_else(|| {
            CliError::of_class("cli.internal", ErrorClass::Internal, "there is no runtime", "")
        })?;
        let at_work = Arc::new(AtomicUsize::new(0));
        let inner = Arc::clone(&seams.spawner);
        let counting = Counting { inner, at_work: Arc::clone(&at_work) };
        Ok(Self { seams: Seams { spawner: Arc::new(counting), ..seams }, at_work })
    }

    pub(super) fn cx(&self) -> Cx {
        Cx::detached(&self.seams)
    }

    /// Waits until nothing is at work any more; `false` if that takes longer than this.
    pub(super) async fn is_over(&self, patience: Duration) -> bool {
        let cx = self.cx();
        let began = cx.mono();
        while self.at_work.load(Ordering::SeqCst) > 0 {
            if cx.mono().saturating_since(began) > patience {
                return false;
            }
            let _slept = cx.sleep(Duration::from_millis(5)).await;
        }
        true
    }
}
