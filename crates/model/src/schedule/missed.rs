//! What is to be done about firings whose time has come, and how long ago.

use std::collections::VecDeque;

use chrono::{DateTime, TimeDelta, Utc};

use super::{Firing, LONGEST_JITTER, Lapse, Missed, Schedule, Why};

/// How many due times are counted one by one where a long stretch of them was missed.
const COUNTED: u64 = 100_000;

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

/// What became of all due times of a stretch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Settled {
    /// The firings for which jobs are to be made, oldest first.
    pub due: Vec<Due>,
    /// The others, with the reason.
    pub lapses: Vec<Lapse>,
}

impl Schedule {
    /// What becomes of the firings after `considered` of a schedule that another one takes the place of from `since` on. Those
    /// that are later on purpose than `now` do not take place.
    pub fn close(
        &self,
        considered: DateTime<Utc>,
        since: DateTime<Utc>,
        now: DateTime<Utc>,
        grace: TimeDelta,
    ) -> Settled {
        let mut closed = self.clone();
        // The end is not part of a schedule's time, and this one has the instant of the change.
        let end = since.checked_add_signed(TimeDelta::nanoseconds(1)).unwrap_or(since);
        closed.end = Some(closed.end.map_or(end, |known| known.min(end)));
        let look = closed.look(considered, now, grace);
        let mut lapses = closed.lapses(considered, &look, &Why::Missed);
        for firing in closed.firings(look.considered) {
            let why = Why::of(&firing.fate).unwrap_or(Why::Changed);
            Lapse::append(&mut lapses, firing.due, why);
        }
        Settled { due: look.due, lapses }
    }

    /// Why the firings after `considered` up to an instant become no jobs where the schedule is detached.
    pub(super) fn pass(&self, considered: DateTime<Utc>, until: DateTime<Utc>) -> Vec<Lapse> {
        let look = Look { due: Vec::new(), considered: until };
        self.lapses(considered, &look, &Why::Detached)
    }

    /// Why the firings after `considered` that were looked at and are not due became no jobs: those that would have taken place for
    /// this reason.
    pub(super) fn lapses(
        &self,
        considered: DateTime<Utc>,
        look: &Look,
        reason: &Why,
    ) -> Vec<Lapse> {
        let first_due = look.due.first().map(|due| due.firing.due);
        let mut due = look.due.iter().map(|due| due.firing.due).peekable();
        let mut lapses: Vec<Lapse> = Vec::new();
        let (mut count, mut goes_on) = (0, false);
        let mut from = Some(considered);
        while let Some(after) = from.take() {
            for firing in self.firings(after).take_while(|firing| firing.due <= look.considered) {
                if due.next_if_eq(&firing.due).is_some() {
                    goes_on = false;
                    continue;
                }
                count += 1;
                if count == COUNTED && first_due.is_none_or(|first| firing.due < first) {
                    // What is made up for is the latest; whatever lies between has that reason, or would have it.
                    let before = |first| first - TimeDelta::nanoseconds(1);
                    let to = first_due.map_or(look.considered, before);
                    let (from_here, why) = (firing.due, reason.clone());
                    lapses.push(Lapse { from: from_here, to, count: 1, is_more: true, why });
                    (from, goes_on) = (first_due.map(before), false);
                    break;
                }
                let why = Why::of(&firing.fate).unwrap_or_else(|| reason.clone());
                if goes_on {
                    Lapse::append(&mut lapses, firing.due, why);
                } else {
                    // One that became a job lies between.
                    lapses.push(Lapse::one(firing.due, why));
                }
                goes_on = true;
            }
        }
        lapses
    }

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
