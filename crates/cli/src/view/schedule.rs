//! What `schedule` shows.

use std::fmt::Write as _;

use chrono::{DateTime, NaiveDateTime, Utc};
use serde::Serialize;
use stillpoint::{Attached, Upcoming};

use super::Report;
use crate::context::JobId;
use crate::model::group::ResourceGroup;
use crate::model::id::{GroupId, PolicyId, ScheduleId};
use crate::model::schedule::{
    Counting, Fate, Firing, Gap, Missed, MonthDay, Overlap, Overrun, RecordedLapse, Rule, Schedule,
    StoredSchedule, Window,
};
use crate::text::{self, Table};

/// An interval in the largest unit that it is a whole number of: `6 h`, `90 min`.
fn interval_words(interval: std::time::Duration) -> String {
    const UNITS: [(u128, &str); 4] =
        [(86_400_000, "d"), (3_600_000, "h"), (60_000, "min"), (1000, "s")];
    let millis = interval.as_millis();
    let fits = UNITS.iter().find(|(unit, _)| millis > 0 && millis.is_multiple_of(*unit));
    fits.map_or_else(|| format!("{millis} ms"), |(unit, word)| format!("{} {word}", millis / unit))
}

/// When something is due, in words: `daily at 02:30`.
fn rule_words(rule: &Rule) -> String {
    let clock = |at: &chrono::NaiveTime| at.format("%H:%M").to_string();
    match rule {
        Rule::Every { interval } => format!("every {}", interval_words(*interval)),
        Rule::Hourly { every, minute } if every.get() == 1 => format!("hourly at :{minute:02}"),
        Rule::Hourly { every, minute } => format!("every {every} hours at :{minute:02}"),
        Rule::Daily { at } => format!("daily at {}", clock(at)),
        Rule::Weekly { on, at } => {
            let days: Vec<String> = on.iter().map(ToString::to_string).collect();
            format!("on {} at {}", days.join(", "), clock(at))
        }
        Rule::Monthly { on, at } => {
            let day = match on {
                MonthDay::Day(day) => format!("day {day}"),
                MonthDay::Nth { nth, weekday } => format!("{weekday} number {nth}"),
                MonthDay::LastOf(weekday) => format!("the last {weekday}"),
                _ => "the last day".to_owned(),
            };
            format!("monthly on {day} at {}", clock(at))
        }
        Rule::Cron(pattern) => format!("cron {}", pattern.as_str()),
        _ => "by a rule that this version does not know".to_owned(),
    }
}

/// A stretch in which nothing is due.
#[derive(Debug, Serialize)]
struct BlackoutView {
    name: String,
    window: Window,
}

/// A firing.
#[derive(Debug, Serialize)]
struct FiringView {
    /// By the clock on the wall.
    civil: NaiveDateTime,
    due: DateTime<Utc>,
    at: DateTime<Utc>,
    takes_place: bool,
    /// `planned`, `shifted`, `repeated`, `gap`, `overlap` or `blackout`.
    fate: &'static str,
    reason: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    group: Option<String>,
}

impl FiringView {
    fn of(firing: &Firing, group: Option<String>) -> Self {
        Self {
            civil: firing.civil,
            due: firing.due,
            at: firing.at,
            takes_place: firing.takes_place(),
            fate: match firing.fate {
                Fate::Planned => "planned",
                Fate::Shifted => "shifted",
                Fate::Repeated { .. } => "repeated",
                Fate::SkippedGap => "gap",
                Fate::SkippedOverlap { .. } => "overlap",
                _ => "blackout",
            },
            reason: firing.fate.to_string(),
            group,
        }
    }
}

/// A due time whose job is not known to be over.
#[derive(Debug, Serialize)]
struct OpenView {
    due: DateTime<Utc>,
    late: bool,
    job: Option<JobId>,
}

/// Where a schedule is attached.
#[derive(Debug, Serialize)]
struct AttachedView {
    group: GroupId,
    group_name: String,
    policy: PolicyId,
    policy_name: String,
    considered: Option<DateTime<Utc>>,
    open: Vec<OpenView>,
    next: Option<FiringView>,
}

impl AttachedView {
    fn of(attached: &Attached) -> Self {
        let open = attached.ledger.iter().flat_map(|ledger| &ledger.open);
        Self {
            group: attached.id.group,
            group_name: attached.group.clone(),
            policy: attached.id.policy,
            policy_name: attached.policy.clone(),
            considered: attached.ledger.as_ref().map(|ledger| ledger.considered),
            open: open
                .map(|open| OpenView { due: open.due, late: open.is_late, job: open.job })
                .collect(),
            next: attached.next.as_ref().map(|next| FiringView::of(next, None)),
        }
    }
}

/// A schedule.
#[derive(Debug, Serialize)]
pub(crate) struct ScheduleView {
    schedule: ScheduleId,
    version: u32,
    since: DateTime<Utc>,
    name: String,
    rule: String,
    /// `civil` or `elapsed`.
    counts: &'static str,
    zone: String,
    start: Option<DateTime<Utc>>,
    end: Option<DateTime<Utc>>,
    jitter_ms: u64,
    /// `shift` or `skip`.
    gap: &'static str,
    overlap: Overlap,
    /// `skip`, `once` or `all`.
    missed: &'static str,
    made_up: Option<u32>,
    overrun: Overrun,
    blackouts: Vec<BlackoutView>,
    attached: Vec<AttachedView>,
}

impl ScheduleView {
    fn of(stored: &StoredSchedule, attached: &[Attached]) -> Self {
        let Schedule { rule, zone, jitter, missed, .. } = &stored.schedule;
        let (missed, made_up) = match missed {
            Missed::Skip => ("skip", None),
            Missed::Once => ("once", None),
            Missed::All { most } => ("all", Some(*most)),
        };
        let blackouts = stored.schedule.blackouts.iter();
        Self {
            schedule: stored.id,
            version: stored.version.get(),
            since: stored.since,
            name: stored.schedule.name.clone(),
            rule: rule_words(rule),
            counts: if rule.counts() == Counting::Civil { "civil" } else { "elapsed" },
            zone: zone.to_string(),
            start: stored.schedule.start,
            end: stored.schedule.end,
            jitter_ms: u64::try_from(jitter.as_millis()).unwrap_or(u64::MAX),
            gap: if stored.schedule.gap == Gap::Skip { "skip" } else { "shift" },
            overlap: stored.schedule.overlap,
            missed,
            made_up,
            overrun: stored.schedule.overrun,
            blackouts: blackouts
                .map(|dark| BlackoutView { name: dark.name.clone(), window: dark.window.clone() })
                .collect(),
            attached: attached
                .iter()
                .filter(|attached| attached.id.schedule == stored.id)
                .map(AttachedView::of)
                .collect(),
        }
    }
}

/// What `schedule` shows.
#[derive(Debug, Serialize)]
pub(crate) struct SchedulesView {
    schedules: Vec<ScheduleView>,
}

impl SchedulesView {
    pub(crate) fn of(schedules: &[StoredSchedule], attached: &[Attached]) -> Self {
        let views = schedules.iter().map(|stored| ScheduleView::of(stored, attached));
        Self { schedules: views.collect() }
    }
}

impl Report for SchedulesView {
    const SCHEMA: &'static str = "stillpoint.schedule/1";

    fn text(&self, text: &mut String) {
        if self.schedules.is_empty() {
            text.push_str("no schedules yet\n");
        }
        for schedule in &self.schedules {
            let ScheduleView { name, version, schedule: id, rule, zone, .. } = schedule;
            let _ = writeln!(text, "{name}@{version} {id}");
            let _ = writeln!(text, "  {rule}, {zone}");
            for dark in &schedule.blackouts {
                let _ = writeln!(text, "  blackout {}", dark.name);
            }
            if schedule.attached.is_empty() {
                text.push_str("  attached to nothing\n");
            }
            for place in &schedule.attached {
                let next = place.next.as_ref();
                let next = next.map_or_else(
                    || "never again".to_owned(),
                    |next| format!("next at {}", text::time(next.at)),
                );
                let (group, policy) = (&place.group_name, &place.policy_name);
                let _ = writeln!(text, "  backs up {group} under {policy}, {next}");
                for open in &place.open {
                    let job = open.job.map_or_else(|| "to begin".to_owned(), |job| job.to_string());
                    let _ = writeln!(text, "    due {}: job {job}", text::time(open.due));
                }
            }
        }
    }
}

fn group_name(groups: &[ResourceGroup], id: GroupId) -> String {
    let group = groups.iter().find(|group| group.id == id);
    group.map_or_else(|| id.to_string(), |group| group.name.clone())
}

/// What `schedule preview` shows.
#[derive(Debug, Serialize)]
pub(crate) struct PreviewView {
    schedule: ScheduleId,
    version: u32,
    name: String,
    zone: String,
    firings: Vec<FiringView>,
}

impl PreviewView {
    pub(crate) fn of(stored: &StoredSchedule, next: &[Upcoming], groups: &[ResourceGroup]) -> Self {
        let group = |next: &Upcoming| next.attachment.map(|id| group_name(groups, id.group));
        Self {
            schedule: stored.id,
            version: stored.version.get(),
            name: stored.schedule.name.clone(),
            zone: stored.schedule.zone.to_string(),
            firings: next.iter().map(|next| FiringView::of(&next.firing, group(next))).collect(),
        }
    }
}

impl Report for PreviewView {
    const SCHEMA: &'static str = "stillpoint.schedule_preview/1";

    fn text(&self, text: &mut String) {
        if self.firings.is_empty() {
            let _ = writeln!(text, "{} is never due again", self.name);
        }
        let mut table = Table::default();
        for firing in &self.firings {
            let civil = firing.civil.format("%a %Y-%m-%d %H:%M").to_string();
            let group = firing.group.clone().unwrap_or_default();
            table.row([civil, text::time(firing.at), firing.reason.clone(), group]);
        }
        table.write(text, "");
    }
}

/// A due time, or a stretch of them, that became no job.
#[derive(Debug, Serialize)]
struct LapseView {
    schedule: ScheduleId,
    schedule_name: String,
    group: GroupId,
    group_name: String,
    policy: PolicyId,
    from: DateTime<Utc>,
    to: DateTime<Utc>,
    count: u64,
    /// There were more than are counted.
    more: bool,
    /// `missed`, `gap`, `overlap`, `blackout`, `overrun`, `coalesced`, `changed`, `detached` or `refused`.
    why: &'static str,
    reason: String,
    noted_at: DateTime<Utc>,
}

/// What `schedule lapses` shows.
#[derive(Debug, Serialize)]
pub(crate) struct LapsesView {
    lapses: Vec<LapseView>,
}

impl LapsesView {
    pub(crate) fn of(
        lapses: &[RecordedLapse],
        schedules: &[StoredSchedule],
        groups: &[ResourceGroup],
    ) -> Self {
        let view = |recorded: &RecordedLapse| {
            let (id, lapse) = (recorded.attachment, &recorded.lapse);
            let schedule = schedules.iter().find(|known| known.id == id.schedule);
            LapseView {
                schedule: id.schedule,
                schedule_name: schedule
                    .map_or_else(|| id.schedule.to_string(), |known| known.schedule.name.clone()),
                group: id.group,
                group_name: group_name(groups, id.group),
                policy: id.policy,
                from: lapse.from,
                to: lapse.to,
                count: lapse.count,
                more: lapse.is_more,
                why: lapse.why.word(),
                reason: lapse.why.to_string(),
                noted_at: recorded.at,
            }
        };
        Self { lapses: lapses.iter().map(view).collect() }
    }
}

impl Report for LapsesView {
    const SCHEMA: &'static str = "stillpoint.schedule_lapses/1";

    fn text(&self, text: &mut String) {
        if self.lapses.is_empty() {
            text.push_str("every due time became a job\n");
        }
        let mut table = Table::default();
        for lapse in &self.lapses {
            let times = if lapse.count == 1 {
                text::time(lapse.from)
            } else {
                format!("{} to {}", text::time(lapse.from), text::time(lapse.to))
            };
            let (schedule, group) = (lapse.schedule_name.clone(), lapse.group_name.clone());
            table.row([times, format!("{}x", lapse.count), schedule, group, lapse.reason.clone()]);
        }
        table.write(text, "");
    }
}

#[cfg(test)]
mod tests;
