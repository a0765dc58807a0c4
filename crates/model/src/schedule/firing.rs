//! The firings of one schedule, in order.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

use chrono::{DateTime, Datelike, NaiveDateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use stillpoint_context::{IdError, IdempotencyKey};

use super::{Gap, LONGEST_JITTER, Overlap, Resolved, Rule, Schedule};

/// What becomes of a firing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Fate {
    /// It takes place when the rule says.
    Planned,
    /// It takes place later, as clocks skip its time.
    Shifted,
    /// It takes place the first time that clocks show its time, or the last.
    Repeated {
        /// Whether it is the last.
        last: bool,
    },
    /// It does not take place, as clocks skip its time.
    SkippedGap,
    /// It does not take place this time that clocks show its time.
    SkippedOverlap {
        /// Whether it is the last.
        last: bool,
    },
    /// It does not take place, as it falls into a blackout.
    SkippedBlackout {
        /// Which.
        name: String,
    },
}

/// One time at which a schedule is due, or would be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Firing {
    /// What the rule says, by the clock on the wall of the schedule's zone.
    pub civil: NaiveDateTime,
    /// The instant that it is known by.
    pub due: DateTime<Utc>,
    /// When it takes place: with the jitter, if it does.
    pub at: DateTime<Utc>,
    /// What becomes of it.
    pub fate: Fate,
}

impl Firing {
    /// Whether it takes place.
    pub const fn takes_place(&self) -> bool {
        matches!(self.fate, Fate::Planned | Fate::Shifted | Fate::Repeated { .. })
    }

    /// The key of its job: one job for each schedule and due instant, whoever asks and however often.
    ///
    /// # Errors
    /// None that can be met: a key of this form is a legal one.
    pub fn key(&self, schedule: &str) -> Result<IdempotencyKey, IdError> {
        // A name may have any characters, a key may not.
        let name = blake3::hash(schedule.as_bytes()).to_hex();
        IdempotencyKey::new(format!("schedule/{name}/{}", self.due.timestamp()))
    }
}

/// Why, in a few words: `shifted: clocks skip 02:30`.
impl fmt::Display for Fate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = |last: &bool| if *last { "last" } else { "first" };
        match self {
            Self::Planned => f.write_str("as planned"),
            Self::Shifted => f.write_str("shifted: clocks skip its time"),
            Self::Repeated { last } => write!(f, "the {} of two such times", time(last)),
            Self::SkippedGap => f.write_str("skipped: clocks skip its time"),
            Self::SkippedOverlap { last } => {
                write!(f, "skipped: the {} of two such times", time(last))
            }
            Self::SkippedBlackout { name } => write!(f, "skipped: blackout {name:?}"),
        }
    }
}

/// The firings of a schedule after an instant.
#[derive(Debug)]
pub struct Firings<'a> {
    schedule: &'a Schedule,
    after: DateTime<Utc>,
    source: Source,
    /// Nothing that is not known yet is due before.
    settled: DateTime<Utc>,
    /// Those that may still be overtaken, or are to be given: a time that is shifted over a gap comes after later ones.
    known: BTreeMap<DateTime<Utc>, (NaiveDateTime, Fate)>,
}

#[derive(Debug)]
enum Source {
    /// The last civil time that was looked at.
    Civil(NaiveDateTime),
    /// The next instant.
    Elapsed {
        next: DateTime<Utc>,
        interval: TimeDelta,
    },
    Exhausted,
}

/// No zone is further from another, and no jump of clocks is longer.
const FAR: TimeDelta = TimeDelta::hours(48);
/// The years in which something can be due.
const YEARS: RangeInclusive<i32> = 1..=4999;

impl<'a> Firings<'a> {
    pub(super) fn new(schedule: &'a Schedule, after: DateTime<Utc>) -> Self {
        let start =
            schedule.start.and_then(|start| start.checked_sub_signed(TimeDelta::seconds(1)));
        let after = start.map_or(after, |start| after.max(start));
        let source = match &schedule.rule {
            _ if !YEARS.contains(&after.year()) => Source::Exhausted,
            Rule::Every { interval } => elapsed(schedule, after, *interval),
            _ if schedule.zone.is_steady(after, FAR) => Source::Civil(schedule.zone.civil(after)),
            // Early enough for what is shifted or repeated into the time that is asked for.
            _ => Source::Civil(schedule.zone.civil(after) - FAR),
        };
        Self { schedule, after, source, settled: after, known: BTreeMap::new() }
    }

    /// Takes in the next time of the rule.
    fn advance(&mut self) {
        self.source = match self.source {
            Source::Exhausted => Source::Exhausted,
            Source::Elapsed { next: due, interval } => {
                self.learn(due, self.schedule.zone.civil(due), Fate::Planned);
                let next = due + interval;
                self.settled = next;
                Source::Elapsed { next, interval }
            }
            Source::Civil(last) => match self.schedule.rule.next(last) {
                Some(civil) => {
                    let resolved = self.schedule.zone.resolve(civil);
                    self.resolve(civil, resolved);
                    self.settled = resolved.not_before();
                    Source::Civil(civil)
                }
                None => Source::Exhausted,
            },
        };
        let ended = self.schedule.end.is_some_and(|end| self.settled >= end);
        if ended || !YEARS.contains(&self.settled.year()) {
            self.source = Source::Exhausted;
        }
    }

    fn resolve(&mut self, civil: NaiveDateTime, resolved: Resolved) {
        match resolved {
            Resolved::Once(at) => self.learn(at, civil, Fate::Planned),
            Resolved::Never { shifted, .. } => {
                let fate = match self.schedule.gap {
                    Gap::ShiftForward => Fate::Shifted,
                    Gap::Skip => Fate::SkippedGap,
                };
                self.learn(shifted, civil, fate);
            }
            Resolved::Twice { first, last } => {
                for (at, is_last) in [(first, false), (last, true)] {
                    let wanted = match self.schedule.overlap {
                        Overlap::First => !is_last,
                        Overlap::Last => is_last,
                        Overlap::Both => true,
                    };
                    let fate = if wanted {
                        Fate::Repeated { last: is_last }
                    } else {
                        Fate::SkippedOverlap { last: is_last }
                    };
                    self.learn(at, civil, fate);
                }
            }
        }
    }

    fn learn(&mut self, due: DateTime<Utc>, civil: NaiveDateTime, fate: Fate) {
        let schedule = self.schedule;
        if due <= self.after || schedule.end.is_some_and(|end| due >= end) {
            return;
        }
        let stands = matches!(fate, Fate::Planned | Fate::Shifted | Fate::Repeated { .. });
        let darkness = schedule.blackouts.iter().find(|dark| dark.window.has(due, schedule.zone));
        let fate = match darkness {
            Some(dark) if stands => Fate::SkippedBlackout { name: dark.name.clone() },
            _ => fate,
        };
        // Two civil times may be one instant, where one was shifted: it is due once.
        match self.known.get(&due) {
            Some((_, Fate::Planned | Fate::Repeated { .. })) => {}
            Some(_) if !matches!(fate, Fate::Planned | Fate::Repeated { .. }) => {}
            _ => {
                self.known.insert(due, (civil, fate));
            }
        }
    }
}

impl Iterator for Firings<'_> {
    type Item = Firing;

    fn next(&mut self) -> Option<Firing> {
        let may_be_overtaken = |firings: &Self| {
            firings.known.first_key_value().is_none_or(|(due, _)| *due >= firings.settled)
        };
        while !matches!(self.source, Source::Exhausted) && may_be_overtaken(self) {
            self.advance();
        }
        let (due, (civil, fate)) = self.known.pop_first()?;
        let mut firing = Firing { civil, due, at: due, fate };
        if firing.takes_place() {
            firing.at += jitter(self.schedule, due);
        }
        Some(firing)
    }
}

fn elapsed(schedule: &Schedule, after: DateTime<Utc>, interval: Duration) -> Source {
    let Some(interval) = TimeDelta::from_std(interval).ok().filter(|some| some.num_seconds() > 0)
    else {
        return Source::Exhausted;
    };
    let anchor = schedule.start.unwrap_or(DateTime::UNIX_EPOCH);
    let passed = (after - anchor).num_seconds();
    // The first that is later.
    let rounds = passed.div_euclid(interval.num_seconds()) + 1;
    let next = rounds
        .checked_mul(interval.num_seconds())
        .and_then(TimeDelta::try_seconds)
        .and_then(|far| anchor.checked_add_signed(far));
    next.map_or(Source::Exhausted, |next| Source::Elapsed { next, interval })
}

/// Drawn from what the firing is known by, so that every process draws the same.
fn jitter(schedule: &Schedule, due: DateTime<Utc>) -> TimeDelta {
    let most = schedule.jitter.min(LONGEST_JITTER).as_millis();
    let mut hash = blake3::Hasher::new();
    hash.update(schedule.name.as_bytes()).update(&due.timestamp_millis().to_le_bytes());
    let mut drawn = [0; 8];
    hash.finalize_xof().fill(&mut drawn);
    let late = u128::from(u64::from_le_bytes(drawn)).checked_rem(most).unwrap_or(0);
    TimeDelta::milliseconds(i64::try_from(late).unwrap_or(0))
}
