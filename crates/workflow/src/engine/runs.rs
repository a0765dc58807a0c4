//! The runs that an engine knows: all open ones, and the last that ended.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::Arc;

use stillpoint_context::{IdempotencyKey, RunId};

use crate::driver::RunLink;
use crate::journal::JournalError;

/// How many ended runs are kept in mind; of older ones the journal knows.
const KEPT: usize = 1024;

/// The runs of an engine.
#[derive(Default)]
pub(super) struct Runs {
    pub(super) by_id: BTreeMap<RunId, Arc<RunLink>>,
    pub(super) by_key: HashMap<IdempotencyKey, (RunId, String)>,
    /// Runs that a recovery could not read.
    pub(super) unreadable: BTreeMap<RunId, JournalError>,
    /// Runs that are known to have ended, oldest first.
    ended: VecDeque<RunId>,
    /// How many runs there are when it is looked again who has ended.
    look_at: usize,
    /// How many runs have been looked at, over all looks.
    #[cfg(test)]
    looked: usize,
}

impl Runs {
    /// Enters a run.
    ///
    /// # Complexity
    /// O(log n), amortised: who has ended is looked for only when half of all may have.
    pub(super) fn enter(&mut self, link: &Arc<RunLink>, digest: Option<&str>) {
        if let (Some(key), Some(digest)) = (&link.key, digest) {
            self.by_key.insert(key.clone(), (link.run, digest.to_owned()));
        }
        self.by_id.insert(link.run, Arc::clone(link));
        if self.by_id.len() > self.look_at.max(KEPT) {
            self.trim();
        }
    }

    /// Whether this many runs or more are open.
    ///
    /// # Complexity
    /// O(1) while there are fewer, O(n) when there seem to be as many.
    pub(super) fn are_full(&mut self, limit: usize) -> bool {
        if self.by_id.len() - self.ended.len() < limit {
            return false;
        }
        self.trim();
        self.by_id.len() - self.ended.len() >= limit
    }

    /// Forgets those of these that have ended.
    pub(super) fn forget(&mut self, runs: &[RunId]) {
        for run in runs {
            let is_over = self.by_id.get(run).is_some_and(|link| link.is_over());
            if let Some(link) = is_over.then(|| self.by_id.remove(run)).flatten() {
                self.ended.retain(|ended| ended != run);
                self.forget_key(&link);
            }
        }
    }

    fn forget_key(&mut self, link: &RunLink) {
        if let Some(key) = &link.key
            && self.by_key.get(key).is_some_and(|(run, _)| *run == link.run)
        {
            self.by_key.remove(key);
        }
    }

    /// Looks who has ended, and forgets the oldest ended runs beyond what is kept.
    fn trim(&mut self) {
        let known: HashSet<_> = self.ended.iter().copied().collect();
        for (run, link) in &self.by_id {
            if !known.contains(run) && link.is_over() {
                self.ended.push_back(*run);
            }
        }
        #[cfg(test)]
        {
            self.looked += self.by_id.len();
        }
        while self.ended.len() > KEPT {
            let Some(link) = self.ended.pop_front().and_then(|run| self.by_id.remove(&run)) else {
                continue;
            };
            self.forget_key(&link);
        }
        self.look_at = 2 * self.by_id.len();
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::journal::MemoryJournal;

    fn link(number: u128) -> Arc<RunLink> {
        let (mail, _) = crate::driver::mailbox();
        RunLink::new(RunId(Uuid::from_u128(number)), mail, Arc::new(MemoryJournal::new()), None)
    }

    fn end(link: &RunLink) {
        link.status.send_modify(|status| status.gone = true);
    }

    #[test]
    fn entering_costs_the_same_however_many_are_open() {
        let mut runs = Runs::default();
        let count = 20_000;
        for number in 0..count {
            runs.enter(&link(number), None);
        }
        assert_eq!(runs.by_id.len(), 20_000, "none of them has ended");
        assert!(runs.looked <= 2 * 20_000, "{} looks for {count} runs", runs.looked);
    }

    #[test]
    fn ended_runs_are_forgotten_and_open_ones_are_not() {
        let mut runs = Runs::default();
        let open = link(0);
        runs.enter(&open, None);
        for number in 1..20_000 {
            let link = link(number);
            runs.enter(&link, None);
            end(&link);
        }
        assert!(runs.by_id.len() <= 2 * (KEPT + 1), "{} are kept", runs.by_id.len());
        assert!(runs.by_id.contains_key(&open.run));
    }

    #[test]
    fn it_is_full_of_open_runs_only() {
        let mut runs = Runs::default();
        let links: Vec<_> = (0..10).map(link).collect();
        for link in &links {
            runs.enter(link, None);
        }
        assert!(runs.are_full(10) && !runs.are_full(11));
        end(&links[3]);
        assert!(!runs.are_full(10));
    }
}
