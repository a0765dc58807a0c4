//! What `policy` and `group` show.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Serialize;

use super::Report;
use super::hook::HookView;
use crate::model::group::{ResourceGroup, Selector};
use crate::model::id::{GroupId, PolicyId};
use crate::model::kind::BackupKind;
use crate::model::policy::{
    CopySelection, FrequencyClass, Gfs, LogRetention, OnMiss, OnPartial, Policy, Retention,
    Verification,
};
use crate::text;

/// A policy.
#[derive(Debug, Serialize)]
pub(crate) struct PolicyView {
    policy: PolicyId,
    version: u32,
    name: String,
    kind: BackupKind,
    /// `active_only`, `on_hosts`, `prefer_passive` or `by_preference`.
    copies: &'static str,
    hosts: Vec<String>,
    class: String,
    /// `before_completion`, `after_completion` or `none`.
    verification: &'static str,
    verification_cap_ms: Option<u64>,
    freeze_limit_ms: Option<u64>,
    freeze_retries: u32,
    keep_count: Option<u32>,
    keep_days: Option<u32>,
    /// Places in each grid; none if there is no such rule.
    keep_hourly: Option<u32>,
    keep_daily: Option<u32>,
    keep_weekly: Option<u32>,
    keep_monthly: Option<u32>,
    keep_yearly: Option<u32>,
    keep_least: u32,
    /// `as_fulls`, `follow_fulls`, `days` or `none`.
    logs_kept: &'static str,
    /// A log backup with nothing to go on from becomes a full one.
    promotes_logs: bool,
    on_partial: OnPartial,
    hooks: Vec<HookView>,
    #[serde(skip)]
    lines: Vec<(&'static str, String)>,
}

fn millis(time: std::time::Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

impl PolicyView {
    pub(crate) fn of(policy: &Policy) -> Self {
        let (copies, hosts): (_, &[_]) = match &policy.selection {
            CopySelection::OnHosts { hosts } => ("on_hosts", hosts),
            CopySelection::PreferPassive { .. } => ("prefer_passive", &[]),
            CopySelection::ByPreference { hosts } => ("by_preference", hosts),
            _ => ("active_only", &[]),
        };
        let (verification, cap) = match policy.verification {
            Verification::BeforeCompletion { cap, .. } => ("before_completion", cap),
            Verification::AfterCompletion => ("after_completion", None),
            _ => ("none", None),
        };
        let class = match &policy.class {
            FrequencyClass::OnDemand => "on_demand".to_owned(),
            other => other.to_string(),
        };
        let gfs = policy.retention.gfs.unwrap_or_default();
        let places = |number: u32| (number > 0).then_some(number);
        Self {
            policy: policy.id,
            version: policy.version.get(),
            name: policy.name.clone(),
            kind: policy.kind,
            copies,
            hosts: hosts.iter().map(ToString::to_string).collect(),
            class,
            verification,
            verification_cap_ms: cap.map(millis),
            freeze_limit_ms: policy.quiesce.limit.map(millis),
            freeze_retries: match policy.quiesce.on_miss {
                OnMiss::Retry { times, .. } => times.get(),
                OnMiss::Fail => 0,
            },
            keep_count: policy.retention.count,
            keep_days: policy.retention.within_days,
            keep_hourly: places(gfs.hourly),
            keep_daily: places(gfs.daily),
            keep_weekly: places(gfs.weekly),
            keep_monthly: places(gfs.monthly),
            keep_yearly: places(gfs.yearly),
            keep_least: policy.retention.min_keep.get(),
            logs_kept: match policy.log_retention {
                LogRetention::FollowFulls(_) => "follow_fulls",
                LogRetention::Days(_) => "days",
                LogRetention::None => "none",
                _ => "as_fulls",
            },
            promotes_logs: policy.promote_log,
            on_partial: policy.on_partial,
            hooks: HookView::all(&policy.hooks),
            lines: vec![
                ("takes", policy.kind.to_string()),
                ("of", selection(&policy.selection)),
                ("verified", when(policy.verification)),
                ("kept", kept(&policy.retention)),
                ("logs kept", logs_kept(policy.log_retention)),
                ("label", policy.class.to_string()),
            ],
        }
    }
}

fn logs_kept(logs: LogRetention) -> String {
    match logs {
        LogRetention::FollowFulls(count) => format!("since the last {count} fulls"),
        LogRetention::Days(days) => format!("for {days} days"),
        LogRetention::None => "not beyond what a restore point needs itself".to_owned(),
        _ => "while a restore point is kept that they roll forward".to_owned(),
    }
}

fn selection(selection: &CopySelection) -> String {
    let names = |hosts: &[crate::context::HostId]| {
        hosts.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
    };
    match selection {
        CopySelection::OnHosts { hosts } => format!("every copy on {}", names(hosts)),
        CopySelection::PreferPassive { fallback_active: true, .. } => {
            "a passive copy, else the active one".to_owned()
        }
        CopySelection::PreferPassive { .. } => "a passive copy".to_owned(),
        CopySelection::ByPreference { hosts } => {
            format!("the first fit copy on {}", names(hosts))
        }
        _ => "the active copy".to_owned(),
    }
}

fn when(verification: Verification) -> String {
    match verification {
        Verification::BeforeCompletion { cap: Some(cap), .. } => {
            format!("before completion, for at most {} s", cap.as_secs())
        }
        Verification::BeforeCompletion { .. } => "before completion".to_owned(),
        Verification::AfterCompletion => "by a job of its own".to_owned(),
        _ => "not by the backup".to_owned(),
    }
}

fn kept(retention: &Retention) -> String {
    if retention.keeps_all() {
        return "all".to_owned();
    }
    let least = retention.min_keep.get();
    let rules: Vec<String> = [
        retention.count.map(|count| format!("the newest {count}")),
        retention.within_days.map(|days| format!("those of the last {days} days")),
        grids(retention.gfs.unwrap_or_default()),
        (least > 1).then(|| format!("in any case the newest {least} good ones")),
    ]
    .into_iter()
    .flatten()
    .collect();
    rules.join(", and ")
}

/// `one for each of 24 hours, 7 days and 1 year`; none without a place.
fn grids(gfs: Gfs) -> Option<String> {
    let grids = [
        (gfs.hourly, "hour"),
        (gfs.daily, "day"),
        (gfs.weekly, "week"),
        (gfs.monthly, "month"),
        (gfs.yearly, "year"),
    ];
    let places = grids.into_iter().filter(|(places, _)| *places > 0);
    let mut periods: Vec<String> = places
        .map(|(places, period)| text::count(usize::try_from(places).unwrap_or(usize::MAX), period))
        .collect();
    let last = periods.pop()?;
    let all = if periods.is_empty() { last } else { format!("{} and {last}", periods.join(", ")) };
    Some(format!("one for each of {all}"))
}

/// What `policy` shows.
#[derive(Debug, Serialize)]
pub(crate) struct PoliciesView {
    policies: Vec<PolicyView>,
}

impl PoliciesView {
    pub(crate) fn of<'a>(policies: impl IntoIterator<Item = &'a Policy>) -> Self {
        let mut policies: Vec<PolicyView> = policies.into_iter().map(PolicyView::of).collect();
        policies.sort_by(|a, b| (&a.name, a.policy).cmp(&(&b.name, b.policy)));
        Self { policies }
    }
}

impl Report for PoliciesView {
    const SCHEMA: &'static str = "stillpoint.policy/1";

    fn text(&self, text: &mut String) {
        if self.policies.is_empty() {
            text.push_str("no policies yet\n");
        }
        for policy in &self.policies {
            let _ = writeln!(text, "{}@{} {}", policy.name, policy.version, policy.policy);
            for (what, line) in &policy.lines {
                let _ = writeln!(text, "  {what} {line}");
            }
            HookView::write(text, "  ", &policy.hooks);
        }
    }
}

/// A group.
#[derive(Debug, Serialize)]
pub(crate) struct GroupView {
    group: GroupId,
    version: u32,
    name: String,
    members: Vec<MemberView>,
    policies: Vec<PolicyId>,
    max_databases: u32,
    max_volumes: u32,
    naming: Option<String>,
}

/// What a group says it protects.
#[derive(Debug, Serialize)]
struct MemberView {
    /// `database`, `dag`, `host` or `everything`.
    kind: &'static str,
    id: Option<String>,
}

impl MemberView {
    fn of(selector: &Selector) -> Self {
        let (kind, id) = match selector {
            Selector::Database(id) => ("database", Some(id.to_string())),
            Selector::Dag(id) => ("dag", Some(id.to_string())),
            Selector::Host(id) => ("host", Some(id.to_string())),
            _ => ("everything", None),
        };
        Self { kind, id }
    }
}

impl GroupView {
    pub(crate) fn of(group: &ResourceGroup) -> Self {
        Self {
            group: group.id,
            version: group.version.get(),
            name: group.name.clone(),
            members: group.members.iter().map(MemberView::of).collect(),
            policies: group.policies.clone(),
            max_databases: group.batching.max_databases.get(),
            max_volumes: group.batching.max_volumes.get(),
            naming: group.naming.clone(),
        }
    }
}

/// What `group` shows.
#[derive(Debug, Serialize)]
pub(crate) struct GroupsView {
    groups: Vec<GroupView>,
    /// What policies are called, for people.
    #[serde(skip)]
    names: BTreeMap<PolicyId, String>,
}

impl GroupsView {
    pub(crate) fn of<'a>(
        groups: impl IntoIterator<Item = &'a ResourceGroup>,
        policies: &[Policy],
    ) -> Self {
        let mut groups: Vec<GroupView> = groups.into_iter().map(GroupView::of).collect();
        groups.sort_by(|a, b| (&a.name, a.group).cmp(&(&b.name, b.group)));
        let names = policies.iter().map(|policy| (policy.id, policy.name.clone())).collect();
        Self { groups, names }
    }
}

impl Report for GroupsView {
    const SCHEMA: &'static str = "stillpoint.group/1";

    fn text(&self, text: &mut String) {
        if self.groups.is_empty() {
            text.push_str("no groups yet\n");
        }
        for group in &self.groups {
            let _ = writeln!(text, "{}@{} {}", group.name, group.version, group.group);
            for member in &group.members {
                let id = member.id.as_deref().map(|id| format!(" {id}")).unwrap_or_default();
                let _ = writeln!(text, "  protects {}{id}", member.kind);
            }
            for policy in &group.policies {
                let name =
                    self.names.get(policy).map(|name| format!(" {name}")).unwrap_or_default();
                let _ = writeln!(text, "  policy{name} {policy}");
            }
            if let Some(naming) = &group.naming {
                let _ = writeln!(text, "  snapshots named {naming}");
            }
            let databases = usize::try_from(group.max_databases).unwrap_or(usize::MAX);
            let _ = writeln!(
                text,
                "  at most {} and {} volumes together",
                text::count(databases, "database"),
                group.max_volumes
            );
        }
    }
}
