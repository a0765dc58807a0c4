//! Work on several lanes, taken up and handed in by one caller in one order.
//!
//! ```text
//!              ┌─▶ lane 0: jobs 0, 2, 4 … ─┐
//! next() ──────┤                           ├──▶ merge(), in the order of the jobs
//!              └─▶ lane 1: jobs 1, 3, 5 … ─┘
//! ```
//!
//! Jobs and results go round the lanes in turn, so that order needs no bookkeeping. What is under
//! way is bounded by the number of lanes, whatever one lane takes longer for.

use std::{
    collections::VecDeque,
    sync::mpsc::{Receiver, Sender, channel},
    thread,
};

use crate::EseError;

/// Jobs that a lane has at once: one that it works on, one that it goes on with.
pub(crate) const JOBS_A_LANE: usize = 2;

/// Does what `next` hands out until it hands out nothing more. `work` runs on the lanes, each with
/// a state of its own; `next` and `merge` run on the caller's thread, and the first error of either
/// ends it all.
///
/// With one lane, or if no thread is to be had, everything runs on the caller's thread. No lane outlives the call, and the result
/// is the same for any number of them: nothing of the threads is to be seen from outside.
pub(crate) fn in_order<J, T, S>(
    lanes: usize,
    mut next: impl FnMut() -> Result<Option<J>, EseError>,
    work: impl Fn(J, &mut S) -> T + Sync,
    mut merge: impl FnMut(T) -> Result<(), EseError>,
) -> Result<(), EseError>
where
    J: Send,
    T: Send,
    S: Default,
{
    thread::scope(|scope| {
        let mut open: Vec<Lane<J, T>> = Vec::new();
        while lanes > 1 && open.len() < lanes {
            let (jobs, todo) = channel::<J>();
            let (done, results) = channel::<T>();
            let work = &work;
            let lane = move || {
                let mut state = S::default();
                // Either end hangs up when the caller has returned.
                for job in todo {
                    if done.send(work(job, &mut state)).is_err() {
                        break;
                    }
                }
            };
            // Where there are no more threads to be had, those that are there do the work.
            if thread::Builder::new().spawn_scoped(scope, lane).is_err() {
                break;
            }
            open.push(Lane { jobs, results });
        }
        let (count, mut lanes) = (open.len(), open);
        if count == 0 {
            let mut state = S::default();
            while let Some(job) = next()? {
                merge(work(job, &mut state))?;
            }
            return Ok(());
        }
        let mut under_way: VecDeque<usize> = VecDeque::with_capacity(count * JOBS_A_LANE);
        let (mut turn, mut has_more) = (0, true);
        loop {
            while has_more && under_way.len() < count * JOBS_A_LANE {
                let Some(job) = next()? else {
                    has_more = false;
                    break;
                };
                lanes[turn].send(job)?;
                under_way.push_back(turn);
                turn = (turn + 1) % count;
            }
            let Some(lane) = under_way.pop_front() else { return Ok(()) };
            merge(lanes[lane].receive()?)?;
        }
    })
}

struct Lane<J, T> {
    jobs: Sender<J>,
    results: Receiver<T>,
}

impl<J, T> Lane<J, T> {
    fn send(&mut self, job: J) -> Result<(), EseError> {
        self.jobs.send(job).map_err(|_| EseError::Stopped)
    }

    // A lane hangs up only when its work panicked, and then the scope passes the panic on.
    fn receive(&mut self) -> Result<T, EseError> {
        self.results.recv().map_err(|_| EseError::Stopped)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    fn numbers(end: usize) -> impl FnMut() -> Result<Option<usize>, EseError> {
        let mut at = 0;
        move || {
            at += 1;
            Ok((at <= end).then_some(at))
        }
    }

    #[test]
    fn results_come_in_the_order_of_the_jobs() {
        for lanes in [0, 1, 2, 3, 8] {
            for end in [0, 1, 2, 7, 100] {
                let mut seen = Vec::new();
                in_order(
                    lanes,
                    numbers(end),
                    |job, done: &mut usize| {
                        *done += 1;
                        job * 3
                    },
                    |result| {
                        seen.push(result);
                        Ok(())
                    },
                )
                .unwrap();
                assert_eq!(seen, (1..=end).map(|job| job * 3).collect::<Vec<_>>(), "{lanes}");
            }
        }
    }

    #[test]
    fn what_is_under_way_is_bounded() {
        let handed_out = AtomicUsize::new(0);
        let mut merged = 0;
        let mut next = numbers(200);
        in_order(
            3,
            || {
                handed_out.fetch_add(1, Ordering::SeqCst);
                next()
            },
            |job, (): &mut ()| job,
            |_| {
                merged += 1;
                let ahead = handed_out.load(Ordering::SeqCst) - merged;
                assert!(ahead <= 3 * JOBS_A_LANE, "{ahead}");
                Ok(())
            },
        )
        .unwrap();
        assert_eq!(merged, 200);
    }

    #[test]
    fn the_first_error_ends_it() {
        for lanes in [1, 4] {
            let mut merged = 0;
            let ended = in_order(
                lanes,
                numbers(usize::MAX),
                |job, (): &mut ()| job,
                |job| {
                    merged += 1;
                    if job == 5 { Err(EseError::Stopped) } else { Ok(()) }
                },
            );
            assert!(matches!(ended, Err(EseError::Stopped)));
            assert_eq!(merged, 5, "{lanes}");
            let mut left = 3;
            let ended = in_order(
                lanes,
                || {
                    left -= 1;
                    if left == 0 { Err(EseError::Stopped) } else { Ok(Some(left)) }
                },
                |job, (): &mut ()| job,
                |_| Ok(()),
            );
            assert!(matches!(ended, Err(EseError::Stopped)));
        }
    }
}
