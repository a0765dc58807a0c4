//! `schedule`.

use stillpoint::model::group::ResourceGroup;
use stillpoint::model::id::PolicyId;
use stillpoint::model::schedule::{
    AttachmentId, Gap, Overlap, Overrun, Rule, Schedule, StoredSchedule, Zone,
};

use super::tell;
use crate::args::schedule::{
    GapWord, OverlapWord, OverrunWord, PlaceArgs, RuleArgs, ScheduleCommand, ScheduleEdit,
};
use crate::error::{CliError, Outcome};
use crate::exit::Exit;
use crate::out::Out;
use crate::pick;
use crate::place::Places;
use crate::site::{Absent, Site};
use crate::view::{LapsesView, PreviewView, SchedulesView};

/// Shows, makes, edits, attaches or removes schedules.
pub(super) async fn run(command: ScheduleCommand, places: &Places, out: Out) -> Outcome<Exit> {
    let absent = match command {
        ScheduleCommand::Add { .. } => Absent::Make,
        _ => Absent::Refuse,
    };
    let site = Site::open(places, absent).await?;
    let known = site.stillpoint.schedules().await?;
    let shown = match command {
        ScheduleCommand::List => None,
        ScheduleCommand::Add { name, rule, edit, place } => {
            Some(add(&site, name, &rule, &edit, &place).await?)
        }
        ScheduleCommand::Edit { name, rule, edit, rename } => {
            let stored = pick::schedule(&known, &name)?;
            let mut schedule = stored.schedule.clone();
            change(&mut schedule, &rule, &edit);
            schedule.name = rename.unwrap_or(schedule.name);
            Some(site.stillpoint.change_schedule(stored.id, schedule).await?)
        }
        ScheduleCommand::Attach { name, place } => {
            let stored = pick::schedule(&known, &name)?;
            site.stillpoint.attach(attachment(&site, stored, &place).await?).await?;
            Some(stored.clone())
        }
        ScheduleCommand::Detach { name, place } => {
            let stored = pick::schedule(&known, &name)?;
            site.stillpoint.detach(attachment(&site, stored, &place).await?).await?;
            Some(stored.clone())
        }
        ScheduleCommand::Remove { name } => {
            site.stillpoint.remove_schedule(pick::schedule(&known, &name)?.id).await?;
            None
        }
        ScheduleCommand::BelieveClock => {
            site.stillpoint.believe_clock().await?;
            None
        }
        ScheduleCommand::Preview { name, count, after } => {
            let stored = pick::schedule(&known, &name)?;
            let after = after.unwrap_or_else(|| site.stillpoint.seams().clock.now());
            let count = usize::try_from(count).unwrap_or(usize::MAX);
            let next = site.stillpoint.preview(stored.id, after, count).await?;
            let groups = site.stillpoint.groups().await?;
            return tell(out, &PreviewView::of(stored, &next, &groups), Exit::Done, None);
        }
        ScheduleCommand::Lapses { name, count } => {
            let only = name.map(|name| pick::schedule(&known, &name).map(|one| one.id));
            return lapses(&site, only.transpose()?, &known, count, out).await;
        }
    };
    let shown = match shown {
        Some(one) => vec![one],
        None => site.stillpoint.schedules().await?,
    };
    let attached = site.stillpoint.attached().await?;
    tell(out, &SchedulesView::of(&shown, &attached), Exit::Done, None)
}

async fn lapses(
    site: &Site,
    only: Option<stillpoint::model::id::ScheduleId>,
    known: &[StoredSchedule],
    count: u32,
    out: Out,
) -> Outcome<Exit> {
    let groups = site.stillpoint.groups().await?;
    let many = |count: u32| usize::try_from(count).unwrap_or(usize::MAX);
    let (mut found, mut most) = (Vec::new(), count);
    // Of one also where it is not attached any more: as far back as it takes.
    while found.len() < many(count) {
        found = site.stillpoint.lapses(None, most).await?;
        let are_all = found.len() < many(most);
        found.retain(|lapse| only.is_none_or(|only| only == lapse.attachment.schedule));
        if are_all {
            break;
        }
        most = most.saturating_mul(4);
    }
    found.truncate(many(count));
    tell(out, &LapsesView::of(&found, known, &groups), Exit::Done, None)
}

async fn add(
    site: &Site,
    name: String,
    rule: &RuleArgs,
    edit: &ScheduleEdit,
    place: &PlaceArgs,
) -> Outcome<StoredSchedule> {
    let when = rule_of(rule).ok_or_else(|| {
        CliError::usage(
            "say when it is due: --every, --hourly, --daily, --weekly, --monthly or --cron",
        )
    })?;
    let mut schedule = Schedule::new(name, when, edit.zone.unwrap_or(Zone::UTC));
    change(&mut schedule, rule, edit);
    // What it is to hang on is looked for before anything is made.
    let place = match &place.group {
        Some(_) => Some(group_and_policy(site, place).await?),
        None => None,
    };
    let stored = site.stillpoint.create_schedule(schedule).await?;
    if let Some((group, policy)) = place {
        let id = AttachmentId { schedule: stored.id, group: group.id, policy };
        site.stillpoint.attach(id).await?;
    }
    Ok(stored)
}

fn rule_of(args: &RuleArgs) -> Option<Rule> {
    let RuleArgs { every, hourly, daily, weekly, monthly, cron } = args.clone();
    every
        .map(|interval| Rule::Every { interval })
        .or(hourly.map(|minute| Rule::Hourly { every: std::num::NonZeroU32::MIN, minute }))
        .or(daily.map(|at| Rule::Daily { at }))
        .or(weekly.map(|weekly| Rule::Weekly { on: weekly.on, at: weekly.at }))
        .or(monthly.map(|(on, at)| Rule::Monthly { on, at }))
        .or(cron.map(Rule::Cron))
}

/// Puts the settings of the command line into a schedule.
fn change(schedule: &mut Schedule, rule: &RuleArgs, edit: &ScheduleEdit) {
    if let Some(rule) = rule_of(rule) {
        schedule.rule = rule;
    }
    schedule.zone = edit.zone.unwrap_or(schedule.zone);
    schedule.start = edit.start.or(schedule.start);
    schedule.end = edit.end.or(schedule.end);
    schedule.jitter = edit.jitter.unwrap_or(schedule.jitter);
    schedule.gap = match edit.gap {
        Some(GapWord::Shift) => Gap::ShiftForward,
        Some(GapWord::Skip) => Gap::Skip,
        None => schedule.gap,
    };
    schedule.overlap = match edit.overlap {
        Some(OverlapWord::First) => Overlap::First,
        Some(OverlapWord::Last) => Overlap::Last,
        Some(OverlapWord::Both) => Overlap::Both,
        None => schedule.overlap,
    };
    schedule.missed = edit.missed.unwrap_or(schedule.missed);
    schedule.overrun = match edit.overrun {
        Some(OverrunWord::Queue) => Overrun::Queue,
        Some(OverrunWord::Coalesce) => Overrun::Coalesce,
        Some(OverrunWord::Skip) => Overrun::Skip,
        None => schedule.overrun,
    };
    if edit.no_blackouts || !edit.blackout.is_empty() {
        schedule.blackouts.clone_from(&edit.blackout);
    }
}

async fn attachment(
    site: &Site,
    stored: &StoredSchedule,
    place: &PlaceArgs,
) -> Outcome<AttachmentId> {
    let (group, policy) = group_and_policy(site, place).await?;
    Ok(AttachmentId { schedule: stored.id, group: group.id, policy })
}

/// The named group, else the one that came with the state file; the named policy, else the group's first.
async fn group_and_policy(site: &Site, place: &PlaceArgs) -> Outcome<(ResourceGroup, PolicyId)> {
    let group = match &place.group {
        Some(name) => pick::group(&site.stillpoint.groups().await?, name)?.clone(),
        None => site.default_group().await?,
    };
    let policy = match &place.policy {
        Some(name) => pick::policy(&site.stillpoint.policies().await?, name)?.id,
        None => group.policies.first().copied().ok_or_else(|| {
            CliError::invalid(
                "group.no_policy",
                format!("the group {:?} has no policy", group.name),
                "Give it one: `stillpoint group edit --policy`.",
            )
        })?,
    };
    Ok((group, policy))
}
