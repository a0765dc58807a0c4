//! Every zone, every jump of its clocks from 2000 to 2040, every kind of rule: no due time is lost and none is doubled.
//!
//! Each run looks at the odd ones and at some others. The long form looks at all, which takes one core three minutes:
//!
//! ```text
//! cargo test --release -p stillpoint-model --lib -- --ignored --nocapture every_jump
//! ```

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use chrono::Datelike;

use super::naive::Look;
use super::*;
use crate::seed::{drawn, seed};

const YEARS: RangeInclusive<i32> = 2000..=2040;
const GAPS: [Gap; 2] = [Gap::ShiftForward, Gap::Skip];
const OVERLAPS: [Overlap; 3] = [Overlap::First, Overlap::Last, Overlap::Both];

/// Zones with clocks that are not put forward in spring and back in autumn by an hour, each with the year in which.
const ODD: [(&str, i32); 12] = [
    // Half an hour.
    ("Australia/Lord_Howe", 2026),
    // A day that never was.
    ("Pacific/Apia", 2011),
    ("Pacific/Fakaofo", 2011),
    // Back for Ramadan, and winter as a negative summer.
    ("Africa/Casablanca", 2026),
    ("Africa/El_Aaiun", 2030),
    ("Europe/Dublin", 2026),
    // Two hours.
    ("Antarctica/Troll", 2026),
    // Half an hour, once; for good.
    ("Asia/Pyongyang", 2015),
    ("America/Caracas", 2016),
    // At midnight, so that the day begins at one.
    ("America/Havana", 2026),
    ("Africa/Cairo", 2026),
    // Three hours, for good.
    ("Antarctica/Casey", 2010),
];

/// Clocks are put forward or back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Jump {
    at: DateTime<Utc>,
    /// What clocks show more than UTC before, in seconds, and from then on.
    before: i64,
    after: i64,
}

impl Jump {
    /// All of a zone in these years. None takes itself back within half a day.
    fn all(zone: Zone, years: RangeInclusive<i32>) -> Vec<Self> {
        let offset = |at: DateTime<Utc>| (zone.civil(at) - at.naive_utc()).num_seconds();
        let (mut last, end) = (new_year(*years.start()), new_year(years.end() + 1));
        let mut jumps = Vec::new();
        while last < end {
            let next = last + TimeDelta::hours(12);
            let (mut before, mut at) = (last, next);
            if offset(last) != offset(next) {
                while at - before > TimeDelta::seconds(1) {
                    let middle = before + TimeDelta::seconds((at - before).num_seconds() / 2);
                    if offset(middle) == offset(last) { before = middle } else { at = middle }
                }
                jumps.push(Self { at, before: offset(before), after: offset(at) });
            }
            last = next;
        }
        jumps
    }

    /// The first civil time that is skipped or repeated, and the first after that.
    fn hole(self) -> (NaiveDateTime, NaiveDateTime) {
        let shown = |offset| self.at.naive_utc() + TimeDelta::seconds(offset);
        (shown(self.before.min(self.after)), shown(self.before.max(self.after)))
    }

    /// Whether everything that can be due around it is due when it has to be.
    fn check(self, zone: Zone, seed: u64) {
        let mut drawn = drawn(seed ^ self.at.timestamp().cast_unsigned());
        let (from, to) = (self.at - TimeDelta::hours(30), self.at + TimeDelta::hours(30));
        let look = Look::at(zone, from, to);
        for (rule, matches) in self.rules(&mut drawn) {
            let events = look.events(matches);
            let mut schedule = Schedule::new("s", rule, zone);
            for (gap, overlap) in GAPS.into_iter().flat_map(|gap| OVERLAPS.map(|o| (gap, o))) {
                (schedule.gap, schedule.overlap) = (gap, overlap);
                let told = format!("{zone} {self:?} {gap:?} {overlap:?} {:?}", schedule.rule);
                let all: Vec<_> = schedule.firings(from).take_while(|f| f.due < to).collect();
                assert!(all.windows(2).all(|pair| pair[0].due < pair[1].due), "{told}");
                let due: Vec<_> = all.iter().filter(|f| f.takes_place()).map(|f| f.due).collect();
                assert_eq!(due, look.due(&events, gap, overlap), "{told}");
                // Asked from in between, and from among what clocks skip, the answer is the same.
                let (hole, behind) = self.hole();
                let some = from + TimeDelta::minutes(number(drawn(3600)));
                let among = self.at + TimeDelta::minutes(number(drawn(length(hole, behind))));
                for after in [some, among] {
                    let rest = schedule.firings(after).take_while(|firing| firing.due < to);
                    let wanted = all.iter().filter(|firing| firing.due > after).cloned();
                    assert!(rest.eq(wanted), "{told} after {after}");
                }
            }
        }
        // What counts elapsed time does so whatever clocks show.
        let (start, minutes) = (from + TimeDelta::minutes(number(drawn(600) + 1)), drawn(900) + 1);
        let interval = Duration::from_mins(minutes.try_into().unwrap());
        let mut schedule = Schedule::new("s", Rule::Every { interval }, zone);
        schedule.start = Some(start);
        let due: Vec<_> =
            schedule.firings(from).map(|firing| firing.due).take_while(|due| *due < to).collect();
        let wanted = (0..).map(|nth| start + TimeDelta::minutes(number(minutes * nth)));
        let wanted: Vec<_> = wanted.take_while(|due| *due < to).collect();
        assert_eq!(due, wanted, "{zone} {self:?} {interval:?}");
    }

    /// Rules of every kind that are due about then, each with what it says of a civil time.
    fn rules(self, drawn: &mut impl FnMut(usize) -> usize) -> Vec<(Rule, Matches)> {
        let (hole, behind) = self.hole();
        let inside = hole + TimeDelta::minutes(number(drawn(length(hole, behind))));
        let (day, at) = (inside.date(), inside.time());
        let any = time(u32(drawn(24)), u32(drawn(60)));
        let mut rules: Vec<(Rule, Matches)> = Vec::new();
        for at in
            [hole, inside, behind, hole - TimeDelta::minutes(1), behind - TimeDelta::minutes(1)]
        {
            let at = at.time();
            rules.push((Rule::Daily { at }, Box::new(move |civil| civil.time() == at)));
        }
        rules.push((Rule::Daily { at: any }, Box::new(move |civil| civil.time() == any)));
        for every in [1, 2, 6] {
            let minute = at.minute();
            let rule = Rule::Hourly { every: NonZeroU32::new(every).unwrap(), minute };
            let matches = move |civil: NaiveDateTime| {
                civil.minute() == minute && civil.hour().is_multiple_of(every)
            };
            rules.push((rule, Box::new(matches)));
        }
        let on = vec![day.weekday(), Weekday::Sun];
        let days = on.clone();
        rules.push((
            Rule::Weekly { on, at },
            Box::new(move |civil| civil.time() == at && days.contains(&civil.weekday())),
        ));
        let of_month: [(MonthDay, IsDay); 4] = [
            (MonthDay::Day(day.day()), |civil, day| {
                let is_short = is_last(civil) && civil.day() < day.day();
                civil.day() == day.day() || is_short
            }),
            (MonthDay::Last, |civil, _| is_last(civil)),
            (
                MonthDay::Nth { nth: day.day().div_ceil(7).min(4), weekday: day.weekday() },
                |civil, day| {
                    let nth = day.day().div_ceil(7).min(4);
                    civil.weekday() == day.weekday() && civil.day().div_ceil(7) == nth
                },
            ),
            (MonthDay::LastOf(day.weekday()), |civil, day| {
                let next = civil + TimeDelta::days(7);
                civil.weekday() == day.weekday() && next.month() != civil.month()
            }),
        ];
        for (on, is_day) in of_month {
            rules.push((
                Rule::Monthly { on, at },
                Box::new(move |civil| civil.time() == at && is_day(civil, day)),
            ));
        }
        let (hour, minute) = (at.hour(), at.minute());
        let other = u32(drawn(60));
        rules.extend::<[(Rule, Matches); 4]>([
            (cron("*/20 * * * *"), Box::new(|civil| civil.minute().is_multiple_of(20))),
            (
                cron(&format!("{minute},{other} {hour},{} * * *", (hour + 1) % 24)),
                Box::new(move |civil| {
                    [minute, other].contains(&civil.minute())
                        && [hour, (hour + 1) % 24].contains(&civil.hour())
                }),
            ),
            (
                cron(&format!("{minute} {hour} {} {} *", day.day(), day.month())),
                Box::new(move |civil| civil.time() == at && civil.date() == day),
            ),
            (
                cron(&format!("{minute} {hour} * * {}", day.weekday().num_days_from_sunday())),
                Box::new(move |civil| civil.time() == at && civil.weekday() == day.weekday()),
            ),
        ]);
        rules
    }

    /// What clocks that are put forward or back so make of the civil times at the edges of the hole and in its middle.
    fn resolved(self, zone: Zone) -> Vec<Resolved> {
        let (hole, behind) = self.hole();
        let minute = TimeDelta::minutes(1);
        let middle = hole + TimeDelta::minutes(number(length(hole, behind) / 2));
        let edges =
            [hole - minute, hole, hole + minute, middle, behind - minute, behind, behind + minute];
        edges.map(|civil| zone.resolve(civil)).into()
    }
}

type Matches = Box<dyn Fn(NaiveDateTime) -> bool>;
/// Whether a civil time is on the day of a month that a rule means, which the given day is or is near.
type IsDay = fn(NaiveDateTime, NaiveDate) -> bool;

fn number(some: usize) -> i64 {
    some.try_into().unwrap()
}

fn u32(some: usize) -> u32 {
    some.try_into().unwrap()
}

fn length(from: NaiveDateTime, to: NaiveDateTime) -> usize {
    (to - from).num_minutes().try_into().unwrap()
}

fn is_last(civil: NaiveDateTime) -> bool {
    (civil + TimeDelta::days(1)).month() != civil.month()
}

fn new_year(year: i32) -> DateTime<Utc> {
    NaiveDate::from_ymd_opt(year, 1, 1).unwrap().and_time(NaiveTime::MIN).and_utc()
}

#[test]
fn jumps_of_odd_zones_lose_and_double_nothing() {
    let seed = seed("jumps_of_odd_zones");
    for (name, year) in ODD {
        let jumps = Jump::all(zone(name), year..=year);
        assert!(!jumps.is_empty(), "{name}");
        for jump in jumps {
            jump.check(zone(name), seed);
        }
    }
}

#[test]
fn some_jumps_of_some_zones_lose_and_double_nothing() {
    let seed = seed("some_jumps_of_some_zones");
    let mut drawn = drawn(seed);
    let all: Vec<_> = Zone::all().collect();
    let mut checked = 0;
    while checked < 20 {
        let (zone, year) = (all[drawn(all.len())], 2000 + i32::try_from(drawn(41)).unwrap());
        let jumps = Jump::all(zone, year..=year);
        checked += jumps.len();
        for jump in jumps {
            jump.check(zone, seed);
        }
    }
}

/// Zones whose clocks are put forward or back at one instant in one way are the same around it: one of them is looked at minute by
/// minute, and of the others whether the civil times at the edges come when they do there.
#[test]
#[ignore = "takes minutes: every zone and every jump of its clocks"]
fn every_jump_of_every_zone_loses_and_doubles_nothing() {
    let seed = seed("every_jump_of_every_zone -- --ignored");
    let mut looked: BTreeMap<Jump, Vec<Resolved>> = BTreeMap::new();
    let (mut zones, mut jumps) = (0, 0);
    for zone in Zone::all() {
        zones += 1;
        for jump in Jump::all(zone, YEARS) {
            jumps += 1;
            let resolved = jump.resolved(zone);
            let known = looked.entry(jump).or_insert_with(|| {
                jump.check(zone, seed);
                resolved.clone()
            });
            assert_eq!(resolved, *known, "{zone} {jump:?}");
        }
    }
    println!("{zones} zones, {jumps} jumps, {} of them different", looked.len());
    assert!(zones > 590 && looked.len() > 1000);
}
