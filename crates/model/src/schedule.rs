//! Schedules: when something is due, in whose time, and what becomes of the hours that clocks skip and repeat.
//!
//! ```
//! use chrono::{DateTime, Utc};
//! use stillpoint_model::schedule::{Fate, Rule, Schedule, Zone};
//!
//! let rule = Rule::Daily { at: chrono::NaiveTime::from_hms_opt(2, 30, 0).ok_or("no time")? };
//! let nightly = Schedule::new("nightly", rule, "Europe/Berlin".parse::<Zone>()?);
//! nightly.check()?;
//!
//! // In the night of 29 March 2026 there is no half past two.
//! let from: DateTime<Utc> = "2026-03-28T12:00:00Z".parse()?;
//! let nights: Vec<_> = nightly.firings(from).take(2).collect();
//! assert_eq!(nights[0].due, "2026-03-29T01:30:00Z".parse::<DateTime<Utc>>()?); // 03:30 in Berlin
//! assert_eq!(nights[0].fate.to_string(), "shifted: clocks skip its time");
//! assert_eq!(nights[1].due, "2026-03-30T00:30:00Z".parse::<DateTime<Utc>>()?);
//! assert!(matches!(nights[1].fate, Fate::Planned));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! ```text
//!   Rule ─▶ civil times ─▶ Zone: once · twice · never ─▶ in order, each instant once ─▶ blackouts ─▶ Firing
//!     └─ elapsed ─────────────────────────────────────────────┘                                        │
//!   Timetable: many schedules ── tick(now) ──▶ what is due, what was missed, when to look again ◀──────┘
//! ```
//!
//! Everything is pure: `now` is an argument, jitter is drawn from the schedule's name and the due instant, so that every process
//! that looks at a schedule sees the same firings. One instant is one job: see [`Firing::key`].

mod error;
mod firing;
mod ledger;
mod missed;
mod rule;
mod stored;
mod timetable;
mod zone;

use std::time::Duration;

use chrono::{DateTime, Datelike, NaiveDate, NaiveTime, TimeDelta, Utc, Weekday};
use serde::{Deserialize, Serialize};

use crate::policy::check_name;

pub use error::ScheduleError;
pub use firing::{Fate, Firing, Firings};
pub use ledger::{AttachmentId, Lapse, Ledger, OpenDue, Progress, RecordedLapse, Why};
pub use missed::{Due, Settled};
pub use rule::{Counting, CronRule, MonthDay, Rule};
pub use stored::StoredSchedule;
pub use timetable::{Regress, Tick, Timetable};
pub use zone::{Resolved, Zone};

/// The most by which a firing may be late on purpose.
const LONGEST_JITTER: Duration = Duration::from_hours(24);
/// How far ahead a firing is looked for that takes place: 29 February may be eight years off.
const FARTHEST: TimeDelta = TimeDelta::days(40 * 366);
/// Of how many firings that do not take place.
const MOST_SKIPPED: usize = 1_000_000;

/// What happens at a civil time that clocks skip.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Gap {
    /// It is due as long after the jump as it would have been without: half past two at half past three.
    #[default]
    ShiftForward,
    /// It is not due that day.
    Skip,
}

/// What happens at a civil time that clocks show twice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Overlap {
    /// It is due the first time.
    #[default]
    First,
    /// It is due the last time.
    Last,
    /// It is due both times: what recurs within the day and must not pause for an hour.
    Both,
}

/// What happens to firings that nobody was there for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Missed {
    /// Nothing: the next one will do.
    Skip,
    /// The latest is made up for.
    #[default]
    Once,
    /// The latest so many are made up for, oldest first.
    All {
        /// At most how many.
        most: u32,
    },
}

/// What happens to a firing while a job of the same schedule is not over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Overrun {
    /// Its job waits behind the other.
    Queue,
    /// Its job waits, and those that come due meanwhile are one with it.
    #[default]
    Coalesce,
    /// Nothing.
    Skip,
}

/// When nothing is due, whatever the rule says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Blackout {
    /// Its name, for the reason that is shown.
    pub name: String,
    /// When.
    pub window: Window,
}

/// A stretch of time. The beginning is part of it, the end is not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Window {
    /// On days of the week, by the clock on the wall.
    Weekly {
        /// The days on which it begins; every day if there are none.
        on: Vec<Weekday>,
        /// When it begins.
        from: NaiveTime,
        /// When it ends: on the next day, if that is not later.
        to: NaiveTime,
    },
    /// Once.
    Between {
        /// When it begins.
        from: DateTime<Utc>,
        /// When it ends.
        to: DateTime<Utc>,
    },
}

impl Window {
    fn has(&self, instant: DateTime<Utc>, zone: Zone) -> bool {
        match self {
            Self::Between { from, to } => (*from..*to).contains(&instant),
            Self::Weekly { on, from, to } => {
                let civil = zone.civil(instant);
                let begins = |day: Option<NaiveDate>| {
                    day.is_some_and(|day| on.is_empty() || on.contains(&day.weekday()))
                };
                let (today, yesterday) = (Some(civil.date()), civil.date().pred_opt());
                if from < to {
                    begins(today) && (*from..*to).contains(&civil.time())
                } else {
                    (begins(today) && civil.time() >= *from)
                        || (begins(yesterday) && civil.time() < *to)
                }
            }
        }
    }
}

/// When something is due.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Schedule {
    /// Its name. The keys of its jobs and its jitter are made of it, so it is not to be given to another one later; what is
    /// [attached](AttachmentId) to groups is known by ids, and may be renamed.
    pub name: String,
    /// The rule.
    pub rule: Rule,
    /// In whose time the rule and the blackouts are.
    pub zone: Zone,
    /// Nothing is due before. What counts elapsed time counts from here, or from 1970.
    pub start: Option<DateTime<Utc>>,
    /// Nothing is due from then on.
    pub end: Option<DateTime<Utc>>,
    /// Each firing is late by up to so much, so that not everything begins at once: by how much is drawn from name and instant.
    #[serde(rename = "jitter_ms", with = "crate::millis")]
    pub jitter: Duration,
    /// At a time that clocks skip.
    pub gap: Gap,
    /// At a time that clocks show twice.
    pub overlap: Overlap,
    /// When nobody was there.
    pub missed: Missed,
    /// While a job of it is not over.
    pub overrun: Overrun,
    /// When nothing is due.
    pub blackouts: Vec<Blackout>,
}

impl Schedule {
    /// A schedule with the usual answers: shifted over gaps, once where clocks repeat (but both times if it is hourly), made
    /// up for once if missed, coalesced while at work.
    pub fn new(name: impl Into<String>, rule: Rule, zone: Zone) -> Self {
        let overlap = match rule {
            Rule::Hourly { .. } => Overlap::Both,
            _ => Overlap::First,
        };
        Self {
            name: name.into(),
            rule,
            zone,
            start: None,
            end: None,
            jitter: Duration::ZERO,
            gap: Gap::default(),
            overlap,
            missed: Missed::default(),
            overrun: Overrun::default(),
            blackouts: Vec::new(),
        }
    }

    /// Whether it makes sense by itself (V23, V24).
    ///
    /// # Errors
    /// The first rule that it breaks. That its end has passed is none: see [`next`](Self::next).
    pub fn check(&self) -> Result<(), ScheduleError> {
        check_name(&self.name)
            .map_err(|why| ScheduleError::Name { name: self.name.clone(), why })?;
        self.rule.check()?;
        if self.jitter > LONGEST_JITTER {
            return Err(ScheduleError::Jitter);
        }
        for blackout in &self.blackouts {
            if matches!(&blackout.window, Window::Between { from, to } if from >= to) {
                return Err(ScheduleError::Blackout { name: blackout.name.clone() });
            }
        }
        let start = self.start.unwrap_or(DateTime::UNIX_EPOCH);
        if self.end.is_some_and(|end| end <= start) {
            return Err(ScheduleError::NeverFires { why: "it ends when it starts or before" });
        }
        let before = start.checked_sub_signed(TimeDelta::seconds(1)).unwrap_or(start);
        if self.firings(before).next().is_none() {
            let why = "no time fits its rule between start and end";
            return Err(ScheduleError::NeverFires { why });
        }
        if self.next(before).is_none() {
            return Err(ScheduleError::NeverFires { why: "blackouts are all the time" });
        }
        Ok(())
    }

    /// Every firing after an instant, in order, with those that do not take place and why.
    pub fn firings(&self, after: DateTime<Utc>) -> Firings<'_> {
        Firings::new(self, after)
    }

    /// The first firing after an instant that takes place; `None` once the schedule is exhausted, or if there is none among the
    /// next million and within forty years.
    pub fn next(&self, after: DateTime<Utc>) -> Option<Firing> {
        let farthest = after.checked_add_signed(FARTHEST);
        let mut ahead = self
            .firings(after)
            .take(MOST_SKIPPED)
            .take_while(|firing| farthest.is_none_or(|farthest| firing.due < farthest));
        ahead.find(Firing::takes_place)
    }
}

#[cfg(test)]
mod tests;
