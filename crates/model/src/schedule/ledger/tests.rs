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
}
