//! Every due time is a job or a lapse, whatever happens to clocks and to those who look at them.

use std::num::NonZeroU32;
use std::time::Duration;

use chrono::{DateTime, NaiveTime, TimeDelta, Utc, Weekday};
use proptest::prelude::*;
use uuid::Uuid;

use super::super::{
    Blackout, Gap, Missed, Overlap, Overrun, Rule, Schedule, Settled, StoredSchedule, Timetable,
    Window, Zone,
};
use super::*;
use crate::group::Attachment;
use crate::seed::seeded;

fn utc(text: &str) -> DateTime<Utc> {
    DateTime::parse_from_rfc3339(&format!("{}:00Z", text.replace(' ', "T"))).unwrap().to_utc()
}

fn id() -> AttachmentId {
    let (schedule, group) = (ScheduleId(Uuid::from_u128(1)), GroupId(Uuid::from_u128(2)));
    AttachmentId { schedule, group, policy: PolicyId(Uuid::from_u128(3)) }
}

fn hourly() -> Schedule {
    Schedule::new("often", Rule::Hourly { every: NonZeroU32::MIN, minute: 0 }, Zone::UTC)
}

#[test]
fn an_attachment_has_a_text_of_its_own() {
    assert_eq!(id().to_string().parse(), Ok(id()));
    for bad in ["", "a/b/c", "00000000-0000-0000-0000-000000000001"] {
        assert!(bad.parse::<AttachmentId>().is_err(), "{bad:?}");
    }
    let mut group = ResourceGroup::new(id().group, "mail", Vec::new());
    group.attachments.push(Attachment { policy: id().policy, schedule: id().schedule });
    assert_eq!(AttachmentId::all_of(&group).collect::<Vec<_>>(), [id()]);
    let json = serde_json::to_string(&Ledger::new(id(), NonZeroU32::MIN, utc("2026-01-01 00:00")));
    let json = json.unwrap();
    assert!(json.starts_with(r#"{"attachment":"00000000-"#), "{json}");
    assert!(serde_json::from_str::<Ledger>(&json).unwrap().open.is_empty());
}

/// Due times of these hours, of which the first so many are late.
fn due(hours: &[u32], late: usize) -> Vec<OpenDue> {
    let open = |(n, hour): (usize, &u32)| OpenDue {
        due: utc("2026-01-01 00:00") + TimeDelta::hours(i64::from(*hour)),
        schedule: "often".into(),
        version: NonZeroU32::MIN,
        is_late: n < late,
        job: None,
    };
    hours.iter().enumerate().map(open).collect()
}

/// What is open by its hour and how far it has come; what comes due, and how many of that late; what is open afterwards.
type Case<'c> = (Overrun, &'c [(u32, Progress)], &'c [u32], usize, &'c [u32]);

#[test]
fn what_comes_due_while_jobs_are_open_is_as_the_schedule_says() {
    let cases: [Case<'_>; 9] = [
        (Overrun::Queue, &[(1, Progress::AtWork), (2, Progress::Waiting)], &[3], 0, &[1, 2, 3]),
        (Overrun::Skip, &[(1, Progress::AtWork)], &[2, 3], 0, &[1]),
        (Overrun::Skip, &[(1, Progress::Over)], &[2, 3], 0, &[2]),
        (Overrun::Skip, &[], &[1, 2, 3], 3, &[1, 2, 3]),
        (Overrun::Coalesce, &[(1, Progress::AtWork)], &[2, 3, 4], 0, &[1, 2]),
        (Overrun::Coalesce, &[(1, Progress::Waiting)], &[2, 3], 0, &[1]),
        (Overrun::Coalesce, &[(1, Progress::Waiting)], &[2, 3], 2, &[1]),
        (Overrun::Coalesce, &[], &[1, 2, 3], 3, &[1, 2, 3]),
        (Overrun::Coalesce, &[], &[1, 2, 3], 2, &[1, 2]),
    ];
    for (overrun, open, comes, late, wanted) in cases {
        let mut ledger = Ledger::new(id(), NonZeroU32::MIN, utc("2026-01-01 00:00"));
        let hours: Vec<u32> = open.iter().map(|(hour, _)| *hour).collect();
        ledger.open = due(&hours, 0);
        let known = due(&hours, 0);
        let progress = |one: &OpenDue| {
            let place = known.iter().position(|known| known.due == one.due);
            place.map_or(Progress::Waiting, |place| open[place].1)
        };
        ledger.forget_over(progress);
        let lapses = ledger.admit(overrun, due(comes, late), progress);
        let hour = |at: DateTime<Utc>| (at - utc("2026-01-01 00:00")).num_hours();
        let found: Vec<_> = ledger.open.iter().map(|open| hour(open.due)).collect();
        let wanted: Vec<i64> = wanted.iter().map(|hour| i64::from(*hour)).collect();
        assert_eq!(found, wanted, "{overrun:?}, {open:?}, {comes:?}, {late} late");
        let taken = comes.len()
            - wanted.iter().filter(|at| comes.contains(&u32::try_from(**at).unwrap())).count();
        assert_eq!(lapses.len(), taken, "{overrun:?}, {open:?}: {lapses:?}");
    }
}

#[test]
fn a_schedule_that_is_replaced_is_due_until_then() {
    let (since, now) = (utc("2026-01-01 03:30"), utc("2026-01-01 09:00"));
    let Settled { due, lapses } =
        hourly().close(utc("2026-01-01 00:00"), since, now, TimeDelta::minutes(5));
    let hours: Vec<_> = due.iter().map(|due| due.firing.due).collect();
    assert_eq!(hours, [utc("2026-01-01 03:00")]);
    let missed = Lapse {
        to: utc("2026-01-01 02:00"),
        count: 2,
        ..Lapse::one(utc("2026-01-01 01:00"), Why::Missed)
    };
    assert_eq!(lapses, [missed]);
    // The instant of the change is the old one's; what its jitter puts after now is nobody's.
    let mut late = hourly();
    late.jitter = Duration::from_hours(24);
    let at = utc("2026-01-01 03:00");
    let settled = late.close(utc("2026-01-01 02:30"), at, at, TimeDelta::minutes(5));
    assert_eq!((settled.due.len(), settled.lapses), (0, vec![Lapse::one(at, Why::Changed)]));
}

/// A ledger whose open due times are at these hours, the first so many of them with a job.
fn ledger(considered: &str, hours: &[u32], begun: usize) -> Ledger {
    let mut ledger = Ledger::new(id(), NonZeroU32::MIN, utc(considered));
    ledger.open = due(hours, 0);
    for (n, open) in ledger.open.iter_mut().take(begun).enumerate() {
        open.job = Some(JobId(Uuid::from_u128(n as u128)));
    }
    ledger
}

#[test]
fn a_job_is_noted_once_and_only_where_it_is_open() {
    let mut known = ledger("2026-01-01 02:00", &[1, 2], 1);
    assert_eq!(known.unbegun(utc("2026-01-01 01:00")), None, "it has one");
    assert_eq!(known.unbegun(utc("2026-01-01 03:00")), None, "it is not open");
    let due = utc("2026-01-01 02:00");
    known.unbegun(due).unwrap().job = Some(JobId(Uuid::from_u128(9)));
    assert_eq!(known.unbegun(due), None);
    assert!(!known.is_unbegun());
}

#[test]
fn what_is_detached_has_a_reason_for_each_due_time_without_a_job() {
    let first = StoredSchedule::new(id().schedule, utc("2026-01-01 00:00"), hourly());
    let now = utc("2026-01-01 06:00");
    let stretch = |from: &str, to: &str, count| Lapse {
        to: utc(to),
        count,
        ..Lapse::one(utc(from), Why::Detached)
    };
    // One with a job, one without; and the stretch that nobody has considered, now being part of it.
    let lapses = ledger("2026-01-01 03:00", &[1, 2], 1).detach(std::slice::from_ref(&first), now);
    let open = Lapse::one(utc("2026-01-01 02:00"), Why::Detached);
    assert_eq!(lapses, [open.clone(), stretch("2026-01-01 04:00", "2026-01-01 06:00", 3)]);
    // By a version before until the next was made, and what neither lets take place for its own reason.
    let mut other = hourly();
    other.rule = Rule::Hourly { every: NonZeroU32::MIN, minute: 10 };
    let (from, to) = (utc("2026-01-01 05:00"), utc("2026-01-01 05:30"));
    other.blackouts.push(Blackout { name: "dark".into(), window: Window::Between { from, to } });
    let second = first.edit(other, utc("2026-01-01 03:00")).unwrap();
    let lapses = ledger("2026-01-01 01:00", &[], 0).detach(&[first.clone(), second], now);
    let dark = Why::Blackout { name: "dark".into() };
    let wanted = [
        stretch("2026-01-01 02:00", "2026-01-01 03:00", 2),
        stretch("2026-01-01 03:10", "2026-01-01 04:10", 2),
        Lapse::one(utc("2026-01-01 05:10"), dark),
    ];
    assert_eq!(lapses, wanted);
    // Where somebody believed a clock that had gone back, what is open may be due still.
    let lapses = ledger("2026-01-01 01:00", &[2, 4], 1).detach(std::slice::from_ref(&first), now);
    let wanted = [
        stretch("2026-01-01 03:00", "2026-01-01 03:00", 1),
        stretch("2026-01-01 04:00", "2026-01-01 04:00", 1),
        stretch("2026-01-01 05:00", "2026-01-01 06:00", 2),
    ];
    assert_eq!(lapses, wanted);
    // A clock that has gone back, a schedule that is gone.
    assert!(ledger("2026-01-01 08:00", &[], 0).detach(&[first], now).is_empty());
    assert_eq!(ledger("2026-01-01 03:00", &[1, 2], 1).detach(&[], now), [open]);
}

/// Each second, for years.
#[test]
fn a_long_stretch_that_is_detached_is_one_lapse_and_takes_no_time() {
    let mut dense = hourly();
    dense.rule = Rule::Every { interval: Duration::from_secs(1) };
    let begin = utc("2020-01-01 00:00");
    let stored = StoredSchedule::new(id().schedule, begin, dense);
    let known = Ledger::new(id(), NonZeroU32::MIN, begin);
    let now = begin + TimeDelta::days(2000);
    let lapses = known.detach(&[stored], now);
    let middle = begin + TimeDelta::days(1000);
    assert_eq!(lapses.iter().filter(|lapse| lapse.has(middle)).count(), 1, "{lapses:?}");
    assert!(lapses.last().is_some_and(|last| last.is_more && last.why == Why::Detached));
    assert!(lapses.len() < 3);
}

#[test]
fn a_version_follows_the_one_before() {
    let first = StoredSchedule::new(id().schedule, utc("2026-01-02 00:00"), hourly());
    let second = first.edit(hourly(), utc("2026-01-01 00:00")).unwrap();
    assert_eq!((second.version.get(), second.since), (2, first.since), "no time goes back");
    first.edit(Schedule { name: String::new(), ..hourly() }, first.since).unwrap_err();
    assert_eq!(first.attached(id()).name, id().to_string());
}

/// Each second, for a year: nobody counts them all.
#[test]
fn a_long_stretch_is_one_lapse_and_takes_no_time() {
    let mut dense = hourly();
    dense.rule = Rule::Every { interval: Duration::from_secs(1) };
    let (begin, end) = (utc("2025-01-01 00:00"), utc("2026-01-01 00:00"));
    let mut table = Timetable::new().with_grace(TimeDelta::zero());
    table.put(dense, begin).unwrap();
    let tick = table.tick(end + TimeDelta::milliseconds(1));
    assert_eq!(tick.due.len(), 1);
    let lapses: Vec<_> = tick.lapses.into_iter().map(|(_, lapse)| lapse).collect();
    assert!(lapses.iter().any(|lapse| lapse.is_more), "{lapses:?}");
    let due = tick.due[0].firing.due;
    assert!(lapses.iter().all(|lapse| !lapse.has(due)));
    let middle = begin + TimeDelta::days(180);
    assert_eq!(lapses.iter().filter(|lapse| lapse.has(middle)).count(), 1);
}

fn schedules() -> impl Strategy<Value = Schedule> {
    let at = (0..24_u32, 0..60_u32).prop_map(|(h, m)| NaiveTime::from_hms_opt(h, m, 0).unwrap());
    let rules = prop_oneof![
        (1..4_u32, 0..60_u32).prop_map(|(every, minute)| Rule::Hourly {
            every: NonZeroU32::new(every).unwrap(),
            minute
        }),
        at.prop_map(|at| Rule::Daily { at }),
        (600..20_000_u64).prop_map(|s| Rule::Every { interval: Duration::from_secs(s) }),
    ];
    let words = (any::<bool>(), 0..3_usize, 0..3_usize, 1..5_u32, any::<bool>());
    (rules, words, 0..7200_u64).prop_map(|(rule, (gap, overlap, missed, most, dark), jitter)| {
        let mut schedule = Schedule::new("any", rule, "Europe/Berlin".parse().unwrap());
        schedule.gap = if gap { Gap::Skip } else { Gap::ShiftForward };
        schedule.overlap = [Overlap::First, Overlap::Last, Overlap::Both][overlap];
        schedule.missed = [Missed::Skip, Missed::Once, Missed::All { most }][missed];
        schedule.jitter = Duration::from_secs(jitter);
        if dark {
            let time = |hour| NaiveTime::from_hms_opt(hour, 0, 0).unwrap();
            let window = Window::Weekly { on: vec![Weekday::Sun], from: time(1), to: time(9) };
            schedule.blackouts.push(Blackout { name: "dark".into(), window });
        }
        schedule
    })
}

proptest! {
    #![proptest_config(seeded("schedule::ledger"))]

    #[test]
    fn every_due_time_is_due_or_a_lapse_once(
        schedule in schedules(),
        autumn in any::<bool>(),
        steps in proptest::collection::vec(1..100_000_u32, 1..20),
    ) {
        let begin = utc(if autumn { "2026-10-23 12:00" } else { "2026-03-27 12:00" });
        let mut table = Timetable::new();
        prop_assume!(schedule.check().is_ok());
        table.put(schedule.clone(), begin).unwrap();
        let (mut now, mut due, mut lapses) = (begin, Vec::new(), Vec::new());
        for step in steps {
            now += TimeDelta::seconds(i64::from(step));
            let tick = table.tick(now);
            due.extend(tick.due.into_iter().map(|due| due.firing.due));
            lapses.extend(tick.lapses.into_iter().map(|(_, lapse)| lapse));
        }
        let considered = table.considered("any").unwrap();
        let mut count = 0;
        for firing in schedule.firings(begin).take_while(|firing| firing.due <= considered) {
            let jobs = due.iter().filter(|at| **at == firing.due).count();
            let reasons = lapses.iter().filter(|lapse| lapse.has(firing.due)).count();
            prop_assert_eq!(jobs + reasons, 1, "{:?}: {} jobs, {} reasons", firing, jobs, reasons);
            count += 1;
        }
        let told: u64 = lapses.iter().map(|lapse| lapse.count).sum();
        prop_assert_eq!(told + due.len() as u64, count);
    }

    #[test]
    fn every_due_time_of_what_is_detached_has_a_job_or_one_reason(
        (old, new) in (schedules(), schedules()),
        autumn in any::<bool>(),
        (change, after) in (0..300_000_i64, 0..300_000_i64),
        open in proptest::collection::vec((0..300_000_i64, any::<bool>()), 0..4),
    ) {
        let begin = utc(if autumn { "2026-10-23 12:00" } else { "2026-03-27 12:00" });
        prop_assume!(old.check().is_ok() && new.check().is_ok());
        let since = begin + TimeDelta::seconds(change);
        let now = since + TimeDelta::seconds(after);
        let first = StoredSchedule::new(id().schedule, begin, old);
        let second = first.edit(new, since).unwrap();
        // Every due time there was, by a look at each version.
        let first_at = first.attached(id());
        let second_at = second.attached(id());
        let mut all: Vec<_> = first_at.firings(begin).take_while(|f| f.due <= since).collect();
        all.extend(second_at.firings(since).take_while(|f| f.due <= now));
        let mut known = Ledger::new(id(), NonZeroU32::MIN, begin);
        for (place, has_job) in open {
            let Some(firing) = all.get(usize::try_from(place).unwrap() % all.len().max(1)) else {
                continue;
            };
            if firing.takes_place() && known.open.iter().all(|open| open.due != firing.due) {
                let due = Due { schedule: "any".into(), firing: firing.clone(), is_late: false };
                let mut open = OpenDue::new(&due, "any", NonZeroU32::MIN);
                open.job = has_job.then(|| JobId(Uuid::from_u128(1)));
                known.open.push(open);
            }
        }
        let lapses = known.detach(&[first, second], now);
        let has_job = |firing: &&super::super::Firing| {
            known.open.iter().any(|open| open.due == firing.due && open.job.is_some())
        };
        for firing in &all {
            let reasons: Vec<_> = lapses.iter().filter(|lapse| lapse.has(firing.due)).collect();
            prop_assert_eq!(reasons.len(), usize::from(!has_job(&firing)), "{:?}", firing);
            let why = Why::of(&firing.fate).unwrap_or(Why::Detached);
            prop_assert!(reasons.iter().all(|lapse| lapse.why == why), "{:?}", firing);
        }
        let told: u64 = lapses.iter().map(|lapse| lapse.count).sum();
        prop_assert_eq!(told, (all.len() - all.iter().filter(has_job).count()) as u64);
    }
}
