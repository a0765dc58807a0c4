//! When a schedule is due, by the clock on the wall or by the time that has passed.

use std::num::NonZeroU32;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use chrono::{Datelike, Months, NaiveDate, NaiveDateTime, NaiveTime, TimeDelta, Timelike, Weekday};
use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};
use serde::{Deserialize, Serialize};

use super::ScheduleError;

/// What a rule counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counting {
    /// What the clock on the wall shows, which jumps twice a year in most zones.
    Civil,
    /// The time that has passed, whatever clocks show.
    Elapsed,
}

/// A day of a month.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum MonthDay {
    /// This one, from 1 to 31; the last one of a month that is shorter.
    Day(u32),
    /// The last.
    Last,
    /// The first to fourth of a weekday.
    Nth {
        /// Which, from 1 to 4.
        nth: u32,
        /// Of what.
        weekday: Weekday,
    },
    /// The last of a weekday.
    LastOf(Weekday),
}

impl MonthDay {
    fn of(self, year: i32, month: u32) -> Option<NaiveDate> {
        let first = NaiveDate::from_ymd_opt(year, month, 1)?;
        let last = first.checked_add_months(Months::new(1))?.pred_opt()?;
        match self {
            Self::Day(day) => last.with_day(day).or(Some(last)),
            Self::Last => Some(last),
            Self::Nth { nth, weekday } => {
                NaiveDate::from_weekday_of_month_opt(year, month, weekday, u8::try_from(nth).ok()?)
            }
            Self::LastOf(weekday) => {
                let back = (last.weekday().num_days_from_monday() + 7
                    - weekday.num_days_from_monday())
                    % 7;
                last.checked_sub_signed(TimeDelta::days(i64::from(back)))
            }
        }
    }

    const fn is_sound(self) -> bool {
        match self {
            Self::Day(day) => day >= 1 && day <= 31,
            Self::Nth { nth, .. } => nth >= 1 && nth <= 4,
            Self::Last | Self::LastOf(_) => true,
        }
    }
}

/// When a schedule is due.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Rule {
    /// Whenever so much time has passed since the schedule's start. Counts elapsed time.
    Every {
        /// How much; whole seconds.
        #[serde(rename = "interval_ms", with = "crate::millis")]
        interval: Duration,
    },
    /// Whenever clocks show this minute of an hour of which the number of the hour is a multiple. Counts civil time.
    Hourly {
        /// Of what the hour is a multiple: 1 is each hour, 6 is at 0, 6, 12 and 18.
        every: NonZeroU32,
        /// The minute, from 0 to 59.
        minute: u32,
    },
    /// Once a day. Counts civil time.
    Daily {
        /// When.
        at: NaiveTime,
    },
    /// On these days of the week. Counts civil time.
    Weekly {
        /// Which.
        on: Vec<Weekday>,
        /// When.
        at: NaiveTime,
    },
    /// Once a month. Counts civil time.
    Monthly {
        /// On which day.
        on: MonthDay,
        /// When.
        at: NaiveTime,
    },
    /// By a cron pattern. Counts civil time.
    Cron(CronRule),
}

/// A cron pattern of five fields (minute, hour, day of month, month, day of week), or of six with seconds in front. `L`, `W`, `#`
/// and names are understood; a day has to match the month's or the week's field, as in every cron, unless the week's begins
/// with `+`.
#[derive(Clone, Debug)]
pub struct CronRule {
    text: String,
    cron: Arc<Cron>,
}

impl CronRule {
    /// The pattern as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl PartialEq for CronRule {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for CronRule {}

impl FromStr for CronRule {
    type Err = ScheduleError;

    fn from_str(text: &str) -> Result<Self, ScheduleError> {
        let parser =
            CronParser::builder().seconds(Seconds::Optional).year(Year::Disallowed).build();
        let cron = parser.parse(text).map_err(|error| ScheduleError::Cron {
            pattern: text.to_owned(),
            why: error.to_string(),
        })?;
        Ok(Self { text: text.to_owned(), cron: Arc::new(cron) })
    }
}

impl Serialize for CronRule {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for CronRule {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?.parse().map_err(serde::de::Error::custom)
    }
}

impl Rule {
    /// What it counts.
    pub const fn counts(&self) -> Counting {
        match self {
            Self::Every { .. } => Counting::Elapsed,
            _ => Counting::Civil,
        }
    }

    /// Whether it makes sense by itself.
    ///
    /// # Errors
    /// What it says that cannot be.
    pub fn check(&self) -> Result<(), ScheduleError> {
        let wrong = |what| Err(ScheduleError::Rule { what });
        match self {
            Self::Every { interval } if interval.as_secs() == 0 => {
                wrong("the interval is shorter than a second")
            }
            Self::Every { interval } if interval.subsec_nanos() != 0 => {
                wrong("the interval is not in whole seconds")
            }
            Self::Hourly { every, .. } if every.get() > 24 => {
                wrong("the hours are more than 24 apart")
            }
            Self::Hourly { minute, .. } if *minute > 59 => wrong("an hour has minutes 0 to 59"),
            Self::Weekly { on, .. } if on.is_empty() => wrong("it names no day of the week"),
            Self::Monthly { on, .. } if !on.is_sound() => {
                wrong("a month has days 1 to 31 and four of each weekday")
            }
            _ => Ok(()),
        }
    }

    /// The next civil time after one.
    ///
    /// # Complexity
    /// Of a cron pattern that never fires: a search through three thousand years of months.
    pub(super) fn next(&self, after: NaiveDateTime) -> Option<NaiveDateTime> {
        let day = after.date();
        match self {
            Self::Every { .. } => None,
            Self::Hourly { every, minute } => hourly(after, every.get(), *minute),
            Self::Daily { at } => {
                let today = day.and_time(*at);
                if today > after { Some(today) } else { Some(day.succ_opt()?.and_time(*at)) }
            }
            Self::Weekly { on, at } => (0..=7)
                .filter_map(|days| day.checked_add_signed(TimeDelta::days(days)))
                .filter(|day| on.contains(&day.weekday()))
                .map(|day| day.and_time(*at))
                .find(|time| *time > after),
            Self::Monthly { on, at } => (0..=1)
                .filter_map(|months| day.with_day(1)?.checked_add_months(Months::new(months)))
                .filter_map(|month| on.of(month.year(), month.month()))
                .map(|day| day.and_time(*at))
                .find(|time| *time > after),
            Self::Cron(rule) => rule.cron.find_next_occurrence(&after, false).ok(),
        }
    }
}

fn hourly(after: NaiveDateTime, every: u32, minute: u32) -> Option<NaiveDateTime> {
    let mut hour = after.date().and_hms_opt(after.hour(), minute, 0)?;
    while hour <= after || hour.hour() % every != 0 {
        hour = hour.checked_add_signed(TimeDelta::hours(1))?;
    }
    Some(hour)
}
