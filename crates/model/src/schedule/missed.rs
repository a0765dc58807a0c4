//! What is to be done about firings whose time has come, and how long ago.

use std::collections::VecDeque;

use chrono::{DateTime, TimeDelta, Utc};

use super::{Firing, LONGEST_JITTER, Missed, Schedule};

/// A firing for which a job is to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Due {
    /// The name of the schedule.
    pub schedule: String,
    /// Which firing.
    pub firing: Firing,
    /// Whether it is made up for, as nobody was there in its time.
    pub is_late: bool,
}

/// What came of a look at a schedule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Look {
    /// The firings for which jobs are to be made, oldest first.
    pub(super) due: Vec<Due>,
    /// Up to when all were considered, whatever came of them.
    pub(super) considered: DateTime<Utc>,
}

impl Schedule {
    /// The firings after `considered` whose time has come by `now`; what is later than `grace` was missed.
    ///
    /// # Complexity
    /// Looks back only as far as it must to find what is made up for, not through years that nobody was there.
    pub(super) fn look(
        &self,
        considered: DateTime<Utc>,
        now: DateTime<Utc>,
        grace: TimeDelta,
    ) -> Look {
        let wanted = match self.missed {
            Missed::Skip => 0,
            Missed::Once => 1,
            Missed::All { most } => usize::try_from(most).unwrap_or(usize::MAX),
        };
        // All that may still be to come, as its jitter is not over, is in the first stretch.
        let jitter = TimeDelta::from_std(self.jitter.min(LONGEST_JITTER)).unwrap_or_default();
        let mut stretch = grace + jitter + TimeDelta::hours(1);
        loop {
            let from = now.checked_sub_signed(stretch).map_or(considered, |at| at.max(considered));
            let (look, late) = self.look_from(from, now, grace, wanted);
            if from == considered || late >= wanted {
                return look;
            }
            stretch = stretch.checked_mul(4).unwrap_or(TimeDelta::MAX);
        }
    }

    fn look_from(
        &self,
        from: DateTime<Utc>,
        now: DateTime<Utc>,
        grace: TimeDelta,
        wanted: usize,
    ) -> (Look, usize) {
        let (mut late, mut on_time) = (VecDeque::new(), Vec::new());
        // Whatever is due before has had its time, with any jitter.
        let mut considered = from;
        for firing in self.firings(from).take_while(|firing| firing.at <= now) {
            considered = firing.due;
            if !firing.takes_place() {
                continue;
            }
            if now - firing.at <= grace {
                on_time.push(firing);
            } else if wanted > 0 {
                if late.len() == wanted {
                    late.pop_front();
                }
                late.push_back(firing);
            }
        }
        let count = late.len();
        // Where one is to be made up for, one that is on time does as well.
        if matches!(self.missed, Missed::Once) && !on_time.is_empty() {
            late.clear();
        }
        let due = |is_late| move |firing| Due { schedule: self.name.clone(), firing, is_late };
        let due = late.into_iter().map(due(true)).chain(on_time.into_iter().map(due(false)));
        let mut due: Vec<_> = due.collect();
        // A long jitter can make a firing late that comes after one that is on time.
        due.sort_by_key(|due| due.firing.due);
        (Look { due, considered }, count)
    }
}
