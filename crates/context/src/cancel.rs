//! Cancellation without a runtime.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use event_listener::Event;

/// A cancellation token: cheap to clone, every clone is the same token.
///
/// Tokens form a tree: cancelling one cancels all its [children](Self::child), never its parent. Cancelling is for ever.
///
/// ```
/// use stillpoint_context::Cancel;
///
/// let run = Cancel::new();
/// let step = run.child();
/// run.cancel();
/// assert!(step.is_cancelled());
/// ```
#[derive(Clone, Default)]
pub struct Cancel(Arc<Node>);

#[derive(Default)]
struct Node {
    cancelled: AtomicBool,
    event: Event,
    children: Mutex<Vec<Weak<Node>>>,
}

impl Cancel {
    /// A token of its own.
    pub fn new() -> Self {
        Self::default()
    }

    /// A token that is cancelled with this one, and also alone.
    pub fn child(&self) -> Self {
        let child = Self::new();
        let mut children = self.0.children.lock().unwrap_or_else(PoisonError::into_inner);
        // Read under the lock: `cancel` sets the flag before it takes the list, so a child is either seen by it or
        // sees it.
        if self.is_cancelled() {
            child.0.cancelled.store(true, Ordering::Release);
        } else {
            if children.len() == children.capacity() {
                children.retain(|child| child.strong_count() > 0);
            }
            children.push(Arc::downgrade(&child.0));
        }
        drop(children);
        child
    }

    /// Cancels this token and all below it. Repeating it changes nothing.
    pub fn cancel(&self) {
        let mut pending = vec![Arc::clone(&self.0)];
        while let Some(node) = pending.pop() {
            node.cancelled.store(true, Ordering::SeqCst);
            let _woken: usize = node.event.notify(usize::MAX);
            let children =
                std::mem::take(&mut *node.children.lock().unwrap_or_else(PoisonError::into_inner));
            pending.extend(children.iter().filter_map(Weak::upgrade));
        }
    }

    /// Whether it has been cancelled.
    pub fn is_cancelled(&self) -> bool {
        self.0.cancelled.load(Ordering::SeqCst)
    }

    /// Completes once the token is cancelled.
    ///
    /// # Cancel safety
    /// May be dropped and made anew at any time.
    pub async fn cancelled(&self) {
        loop {
            if self.is_cancelled() {
                return;
            }
            let listener = self.0.event.listen();
            if self.is_cancelled() {
                return;
            }
            listener.await;
        }
    }
}

impl std::fmt::Debug for Cancel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Cancel").field(&self.is_cancelled()).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::*;

    #[test]
    fn cancelling_goes_down_and_not_up() {
        let parent = Cancel::new();
        let child = parent.child();
        let grandchild = child.child();
        child.cancel();
        assert!(grandchild.is_cancelled());
        assert!(!parent.is_cancelled());
        assert!(child.child().is_cancelled(), "a child of a cancelled token is born cancelled");
    }

    #[test]
    fn a_waiter_is_woken() {
        let token = Cancel::new();
        let mut waiting = pin!(token.cancelled());
        let mut cx = Context::from_waker(Waker::noop());
        assert_eq!(waiting.as_mut().poll(&mut cx), Poll::Pending);
        token.cancel();
        assert_eq!(waiting.as_mut().poll(&mut cx), Poll::Ready(()));
    }

    #[test]
    fn dead_children_do_not_pile_up() {
        let parent = Cancel::new();
        for _ in 0..10_000 {
            drop(parent.child());
        }
        assert!(parent.0.children.lock().unwrap().len() < 100);
    }

    #[test]
    fn threads_that_race_child_and_cancel_never_lose_one() {
        for _ in 0..200 {
            let parent = Cancel::new();
            let children = std::thread::scope(|scope| {
                let making = scope.spawn(|| (0..20).map(|_| parent.child()).collect::<Vec<_>>());
                scope.spawn(|| parent.cancel());
                making.join().unwrap()
            });
            assert!(children.iter().all(Cancel::is_cancelled));
        }
    }
}
