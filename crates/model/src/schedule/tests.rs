//! Schedules against a naive model that looks at every minute, over gaps and overlaps of many zones.

mod naive;
mod zones;

use std::collections::{BTreeSet, HashMap};
use std::num::NonZeroU32;

use chrono::{NaiveDateTime, Timelike};
use proptest::prelude::*;
use stillpoint_context::ErrorFacts;

use super::*;
use crate::seed::seeded_cases;

fn utc(text: &str) -> DateTime<Utc> {
    NaiveDateTime::parse_from_str(text, "%Y-%m-%d %H:%M").unwrap().and_utc()
}

fn time(hour: u32, minute: u32) -> NaiveTime {
    NaiveTime::from_hms_opt(hour, minute, 0).unwrap()
}

fn zone(name: &str) -> Zone {
    name.parse().unwrap()
}

fn cron(pattern: &str) -> Rule {
    Rule::Cron(pattern.parse().unwrap())
}

fn daily(hour: u32, minute: u32) -> Rule {
    Rule::Daily { at: time(hour, minute) }
}

/// When the firings that take place are due, and the fates of all.
fn shown(schedule: &Schedule, after: &str, count: usize) -> Vec<String> {
    let firings = schedule.firings(utc(after)).take(count);
    firings.map(|firing| format!("{} {}", firing.due.format("%d %H:%M"), firing.fate)).collect()
}

#[test]
fn a_daily_time_that_clocks_skip_is_shifted_or_skipped_as_the_schedule_says() {
    let mut nightly = Schedule::new("n", daily(2, 30), zone("Europe/Berlin"));
    let from = "2026-03-28 00:00";
    let shifted =
        ["28 01:30 as planned", "29 01:30 shifted: clocks skip its time", "30 00:30 as planned"];
    assert_eq!(shown(&nightly, from, 3), shifted);
    nightly.gap = Gap::Skip;
    let skipped =
        ["28 01:30 as planned", "29 01:30 skipped: clocks skip its time", "30 00:30 as planned"];
    assert_eq!(shown(&nightly, from, 3), skipped);
}

#[test]
fn a_daily_time_that_clocks_repeat_is_due_the_first_the_last_or_both_times() {
    let mut nightly = Schedule::new("n", daily(2, 30), zone("Europe/Berlin"));
    let due = |schedule: &Schedule| {
        let firings = schedule
            .firings(utc("2026-10-24 12:00"))
            .take_while(|f| f.due < utc("2026-10-25 12:00"));
        firings.filter(Firing::takes_place).map(|firing| firing.due).collect::<Vec<_>>()
    };
    let (first, last) = (utc("2026-10-25 00:30"), utc("2026-10-25 01:30"));
    assert_eq!(due(&nightly), [first]);
    nightly.overlap = Overlap::Last;
    assert_eq!(due(&nightly), [last]);
    nightly.overlap = Overlap::Both;
    assert_eq!(due(&nightly), [first, last]);
}

#[test]
fn what_recurs_within_a_gap_keeps_its_order_and_each_instant_is_due_once() {
    // 02:00 to 02:45 become 03:00 to 03:45, which are due by themselves.
    let quarters = Schedule::new("q", cron("*/15 2-3 * * *"), zone("Europe/Berlin"));
    let due: Vec<_> = quarters.firings(utc("2026-03-29 00:30")).take(5).map(|f| f.due).collect();
    let wanted =
        ["01:00", "01:15", "01:30", "01:45"].map(|time| utc(&format!("2026-03-29 {time}")));
    assert_eq!(due[..4], wanted);
    assert_eq!(due[4], utc("2026-03-30 00:00"));
    // A time after the jump comes before one that is shifted over it.
    let both = Schedule::new("b", cron("45,10 2,3 * * *"), zone("Europe/Berlin"));
    let due: Vec<_> = both.firings(utc("2026-03-29 00:30")).take(3).map(|f| f.due).collect();
    let wanted = ["2026-03-29 01:10", "2026-03-29 01:45", "2026-03-30 00:10"].map(utc);
    assert_eq!(due, wanted);
}

#[test]
fn an_hourly_schedule_never_pauses_and_never_doubles() {
    for (name, from, to) in [
        ("Europe/Berlin", "2026-03-28 12:00", "2026-03-30 12:00"),
        ("Europe/Berlin", "2026-10-24 12:00", "2026-10-26 12:00"),
        ("America/St_Johns", "2026-11-01 00:00", "2026-11-02 00:00"),
    ] {
        let rule = Rule::Hourly { every: NonZeroU32::MIN, minute: 20 };
        let hourly = Schedule::new("h", rule, zone(name));
        let due: Vec<_> =
            hourly.firings(utc(from)).take_while(|f| f.due < utc(to)).map(|f| f.due).collect();
        for pair in due.windows(2) {
            assert_eq!(pair[1] - pair[0], TimeDelta::hours(1), "{name} {pair:?}");
        }
    }
}

#[test]
fn elapsed_time_knows_nothing_of_clocks() {
    let rule = Rule::Every { interval: Duration::from_hours(6) };
    assert_eq!(rule.counts(), Counting::Elapsed);
    let mut every = Schedule::new("e", rule, zone("Europe/Berlin"));
    every.start = Some(utc("2026-03-28 23:10"));
    let due: Vec<_> = every.firings(utc("2020-01-01 00:00")).take(3).map(|f| f.due).collect();
    assert_eq!(due, ["2026-03-28 23:10", "2026-03-29 05:10", "2026-03-29 11:10"].map(utc));
    // In the middle of an interval, and at its end.
    assert_eq!(every.next(utc("2026-03-29 05:09")).unwrap().due, utc("2026-03-29 05:10"));
    assert_eq!(every.next(utc("2026-03-29 05:10")).unwrap().due, utc("2026-03-29 11:10"));
}

#[test]
fn a_day_that_a_zone_left_out_is_made_up_for_on_the_next_and_not_twice() {
    let daily = Schedule::new("d", daily(10, 0), zone("Pacific/Apia"));
    let due: Vec<_> = daily
        .firings(utc("2011-12-29 00:00"))
        .take(3)
        .map(|f| (f.civil.date().to_string(), f.due))
        .collect();
    let wanted = [
        ("2011-12-29", "2011-12-29 20:00"),
        ("2011-12-31", "2011-12-30 20:00"),
        ("2012-01-01", "2011-12-31 20:00"),
    ];
    assert_eq!(due, wanted.map(|(civil, at)| (civil.to_owned(), utc(at))));
}

#[test]
fn months_have_their_days() {
    let on = |on| Schedule::new("m", Rule::Monthly { on, at: time(1, 0) }, Zone::UTC);
    let days = |schedule: &Schedule| {
        let firings = schedule.firings(utc("2026-01-01 00:00")).take(4);
        firings.map(|firing| firing.due.format("%m-%d").to_string()).collect::<Vec<_>>()
    };
    assert_eq!(days(&on(MonthDay::Day(31))), ["01-31", "02-28", "03-31", "04-30"]);
    assert_eq!(days(&on(MonthDay::Last)), ["01-31", "02-28", "03-31", "04-30"]);
    let second = MonthDay::Nth { nth: 2, weekday: Weekday::Tue };
    assert_eq!(days(&on(second)), ["01-13", "02-10", "03-10", "04-14"]);
    assert_eq!(days(&on(MonthDay::LastOf(Weekday::Fri))), ["01-30", "02-27", "03-27", "04-24"]);
}

#[test]
fn a_week_has_its_days() {
    let rule = Rule::Weekly { on: vec![Weekday::Sun, Weekday::Wed], at: time(22, 0) };
    let weekly = Schedule::new("w", rule, Zone::UTC);
    let days = ["2026-01-04 22:00", "2026-01-07 22:00", "2026-01-11 22:00"].map(utc);
    let from = utc("2026-01-01 00:00");
    assert_eq!(weekly.firings(from).take(3).map(|f| f.due).collect::<Vec<_>>(), days);
    // What is due at an instant is not due after it.
    assert_eq!(weekly.next(days[0]).unwrap().due, days[1]);
}

#[test]
fn nothing_is_due_in_a_blackout_and_the_preview_says_so() {
    let mut nightly = Schedule::new("n", daily(23, 0), zone("Europe/Berlin"));
    nightly.blackouts = vec![
        Blackout {
            name: "weekend".into(),
            window: Window::Weekly { on: vec![Weekday::Sat], from: time(22, 0), to: time(6, 0) },
        },
        Blackout {
            name: "move".into(),
            window: Window::Between { from: utc("2026-01-05 00:00"), to: utc("2026-01-06 00:00") },
        },
    ];
    nightly.check().unwrap();
    let wanted = [
        "02 22:00 as planned",
        "03 22:00 skipped: blackout \"weekend\"",
        "04 22:00 as planned",
        "05 22:00 skipped: blackout \"move\"",
        "06 22:00 as planned",
    ];
    assert_eq!(shown(&nightly, "2026-01-02 00:00", 5), wanted);
    assert_eq!(nightly.next(utc("2026-01-03 00:00")).unwrap().due, utc("2026-01-04 22:00"));
    // The night belongs to the day on which it begins.
    nightly.rule = daily(5, 59);
    assert_eq!(shown(&nightly, "2026-01-03 12:00", 1), ["04 04:59 skipped: blackout \"weekend\""]);
    nightly.rule = daily(6, 0);
    assert_eq!(shown(&nightly, "2026-01-03 12:00", 1), ["04 05:00 as planned"]);
}

#[test]
fn start_and_end_bound_it() {
    let mut schedule = Schedule::new("s", daily(12, 0), Zone::UTC);
    schedule.start = Some(utc("2026-01-02 12:00"));
    schedule.end = Some(utc("2026-01-04 12:00"));
    schedule.check().unwrap();
    let due: Vec<_> = schedule.firings(utc("2000-01-01 00:00")).map(|f| f.due).collect();
    assert_eq!(due, ["2026-01-02 12:00", "2026-01-03 12:00"].map(utc));
    assert_eq!(schedule.next(utc("2026-01-03 12:00")), None);
}

#[test]
fn what_can_never_be_due_is_refused() {
    let code = |schedule: &Schedule| schedule.check().unwrap_err().code().to_string();
    let schedule = |rule| Schedule::new("s", rule, Zone::UTC);
    assert_eq!(code(&schedule(cron("0 0 30 2 *"))), "schedule.never_fires");
    let mut ended = schedule(daily(1, 0));
    ended.start = Some(utc("2026-01-02 00:00"));
    ended.end = Some(utc("2026-01-02 00:00"));
    assert_eq!(code(&ended), "schedule.never_fires");
    ended.end = Some(utc("2026-01-02 00:30"));
    assert_eq!(code(&ended), "schedule.never_fires");
    let mut dark = schedule(daily(1, 0));
    let window = Window::Weekly { on: Vec::new(), from: time(0, 0), to: time(0, 0) };
    dark.blackouts = vec![Blackout { name: "all".into(), window }];
    assert_eq!(code(&dark), "schedule.never_fires");
    let window = Window::Between { from: utc("2026-01-02 00:00"), to: utc("2026-01-02 00:00") };
    dark.blackouts = vec![Blackout { name: "none".into(), window }];
    assert_eq!(code(&dark), "schedule.blackout_empty");
    let minute = Rule::Hourly { every: NonZeroU32::MIN, minute: 60 };
    assert_eq!(code(&schedule(minute)), "schedule.rule_invalid");
    let every = Rule::Every { interval: Duration::from_millis(500) };
    assert_eq!(code(&schedule(every)), "schedule.rule_invalid");
    assert_eq!(
        code(&schedule(Rule::Weekly { on: Vec::new(), at: time(1, 0) })),
        "schedule.rule_invalid"
    );
    let day = Rule::Monthly { on: MonthDay::Day(32), at: time(1, 0) };
    assert_eq!(code(&schedule(day)), "schedule.rule_invalid");
    let mut late = schedule(daily(1, 0));
    late.jitter = Duration::from_hours(25);
    assert_eq!(code(&late), "schedule.jitter_too_long");
    assert_eq!(code(&Schedule::new(" s", daily(1, 0), Zone::UTC)), "schedule.name_invalid");
    assert_eq!("61 * * * *".parse::<CronRule>().unwrap_err().code(), "schedule.cron_invalid");
    // A leap day comes, if only every fourth year.
    schedule(cron("0 0 29 2 *")).check().unwrap();
}

#[test]
fn no_instant_and_no_number_is_too_much() {
    let every = Rule::Every { interval: Duration::from_secs(u64::MAX) };
    for rule in
        [every, daily(1, 0), cron("* * * * *"), Rule::Hourly { every: NonZeroU32::MIN, minute: 0 }]
    {
        for after in [DateTime::<Utc>::MIN_UTC, DateTime::<Utc>::MAX_UTC, utc("4999-12-31 23:00")] {
            let mut schedule = Schedule::new("s", rule.clone(), zone("Asia/Kathmandu"));
            assert!(schedule.firings(after).take(100).count() <= 100);
            schedule.jitter = Duration::MAX;
            (schedule.start, schedule.end) = (Some(after), Some(after));
            assert_eq!(schedule.firings(after).next(), None);
            schedule.check().unwrap_err();
            schedule.end = None;
            let _ = (schedule.check(), schedule.next(after));
        }
    }
}

#[test]
fn jitter_is_the_same_for_everybody_and_within_its_limit() {
    let mut schedule = Schedule::new("s", daily(1, 0), Zone::UTC);
    schedule.jitter = Duration::from_mins(10);
    let lates: BTreeSet<_> =
        schedule.firings(utc("2026-01-01 00:00")).take(50).map(|f| f.at - f.due).collect();
    assert!(lates.len() > 40 && lates.iter().all(|late| late.num_milliseconds() < 600_000));
    assert!(lates.iter().all(|late| *late >= TimeDelta::zero()));
    let twice = |name: &str| {
        let schedule = Schedule { name: name.into(), ..schedule.clone() };
        schedule.next(utc("2026-01-01 00:00")).unwrap().at
    };
    assert_eq!(twice("s"), twice("s"));
    assert_ne!(twice("s"), twice("other"));
}

#[test]
fn one_instant_has_one_key() {
    let schedule = Schedule::new("Nächtlich", daily(2, 30), zone("Europe/Berlin"));
    let firing = schedule.next(utc("2026-01-01 00:00")).unwrap();
    let again = schedule.next(utc("2026-01-01 00:30")).unwrap();
    assert_eq!(firing.key("Nächtlich").unwrap(), again.key("Nächtlich").unwrap());
    assert_ne!(firing.key("Nächtlich").unwrap(), firing.key("other").unwrap());
    let next = schedule.next(firing.due).unwrap();
    assert_ne!(firing.key("Nächtlich").unwrap(), next.key("Nächtlich").unwrap());
}

#[test]
fn the_stored_form_stays() {
    let mut schedule = Schedule::new(
        "nightly",
        Rule::Weekly { on: vec![Weekday::Mon], at: time(2, 30) },
        zone("Europe/Berlin"),
    );
    schedule.jitter = Duration::from_secs(90);
    schedule.missed = Missed::All { most: 3 };
    let window = Window::Weekly { on: vec![], from: time(8, 0), to: time(18, 0) };
    schedule.blackouts = vec![Blackout { name: "day".into(), window }];
    let stored = r#"{"name":"nightly","rule":{"weekly":{"on":["Mon"],"at":"02:30:00"}},"zone":"Europe/Berlin","start":null,"end":null,"jitter_ms":90000,"gap":"shift_forward","overlap":"first","missed":{"all":{"most":3}},"overrun":"coalesce","blackouts":[{"name":"day","window":{"weekly":{"on":[],"from":"08:00:00","to":"18:00:00"}}}]}"#;
    assert_eq!(serde_json::to_string(&schedule).unwrap(), stored);
    assert_eq!(serde_json::from_str::<Schedule>(stored).unwrap(), schedule);
    let rules = [
        (Rule::Every { interval: Duration::from_mins(1) }, r#"{"every":{"interval_ms":60000}}"#),
        (cron("0 2 * * MON-FRI"), r#"{"cron":"0 2 * * MON-FRI"}"#),
        (
            Rule::Monthly { on: MonthDay::LastOf(Weekday::Fri), at: time(1, 0) },
            r#"{"monthly":{"on":{"last_of":"Fri"},"at":"01:00:00"}}"#,
        ),
    ];
    for (rule, stored) in rules {
        assert_eq!(serde_json::to_string(&rule).unwrap(), stored);
        assert_eq!(serde_json::from_str::<Rule>(stored).unwrap(), rule);
    }
}

#[test]
fn what_was_missed_is_made_up_for_as_the_schedule_says_however_long_it_was() {
    let mut schedule = Schedule::new("s", daily(2, 0), Zone::UTC);
    let (ago, now) = (utc("2016-01-01 00:00"), utc("2026-01-01 12:00"));
    let made_up = |schedule: &Schedule| {
        let mut table = Timetable::new();
        table.put(schedule.clone(), ago).unwrap();
        let tick = table.tick(now);
        assert_eq!(tick.wake, Some(utc("2026-01-02 02:00")));
        tick.due.iter().map(|due| due.firing.due.format("%Y-%m-%d").to_string()).collect::<Vec<_>>()
    };
    assert_eq!(made_up(&schedule), ["2026-01-01"]);
    schedule.missed = Missed::All { most: 3 };
    assert_eq!(made_up(&schedule), ["2025-12-30", "2025-12-31", "2026-01-01"]);
    schedule.missed = Missed::Skip;
    assert!(made_up(&schedule).is_empty());
    // Fewer than there may be.
    schedule.missed = Missed::All { most: u32::MAX };
    assert_eq!(made_up(&schedule).len(), 3654);
}

#[test]
fn a_clock_that_goes_back_makes_nothing_due_again_until_somebody_believes_it() {
    let mut table = Timetable::new();
    table.put(Schedule::new("s", daily(2, 0), Zone::UTC), utc("2026-01-01 00:00")).unwrap();
    assert_eq!(table.tick(utc("2026-01-01 02:00")).due.len(), 1);
    // A little is nothing.
    let tick = table.tick(utc("2026-01-01 01:59") + TimeDelta::seconds(30));
    assert_eq!((tick.due.len(), tick.regress), (0, None));
    // Somebody sets the year 2030, and sets it back.
    assert_eq!(table.tick(utc("2030-01-01 02:00")).due.len(), 1);
    let tick = table.tick(utc("2026-01-02 02:00"));
    let regress = tick.regress.unwrap();
    assert_eq!((regress.latest, regress.now), (utc("2030-01-01 02:00"), utc("2026-01-02 02:00")));
    assert_eq!((tick.due.len(), tick.wake), (0, None));
    table.believe(utc("2026-01-02 02:00"));
    let tick = table.tick(utc("2026-01-02 02:00"));
    assert_eq!((tick.due.len(), tick.regress, tick.wake), (0, None, Some(utc("2026-01-03 02:00"))));
    assert_eq!(table.tick(utc("2026-01-03 02:00")).due.len(), 1);
}

#[test]
fn a_schedule_is_replaced_and_taken_out() {
    let mut table = Timetable::new();
    let noon = utc("2026-01-01 12:00");
    table.put(Schedule::new("a", daily(13, 0), Zone::UTC), noon).unwrap();
    table.put(Schedule::new("b", daily(14, 0), Zone::UTC), noon).unwrap();
    table.put(Schedule::new("a", daily(15, 0), Zone::UTC), noon).unwrap();
    assert_eq!(table.tick(noon).wake, Some(utc("2026-01-01 14:00")));
    // What is wrong does not replace what is right.
    table.put(Schedule::new("a", cron("0 0 30 2 *"), Zone::UTC), noon).unwrap_err();
    assert!(table.remove("b") && !table.remove("b"));
    assert_eq!(table.tick(noon).wake, Some(utc("2026-01-01 15:00")));
    let due = table.tick(utc("2026-01-01 15:01")).due;
    assert_eq!(due.iter().map(|due| due.schedule.as_str()).collect::<Vec<_>>(), ["a"]);
    assert_eq!(table.schedules().count(), 1);
}

#[test]
fn of_many_schedules_those_that_are_due_come_up_each_once() {
    let mut table = Timetable::new();
    let noon = utc("2026-01-01 12:00");
    for at in 0..10_000_u32 {
        let rule = daily(at / 60 % 24, at % 60);
        table.put(Schedule::new(format!("s{at}"), rule, zone("Europe/Berlin")), noon).unwrap();
    }
    let counts: Vec<_> =
        (1..=1440).map(|minute| table.tick(noon + TimeDelta::minutes(minute)).due.len()).collect();
    assert_eq!(counts.iter().sum::<usize>(), 10_000);
    assert!(counts.iter().all(|count| [6, 7].contains(count)));
}

/// Instants around which clocks of these zones jump.
const JUMPS: [(&str, &str); 9] = [
    ("Europe/Berlin", "2026-03-29 01:00"),
    ("Europe/Berlin", "2026-10-25 01:00"),
    ("America/New_York", "2026-11-01 06:00"),
    ("Australia/Lord_Howe", "2026-04-04 15:00"),
    ("Australia/Lord_Howe", "2026-10-03 15:30"),
    ("Pacific/Apia", "2011-12-30 10:00"),
    ("Asia/Kathmandu", "1985-12-31 18:30"),
    ("Africa/Casablanca", "2026-02-15 02:00"),
    ("America/Sao_Paulo", "2018-11-04 03:00"),
];

proptest! {
    #![proptest_config(seeded_cases("schedule::tests", 48))]

    #[test]
    fn firings_are_those_of_a_look_at_every_minute(
        jump in 0..JUMPS.len(),
        before in 0_i64..2000,
        hours in proptest::collection::btree_set(0_u32..24, 1..4),
        minutes in proptest::collection::btree_set(0_u32..60, 1..4),
        gap in prop_oneof![Just(Gap::ShiftForward), Just(Gap::Skip)],
        overlap in prop_oneof![Just(Overlap::First), Just(Overlap::Last), Just(Overlap::Both)],
    ) {
        let list = |numbers: &BTreeSet<u32>| {
            numbers.iter().map(u32::to_string).collect::<Vec<_>>().join(",")
        };
        let (name, at) = JUMPS[jump];
        let rule = cron(&format!("{} {} * * *", list(&minutes), list(&hours)));
        let mut schedule = Schedule::new("s", rule, zone(name));
        (schedule.gap, schedule.overlap) = (gap, overlap);
        let from = utc(at) - TimeDelta::minutes(before);
        let to = from + TimeDelta::minutes(3000);
        let look = naive::Look::at(schedule.zone, from, to);
        let events = look.events(|t| hours.contains(&t.hour()) && minutes.contains(&t.minute()));
        let all: Vec<_> = schedule.firings(from).take_while(|firing| firing.due < to).collect();
        prop_assert!(all.windows(2).all(|pair| pair[0].due < pair[1].due));
        let due: Vec<_> = all.iter().filter(|f| f.takes_place()).map(|f| f.due).collect();
        prop_assert_eq!(due, look.due(&events, gap, overlap));
        // Asked from anywhere in between, the answer is the same.
        if let Some(middle) = all.get(all.len() / 2) {
            let rest: Vec<_> = schedule.firings(middle.due).take(all.len() - all.len() / 2 - 1).collect();
            prop_assert_eq!(&rest[..], &all[all.len() / 2 + 1..]);
        }
    }

    #[test]
    fn a_timetable_gives_every_firing_once_however_often_it_is_asked(
        pauses in proptest::collection::vec(0_i64..900, 1..60),
        jitter in 0_u64..3000,
        missed in prop_oneof![Just(Missed::Skip), Just(Missed::Once), (0_u32..5).prop_map(|most| Missed::All { most })],
    ) {
        let from = utc("2026-03-28 12:00");
        let mut schedule = Schedule::new("s", cron("*/20 * * * *"), zone("Europe/Berlin"));
        schedule.missed = missed;
        schedule.jitter = Duration::from_secs(jitter);
        let grace = TimeDelta::minutes(30);
        let mut table = Timetable::new().with_grace(grace);
        table.put(schedule.clone(), from).unwrap();
        let (mut now, mut given, mut wake) = (from, Vec::new(), None);
        let mut considered = from;
        for pause in pauses {
            now += TimeDelta::minutes(pause);
            let tick = table.tick(now);
            let some = !tick.due.is_empty();
            // Nothing comes before it was said to.
            prop_assert!(wake.is_none_or(|wake| now >= wake) || !some);
            prop_assert!(tick.wake.is_some_and(|wake| wake > now));
            wake = tick.wake;
            for due in &tick.due {
                prop_assert!(due.firing.at <= now);
                prop_assert_eq!(due.is_late, now - due.firing.at > grace);
            }
            let late = tick.due.iter().filter(|due| due.is_late).count();
            match missed {
                Missed::Skip => prop_assert_eq!(late, 0),
                Missed::Once => prop_assert!(late <= 1 && (late == 0 || tick.due.len() == 1)),
                Missed::All { most } => prop_assert!(late <= most as usize),
            }
            // Whatever is on time is there: a look at all of them, from the first.
            let come: Vec<_> = schedule
                .firings(considered)
                .take_while(|firing| firing.at <= now)
                .collect();
            considered = come.last().map_or(considered, |firing| firing.due);
            let on_time = come.iter().filter(|f| f.takes_place() && now - f.at <= grace);
            let given_on_time = tick.due.iter().filter(|due| !due.is_late).map(|due| &due.firing);
            prop_assert!(on_time.eq(given_on_time));
            given.extend(tick.due.iter().map(|due| due.firing.due));
            prop_assert!(table.tick(now).due.is_empty());
        }
        prop_assert!(given.windows(2).all(|pair| pair[0] < pair[1]));
    }
}
