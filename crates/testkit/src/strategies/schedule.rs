//! Schedules.

use std::num::NonZeroU32;
use std::time::Duration;

use chrono::{DateTime, NaiveTime, TimeDelta, Utc, Weekday};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use stillpoint_model::schedule::{
    Blackout, Gap, Missed, MonthDay, Overlap, Overrun, Rule, Schedule, Window, Zone,
};

use super::policy::{broken_names, names};
use super::{Broken, must};

const WEEK: [Weekday; 7] = [
    Weekday::Mon,
    Weekday::Tue,
    Weekday::Wed,
    Weekday::Thu,
    Weekday::Fri,
    Weekday::Sat,
    Weekday::Sun,
];

/// Patterns that fire every day, and ones that fire now and then.
const PATTERNS: [&str; 6] =
    ["*/20 * * * *", "30 2 * * *", "0 */4 * * *", "15 22 * * MON-FRI", "0 3 L * *", "0 5 29 2 *"];

/// Zones with jumps at night, at midnight, by half an hour, and without.
const ZONES: [&str; 6] = [
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "America/Sao_Paulo",
    "Australia/Lord_Howe",
    "Asia/Kathmandu",
];

fn times() -> impl Strategy<Value = NaiveTime> {
    (0..24_u32, 0..60_u32).prop_map(|(hour, minute)| {
        must(NaiveTime::from_hms_opt(hour, minute, 0).ok_or("there is such a time"))
    })
}

fn cron(pattern: &str) -> Rule {
    Rule::Cron(must(pattern.parse()))
}

/// Rules that are due on every day or so.
fn frequent() -> impl Strategy<Value = Rule> {
    prop_oneof![
        (1..36 * 3600_u64).prop_map(|seconds| {
            // Not so often that looking ahead takes long.
            Rule::Every { interval: Duration::from_secs(seconds.max(60)) }
        }),
        (1..=24_u32, 0..60_u32).prop_map(|(every, minute)| {
            Rule::Hourly { every: NonZeroU32::new(every).unwrap_or(NonZeroU32::MIN), minute }
        }),
        times().prop_map(|at| Rule::Daily { at }),
        select(&PATTERNS[..3]).prop_map(cron),
    ]
}

/// Rules that are due now and then.
fn rare() -> impl Strategy<Value = Rule> {
    let weekday = || select(WEEK.to_vec());
    let day = prop_oneof![
        (1..=31_u32).prop_map(MonthDay::Day),
        Just(MonthDay::Last),
        (1..=4_u32, weekday()).prop_map(|(nth, weekday)| MonthDay::Nth { nth, weekday }),
        weekday().prop_map(MonthDay::LastOf),
    ];
    prop_oneof![
        (subsequence(WEEK.to_vec(), 1..=7), times()).prop_map(|(on, at)| Rule::Weekly { on, at }),
        (day, times()).prop_map(|(on, at)| Rule::Monthly { on, at }),
        select(&PATTERNS[3..]).prop_map(cron),
    ]
}

fn starts() -> impl Strategy<Value = DateTime<Utc>> {
    (0..30_000_i64)
        .prop_map(|hours| DateTime::UNIX_EPOCH + TimeDelta::days(19_000) + TimeDelta::hours(hours))
}

fn misses() -> impl Strategy<Value = Missed> {
    prop_oneof![
        Just(Missed::Skip),
        Just(Missed::Once),
        (0..10_u32).prop_map(|most| Missed::All { most }),
    ]
}

/// A blackout of a day of the week, or in the first week after the start.
fn blackouts(start: DateTime<Utc>, weekly: bool) -> impl Strategy<Value = Blackout> {
    let on_a_day = (select(WEEK.to_vec()), times(), times())
        .prop_map(|(day, from, to)| Window::Weekly { on: vec![day], from, to });
    let once = (0..100_i64, 1..60_i64).prop_map(move |(from, hours)| {
        let from = start + TimeDelta::hours(from);
        Window::Between { from, to: from + TimeDelta::hours(hours) }
    });
    let window = if weekly { prop_oneof![on_a_day, once].boxed() } else { once.boxed() };
    (names(), window).prop_map(|(name, window)| Blackout { name, window })
}

/// Schedules that make sense by themselves, of every rule, in zones with all kinds of jumps: each is due now and then, whatever
/// its blackouts and its end.
pub fn schedules() -> impl Strategy<Value = Schedule> {
    let rule = prop_oneof![
        frequent().prop_map(|rule| (rule, true)),
        rare().prop_map(|rule| (rule, false)),
    ];
    (rule, starts()).prop_flat_map(|((rule, often), start)| {
        let bounds = (any::<bool>(), option::of(10..50_i64));
        let civil = (
            select(ZONES.to_vec()),
            prop_oneof![Just(Gap::ShiftForward), Just(Gap::Skip)],
            prop_oneof![Just(Overlap::First), Just(Overlap::Last), Just(Overlap::Both)],
        );
        let overruns =
            prop_oneof![Just(Overrun::Queue), Just(Overrun::Coalesce), Just(Overrun::Skip)];
        let blackouts = vec(blackouts(start, often), 0..3);
        let rest = (0..=24 * 3600_u64, misses(), overruns, blackouts);
        (Just(rule), names(), bounds, civil, rest).prop_map(
            move |(rule, name, (starts, years), (zone, gap, overlap), rest)| {
                let mut schedule = Schedule::new(name, rule, must(zone.parse::<Zone>()));
                schedule.start = starts.then_some(start);
                // Long enough for any rule: 29 February is eight years off at most.
                schedule.end = years.map(|years| start + TimeDelta::days(366 * years));
                (schedule.gap, schedule.overlap) = (gap, overlap);
                let (jitter, missed, overrun, blackouts) = rest;
                schedule.jitter = Duration::from_secs(jitter);
                (schedule.missed, schedule.overrun) = (missed, overrun);
                schedule.blackouts = blackouts;
                schedule
            },
        )
    })
}

#[derive(Debug, Clone)]
enum Break {
    Name(String),
    NoInterval,
    PartOfASecond(u32),
    FarHours(u32),
    Minute(u32),
    NoDay,
    MonthDay(MonthDay),
    Jitter(u64),
    Empty(i64),
    EndsFirst(i64),
    AlwaysDark,
}

fn breaks() -> impl Strategy<Value = Break> {
    let no_days = prop_oneof![
        Just(MonthDay::Day(0)),
        (32..1000_u32).prop_map(MonthDay::Day),
        (5..9_u32).prop_map(|nth| MonthDay::Nth { nth, weekday: Weekday::Mon }),
    ];
    prop_oneof![
        broken_names().prop_map(Break::Name),
        Just(Break::NoInterval),
        (1..1000_u32).prop_map(Break::PartOfASecond),
        (25..1000_u32).prop_map(Break::FarHours),
        (60..1000_u32).prop_map(Break::Minute),
        Just(Break::NoDay),
        no_days.prop_map(Break::MonthDay),
        (1..10_000_u64).prop_map(Break::Jitter),
        (0..100_i64).prop_map(Break::Empty),
        (0..100_i64).prop_map(Break::EndsFirst),
        Just(Break::AlwaysDark),
    ]
}

/// Schedules that are valid but for one thing: never due (`V24`), a rule that cannot be, a name that is none, a jitter that is
/// too long, or a blackout without a length.
pub fn broken_schedules() -> impl Strategy<Value = Broken<Schedule>> {
    const RULE: (&str, &str) = ("", "schedule.rule_invalid");
    const NEVER: (&str, &str) = ("V24", "schedule.never_fires");
    (schedules(), breaks()).prop_map(|(mut schedule, how)| {
        let at = NaiveTime::MIN;
        let start = schedule.start.unwrap_or(DateTime::UNIX_EPOCH);
        let blackout = |window| Blackout { name: "dark".to_owned(), window };
        let (rule, code) = match how {
            Break::Name(name) => {
                schedule.name = name;
                ("", "schedule.name_invalid")
            }
            Break::NoInterval => {
                schedule.rule = Rule::Every { interval: Duration::ZERO };
                RULE
            }
            Break::PartOfASecond(millis) => {
                let interval = Duration::from_hours(1) + Duration::from_micros(millis.into());
                schedule.rule = Rule::Every { interval };
                RULE
            }
            Break::FarHours(every) => {
                let every = NonZeroU32::new(every).unwrap_or(NonZeroU32::MAX);
                schedule.rule = Rule::Hourly { every, minute: 0 };
                RULE
            }
            Break::Minute(minute) => {
                schedule.rule = Rule::Hourly { every: NonZeroU32::MIN, minute };
                RULE
            }
            Break::NoDay => {
                schedule.rule = Rule::Weekly { on: Vec::new(), at };
                RULE
            }
            Break::MonthDay(on) => {
                schedule.rule = Rule::Monthly { on, at };
                RULE
            }
            Break::Jitter(seconds) => {
                schedule.jitter = Duration::from_hours(24) + Duration::from_secs(seconds);
                ("", "schedule.jitter_too_long")
            }
            Break::Empty(hours) => {
                let window = Window::Between { from: start, to: start - TimeDelta::hours(hours) };
                schedule.blackouts.push(blackout(window));
                ("", "schedule.blackout_empty")
            }
            Break::EndsFirst(hours) => {
                schedule.end = Some(start - TimeDelta::hours(hours));
                NEVER
            }
            Break::AlwaysDark => {
                schedule.rule = Rule::Daily { at };
                // Else every firing of forty years would be looked at.
                schedule.end = Some(start + TimeDelta::days(60));
                let window = Window::Weekly { on: Vec::new(), from: at, to: at };
                schedule.blackouts.push(blackout(window));
                NEVER
            }
        };
        Broken::new(schedule, rule, code)
    })
}
