//! `policy`.

use std::num::NonZeroU32;
use std::time::Duration;

use stillpoint::context::{ErrorClass, HostId};
use stillpoint::model::id::PolicyId;
use stillpoint::model::policy::{
    CopySelection, FrequencyClass, Gfs, MOST_KEPT, OnMiss, OnPartial, Policy, PolicyError,
    Retention, Verification,
};

use super::tell;
use crate::args::policy::{Copies, Keep, Partial, PolicyCommand, PolicyEdit, Verify};
use crate::error::{CliError, Outcome};
use crate::exit::Exit;
use crate::out::Out;
use crate::pick;
use crate::place::Places;
use crate::site::{Absent, Site};
use crate::text;
use crate::view::PoliciesView;

/// The pause before a missed freeze is tried again, if the policy has none yet: that of a new policy.
const FREEZE_PAUSE: Duration = Duration::from_mins(1);

/// Shows, makes or edits policies.
pub(super) async fn run(command: PolicyCommand, places: &Places, out: Out) -> Outcome<Exit> {
    let absent = match command {
        PolicyCommand::Create { .. } => Absent::Make,
        _ => Absent::Refuse,
    };
    let site = Site::open(places, absent).await?;
    let policies = site.stillpoint.policies().await?;
    let view = match command {
        PolicyCommand::Remove { name } => {
            let id = pick::policy(&policies, &name)?.id;
            let groups = site.stillpoint.groups().await?;
            let users = groups.iter().filter(|group| group.policies.contains(&id));
            let users: Vec<&str> = users.map(|group| group.name.as_str()).collect();
            if !users.is_empty() {
                let message =
                    format!("policy {name:?} is a policy of {}", text::list("group", &users));
                let remedy = "Leave it out first: `stillpoint group edit NAME --policy` with those that stay.";
                return Err(CliError::of_class(
                    "policy.in_use",
                    ErrorClass::Conflict,
                    message,
                    remedy,
                ));
            }
            site.stillpoint.remove_policy(id).await?;
            PoliciesView::of(policies.iter().filter(|policy| policy.id != id))
        }
        PolicyCommand::List => PoliciesView::of(&policies),
        PolicyCommand::Show { name } => PoliciesView::of([pick::policy(&policies, &name)?]),
        PolicyCommand::Create { name, id, edit } => {
            let id = id.unwrap_or_else(|| site.stillpoint.seams().ids.uuid());
            let mut policy = Policy::new(PolicyId(id), name);
            change(&mut policy, &edit)?;
            site.stillpoint.save_policy(&policy).await?;
            PoliciesView::of([&policy])
        }
        PolicyCommand::Edit { name, edit, rename } => {
            let known = pick::policy(&policies, &name)?;
            let mut edited = known.clone();
            change(&mut edited, &edit)?;
            if let Some(name) = rename {
                edited.name = name;
            }
            // An edit that changes nothing makes no version.
            let next = if edited == *known { edited } else { known.edit(edited)? };
            if next != *known {
                site.stillpoint.save_policy(&next).await?;
            }
            PoliciesView::of([&next])
        }
    };
    tell(out, &view, Exit::Done, None)
}

/// Puts the settings of the command line into a policy.
fn change(policy: &mut Policy, edit: &PolicyEdit) -> Outcome<()> {
    if let Some(kind) = edit.kind {
        policy.kind = kind.into();
    }
    match edit.copies {
        Some(Copies::Active) => policy.selection = CopySelection::ActiveOnly,
        Some(Copies::PreferPassive) => policy.selection = CopySelection::prefer_passive(),
        None => {}
    }
    if !edit.on_hosts.is_empty() {
        policy.selection = CopySelection::OnHosts { hosts: hosts(&edit.on_hosts)? };
    }
    if !edit.prefer_hosts.is_empty() {
        policy.selection = CopySelection::ByPreference { hosts: hosts(&edit.prefer_hosts)? };
    }
    match edit.verify {
        Some(Verify::Before) => policy.verification = Verification::default(),
        Some(Verify::After) => policy.verification = Verification::AfterCompletion,
        Some(Verify::Never) => policy.verification = Verification::None,
        None => {}
    }
    if let Some(wanted) = edit.verify_cap {
        match &mut policy.verification {
            Verification::BeforeCompletion { cap, .. } => *cap = Some(wanted),
            _ => {
                return Err(CliError::of_class(
                    "policy.no_cap",
                    ErrorClass::Invalid,
                    "only a verification before completion can be given up",
                    "Add --verify before, or leave --verify-cap out.",
                ));
            }
        }
    }
    keep(&mut policy.retention, &edit.keep)?;
    policy.log_retention = edit.keep_logs.unwrap_or(policy.log_retention);
    policy.promote_log = edit.promote.unwrap_or(policy.promote_log);
    policy.quiesce.limit = edit.freeze_limit.or(policy.quiesce.limit);
    if let Some(times) = edit.freeze_retries {
        let pause = match policy.quiesce.on_miss {
            OnMiss::Retry { pause, .. } => pause,
            OnMiss::Fail => FREEZE_PAUSE,
        };
        let retry = |times| OnMiss::Retry { times, pause };
        policy.quiesce.on_miss = NonZeroU32::new(times).map_or(OnMiss::Fail, retry);
    }
    match edit.on_partial {
        Some(Partial::Warn) => policy.on_partial = OnPartial::Warn,
        Some(Partial::Fail) => policy.on_partial = OnPartial::Fail,
        None => {}
    }
    if let Some(label) = &edit.class {
        policy.class = match label.to_lowercase().as_str() {
            "on demand" | "on_demand" | "on-demand" => FrequencyClass::OnDemand,
            "hourly" => FrequencyClass::Hourly,
            "daily" => FrequencyClass::Daily,
            "weekly" => FrequencyClass::Weekly,
            "monthly" => FrequencyClass::Monthly,
            _ => FrequencyClass::Custom(label.clone()),
        };
    }
    Ok(())
}

/// Puts what the command line says of keeping into the rules.
fn keep(rules: &mut Retention, keep: &Keep) -> Outcome<()> {
    if keep.all {
        *rules = Retention::default();
    }
    rules.count = keep.count.or(rules.count);
    rules.within_days = keep.days.or(rules.within_days);
    let known = rules.gfs.unwrap_or_default();
    let grids = Gfs {
        hourly: keep.hourly.unwrap_or(known.hourly),
        daily: keep.daily.unwrap_or(known.daily),
        weekly: keep.weekly.unwrap_or(known.weekly),
        monthly: keep.monthly.unwrap_or(known.monthly),
        yearly: keep.yearly.unwrap_or(known.yearly),
    };
    // As they are if nothing is said of them: also those without a place that an import may have brought.
    if grids != known {
        rules.gfs = (grids != Gfs::default()).then_some(grids);
    }
    if let Some(least) = keep.least {
        rules.min_keep = NonZeroU32::new(least)
            .ok_or(PolicyError::Retention { what: "the least to keep", most: MOST_KEPT })?;
    }
    Ok(())
}

/// Servers' names.
fn hosts(names: &[String]) -> Outcome<Vec<HostId>> {
    names.iter().map(|name| host(name)).collect()
}

/// A server's name.
pub(super) fn host(name: &str) -> Outcome<HostId> {
    HostId::new(name).map_err(|error| {
        CliError::invalid("host.name_invalid", error.to_string(), "Give the server's DNS name.")
    })
}
