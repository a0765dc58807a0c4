//! How often something is due.

use chrono::{DateTime, TimeDelta, Utc};

use crate::schedule::{Firing, Schedule};

/// So many firings are looked at; what is denser than that goes on at the same rate.
const MOST: usize = 20_000;
/// What repeats by the week is seen whole.
const WEEK: TimeDelta = TimeDelta::days(8);
/// So many intervals are looked at for the longest and the shortest.
const INTERVALS: usize = 400;

/// Schedules that do the same thing, looked ahead from an instant.
#[derive(Clone, Debug)]
pub(super) struct Pace {
    schedules: Vec<Schedule>,
    now: DateTime<Utc>,
}

impl Pace {
    pub(super) const fn new(schedules: Vec<Schedule>, now: DateTime<Utc>) -> Self {
        Self { schedules, now }
    }

    /// With others together.
    pub(super) fn together_with(&self, others: &[&Self]) -> Self {
        let all = std::iter::once(self).chain(others.iter().copied());
        Self {
            schedules: all.flat_map(|pace| pace.schedules.iter().cloned()).collect(),
            now: self.now,
        }
    }

    /// When it is due, in order; the first one is looked for as far as a schedule ever looks, so that one that is exhausted ends.
    fn due(&self) -> impl Iterator<Item = DateTime<Utc>> + '_ {
        let mut heads: Vec<_> = self
            .schedules
            .iter()
            .filter(|schedule| schedule.next(self.now).is_some())
            .map(|schedule| schedule.firings(self.now).filter(Firing::takes_place).peekable())
            .collect();
        std::iter::from_fn(move || {
            let due = |head: &mut std::iter::Peekable<_>| -> Option<DateTime<Utc>> {
                head.peek().map(|firing: &Firing| firing.due)
            };
            let next = heads.iter_mut().filter_map(|head| Some((due(head)?, head)));
            next.min_by_key(|(due, _)| *due).and_then(|(_, head)| head.next()).map(|next| next.due)
        })
    }

    /// Whether it is ever due again.
    pub(super) fn is_due(&self) -> bool {
        self.due().next().is_some()
    }

    /// How often it is due at most within any stretch of so much time that retention counts: between two neighbours no more than
    /// half of it. `None` if it is not due any more.
    pub(super) fn most_within(&self, time: TimeDelta) -> Option<u32> {
        let mut dues = self.due();
        let mut before = dues.next()?;
        let enough = time.checked_add(&WEEK)?;
        let mut passed = TimeDelta::zero();
        let mut seen = vec![passed];
        for due in dues.take(MOST - 1) {
            passed += (due - before).min(time / 2);
            if passed > enough {
                break;
            }
            before = due;
            seen.push(passed);
        }
        if seen.len() == MOST && passed < time {
            // Denser than it is worth to count.
            let times = i64::try_from(MOST - 1).ok()?.checked_mul(time.num_seconds())?;
            let rate = times.checked_div(passed.num_seconds().max(1))?;
            return Some(u32::try_from(rate).unwrap_or(u32::MAX));
        }
        let (mut most, mut from) = (0, 0);
        for (to, at) in seen.iter().enumerate() {
            while from < to && *at - seen[from] >= time {
                from += 1;
            }
            most = most.max(to - from + 1);
        }
        Some(u32::try_from(most).unwrap_or(u32::MAX))
    }

    /// How long it takes to be due so many more times; `None` if it never is.
    pub(super) fn time_of(&self, times: u32) -> Option<TimeDelta> {
        let mut dues = self.due();
        let first = dues.next()?;
        let Some(back) = times.checked_sub(1) else { return Some(TimeDelta::zero()) };
        dues.nth(usize::try_from(back).ok()?).map(|last| last - first)
    }

    /// The shortest and the longest time between two firings; `None` if fewer than two are ahead.
    pub(super) fn intervals(&self) -> Option<(TimeDelta, TimeDelta)> {
        let dues: Vec<_> = self.due().take(INTERVALS + 1).collect();
        let between = || dues.windows(2).map(|pair| pair[1] - pair[0]);
        Some((between().min()?, between().max()?))
    }
}
