//! Many schedules, and what is due among them.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

use chrono::{DateTime, TimeDelta, Utc};

use super::missed::Look;
use super::{Due, Lapse, Schedule, ScheduleError, Why};

/// Many schedules, each with the last firing of it that was considered.
///
/// ```
/// use chrono::{DateTime, TimeDelta, Utc};
/// use stillpoint_model::schedule::{Rule, Schedule, Timetable, Zone};
///
/// let noon: DateTime<Utc> = "2026-03-28T12:00:00Z".parse()?;
/// let hourly = Rule::Hourly { every: std::num::NonZeroU32::MIN, minute: 15 };
/// let mut table = Timetable::new();
/// table.put(Schedule::new("logs", hourly, Zone::UTC), noon)?;
///
/// let tick = table.tick(noon + TimeDelta::minutes(15));
/// assert_eq!(tick.due.len(), 1);
/// assert_eq!(tick.wake, Some(noon + TimeDelta::minutes(75)));
/// // What was considered is stored before jobs of it are made; the keys of jobs keep each from being made twice.
/// assert_eq!(tick.considered, [("logs".to_owned(), noon + TimeDelta::minutes(15))]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Timetable {
    entries: HashMap<String, Entry>,
    /// When to look at which again. What is not an entry's own `wake` any more is passed over.
    queue: BinaryHeap<Reverse<(DateTime<Utc>, String)>>,
    latest: Option<DateTime<Utc>>,
    grace: TimeDelta,
    tolerance: TimeDelta,
}

#[derive(Debug)]
struct Entry {
    schedule: Schedule,
    considered: DateTime<Utc>,
    wake: Option<DateTime<Utc>>,
}

impl Entry {
    fn consider(&mut self, considered: DateTime<Utc>) {
        self.considered = considered;
        // Also one that does not take place: its reason is told when its time has come.
        self.wake = self.schedule.firings(considered).next().map(|firing| firing.at);
    }
}

/// What is to be done now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Tick {
    /// The firings for which jobs are to be made; of each schedule the oldest first.
    pub due: Vec<Due>,
    /// The due times that are no longer to come and become no jobs, with the reason; of each schedule the oldest first.
    pub lapses: Vec<(String, Lapse)>,
    /// The schedules whose firings were considered, and the last of each: to be stored with what was made of them.
    pub considered: Vec<(String, DateTime<Utc>)>,
    /// When to look again, at the latest.
    pub wake: Option<DateTime<Utc>>,
    /// The clock has gone back, and nothing is due until it is right again or somebody says that it is.
    pub regress: Option<Regress>,
}

/// The clock has gone back by more than the tolerance (V46).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Regress {
    /// The latest instant that was seen.
    pub latest: DateTime<Utc>,
    /// What the clock says now.
    pub now: DateTime<Utc>,
}

impl Default for Timetable {
    fn default() -> Self {
        Self {
            entries: HashMap::new(),
            queue: BinaryHeap::new(),
            latest: None,
            grace: TimeDelta::minutes(5),
            tolerance: TimeDelta::minutes(1),
        }
    }
}

impl Timetable {
    /// Without schedules.
    pub fn new() -> Self {
        Self::default()
    }

    /// How late a firing may be without being missed: five minutes unless said.
    #[must_use]
    pub fn with_grace(mut self, grace: TimeDelta) -> Self {
        self.grace = grace.clamp(TimeDelta::zero(), TimeDelta::days(366));
        self
    }

    /// By how much the clock may go back without a word: a minute unless said.
    #[must_use]
    pub const fn with_tolerance(mut self, tolerance: TimeDelta) -> Self {
        self.tolerance = tolerance;
        self
    }

    /// Takes a schedule in, or another version of one that is there, with the last firing of it that was considered: for a new one
    /// the time at which it was made.
    ///
    /// # Errors
    /// What is wrong with it. The version that was there stays.
    ///
    /// # Complexity
    /// A look for its next firing; logarithmic in the number of schedules.
    pub fn put(
        &mut self,
        schedule: Schedule,
        considered: DateTime<Utc>,
    ) -> Result<(), ScheduleError> {
        schedule.check()?;
        let name = schedule.name.clone();
        let mut entry = Entry { schedule, considered, wake: None };
        entry.consider(considered);
        self.queue.extend(entry.wake.map(|wake| Reverse((wake, name.clone()))));
        self.entries.insert(name, entry);
        Ok(())
    }

    /// Takes a schedule out. Says whether it was there.
    pub fn remove(&mut self, name: &str) -> bool {
        self.entries.remove(name).is_some()
    }

    /// The schedules, in no order, each with the last firing of it that was considered.
    pub fn schedules(&self) -> impl Iterator<Item = (&Schedule, DateTime<Utc>)> {
        self.entries.values().map(|entry| (&entry.schedule, entry.considered))
    }

    /// A schedule by its name.
    pub fn schedule(&self, name: &str) -> Option<&Schedule> {
        self.entries.get(name).map(|entry| &entry.schedule)
    }

    /// The last firing of a schedule that was considered.
    pub fn considered(&self, name: &str) -> Option<DateTime<Utc>> {
        self.entries.get(name).map(|entry| entry.considered)
    }

    /// What is to be done now. A firing comes up once.
    ///
    /// # Complexity
    /// Logarithmic in the number of schedules for each one that is due.
    pub fn tick(&mut self, now: DateTime<Utc>) -> Tick {
        if let Some(latest) = self.latest
            && latest - now > self.tolerance
        {
            let regress = Some(Regress { latest, now });
            return Tick { regress, ..Tick::default() };
        }
        self.latest = self.latest.max(Some(now));
        let mut tick = Tick::default();
        while let Some(Reverse((wake, name))) = self.queue.pop() {
            let Some(entry) = self.entries.get_mut(&name).filter(|entry| entry.wake == Some(wake))
            else {
                continue;
            };
            if wake > now {
                tick.wake = Some(wake);
                self.queue.push(Reverse((wake, name)));
                break;
            }
            let look = entry.schedule.look(entry.considered, now, self.grace);
            let lapses = entry.schedule.lapses(entry.considered, &look, &Why::Missed);
            tick.lapses.extend(lapses.into_iter().map(|lapse| (name.clone(), lapse)));
            let Look { due, considered } = look;
            entry.consider(considered);
            self.queue.extend(entry.wake.map(|wake| Reverse((wake, name.clone()))));
            tick.due.extend(due);
            tick.considered.push((name, considered));
        }
        tick
    }

    /// Takes note of an instant that was seen before, maybe by another process: an earlier one is a clock that has gone back.
    pub fn has_seen(&mut self, instant: DateTime<Utc>) {
        self.latest = self.latest.max(Some(instant));
    }

    /// The latest instant that was seen.
    pub const fn latest(&self) -> Option<DateTime<Utc>> {
        self.latest
    }

    /// How late a firing may be without being missed.
    pub const fn grace(&self) -> TimeDelta {
        self.grace
    }

    /// Believes the clock from now on, although it has gone back: what is due from now on is due again. Jobs that exist keep their
    /// keys, so that none is made twice.
    pub fn believe(&mut self, now: DateTime<Utc>) {
        self.latest = Some(now);
        self.queue.clear();
        for (name, entry) in &mut self.entries {
            entry.consider(entry.considered.min(now));
            self.queue.extend(entry.wake.map(|wake| Reverse((wake, name.clone()))));
        }
    }
}
