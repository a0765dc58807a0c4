//! A journal whose commits are numbered, so that the engine's process can be stopped and killed at each of them in turn.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use stillpoint_workflow::testing::HookJournal;
use stillpoint_workflow::{Batch, Journal, Record, RunRecord};

use crate::stops::Stops;

/// How many commits were begun.
#[derive(Debug, Clone, Default)]
pub struct Count(Arc<AtomicU64>);

impl Count {
    /// The number so far.
    pub fn so_far(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }
}

/// A journal over another. Before and after its n-th commit the process has come to the places `append.n.before` and
/// `append.n.after`; before and after the one that arms a guard also to `arming.before` and `arming.after`.
///
/// It numbers the commits of this process, from 1. Commits of runs that go on side by side may come in another order the next
/// time, or share a round; each place is passed once all the same.
pub fn numbered<J: Journal>(inner: J, stops: Stops) -> (HookJournal<J>, Count) {
    let count = Count::default();
    let commits = count.clone();
    let journal = HookJournal::around(inner, move |inner, batch| {
        let call = format!("append.{}", commits.0.fetch_add(1, Ordering::SeqCst) + 1);
        let (stops, arms) = (stops.clone(), arms(&batch));
        Box::pin(async move {
            let reached = |when| {
                stops.reached(&call, when);
                if arms {
                    stops.reached("arming", when);
                }
            };
            reached("before");
            let answer = inner.commit(batch).await;
            reached("after");
            answer
        })
    });
    (journal, count)
}

fn arms(batch: &Batch) -> bool {
    let mut records = batch.appends.iter().flat_map(|append| &append.records);
    records.any(|record| matches!(record, Record::Run(RunRecord::Armed { .. })))
}
