//! The JSON forms of schedules, held still by golden files.

use std::num::NonZeroU32;
use std::time::Duration;

use chrono::{DateTime, NaiveTime, Utc, Weekday};
use stillpoint::{Attached, Upcoming};
use uuid::Uuid;

use super::super::RunView;
use super::super::tests::check;
use super::{LapsesView, PreviewView, SchedulesView};
use crate::context::{ErrorClass, Failure, IdempotencyKey, JobId};
use crate::model::group::{ResourceGroup, Selector};
use crate::model::id::{GroupId, PolicyId, ScheduleId};
use crate::model::job::{Job, JobKind};
use crate::model::request::Trigger;
use crate::model::schedule::{
    AttachmentId, Blackout, Lapse, Ledger, Missed, OpenDue, Overlap, Overrun, RecordedLapse, Rule,
    Schedule, StoredSchedule, Timetable, Why, Window, Zone,
};

fn utc(text: &str) -> DateTime<Utc> {
    text.parse().unwrap()
}

fn time(hour: u32, minute: u32) -> NaiveTime {
    NaiveTime::from_hms_opt(hour, minute, 0).unwrap()
}

fn nightly() -> StoredSchedule {
    let zone = "Europe/Berlin".parse().unwrap();
    let mut schedule = Schedule::new("nightly", Rule::Daily { at: time(2, 30) }, zone);
    schedule.jitter = Duration::from_mins(10);
    schedule.start = Some(utc("2026-01-01T00:00:00Z"));
    schedule.missed = Missed::All { most: 3 };
    let (from, to) = (time(0, 0), time(6, 0));
    let window = Window::Weekly { on: vec![Weekday::Tue], from, to };
    schedule.blackouts.push(Blackout { name: "maintenance".into(), window });
    let (from, to) = (utc("2026-12-24T00:00:00Z"), utc("2026-12-27T00:00:00Z"));
    let window = Window::Between { from, to };
    schedule.blackouts.push(Blackout { name: "year's end".into(), window });
    StoredSchedule::new(ScheduleId(Uuid::from_u128(1)), utc("2026-01-01T12:00:00Z"), schedule)
}

fn alone() -> StoredSchedule {
    let rule = Rule::Every { interval: Duration::from_hours(6) };
    let mut schedule = Schedule::new("six hours", rule, Zone::UTC);
    (schedule.missed, schedule.overrun) = (Missed::Skip, Overrun::Skip);
    schedule.overlap = Overlap::Both;
    StoredSchedule::new(ScheduleId(Uuid::from_u128(2)), utc("2026-01-01T12:00:00Z"), schedule)
}

fn place() -> AttachmentId {
    let (group, policy) = (GroupId(Uuid::from_u128(3)), PolicyId(Uuid::from_u128(4)));
    AttachmentId { schedule: nightly().id, group, policy }
}

fn groups() -> Vec<ResourceGroup> {
    vec![ResourceGroup::new(place().group, "mail", vec![Selector::Everything])]
}

#[test]
fn schedules() {
    let (stored, at) = (nightly(), place());
    let mut attached = Attached::new(at, "mail", "daily");
    let now = utc("2026-03-28T12:00:00Z");
    attached.next = stored.attached(at).next(now);
    let mut ledger = Ledger::new(at, NonZeroU32::MIN, now);
    let mut table = Timetable::new();
    table.put(stored.attached(at), utc("2026-03-27T12:00:00Z")).unwrap();
    let due = table.tick(now).due.remove(0);
    let mut begun = OpenDue::new(&due, "nightly", stored.version);
    begun.job = Some(JobId(Uuid::from_u128(5)));
    ledger.open = vec![begun, OpenDue::new(&due, "nightly", stored.version)];
    attached.ledger = Some(ledger);
    check("schedule", &SchedulesView::of(&[nightly(), alone()], &[attached]));

    let firings = nightly().attached(at);
    let next: Vec<Upcoming> =
        firings.firings(now).take(4).map(|firing| Upcoming::new(Some(at), firing)).collect();
    check("schedule_preview", &PreviewView::of(&nightly(), &next, &groups()));
}

#[test]
fn lapses() {
    let noted = utc("2026-03-30T12:00:00Z");
    let due = utc("2026-03-29T00:30:00Z");
    let failure = Failure::new("not_found", ErrorClass::Invalid, "there is no policy 4");
    let all = [
        Why::Missed,
        Why::Gap,
        Why::Overlap { last: true },
        Why::Blackout { name: "maintenance".into() },
        Why::Overrun,
        Why::Coalesced { into: due },
        Why::Changed,
        Why::Detached,
        Why::Refused { failure },
    ];
    let mut lapses: Vec<RecordedLapse> = all
        .into_iter()
        .map(|why| RecordedLapse::new(place(), noted, Lapse::one(due, why)))
        .collect();
    lapses[0].lapse.from = utc("2026-03-20T00:30:00Z");
    lapses[0].lapse.count = 10;
    // What it hung on may be gone by now, and its name with it.
    lapses[7].attachment.schedule = ScheduleId(Uuid::from_u128(98));
    lapses[7].attachment.group = GroupId(Uuid::from_u128(99));
    check("schedule_lapses", &LapsesView::of(&lapses, &[nightly()], &groups()));
}

#[test]
fn run() {
    let key = IdempotencyKey::new("key").unwrap();
    let id = JobId(Uuid::from_u128(5));
    let job = Job::new(id, JobKind::Backup, key, Trigger::Api, utc("2026-03-29T00:30:00Z"));
    check("run", &RunView::of(2, 14, 1, &[job]));
}

#[test]
fn an_interval_is_said_in_the_largest_unit_that_fits() {
    for (seconds, words) in [
        (1, "1 s"),
        (90, "90 s"),
        (5400, "90 min"),
        (21_600, "6 h"),
        (86_400, "1 d"),
        (129_600, "36 h"),
    ] {
        assert_eq!(super::interval_words(Duration::from_secs(seconds)), words);
    }
    assert_eq!(super::interval_words(Duration::from_millis(1500)), "1500 ms");
}
