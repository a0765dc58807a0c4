//! Reconciling at intervals, beside the turns.
//!
//! ```text
//!   rest ─▶ look (read only) ─▶ news? ─▶ job, as of a repair that somebody asked for ─▶ rest
//! ```

use std::pin::pin;
use std::time::Duration;

use futures_util::future::{Either, select};
use stillpoint_context::{BoxFuture, Failure};

use super::{SchedulerEvent, Shared};
use crate::Stillpoint;
use crate::bounds::within;
use crate::job::JobHandle;
use crate::reconcile::ReconcileOptions;

/// Who cancels the job of a watch that ends.
const BY: &str = "scheduler";

/// The shortest interval.
const SHORTEST: Duration = Duration::from_mins(1);

/// How often a scheduler compares the catalogue with the storages, and does what is to be done.
///
/// What it finds is told when it is something else than what was told last, in this process or another one: by the job that does
/// what is to be done about it, each difference a warning, and so by whoever is told of jobs; and by `tracing`, under the target
/// `stillpoint::reconcile`. Points whose snapshots are gone are told to be missing, as by [`Stillpoint::repair`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Reconciling {
    /// How long it rests between two looks, a minute at least; and up to a tenth of it more, by chance, so that many do not look at
    /// one storage at once.
    pub every: Duration,
    /// How long it waits for the first look, and for the next one after one that failed; and up to as much again, by chance.
    pub first: Duration,
    /// How long an orphan is left alone once it is noted; without it, orphans are never deleted. See
    /// [`ReconcileOptions::delete_orphans_after`].
    pub grace: Option<Duration>,
}

impl Default for Reconciling {
    /// A day, ten minutes, no orphan is deleted.
    fn default() -> Self {
        Self { every: Duration::from_hours(24), first: Duration::from_mins(10), grace: None }
    }
}

/// A time by chance, less than this.
fn up_to(this: &Stillpoint, limit: Duration) -> Duration {
    let limit = limit.as_nanos();
    let by_chance = this.seams().ids.uuid().as_u128().checked_rem(limit).unwrap_or_default();
    Duration::from_nanos(u64::try_from(by_chance).unwrap_or(u64::MAX))
}

/// A sleep of this time, and of a part of another one.
pub(super) fn after(this: &Stillpoint, time: Duration, chance: Duration) -> BoxFuture<'static, ()> {
    let clock = &this.seams().clock;
    clock.sleep_until(clock.mono() + time + up_to(this, chance))
}

/// Looks at intervals until the scheduler is to end. A look that is under way then is dropped, and its job cancelled.
pub(super) async fn watch(this: &Stillpoint, shared: &Shared) {
    let Some(Reconciling { every, first, grace }) = shared.options.reconciling else { return };
    let (every, options) = (every.max(SHORTEST), ReconcileOptions { grace });
    let after = |time: Duration, chance: Duration| after(this, time, chance);
    let mut rest = after(first, first);
    loop {
        let stop = pin!(shared.stop_wanted());
        if let Either::Left(_) = select(stop, rest).await {
            return;
        }
        let limit = this.timeouts().settle;
        let look = within(this.seams(), limit, "looking at the storages", this.reconcile(&options));
        let looked = match select(pin!(shared.stop_wanted()), pin!(look)).await {
            Either::Left(_) => return,
            Either::Right((looked, _)) => looked,
        };
        let told = match looked {
            Ok(report) => this.tell_news(&report, &options).await,
            Err(error) => Err(error),
        };
        rest = match told {
            Ok(job) => {
                shared.tell(SchedulerEvent::Reconciled { job: job.as_ref().map(JobHandle::id) });
                if let Some(job) = job
                    && let Either::Left(_) =
                        select(pin!(shared.stop_wanted()), pin!(job.settled())).await
                {
                    if let Err(error) = job.cancel(BY).await {
                        shared.tell(SchedulerEvent::Failed(Failure::of(&error)));
                    }
                    return;
                }
                after(every, every / 10)
            }
            Err(error) => {
                shared.tell(SchedulerEvent::Failed(Failure::of(&error)));
                after(first.max(SHORTEST), first)
            }
        };
    }
}
