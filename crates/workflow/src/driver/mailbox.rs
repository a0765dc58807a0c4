//! The mailbox of a run.
//!
//! A list under a lock, taken as a whole: there is one for every open run, mostly empty, and a channel that allocates its
//! messages in blocks would take more memory than all else of a run.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

use super::Mail;

/// A mailbox and an address that leads to it.
pub(crate) fn mailbox() -> (Address, Mailbox) {
    let letters = Letters { mails: VecDeque::new(), waker: None, is_open: true };
    let shared = Arc::new(Mutex::new(letters));
    (Address(Arc::clone(&shared)), Mailbox(shared))
}

/// Where mail to a run is sent. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Address(Arc<Mutex<Letters>>);

/// Where it is read. Closed when dropped.
#[derive(Debug)]
pub(crate) struct Mailbox(Arc<Mutex<Letters>>);

#[derive(Debug)]
struct Letters {
    mails: VecDeque<Mail>,
    /// Of the reader, while it waits.
    waker: Option<Waker>,
    is_open: bool,
}

fn lock(letters: &Mutex<Letters>) -> MutexGuard<'_, Letters> {
    letters.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Address {
    /// Sends mail; whether it may still be read. What nobody reads any more is dropped.
    pub(crate) fn send(&self, mail: Mail) -> bool {
        let mut letters = lock(&self.0);
        if !letters.is_open {
            drop(letters);
            // Outside the lock: whatever is in it may send mail itself as it goes.
            drop(mail);
            return false;
        }
        letters.mails.push_back(mail);
        let waker = letters.waker.take();
        drop(letters);
        if let Some(waker) = waker {
            waker.wake();
        }
        true
    }
}

impl Mailbox {
    /// Waits for mail, and takes all there is, in order; `into` has to be empty.
    ///
    /// # Cancel safety
    /// No mail is lost when it is dropped.
    pub(crate) async fn take(&self, into: &mut VecDeque<Mail>) {
        std::future::poll_fn(|cx| {
            let mut letters = lock(&self.0);
            if letters.mails.is_empty() {
                match &mut letters.waker {
                    Some(waker) => waker.clone_from(cx.waker()),
                    none => *none = Some(cx.waker().clone()),
                }
                return Poll::Pending;
            }
            std::mem::swap(&mut letters.mails, into);
            Poll::Ready(())
        })
        .await;
    }

    /// Takes what is there now, behind what has been taken.
    pub(crate) fn take_more(&self, into: &mut VecDeque<Mail>) {
        into.append(&mut lock(&self.0).mails);
    }

    /// Takes no more mail; gives what has come by then.
    pub(crate) fn close(&self) -> VecDeque<Mail> {
        let mut letters = lock(&self.0);
        letters.is_open = false;
        std::mem::take(&mut letters.mails)
    }
}

impl Drop for Mailbox {
    fn drop(&mut self) {
        // Dropped outside the lock: whoever waits for an answer learns that there is none.
        drop(self.close());
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::pin;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Context, Wake};

    use tokio::sync::oneshot;

    use super::*;
    use crate::driver::Ask;

    #[derive(Default)]
    struct Count(AtomicUsize);
    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn by(name: &str) -> (Mail, oneshot::Receiver<crate::machine::Answer>) {
        let (reply, answer) = oneshot::channel();
        (Mail::Ask { ask: Ask::Cancel { by: name.to_owned() }, reply }, answer)
    }

    fn names(mails: &VecDeque<Mail>) -> Vec<&str> {
        let name = |mail| match mail {
            &Mail::Ask { ask: Ask::Cancel { ref by }, .. } => by.as_str(),
            _ => "",
        };
        mails.iter().map(name).collect()
    }

    #[test]
    fn mail_comes_in_order_and_wakes_whoever_waits_once() {
        let (address, mailbox) = mailbox();
        let count = Arc::new(Count::default());
        let waker = Waker::from(Arc::clone(&count));
        let mut cx = Context::from_waker(&waker);
        let mut into = VecDeque::new();
        {
            let mut taking = pin!(mailbox.take(&mut into));
            assert!(taking.as_mut().poll(&mut cx).is_pending());
            for name in ["a", "b"] {
                assert!(address.send(by(name).0));
            }
            assert_eq!(count.0.load(Ordering::SeqCst), 1, "woken by the first, not by each");
            assert!(taking.as_mut().poll(&mut cx).is_ready());
        }
        assert!(address.send(by("c").0));
        mailbox.take_more(&mut into);
        assert_eq!(names(&into), ["a", "b", "c"]);
    }

    #[test]
    fn a_wait_that_is_dropped_loses_nothing() {
        let (address, mailbox) = mailbox();
        let mut cx = Context::from_waker(Waker::noop());
        let mut into = VecDeque::new();
        assert!(pin!(mailbox.take(&mut into)).poll(&mut cx).is_pending());
        assert!(address.send(by("a").0));
        assert!(pin!(mailbox.take(&mut into)).poll(&mut cx).is_ready());
        assert_eq!(names(&into), ["a"]);
    }

    #[test]
    fn whoever_asks_a_closed_mailbox_learns_it() {
        let (address, mailbox) = mailbox();
        let (mail, mut answer) = by("a");
        assert!(address.send(mail));
        drop(mailbox);
        assert!(matches!(answer.try_recv(), Err(oneshot::error::TryRecvError::Closed)));
        let (mail, mut answer) = by("b");
        assert!(!address.send(mail));
        assert!(matches!(answer.try_recv(), Err(oneshot::error::TryRecvError::Closed)));
    }
}
