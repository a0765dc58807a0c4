//! The broken stores.

pub(crate) mod catalog;
pub(crate) mod journal;
pub(crate) mod leases;
pub(crate) mod table;

use std::task::Poll;

/// Lets others go on, where a broken store leaves the door open.
async fn pause() {
    let mut paused = false;
    std::future::poll_fn(|cx| {
        if std::mem::replace(&mut paused, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}
