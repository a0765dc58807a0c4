//! Time zones, and what becomes of a civil time in one.

use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, LocalResult, NaiveDateTime, Offset, TimeDelta, TimeZone, Utc};
use chrono_tz::Tz;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::ScheduleError;

/// A zone of the IANA database, by its name. The database is part of the program, so that no host can lack it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Zone(Tz);

impl Zone {
    /// Coordinated universal time.
    pub const UTC: Self = Self(Tz::UTC);

    /// Its name, e.g. `Europe/Berlin`.
    pub fn name(self) -> &'static str {
        self.0.name()
    }

    /// Every zone that there is, by name.
    pub fn all() -> impl Iterator<Item = Self> {
        chrono_tz::TZ_VARIANTS.iter().copied().map(Self)
    }

    /// What clocks in the zone show then.
    pub fn civil(self, instant: DateTime<Utc>) -> NaiveDateTime {
        instant.with_timezone(&self.0).naive_local()
    }

    /// When clocks in the zone show that.
    pub fn resolve(self, civil: NaiveDateTime) -> Resolved {
        match self.0.from_local_datetime(&civil) {
            LocalResult::Single(only) => Resolved::Once(only.with_timezone(&Utc)),
            LocalResult::Ambiguous(one, other) => {
                let (one, other) = (one.with_timezone(&Utc), other.with_timezone(&Utc));
                Resolved::Twice { first: one.min(other), last: one.max(other) }
            }
            LocalResult::None => self.in_gap(civil),
        }
    }

    /// Whether clocks are neither put forward nor back within so long of then.
    pub(super) fn is_steady(self, instant: DateTime<Utc>, within: TimeDelta) -> bool {
        let offset = |at: DateTime<Utc>| self.0.offset_from_utc_datetime(&at.naive_utc()).fix();
        [-2, -1, 1, 2].iter().all(|half| offset(instant + within / 2 * *half) == offset(instant))
    }

    /// Looks for the second in which clocks jump over it: no zone is more than 16 hours from UTC.
    fn in_gap(self, civil: NaiveDateTime) -> Resolved {
        let span = TimeDelta::hours(16);
        let shows_less = |at: DateTime<Utc>| self.civil(at) < civil;
        let (mut before, mut after) = (civil.and_utc() - span, civil.and_utc() + span);
        while after - before > TimeDelta::seconds(1) {
            let middle = before + TimeDelta::seconds((after - before).num_seconds() / 2);
            if shows_less(middle) { before = middle } else { after = middle }
        }
        let offset = self.0.offset_from_utc_datetime(&before.naive_utc()).fix();
        let shifted = (civil - offset).and_utc();
        Resolved::Never { jump: after, shifted }
    }
}

/// When clocks show a civil time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Resolved {
    /// Once, as nearly always.
    Once(DateTime<Utc>),
    /// Twice, as they are put back.
    Twice {
        /// The first time.
        first: DateTime<Utc>,
        /// The last time.
        last: DateTime<Utc>,
    },
    /// Never, as they are put forward over it.
    Never {
        /// When they are put forward.
        jump: DateTime<Utc>,
        /// When they would have shown it, had they not been: as long after the jump as it is after the last time
        /// that they showed before.
        shifted: DateTime<Utc>,
    },
}

impl Resolved {
    /// No later civil time is shown before this.
    pub(super) const fn not_before(self) -> DateTime<Utc> {
        match self {
            Self::Once(at) | Self::Twice { first: at, .. } | Self::Never { jump: at, .. } => at,
        }
    }
}

impl FromStr for Zone {
    type Err = ScheduleError;

    fn from_str(name: &str) -> Result<Self, ScheduleError> {
        name.parse().map(Self).map_err(|_| ScheduleError::ZoneUnknown { zone: name.to_owned() })
    }
}

impl fmt::Display for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Debug for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Zone({})", self.name())
    }
}

impl Serialize for Zone {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(self.name())
    }
}

impl<'de> Deserialize<'de> for Zone {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let name = String::deserialize(from)?;
        name.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> NaiveDateTime {
        NaiveDateTime::parse_from_str(text, "%Y-%m-%d %H:%M").unwrap()
    }

    fn zone(name: &str) -> Zone {
        name.parse().unwrap()
    }

    fn utc(text: &str) -> DateTime<Utc> {
        at(text).and_utc()
    }

    #[test]
    fn a_time_that_is_jumped_over_is_as_long_after_the_jump() {
        let berlin = zone("Europe/Berlin").resolve(at("2026-03-29 02:30"));
        let jump = utc("2026-03-29 01:00");
        assert_eq!(berlin, Resolved::Never { jump, shifted: utc("2026-03-29 01:30") });
        let lord_howe = zone("Australia/Lord_Howe").resolve(at("2026-10-04 02:10"));
        let jump = utc("2026-10-03 15:30");
        assert_eq!(lord_howe, Resolved::Never { jump, shifted: utc("2026-10-03 15:40") });
    }

    #[test]
    fn a_whole_day_may_be_jumped_over() {
        let apia = zone("Pacific/Apia").resolve(at("2011-12-30 10:00"));
        let jump = utc("2011-12-30 10:00");
        assert_eq!(apia, Resolved::Never { jump, shifted: utc("2011-12-30 20:00") });
        // Which clocks show as the next day.
        assert_eq!(zone("Pacific/Apia").civil(utc("2011-12-30 20:00")), at("2011-12-31 10:00"));
    }

    #[test]
    fn a_time_that_comes_twice_has_both_in_order() {
        let berlin = zone("Europe/Berlin").resolve(at("2026-10-25 02:30"));
        let (first, last) = (utc("2026-10-25 00:30"), utc("2026-10-25 01:30"));
        assert_eq!(berlin, Resolved::Twice { first, last });
    }

    #[test]
    fn an_unknown_zone_is_refused_by_its_name() {
        use stillpoint_context::ErrorFacts;
        let error = "Europe/Atlantis".parse::<Zone>().unwrap_err();
        assert_eq!(error.code(), "schedule.zone_unknown");
        assert!(error.to_string().contains("Atlantis"));
        serde_json::from_str::<Zone>("\"Mars/Olympus\"").unwrap_err();
    }
}
