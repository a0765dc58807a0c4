//! Forgetting old jobs once a day, beside the turns.

use std::pin::pin;
use std::time::Duration;

use futures_util::future::{Either, select};
use stillpoint_context::Failure;

use super::watch::after;
use super::{SchedulerEvent, Shared, delta};
use crate::Stillpoint;
use crate::history::ForgetOptions;

/// How often, and up to a tenth of it more, by chance.
const EVERY: Duration = Duration::from_hours(24);

/// How long it waits for the first time, and up to as much again.
const FIRST: Duration = Duration::from_mins(30);

/// Has jobs forgotten until the scheduler is to end.
pub(super) async fn forget(this: &Stillpoint, shared: &Shared) {
    let Some(keep) = shared.options.keep_jobs else { return };
    let mut rest = after(this, FIRST, FIRST);
    loop {
        if let Either::Left(_) = select(pin!(shared.stop_wanted()), rest).await {
            return;
        }
        // A clock that has gone back has been wrong before, or is now.
        let is_right = shared.state().status.regress.is_none();
        let before = this.seams().clock.now().checked_sub_signed(delta(keep));
        if let Some(before) = before.filter(|_| is_right) {
            let mut options = ForgetOptions::before(before);
            options.newest = shared.options.keep_newest;
            let forgetting = pin!(this.forget(&options));
            match select(pin!(shared.stop_wanted()), forgetting).await {
                Either::Left(_) => return,
                Either::Right((Ok(0), _)) => {}
                Either::Right((Ok(jobs), _)) => shared.tell(SchedulerEvent::Forgot { jobs }),
                Either::Right((Err(error), _)) => {
                    shared.tell(SchedulerEvent::Failed(Failure::of(&error)));
                }
            }
        }
        rest = after(this, EVERY, EVERY / 10);
    }
}
